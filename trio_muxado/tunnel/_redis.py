"""The registry of several relays in Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import trio

from ._names import shown
from ._shared import Claim, RegistryError, SharedRegistry

if TYPE_CHECKING:
    from coredis import Redis

PATIENCE = 2.0
"""Seconds that Redis has for an answer."""

SCHEMES = ("redis", "rediss", "unix")

# A key is a sorted set of claims, each by the millisecond in which it ends: by Redis's own clock,
# as those of the relays may differ.  A script runs as a whole, so of two relays that ask for the
# same at once, one learns of the other.  It gives the claims that could stand in the way.
CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[2])
local relay, tunnel = string.match(ARGV[1], '^(%S+) (.*)$')
for _, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    for _, other in ipairs(redis.call('ZRANGE', key, 0, -1)) do
        local other_relay, other_tunnel = string.match(other, '^(%S+) (.*)$')
        if other_relay ~= relay and other_tunnel ~= tunnel then
            return other
        end
    end
end
for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now + ttl, ARGV[1])
    redis.call('PEXPIRE', key, ttl)
end
return false
"""

FIND = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""


class RedisRegistry(SharedRegistry):
    """The registry in a Redis (6.2 or later) or Valkey server.

    Entries expire by themselves: a relay renews its claims, and those of a relay that has died
    expire.  Needs the extra: ``pip install 'trio_muxado[relays]'``.

    Args:
      url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://`` for TLS, or
        ``unix:///PATH``.
      prefix: what all keys begin with.

    Raises:
      TypeError, ValueError: a wrong argument.
      ModuleNotFoundError: the library is missing; it says what to install.
    """

    def __init__(self, url: str, *, prefix: str = "trio_muxado:") -> None:
        self._url = _checked_url(url)
        if not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"prefix must be a str, not {shown(prefix)}")
        self._prefix = prefix
        try:
            import_module("coredis")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"a registry needs {error.name}: python -m pip install 'trio_muxado[relays]'",
                name=error.name,
            ) from error
        self._stack = AsyncExitStack()
        self._client: Redis[str] | None = None

    def __str__(self) -> str:
        """Where it is, without the password."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def __aenter__(self) -> RedisRegistry:
        from coredis import Redis
        from coredis.retry import NoRetryPolicy

        client = Redis.from_url(
            self._url,
            decode_responses=True,
            verify_version=False,
            connect_timeout=PATIENCE,
            stream_timeout=PATIENCE,
            retry_policy=NoRetryPolicy(),
        )
        self._client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client = None
        await self._stack.__aexit__(kind, error, trace)

    async def claim(self, claims: Sequence[Claim], seconds: float) -> list[Claim | None]:
        """As :meth:`SharedRegistry.claim`: one round trip for all of them."""
        async with self._asking() as client:
            async with client.pipeline(transaction=False) as pipeline:
                answers = [
                    pipeline.eval(CLAIM, self._keys(claim), [_member(claim), int(seconds * 1000)])
                    for claim in claims
                ]
            found = [await answer for answer in answers]
        return [None if member is None else _claim(str(member)) for member in found]

    async def withdraw(self, claims: Sequence[Claim]) -> None:
        """As :meth:`SharedRegistry.withdraw`."""
        async with self._asking() as client:
            async with client.pipeline(transaction=False) as pipeline:
                answers = [
                    pipeline.zrem(key, [_member(claim)])
                    for claim in claims
                    for key in self._keys(claim)
                ]
            for answer in answers:
                await answer

    async def find(self, key: str) -> list[Claim]:
        """As :meth:`SharedRegistry.find`."""
        async with self._asking() as client:
            found = cast("list[str]", await client.eval(FIND, [self._prefix + key], []))
        return [_claim(str(member)) for member in found]

    def _keys(self, claim: Claim) -> list[str]:
        return [self._prefix + key for key in claim.keys]

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[Redis[str], None]:
        from coredis.exceptions import RedisError

        if self._client is None:
            raise RegistryError(f"{self} is not open")
        try:
            with trio.fail_after(PATIENCE):
                yield self._client
        except trio.TooSlowError:
            raise RegistryError(f"{self} does not answer") from None
        except (RedisError, OSError, ValueError) as error:
            raise RegistryError(f"{self}: {error}") from error


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {shown(url)}")
    try:
        parts = urlsplit(url)
        where = parts.path if parts.scheme == "unix" else parts.hostname
        number = parts.path.strip("/")
        if parts.scheme not in SCHEMES or not where or parts.port == 0:
            raise ValueError
        if parts.scheme != "unix" and number and not (number.isascii() and number.isdecimal()):
            raise ValueError
    except ValueError:  # it may have a password, which is not to be seen
        raise ValueError(
            "url must be such as redis://HOST:6379/0, rediss://HOST or unix:///PATH"
        ) from None
    return url


def _member(claim: Claim) -> str:
    return f"{claim.relay} {claim.name} {claim.place}"


def _claim(member: str) -> Claim:
    """What another relay has written.

    Raises:
      ValueError: it is none.
    """
    parts = member.split(" ")
    if len(parts) != 3:
        raise ValueError(f"{shown(member)} is no claim")
    return Claim(*parts)
