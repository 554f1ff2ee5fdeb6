"""Options and arguments that several commands have."""

from __future__ import annotations

import functools
import math
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from .ending import envvar_of

if TYPE_CHECKING:
    _AddressParamType = click.ParamType["Address"]
else:  # before click 8.4 it was not generic
    _AddressParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Address(NamedTuple):
    """Where to connect to, or to listen."""

    host: str | None
    """None is every address of this machine."""
    port: int

    def __str__(self) -> str:
        host = self.host or "*"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def split_address(text: str, least: int) -> tuple[str, int]:
    """The host, which may be empty, and the port of ``HOST:PORT``, or of ``PORT`` alone.

    Raises:
      ValueError: the host can't be one, or the port is not ``least`` to 65535.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "[" in bare or "]" in bare or (bare == host and ":" in host):
        raise ValueError("an IPv6 address stands in brackets, [::1]:8765")
    if not (port.isascii() and port.isdecimal()):
        raise ValueError(f"the port must be a number, not {port!r}")
    # Python refuses to read thousands of digits.
    if len(port) > 5 or not least <= int(port) <= 0xFFFF:
        raise ValueError(f"the port must be from {least} to 65535")
    try:
        bare.encode("idna")  # as the system's resolver is asked
    except UnicodeError:
        raise ValueError(f"{bare!r} is neither a name nor an address") from None
    return bare, int(port)


class AddressType(_AddressParamType):
    """``HOST:PORT``, where a host that is an IPv6 address stands in brackets.

    With ``listening`` the host may be empty, for every address of this machine, and the port may
    be 0, for one that the system chooses.
    """

    name = "address"

    def __init__(self, *, listening: bool = False) -> None:
        self._listening = listening

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """An address, or the error that says what is wrong with it."""
        if isinstance(value, Address):
            return value
        _, colon, port = str(value).rpartition(":")
        if not colon and port.isdecimal():
            every = f", or :{port} for every address" if self._listening else ""
            self.fail(f"{value!r} has no host: write localhost:{port}{every}", param, ctx)
        if not colon:
            self.fail(f"{value!r} has no port: it must be HOST:PORT", param, ctx)
        try:
            bare, number = split_address(str(value), 0 if self._listening else 1)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not bare and not self._listening:
            self.fail(f"{value!r} has no host: it must be HOST:PORT", param, ctx)
        return Address(bare or None, number)


class SecondsType(click.FloatRange):
    """Seconds: a number above 0, or from 0 where they may be none at all; or without end."""

    def __init__(self, *, or_none: bool = False, endless: bool = True) -> None:
        super().__init__(min=0, min_open=not or_none)
        self._endless = endless

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """A number; "nan" is none, though it is within every range."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number) or (math.isinf(number) and not self._endless):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


SECONDS = SecondsType()
FINITE_SECONDS = SecondsType(endless=False)
ADDRESS = AddressType()
LISTEN_ADDRESS = AddressType(listening=True)


class _Argument(click.Argument):
    """An argument that can come from the environment, as options do by themselves."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        self.envvar = self.envvar or envvar_of(ctx, self)
        return super().resolve_envvar_value(ctx)


def argument(*names: str, **attributes: Any) -> Callable[[F], F]:
    """As :func:`click.argument`; it has a name in the environment."""
    return click.argument(*names, cls=_Argument, **attributes)


def wire_option(auto: str | None = None) -> Callable[[F], F]:
    """``--wire``: the protocol version, where ``auto`` says what else there is to choose."""
    return click.option(
        "--wire",
        type=click.Choice([*(["auto"] if auto else []), "v1", "v2"]),
        default="auto" if auto else "v1",
        help=f"The protocol version; auto {auto}." if auto else "The protocol version.",
    )


def tls_client_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--tls``, ``--ca``, ``--cert``, ``--key``; the command gets an ``ssl_context``, or None."""

    @click.option("--tls", is_flag=True, help="Connect over TLS. --ca, --cert and --key imply it.")
    @click.option("--ca", type=FILE, help="PEM file of the authorities to trust.  [the system's]")
    @click.option("--cert", type=FILE, help="PEM file of a certificate to present.")
    @click.option("--key", type=FILE, help="PEM file of its key.  [in the file of --cert]")
    @functools.wraps(function)
    def with_context(
        *args: Any, tls: bool, ca: Path | None, cert: Path | None, key: Path | None, **options: Any
    ) -> Any:
        wanted = tls or ca or cert or key
        context = client_context(ca, cert, key) if wanted else None
        return function(*args, ssl_context=context, **options)

    return with_context


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """A context for a client of TLS.

    Raises:
      click.UsageError: a file is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        message = f"no certificates in {ca}: {error}"
        raise click.BadParameter(message, param_hint="'--ca'") from None
    load_certificate(context, cert, key)
    return context


def load_certificate(context: ssl.SSLContext, cert: Path | None, key: Path | None) -> None:
    """Have a context show a certificate, if there is one.

    Raises:
      click.UsageError: a file is not what it should be.
    """
    if cert is None:
        if key is not None:
            raise click.UsageError("--key needs --cert, the certificate that it belongs to")
        return
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        message = f"no certificate with its key in {cert}{f' and {key}' if key else ''}: {error}"
        raise click.BadParameter(message, param_hint="'--cert'") from None
