"""``trio-muxado expose``: an agent next to a service."""

from __future__ import annotations

import socket
import ssl
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import trio

from trio_muxado import Backoff, DialLoss
from trio_muxado.tunnel import AddressService, AsgiService, Tunnel, TunnelRefusedError, expose

from .ending import DONE, run, tell
from .options import (
    ADDRESS,
    FINITE_SECONDS,
    Address,
    argument,
    split_address,
    tls_client_options,
)
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

if TYPE_CHECKING:
    _TunnelParamType = click.ParamType["dict[str, Any]"]
else:  # before click 8.4 it was not generic
    _TunnelParamType = click.ParamType

FIELDS = ("name", "service", "port", "host", "proxy_protocol")

LONGEST_AGENT = 100
"""Characters."""


class TunnelType(_TunnelParamType):
    """``name=db,service=127.0.0.1:5432,port=20000``; in a file it is a table."""

    name = "tunnel"
    takes_tables = True
    """In a file."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The fields of a tunnel."""
        fields: dict[str, Any]
        if isinstance(value, dict):
            table = cast("dict[str, Any]", value)
            fields = {name.replace("-", "_"): field for name, field in table.items()}
        else:
            parts = [part.partition("=") for part in str(value).split(",")]
            if not all(equals for _, equals, _ in parts):
                self.fail(f"{value!r} must be such as name=web,service=127.0.0.1:8000", param, ctx)
            fields = {name.strip().replace("-", "_"): field.strip() for name, _, field in parts}
            if len(fields) < len(parts):
                self.fail(f"{value!r} says something twice", param, ctx)
        unknown = sorted(set(fields) - set(FIELDS))
        if unknown:
            self.fail(f"there is no {unknown[0]!r}; there are {', '.join(FIELDS)}", param, ctx)
        if "service" not in fields:
            self.fail(f"{value!r} has no service", param, ctx)
        port = fields.get("port")
        if isinstance(port, str):
            # Python refuses to read thousands of digits.
            if not (port.isascii() and port.isdecimal()) or len(port) > 5:
                self.fail(f"the port must be a number, not {port!r}", param, ctx)
            fields["port"] = int(port)
        return fields


def service_of(text: str, proxy_protocol: Literal["v1", "v2"] | None, drain_timeout: float) -> Any:
    """What is to be reached: an address, a Unix socket, or an application.

    Raises:
      click.UsageError: it is none of them.
    """
    if text.startswith("unix:"):
        return AddressService(text.removeprefix("unix:"), proxy_protocol=proxy_protocol)
    host, colon, rest = text.rpartition(":")
    if rest.isdecimal():
        try:
            host, port = split_address(text, 1)
        except ValueError as error:
            raise click.UsageError(f"{text!r}: {error}") from None
        return AddressService(host or "127.0.0.1", port, proxy_protocol=proxy_protocol)
    if not colon or not all(part.isidentifier() for part in [*host.split("."), *rest.split(".")]):
        raise click.UsageError(
            f"{text!r} is not a service: HOST:PORT, PORT, unix:PATH, or module:application"
        )
    if proxy_protocol is not None:
        raise click.UsageError("an application knows its visitors without --proxy-protocol")
    from hypercorn.config import Config

    config = Config()
    config.graceful_timeout = drain_timeout
    return AsgiService(load_application(host, rest), config)


