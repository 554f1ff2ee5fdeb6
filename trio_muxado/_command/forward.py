"""``trio-muxado forward``: a local port that leads to a target beyond a relay."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from trio_muxado import DialLoss
from trio_muxado.tunnel import TunnelRefusedError, forward_port

from .ending import DONE, Failed, in_words, run, tell
from .options import ADDRESS, Address, argument, split_address, tls_client_options
from .tunnels import (
    drain_timeout_option,
    idle_timeout_option,
    log_options,
    refusal,
    run_until_stopped,
    secret_of,
    set_up_logs,
    tell_loss,
    token_file_option,
)


def local_address(text: str) -> Address:
    """``PORT`` or ``HOST:PORT``, of this machine.

    Raises:
      click.UsageError: it is neither.
    """
    try:
        host, port = split_address(text, 0)
    except ValueError as error:
        raise click.UsageError(
            f"{text!r} is not a local port, PORT or HOST:PORT: {error}"
        ) from None
    return Address(host or "127.0.0.1", port)


async def serve(work: Any, address: Address, stop: trio.Event) -> None:
    """Listen, and say where."""
    async with trio.open_nursery() as nursery:

        async def run_it(task_status: Any) -> None:
            try:
                await work(stop=stop, task_status=task_status)
            except TunnelRefusedError as error:
                raise refusal(error) from None
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            except OSError as error:
                raise Failed(f"cannot listen on {address}: {in_words(error)}") from None
            nursery.cancel_scope.cancel()

        host, port = await nursery.start(run_it)
        tell(f"listening: {Address(host, port)}")


def on_state(state: str, loss: DialLoss | None) -> None:
    """One line when the relay can't be reached."""
    if loss is not None:
        tell_loss(loss)


@click.command("forward")
@argument("local", metavar="LOCAL_PORT")
@argument("target", metavar="TARGET")
@click.option("--relay", type=ADDRESS, required=True, metavar="HOST:PORT", help="The relay.")
@token_file_option
@tls_client_options
@idle_timeout_option
@drain_timeout_option
@log_options
def command(
    local: str,
    target: str,
    relay: Address,
    token_file: Path | None,
    ssl_context: ssl.SSLContext | None,
    idle_timeout: float,
    drain_timeout: float,
    log_format: str,
    log_level: str,
) -> int:
    """Forward a LOCAL_PORT to a TARGET behind a relay.

    TARGET is the name of a tunnel, or HOST:PORT as the relay sees it. The token has to allow it,
    and a HOST:PORT the relay as well (--allow-targets): it is not an open proxy.

    \b
    Examples:
        trio-muxado forward 5432 db --relay relay.example.org:4440 --token-file token
        trio-muxado forward 0.0.0.0:8080 10.0.0.7:80 --relay relay.example.org:4440 --tls
    """
    set_up_logs(log_format, log_level)
    address = local_address(local)
    assert relay.host is not None
    work = partial(
        forward_port,
        target,
        relay.host,
        relay.port,
        token=secret_of(token_file),
        local_port=address.port,
        local_host=address.host or "127.0.0.1",
        ssl_context=ssl_context,
        idle_timeout=idle_timeout,
        on_state=on_state,
    )
    run(run_until_stopped, partial(serve, work, address), drain_timeout)
    return DONE
