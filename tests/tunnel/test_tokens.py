"""Tokens: who is found, and what each allows."""

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado.tunnel import Token, Tunnel
from trio_muxado.tunnel._names import (
    host_matches,
    host_of,
    parse_address,
    parse_ports,
    shown_address,
)
from trio_muxado.tunnel._tokens import Tokens

SECRETS = [f"a secret of number {number}" for number in range(5)]
TOKEN = Token(
    secret=SECRETS[0],
    names=["web", "db-*"],  # type: ignore[arg-type]
    hosts=["www.example.org", "*.Test.Example.org"],  # type: ignore[arg-type]
    ports=["20000-20009", 21000],  # type: ignore[arg-type]
    targets=["db-*", "127.0.0.1:5432", "[::1]:5432"],  # type: ignore[arg-type]
)


def test_the_token_with_the_secret_is_found() -> None:
    tokens = Tokens([Token(secret=secret, label=secret) for secret in SECRETS])
    assert len(tokens) == 5
    for secret in SECRETS:
        found = tokens.find(secret)
        assert found is not None
        assert found.label == secret
    for wrong in ("", "a secret of number", SECRETS[0] + " ", SECRETS[0].upper(), "\ud800"):
        assert tokens.find(wrong) is None
    assert Tokens([]).find(SECRETS[0]) is None


@pytest.mark.parametrize("secret", [*SECRETS, "another one"])
def test_all_are_compared_whichever_it_is(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    right = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return right(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    Tokens([Token(secret=each) for each in SECRETS]).find(secret)
    assert compared == [(32, 32)] * len(SECRETS)


def test_no_token_shows_its_secret() -> None:
    assert SECRETS[0] not in repr(TOKEN)
    for wrong in ({"secret": "short"}, {"secret": SECRETS[0], "names": ["UPPER"]}):
        with pytest.raises(ValueError, match=r"secret must have|names") as caught:
            Token.from_mapping(wrong)
        assert str(wrong["secret"]) not in str(caught.value)


@pytest.mark.parametrize(
    "tunnel, why",
    [
        (Tunnel(name="web"), None),
        (Tunnel(name="db-1"), None),
        (Tunnel(name="db"), "name"),
        (Tunnel(name="webs"), "name"),
        (Tunnel(name="web", host="www.example.org"), None),
        (Tunnel(name="web", host="WWW.example.org."), None),
        (Tunnel(name="web", host="a.test.example.org"), None),
        (Tunnel(name="web", host="test.example.org"), "host"),
        (Tunnel(name="web", host="a.b.test.example.org"), "host"),
        (Tunnel(name="web", host="example.org"), "host"),
        (Tunnel(name="web", port=0), None),
        (Tunnel(name="web", port=20009), None),
        (Tunnel(name="web", port=20010), "port"),
        (Tunnel(name="web", port=21000), None),
        (Tunnel(name="other", port=21000), "name"),
    ],
)
def test_what_a_token_allows(tunnel: Tunnel, why: str | None) -> None:
    said = TOKEN.why_not(tunnel)
    assert (said is None) if why is None else (said is not None and why in said)


def test_a_token_allows_nothing_by_default() -> None:
    nothing = Token(secret=SECRETS[0])
    assert nothing.why_not(Tunnel(name="web"))
    named = Token(secret=SECRETS[0], names=("*",))
    assert named.why_not(Tunnel(name="web")) is None
    assert named.why_not(Tunnel(name="web", host="example.org"))
    assert named.why_not(Tunnel(name="web", port=0))
    assert not named.allows_target("web")


@pytest.mark.parametrize(
    "target, allowed",
    [
        ("db-1", True),
        ("web", False),
        ("127.0.0.1:5432", True),
        ("127.0.0.1:5433", False),
        ("[::1]:5432", True),
        ("db-x:5432", False),
        ("", False),
        ("*", False),
    ],
)
def test_which_targets_a_token_allows(target: str, allowed: bool) -> None:
    assert TOKEN.allows_target(target) is allowed


@pytest.mark.parametrize(
    "field, value, error",
    [
        ("secret", 5, TypeError),
        ("secret", "x" * 15, ValueError),
        ("label", 5, TypeError),
        ("names", "web", TypeError),
        ("names", [5], TypeError),
        ("names", ["a b"], ValueError),
        ("hosts", ["*.*.org"], ValueError),
        ("hosts", ["a*.org"], ValueError),
        ("hosts", [5], TypeError),
        ("ports", ["high"], ValueError),
        ("ports", ["9-8"], ValueError),
        ("ports", [0], ValueError),
        ("ports", [65536], ValueError),
        ("ports", [1.5], TypeError),
        ("targets", ["a:b"], ValueError),
        ("targets", [None], TypeError),
        ("colour", "red", ValueError),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        Token.from_mapping({"secret": SECRETS[0], field: value})


def test_a_token_without_a_secret() -> None:
    with pytest.raises(ValueError, match="secret is missing"):
        Token.from_mapping({"names": ["web"]})


@pytest.mark.parametrize(
    "authority, host",
    [
        ("example.org", "example.org"),
        ("Example.ORG.:8080", "example.org"),
        ("example.org:", "example.org"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("user@example.org", None),
        ("example.org:8x", None),
        ("a b", None),
        ("", None),
        (":80", None),
        ("a" * 300, None),
        ("a/b", None),
    ],
)
def test_the_host_of_a_request(authority: str, host: str | None) -> None:
    assert host_of(authority) == host


@given(text=st.text(max_size=60))
def test_any_authority_names_a_host_or_none(text: str) -> None:
    host = host_of(text)
    assert host is None or host == host.lower()


@pytest.mark.parametrize(
    "host, pattern, matches",
    [
        ("a.example", "a.example", True),
        ("a.example", "*", True),
        ("b.a.example", "*.a.example", True),
        ("a.example", "*.a.example", False),
        (".a.example", "*.a.example", False),
    ],
)
def test_hosts_and_patterns(host: str, pattern: str, matches: bool) -> None:
    assert host_matches(host, pattern) is matches


@given(host=st.sampled_from(["127.0.0.1", "::1", "example.org"]), port=st.integers(1, 65535))
def test_an_address_is_shown_as_it_is_read(host: str, port: int) -> None:
    assert parse_address("a", shown_address(host, port)) == (host, port)


@pytest.mark.parametrize("text", ["", ":80", "a", "a:", "a:b", "a:65536", "::1:80", "a:-1", 5])
def test_what_is_no_address(text: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="where"):
        parse_address("where", text)


def test_ports_and_ranges() -> None:
    assert parse_ports("ports", 80) == parse_ports("ports", "80") == range(80, 81)
    assert parse_ports("ports", "1-65535") == range(1, 65536)