def load_application(module: str, attribute: str) -> Any:
    """An ASGI application, from a module in the current folder or of what is installed.

    Raises:
      click.UsageError: there is none.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise click.UsageError(f"{module} needs {error.name}, which is not installed") from None
        raise click.UsageError(f"there is no module {module!r} here") from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"{module} has no {attribute!r}")
        found = getattr(found, name)
    if not callable(found):
        raise click.UsageError(f"{module}:{attribute} is not an application: it cannot be called")
    return found


def tunnels_of(
    service: str | None,
    tunnels: tuple[dict[str, Any], ...],
    drain_timeout: float,
    **single: Any,
) -> dict[Tunnel, Any]:
    """What is asked for, and what is behind it.

    Raises:
      click.UsageError: something is wrong with it.
    """
    wanted = list(tunnels)
    if service is not None:
        fields = {name: value for name, value in single.items() if value is not None}
        wanted.insert(0, {"service": service, **fields})
    elif any(single[name] is not None for name in ("port", "host", "proxy_protocol")):
        raise click.UsageError("--port, --host and --proxy-protocol need a SERVICE")
    if not wanted:
        raise click.UsageError("nothing to expose: a SERVICE, or --tunnels")
    services: dict[Tunnel, Any] = {}
    for fields in wanted:
        try:
            tunnel = Tunnel(
                name=fields.get("name") or "main",
                port=fields.get("port"),
                host=fields.get("host"),
            )
            behind = service_of(str(fields["service"]), fields.get("proxy_protocol"), drain_timeout)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        if any(tunnel.name == other.name for other in services):
            raise click.UsageError(f"two tunnels have the name {tunnel.name!r}")
        services[tunnel] = behind
    return services


def on_state(state: str, news: Any) -> None:
    """One line for each change, for people."""
    if state == "connected":
        for granted in news:
            tell(f"{granted.name} is at {granted.address}")
    elif state == "refused":
        tell(f"the relay refuses, for now: {news}")
    elif isinstance(news, DialLoss):
        tell_loss(news)


def checked_agent(ctx: click.Context, param: click.Parameter, name: str) -> str:
    """What the agent calls itself, which the relay logs."""
    if len(name) > LONGEST_AGENT or not name.isprintable():
        raise click.BadParameter(f"it must be at most {LONGEST_AGENT} printable characters")
    return name


@click.command("expose")
@argument("service", required=False, metavar="[SERVICE]")
@click.option(
    "--relay", type=ADDRESS, required=True, metavar="HOST:PORT", help="Address of the relay."
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the tunnel. Agents with one name share its visitors.  [main]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Ask for this port of the relay. 0 takes any."
)
@click.option("--host", metavar="HOST", help="Ask for this host name of HTTP.")
@click.option(
    "--proxy-protocol",
    type=click.Choice(["v1", "v2"]),
    help="Send the service a PROXY header with the visitor's address.",
)
@click.option(
    "--tunnels",
    type=TunnelType(),
    multiple=True,
    metavar="NAME=VALUE,...",
    help="One more tunnel: name=db,service=127.0.0.1:5432,port=20000.  Can be repeated.",
)
@token_file_option
@click.option(
    "--agent",
    default=socket.gethostname,
    show_default="this machine",
    callback=checked_agent,
    help="Name of this agent in logs.",
)
@tls_client_options
@idle_timeout_option
@drain_timeout_option
@click.option(
    "--longest-pause",
    type=FINITE_SECONDS,
    default=60.0,
    metavar="SECONDS",
    help="Longest pause between attempts to connect to the relay.",
)
@log_options
def command(
    service: str | None,
    relay: Address,
    name: str | None,
    port: int | None,
    host: str | None,
    proxy_protocol: Literal["v1", "v2"] | None,
    tunnels: tuple[dict[str, Any], ...],
    token_file: Path | None,
    agent: str,
    ssl_context: ssl.SSLContext | None,
    idle_timeout: float,
    drain_timeout: float,
    longest_pause: float,
    log_format: str,
    log_level: str,
) -> int:
    """Expose a SERVICE to the visitors of a relay.

    SERVICE is HOST:PORT, a PORT of this machine, unix:PATH, or module:application for an ASGI
    application. The command then runs the application itself, without a port.

    Connects again whenever the connection to the relay is lost. Exits with 1 if the relay refuses
    the token or the tunnel. After SIGTERM it exits when the last visitor is done.

    \b
    Examples:
        trio-muxado expose 127.0.0.1:5432 --relay relay.example.org:4440 --name db --port 20000
        trio-muxado expose app.main:app --relay relay.example.org:4440 --host www.example.org --tls
        trio-muxado --config agent.toml expose
    """
    set_up_logs(log_format, "warning" if log_level == "info" else log_level)
    services = tunnels_of(
        service,
        tunnels,
        drain_timeout,
        name=name,
        port=port,
        host=host,
        proxy_protocol=proxy_protocol,
    )
    secret = secret_of(token_file)
    assert relay.host is not None
    work = partial(
        _expose,
        services,
        relay.host,
        relay.port,
        token=secret,
        agent=agent,
        ssl_context=ssl_context,
        backoff=Backoff(first=min(0.5, longest_pause), longest=longest_pause),
        idle_timeout=idle_timeout,
        on_state=on_state,
    )
    run(run_until_stopped, work, drain_timeout)
    return DONE


async def _expose(
    services: dict[Tunnel, Any], host: str, port: int, stop: trio.Event, **options: Any
) -> None:
    try:
        await expose(services, host, port, stop=stop, **options)
    except TunnelRefusedError as error:
        raise refusal(error) from None
