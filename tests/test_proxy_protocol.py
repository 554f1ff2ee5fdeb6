"""The PROXY protocol's header, against the bytes and the bounds of its specification."""

import socket
import struct
from typing import Any

import pytest

from trio_muxado import proxy_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LONGEST_V6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

CASES: list[tuple[Any, Any, bytes, bytes]] = [
    (
        ("192.0.2.1", 56324),
        ("198.51.100.2", 443),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        bytes.fromhex("2111000c c0000201 c6336402 dc04 01bb"),
    ),
    (
        ("2001:db8::1", 1, 0, 0),  # as an IPv6 socket tells it
        ("2001:db8::2", 65535, 0, 0),
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
        bytes.fromhex(
            "21210024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff"
        ),
    ),
    (  # a socket for both families shows IPv4 in this way
        ("::ffff:192.0.2.1", 5, 0, 0),
        ("::ffff:198.51.100.2", 6, 0, 0),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5 6\r\n",
        bytes.fromhex("2111000c c0000201 c6336402 0005 0006"),
    ),
    (  # a zone means nothing elsewhere
        ("fe80::1%eth0", 5, 0, 2),
        ("fe80::2%2", 6, 0, 2),
        b"PROXY TCP6 fe80::1 fe80::2 5 6\r\n",
        bytes.fromhex(
            "21210024 fe800000000000000000000000000001 fe800000000000000000000000000002 0005 0006"
        ),
    ),
    (None, None, b"PROXY UNKNOWN\r\n", bytes.fromhex("21000000")),
    (None, ("192.0.2.1", 5), b"PROXY UNKNOWN\r\n", bytes.fromhex("21000000")),
    (("192.0.2.1", 5), None, b"PROXY UNKNOWN\r\n", bytes.fromhex("21000000")),
    ("", "/run/service", b"PROXY UNKNOWN\r\n", bytes.fromhex("21000000")),  # a Unix socket's
    (b"", b"\0abstract", b"PROXY UNKNOWN\r\n", bytes.fromhex("21000000")),
]


@pytest.mark.parametrize("source, destination, text, binary", CASES)
def test_the_bytes_of_both_versions(
    source: Any, destination: Any, text: bytes, binary: bytes
) -> None:
    assert proxy_header("v1", source, destination) == text
    assert proxy_header("v2", source, destination) == SIGNATURE + binary


@pytest.mark.parametrize("source, destination", [case[:2] for case in CASES])
def test_the_length_of_version_2_is_what_follows_it(source: Any, destination: Any) -> None:
    header = proxy_header("v2", source, destination)
    assert struct.unpack("!H", header[14:16])[0] == len(header) - 16


def test_the_longest_line_is_within_its_bound() -> None:
    """A receiver's buffer has to hold 107 bytes; the longest line with addresses has 104."""
    line = proxy_header("v1", (LONGEST_V6, 65535), (LONGEST_V6, 65535))
    assert len(line) == 104
    line = proxy_header("v1", ("255.255.255.255", 65535), ("255.255.255.255", 65535))
    assert len(line) == 56


def test_two_families_are_told_as_ipv6() -> None:
    line = proxy_header("v1", ("192.0.2.1", 5), ("2001:db8::2", 6))
    words = line.decode().split()
    assert words[:2] == ["PROXY", "TCP6"]
    mapped = b"\0" * 10 + b"\xff\xff" + socket.inet_aton("192.0.2.1")
    assert socket.inet_pton(socket.AF_INET6, words[2]) == mapped
    assert proxy_header("v2", ("192.0.2.1", 5), ("2001:db8::2", 6))[16:32] == mapped


@pytest.mark.parametrize(
    "version, source, destination, error, name",
    [
        ("v3", None, None, ValueError, "version"),
        (1, None, None, TypeError, "version"),
        ("v1", ("localhost", 5), ("192.0.2.1", 5), ValueError, "source"),
        ("v1", ("192.0.2.1", 5), ("localhost", 5), ValueError, "destination"),
        ("v1", ("192.0.2.1",), ("192.0.2.1", 5), ValueError, "source"),
        ("v1", ("192.0.2.1", "http"), ("192.0.2.1", 5), ValueError, "source"),
        ("v2", ("192.0.2.1", 65536), ("192.0.2.1", 5), ValueError, "source"),
        ("v2", ("192.0.2.1", 5), ("192.0.2.1", -1), ValueError, "destination"),
        ("v2", (b"\xc0\0\2\1", 5), ("192.0.2.1", 5), ValueError, "source"),
        ("v2", 5, ("192.0.2.1", 5), ValueError, "source"),
        ("v1", ("192.0.2.1\r\nevil", 5), ("192.0.2.1", 5), ValueError, "source"),
    ],
)
def test_a_wrong_argument_is_named(
    version: Any, source: Any, destination: Any, error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        proxy_header(version, source, destination)
