"""``trio-muxado relay``: where agents and visitors meet."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click
import trio

from trio_muxado.tunnel import (
    ClientTls,
    RedisRegistry,
    Relay,
    RelayConfig,
    RelayPorts,
    ServerTls,
)

from .ending import DONE, Failed, in_words, run, tell
from .options import FILE, LISTEN_ADDRESS, SECONDS, Address
from .tunnels import (
    drain_timeout_option,
    idle_timeout_option,
    load_tokens,
    log_options,
    run_until_stopped,
    set_up_logs,
)

logger = logging.getLogger("trio_muxado.tunnel")

COUNT = click.IntRange(1)

OF_THE_LIBRARY = (
    "agents",
    "http",
    "https",
    "host",
    "ports",
    "allow_targets",
    "accept_proxy_protocol",
    "max_agents",
    "max_tunnels",
    "max_visitors",
    "max_visitors_per_address",
    "idle_timeout",
    "agent_patience",
    "keep_tunnel",
    "drain_timeout",
    "relay_address",
    "registry_expiry",
)
"""Options that are fields of a :class:`RelayConfig`, under the same names."""


def server_tls(
    name: str, cert: Path | None, key: Path | None, client_ca: Path | None, *protocols: str
) -> ServerTls | None:
    """The certificate of one port.

    Raises:
      click.UsageError: the files are not what they should be.
    """
    if cert is None:
        if key is not None or client_ca is not None:
            raise click.UsageError(f"--{name}-key and --{name}-client-ca need --{name}-cert")
        return None
    try:
        return ServerTls(cert, key, client_ca=client_ca, protocols=protocols)
    except OSError as error:
        message = f"no certificate with its key in {cert}: {in_words(error)}"
        raise click.BadParameter(message, param_hint=f"'--{name}-cert'") from None


def relays_tls(
    ca: Path | None, cert: Path | None, key: Path | None, client_ca: Path | None
) -> ClientTls | None:
    """TLS with other relays, which serve agents as this one does.

    Where those ask for a certificate, it is the one that this relay shows to agents.

    Raises:
      click.UsageError: the files are not what they should be.
    """
    if cert is None:
        if ca is not None:
            raise click.UsageError("--relays-ca needs --agents-cert")
        return None
    if client_ca is None:
        cert = key = None
    try:
        return ClientTls(ca, certificate=cert, key=key)
    except OSError as error:
        message = f"no certificates in {ca}: {in_words(error)}"
        raise click.BadParameter(message, param_hint="'--relays-ca'") from None


async def serve(
    relay: Relay, tokens_file: Path | None, status: Address | None, drain_timeout: float
) -> None:
    """Run a relay until SIGTERM."""

    def reload() -> None:
        try:
            tokens = None if tokens_file is None else load_tokens(tokens_file)
            relay.reload_certificates()
            if tokens is not None:
                relay.set_tokens(tokens)
        except (OSError, click.ClickException) as error:
            text = error.format_message() if isinstance(error, click.ClickException) else error
            logger.error("nothing is changed by SIGHUP: %s", text)
        else:
            logger.info("tokens and certificates were read again")

    async def work(stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            if status is not None:
                from .status import serve_status

                await nursery.start(serve_status, relay, status)

            async def run_relay(task_status: Any) -> None:
                try:
                    await relay.run(stop=stop, task_status=task_status)
                except OSError as error:
                    raise Failed(f"cannot listen: {in_words(error)}") from None
                nursery.cancel_scope.cancel()

            tell_ports(await nursery.start(run_relay))

    # The relay keeps its own deadline, and ends its sessions behind it.
    await run_until_stopped(work, drain_timeout + 15, reload)


def tell_ports(ports: RelayPorts) -> None:
    """Say where the relay listens."""
    found = {"agents": ports.agents, "http": ports.http, "https": ports.https}
    shown = [
        f"{name} {f'[{at[0]}]' if ':' in at[0] else at[0]}:{at[1]}"
        for name, at in found.items()
        if at is not None
    ]
    tell(f"listening: {', '.join(shown)}")


@click.command("relay")
@click.option(
    "--agents", default="127.0.0.1:4440", metavar="HOST:PORT", help="Listen here for agents."
)
@click.option("--agents-cert", type=FILE, help="Speak TLS to agents, with this PEM file.")
@click.option(
    "--agents-key", type=FILE, help="PEM file of its key.  [in the file of --agents-cert]"
)
@click.option(
    "--agents-client-ca", type=FILE, help="Agents need a certificate of these authorities."
)
@click.option("--tokens-file", type=FILE, help="TOML file with a table [[token]] for each token.")
@click.option("--host", default="127.0.0.1", help="Address for --ports.")
@click.option("--ports", metavar="FIRST-LAST", help="Ports for visitors of TCP tunnels.")
@click.option("--http", metavar="HOST:PORT", help="Listen here for visitors of HTTP tunnels.")
@click.option("--https", metavar="HOST:PORT", help="The same, over TLS.  Needs --https-cert.")
@click.option("--https-cert", type=FILE, help="PEM file of the certificate for visitors.")
@click.option("--https-key", type=FILE, help="PEM file of its key.  [in the file of --https-cert]")
@click.option(
    "--https-client-ca", type=FILE, help="Visitors need a certificate of these authorities."
)
@click.option(
    "--allow-targets",
    multiple=True,
    metavar="HOST:PORT",
    help="Clients (trio-muxado forward) may connect to this address.  Can be repeated.",
)
@click.option(
    "--accept-proxy-protocol",
    is_flag=True,
    help="Read a PROXY header, which a load balancer writes, from each visitor.",
)
@click.option("--max-agents", type=COUNT, default=1000, metavar="N", help="Agents at once.")
@click.option(
    "--max-tunnels", type=COUNT, default=1000, metavar="N", help="Tunnels of all agents together."
)
@click.option("--max-visitors", type=COUNT, default=10_000, metavar="N", help="Visitors at once.")
@click.option(
    "--max-visitors-per-address",
    type=COUNT,
    default=1000,
    metavar="N",
    help="Visitors of one address at once.",
)
@idle_timeout_option
@click.option(
    "--agent-patience",
    type=SECONDS,
    default=10.0,
    metavar="SECONDS",
    help="How long a visitor waits for an agent.",
)
@click.option(
    "--keep-tunnel",
    type=SECONDS,
    default=60.0,
    metavar="SECONDS",
    help="How long a tunnel without an agent keeps its name and port.",
)
@drain_timeout_option
@click.option(
    "--registry",
    metavar="URL",
    help="Registry of several relays, in Redis: redis://HOST:6379/0.",
)
@click.option(
    "--relay-address", metavar="HOST:PORT", help="Where other relays reach this one's --agents."
)
@click.option(
    "--registry-expiry",
    type=SECONDS,
    default=15.0,
    metavar="SECONDS",
    help="How long the entries of a relay that has died remain.",
)
@click.option(
    "--relays-ca", type=FILE, help="PEM file of the authorities of other relays.  [the system's]"
)
@click.option(
    "--status",
    type=LISTEN_ADDRESS,
    metavar="HOST:PORT",
    help="Serve /metrics (for Prometheus) and /healthz here.",
)
@log_options
def command(
    agents_cert: Path | None,
    agents_key: Path | None,
    agents_client_ca: Path | None,
    https_cert: Path | None,
    https_key: Path | None,
    https_client_ca: Path | None,
    tokens_file: Path | None,
    registry: str | None,
    relays_ca: Path | None,
    status: Address | None,
    log_format: str,
    log_level: str,
    **options: Any,
) -> int:
    """Bring visitors to services behind agents.

    Agents (trio-muxado expose) connect to --agents, and visitors to the ports of tunnels, or by
    host names to --http and --https. The file of --tokens-file says which agent may use what:

    \b
        [[token]]
        secret = "..."          # 16 characters or more
        names = ["web", "db-*"]
        hosts = ["*.example.org"]
        ports = ["20000-20099"]
        targets = ["db-*"]      # for trio-muxado forward
        relay = true            # for other relays, with --registry

    Without that file, TRIO_MUXADO_TOKEN is the only secret, and allows everything. SIGHUP makes the
    relay read tokens and certificates again. SIGTERM ends it when the current visitors are done.

    \b
    Examples:
        trio-muxado relay --ports 20000-20099 --host 0.0.0.0 --tokens-file tokens.toml
        trio-muxado relay --http 0.0.0.0:80 --https 0.0.0.0:443 --https-cert chain.pem
        trio-muxado relay --registry redis://10.0.0.9 --relay-address 10.0.0.1:4440 --ports 20000
        trio-muxado --config relay.toml relay
    """
    set_up_logs(log_format, log_level)
    tokens = load_tokens(tokens_file)
    try:
        config = RelayConfig(**{name: options[name] for name in OF_THE_LIBRARY})
        if (registry is None) is not (config.relay_address is None):
            raise click.UsageError("--registry and --relay-address need each other")
        relay = Relay(
            config,
            tokens,
            agents_tls=server_tls("agents", agents_cert, agents_key, agents_client_ca),
            https_tls=server_tls("https", https_cert, https_key, https_client_ca, "h2", "http/1.1"),
            shared_registry=None if registry is None else RedisRegistry(registry),
            relays_tls=(
                None
                if registry is None
                else relays_tls(relays_ca, agents_cert, agents_key, agents_client_ca)
            ),
        )
    except (TypeError, ValueError) as error:
        name, _, rest = str(error).partition(" ")
        if name == "https_tls":
            raise click.UsageError("--https and --https-cert need each other") from None
        if name == "tokens":
            raise click.UsageError("--registry needs a token with relay = true") from None
        name = "registry" if name == "url" else name
        raise click.UsageError(f"--{name.replace('_', '-')} {rest}") from None
    run(serve, relay, tokens_file, status, config.drain_timeout)
    return DONE
