"""``trio-muxado ping``: whether a peer answers, in which protocol version, and how fast."""

from __future__ import annotations

import ssl
import statistics
from dataclasses import dataclass, field
from typing import Literal

import click
import trio

from trio_muxado import MuxadoConfig, MuxadoError, MuxadoSession, client_session

from .ending import DONE, FAILED, Failed, Interrupted, in_words, run, tell
from .network import connect
from .options import (
    ADDRESS,
    SECONDS,
    Address,
    SecondsType,
    argument,
    tls_client_options,
    wire_option,
)

VERSIONS: tuple[Literal["v1", "v2"], ...] = ("v1", "v2")

CLOSE_TIMEOUT = 0.5
"""Seconds for a goodbye that the peer does not return: there is nothing to lose."""


@dataclass
class Pings:
    """What is to be done, and what came of it."""

    address: Address
    ssl_context: ssl.SSLContext | None
    count: int
    interval: float
    """Seconds from one ping to the next."""
    timeout: float
    """Seconds for the connection, and for each answer."""
    sent: int = 0
    latencies: list[float] = field(default_factory=list[float])
    """Seconds, of those that were answered."""

    async def run(self, versions: tuple[Literal["v1", "v2"], ...]) -> None:
        """Ping in the first of the protocol versions that the peer answers."""
        failures: dict[str, str] = {}
        for wire in versions:
            failure = await self._attempt(wire)
            if failure is None:
                return
            if self.latencies:
                tell(f"the session ended: {failure}")
                return
            failures[wire] = failure
        raise Failed(f"no answer from {self.address} in muxado {self._reasons(failures)}")

    def _reasons(self, failures: dict[str, str]) -> str:
        """Why there was no answer, for a user who may have to say something else."""
        if len(set(failures.values())) == 1:
            reasons = f"{' or '.join(failures)}: {next(iter(failures.values()))}"
        else:
            reasons = "; ".join(f"{wire}: {failure}" for wire, failure in failures.items())
        hints = ["are its sessions untyped?"] if "v2" in failures else []
        hints += [] if self.ssl_context else ["does it want TLS?"]
        return f"{reasons} ({' '.join(hints)})" if hints else reasons

    async def _attempt(self, wire: Literal["v1", "v2"]) -> str | None:
        """All pings over one session; why there are no more of them, or None where it was all."""
        # v2 has heartbeats in typed sessions only.
        config = MuxadoConfig(wire=wire, typed=wire == "v2", close_timeout=CLOSE_TIMEOUT)
        self.sent = 0
        stream = await connect(self.address, self.ssl_context, self.timeout)
        async with client_session(stream, config=config) as session:
            return await self._ping(session, wire)

    async def _ping(self, session: MuxadoSession, wire: str) -> str | None:
        for number in range(1, self.count + 1):
            began = trio.current_time()
            self.sent = number
            try:
                with trio.fail_after(self.timeout):
                    latency = await session.ping()
            except trio.TooSlowError:
                failure = f"nothing came within {self.timeout:g} s"
                if not self.latencies:
                    return failure
                click.echo(f"{number}: lost, {failure}")
            except MuxadoError as error:
                return in_words(error).removeprefix("ping: ")
            else:
                if not self.latencies:
                    over = "TLS" if self.ssl_context else "TCP"
                    click.echo(f"{self.address} speaks muxado {wire} over {over}")
                self.latencies.append(latency)
                click.echo(f"{number}: {_ms(latency)}")
            if number < self.count:
                await trio.sleep_until(began + self.interval)
        return None

    def summary(self) -> str:
        """One line about all of it."""
        lost = self.sent - len(self.latencies)
        line = f"{self.sent} sent, {lost} lost"
        if self.latencies:
            low, middle, high = map(
                _ms,
                (min(self.latencies), statistics.median(self.latencies), max(self.latencies)),
            )
            line += f"; min {low}, median {middle}, max {high}"
        return line


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


@click.command("ping")
@argument("address", type=ADDRESS, metavar="HOST:PORT")
@click.option(
    "--count", "-c", type=click.IntRange(1), default=4, metavar="N", help="Pings to send."
)
@click.option(
    "--interval",
    "-i",
    type=SecondsType(or_none=True),
    default=1.0,
    metavar="SECONDS",
    help="From one ping to the next.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=5.0,
    metavar="SECONDS",
    help="For the connection, and for each answer.",
)
@wire_option("tries v1, then v2")
@tls_client_options
def command(
    address: Address,
    count: int,
    interval: float,
    timeout: float,
    wire: Literal["auto", "v1", "v2"],
    ssl_context: ssl.SSLContext | None,
) -> int:
    """Measure round trips to a muxado server.

    Opens a session, sends heartbeats and prints the round trip of each. The peer's session answers,
    not its application. On v2 the session is typed, since only typed sessions have heartbeats.

    Exits with 1 if a ping was lost.

    \b
    Examples:
        trio-muxado ping localhost:8765
        trio-muxado ping --count 1 --timeout 1 10.0.0.7:8765
        trio-muxado ping --ca ca.pem example.org:443
    """
    pings = Pings(address, ssl_context, count, interval, timeout)
    try:
        run(pings.run, VERSIONS if wire == "auto" else (wire,))
    except Interrupted:
        if pings.latencies:
            click.echo(pings.summary())
        raise
    click.echo(pings.summary())
    return DONE if len(pings.latencies) == count else FAILED
