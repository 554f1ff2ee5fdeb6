"""Reverse tunnels: services that nobody can connect to, reached through a relay.

An agent next to the services connects to the relay (:func:`expose`), and the relay (:class:`Relay`)
brings visitors to the services over that one connection: by TCP ports, and by HTTP host names.  The
commands ``trio-muxado relay``, ``expose`` and ``forward`` use these functions.
"""

from ._agent import expose
from ._client import forward_port
from ._config import RelayConfig
from ._counts import RelayCounts
from ._errors import TunnelRefusedError
from ._messages import Granted
from ._names import Tunnel
from ._redis import RedisRegistry
from ._relay import Relay, RelayPorts
from ._services import AddressService, AsgiService
from ._shared import Claim, RegistryError, SharedRegistry
from ._tls import ClientTls, ServerTls
from ._tokens import Token

__all__ = [
    "AddressService",
    "AsgiService",
    "Claim",
    "ClientTls",
    "Granted",
    "RedisRegistry",
    "RegistryError",
    "Relay",
    "RelayConfig",
    "RelayCounts",
    "RelayPorts",
    "ServerTls",
    "SharedRegistry",
    "Token",
    "Tunnel",
    "TunnelRefusedError",
    "expose",
    "forward_port",
]


def _show_public_names() -> None:
    """As in the package: users see the module that they import a name from."""
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_names()
