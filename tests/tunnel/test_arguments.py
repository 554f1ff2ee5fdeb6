"""Wrong arguments of the tunnel: a clear error with the argument's name, before anything begins."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_muxado import Heartbeat
from trio_muxado.tunnel import (
    AddressService,
    Relay,
    RelayConfig,
    ServerTls,
    Token,
    Tunnel,
    expose,
    forward_port,
)

from ..test_arguments import HOOK, HOST, OBJECT, OPTIONAL, SECONDS, SSL, finite, ints, no_none
from .support import SECRET

Wrong = dict[type[Exception], list[Any]]

ADDRESS: Wrong = {TypeError: [5, None, b"localhost", ["localhost"]], ValueError: ["", "ex..ample"]}
HEARTBEAT: Wrong = {TypeError: [5, "x", Heartbeat, {}]}
CONNECT: Wrong = {TypeError: [5, "x", object()]}
TOKEN: Wrong = {TypeError: [5, None, b"x" * 20], ValueError: ["", "a\nb", "x" * 1025]}
SERVICES: Wrong = {
    TypeError: [5, None, [1], {"db": AddressService("h", 1)}, {Tunnel(name="db"): 5}],
    ValueError: [{}],
}

DIALLING: dict[str, Wrong] = {
    "host": ADDRESS,
    "port": no_none(ints(1, 65535)),
    "token": TOKEN,
    "ssl_context": SSL,
    "heartbeat": HEARTBEAT,
    "backoff": OBJECT,
    "idle_timeout": finite(no_none(SECONDS)),
    "stop": OPTIONAL,
    "on_state": HOOK,
}
OF_CALL: dict[Callable[..., Any], dict[str, Wrong]] = {
    expose: {
        **DIALLING,
        "services": SERVICES,
        "agent": {TypeError: [5, None, b"x"], ValueError: ["x" * 101, "a\nb"]},
        "connect": CONNECT,
    },
    forward_port: {
        **DIALLING,
        "target": {TypeError: [5, None, b"db"], ValueError: ["", "DB", "[::1:80", "ex..ample:80"]},
        "local_port": no_none(ints(0, 65535)),
        "local_host": ADDRESS,
        "task_status": OBJECT,
    },
}
RIGHT: dict[str, Any] = {
    "services": {Tunnel(name="db"): AddressService("localhost", 1)},
    "target": "db",
    "host": "localhost",
    "port": 1,
    "token": SECRET,
}


async def never(*args: object, **kwargs: object) -> Any:
    pytest.fail("it began before it had looked at its arguments")


@pytest.mark.parametrize(
    "call, name",
    [
        pytest.param(call, name, id=f"{call.__name__}-{name}")
        for call in OF_CALL
        for name in inspect.signature(call).parameters
    ],
)
async def test_a_call_refuses_what_is_wrong_before_it_begins(
    call: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("open_tcp_listeners", "open_tcp_stream", "serve_listeners"):
        monkeypatch.setattr(trio, function, never)
    monkeypatch.setattr("trio_muxado._dial.connect_tcp", never)
    parameters = inspect.signature(call).parameters
    right = {key: RIGHT[key] for key in parameters if key in RIGHT}
    for kind, values in OF_CALL[call][name].items():
        for value in values:
            with pytest.raises((TypeError, ValueError)) as caught:
                await call(**{**right, name: value})
            assert isinstance(caught.value, kind), value
            assert str(caught.value).startswith(name), value


@pytest.mark.parametrize("host", HOST[ValueError][2:])
def test_a_host_that_nobody_can_look_up(host: str) -> None:
    for make in (
        lambda: AddressService(host, 80),
        lambda: RelayConfig(host=host),
        lambda: RelayConfig(agents=f"{host}:0"),
        lambda: RelayConfig(allow_targets=(f"{host}:80",)),
        lambda: Token(secret=SECRET, targets=(f"{host}:80",)),
    ):
        with pytest.raises(ValueError, match=r"^(host|agents|allow_targets|targets) must be "):
            make()
    assert AddressService(host).port is None  # a path


@pytest.mark.parametrize("address", ["[::1:80", "::1]:80", "::1:80", "[[::1]]:80", "[]:80"])
def test_an_ipv6_address_whose_brackets_are_wrong(address: str) -> None:
    with pytest.raises(ValueError, match=r"^agents must be HOST:PORT"):
        RelayConfig(agents=address)


@pytest.mark.parametrize("secret", ["x" * 15, "x" * 1025, "x" * 20 + "\n"])
def test_a_secret_that_no_agent_can_show(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^secret must ") as caught:
        Token(secret=secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "name, value",
    [("heartbeat", 5), ("config", 5), ("tokens", 5), ("agents_tls", 5), ("relays_tls", 5)],
)
def test_a_relay_refuses_what_is_wrong(name: str, value: object) -> None:
    right: dict[str, Any] = {"config": RelayConfig(), "tokens": ()}
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        Relay(**{**right, name: value})


@pytest.mark.parametrize("name", ["stop", "task_status"])
async def test_a_relay_that_is_run_with_a_wrong_argument_listens_nowhere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio, "open_tcp_listeners", never)
    relay = Relay(RelayConfig(agents="127.0.0.1:0"), ())
    options: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        await relay.run(**options)


@pytest.mark.parametrize("protocols", ["h2", [5], [b"h2"]])
def test_protocols_are_a_list_of_names(protocols: Any) -> None:
    with pytest.raises(TypeError, match=r"^protocols must be "):
        ServerTls("no file", protocols=protocols)
