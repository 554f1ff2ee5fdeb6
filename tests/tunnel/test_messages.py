"""What relay and agent say to each other: golden bytes, and whatever else may come."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado.tunnel import Granted, Tunnel
from trio_muxado.tunnel._messages import (
    LONGEST,
    MOST_TUNNELS,
    PREFIX,
    REASONS,
    Accepted,
    Hello,
    Message,
    MessageError,
    Opened,
    Refused,
    Target,
    VersionError,
    decode,
    encode,
    size_of,
)

TUNNELS = (
    Tunnel(name="web", host="www.example.org"),
    Tunnel(name="db", port=20000),
    Tunnel(name="any", port=0),
    Tunnel(name="private"),
)
GOLDEN: list[tuple[Message, bytes]] = [
    (
        Hello("a secret", "here", TUNNELS),
        b'{"type":"hello","version":1,"token":"a secret","agent":"here","tunnels":['
        b'{"name":"web","host":"www.example.org"},{"name":"db","port":20000},'
        b'{"name":"any","port":0},{"name":"private"}]}',
    ),
    (
        Accepted((Granted("web", 1, "https://www.example.org"),)),
        b'{"type":"accepted","tunnels":[{"name":"web","number":1,'
        b'"address":"https://www.example.org"}]}',
    ),
    (Refused("token", "no"), b'{"type":"refused","reason":"token","text":"no"}'),
    (Target("db"), b'{"type":"target","target":"db"}'),
    (Opened(), b'{"type":"opened"}'),
]


@pytest.mark.parametrize("message, body", GOLDEN)
def test_the_bytes_of_each_message(message: Message, body: bytes) -> None:
    data = encode(message)
    assert data == len(body).to_bytes(PREFIX, "big") + body
    assert size_of(data[:PREFIX]) == len(body)
    assert decode(body) == message


texts = st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=50)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}[a-z0-9]", fullmatch=True)
tunnels = st.builds(Tunnel, name=names, port=st.none() | st.integers(0, 65535))
messages = st.one_of(
    st.builds(
        Hello,
        texts,
        texts,
        st.lists(tunnels, max_size=5, unique_by=lambda tunnel: tunnel.name).map(tuple),
    ),
    st.builds(
        Accepted,
        st.lists(st.builds(Granted, names, st.integers(1, 2**31), texts), max_size=5).map(tuple),
    ),
    st.builds(Refused, st.sampled_from(sorted(REASONS)), texts),
    st.builds(Target, texts),
    st.just(Opened()),
)


@given(message=messages)
def test_what_was_said_is_heard(message: Message) -> None:
    assert decode(encode(message)[PREFIX:]) == message


@pytest.mark.parametrize(
    "message",
    [
        5,
        ["type", "opened"],
        {"type": "nothing"},
        {"type": "accepted", "tunnels": [{"name": "a", "number": 0, "address": "a"}]},
        {"type": "accepted", "tunnels": [{"name": "A", "number": 1, "address": "a"}]},
        {"type": "accepted", "tunnels": [{"name": "a", "number": 1}]},
    ],
)
def test_a_message_with_a_wrong_field(message: Any) -> None:
    with pytest.raises(MessageError):
        decode(json.dumps(message).encode())


@given(body=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_error(body: bytes) -> None:
    with pytest.raises(MessageError):
        decode(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
FIELDS = ["type", "version", "token", "agent", "tunnels", "reason", "text", "target", "number"]


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), json_values),
    kind=st.sampled_from(["hello", "accepted", "refused", "target", "opened"]),
)
def test_wrong_fields_are_one_error_on_one_line(fields: dict[str, Any], kind: str) -> None:
    said = ""
    try:
        decode(json.dumps({**fields, "type": kind}).encode())
    except MessageError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 1000


HELLO: dict[str, Any] = {"type": "hello", "version": 1, "token": "t", "agent": "a", "tunnels": []}


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": None},
        {"token": "x" * 1025},
        {"agent": "a\nb"},
        {"agent": "\x1b[31m"},
        {"tunnels": {}},
        {"tunnels": [5]},
        {"tunnels": [{}]},
        {"tunnels": [{"name": "UPPER"}]},
        {"tunnels": [{"name": "a", "port": 65536}]},
        {"tunnels": [{"name": "a", "port": True}]},
        {"tunnels": [{"name": "a", "port": 1, "host": "b.example"}]},
        {"tunnels": [{"name": "a", "host": "b.example:80"}]},
        {"tunnels": [{"name": "a"}, {"name": "a"}]},
        {"tunnels": [{"name": f"n{number}"} for number in range(MOST_TUNNELS + 1)]},
    ],
)
def test_a_hello_with_a_wrong_field(wrong: dict[str, Any]) -> None:
    decode(json.dumps(HELLO).encode())
    with pytest.raises(MessageError):
        decode(json.dumps({**HELLO, **wrong}).encode())


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_told_apart(version: Any) -> None:
    with pytest.raises(VersionError):
        decode(json.dumps({**HELLO, "version": version, "token": 5}).encode())


def test_fields_that_nobody_knows_are_skipped() -> None:
    assert decode(b'{"type":"opened","since":"version 2"}') == Opened()


@pytest.mark.parametrize("size", [0, LONGEST + 1, 2**32 - 1])
def test_a_length_out_of_bounds(size: int) -> None:
    with pytest.raises(MessageError):
        size_of(size.to_bytes(PREFIX, "big"))


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="longer than"):
        encode(Target("x" * LONGEST))


def test_nesting_that_is_too_deep_is_no_crash() -> None:
    with pytest.raises(MessageError):
        decode(b'{"type":' + b"[" * 30_000 + b"]" * 30_000 + b"}")
