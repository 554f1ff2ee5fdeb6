"""Requests and answers in JSON, each on a stream of its own.

    python json_requests.py server [PORT]
    python json_requests.py client PORT METHOD [ARGUMENT ...]

    python json_requests.py client 8765 add 1 2 3

A stream is one request: the client writes it and ends its direction, the server writes the answer
and ends its own. What goes wrong with one request resets its stream with a code, and hurts no
other.
"""

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    StreamResetError,
    open_muxado_session,
    serve_muxado,
)

HOST = "127.0.0.1"
LONGEST = 1024 * 1024  # bytes of a request or an answer
PATIENCE = 30  # seconds for one request

# An application's own codes begin at 16.
BAD_REQUEST, UNKNOWN_METHOD = 16, 17
NAMES = {BAD_REQUEST: "bad request", UNKNOWN_METHOD: "unknown method"}


def add(*numbers: float) -> float:
    """Return the sum."""
    return sum(numbers)


def upper(text: str) -> str:
    """Return the text in capitals."""
    return text.upper()


METHODS: dict[str, Callable[..., Any]] = {"add": add, "upper": upper}


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end, up to a limit."""
    data = bytearray()
    async for chunk in stream:
        data += chunk
        if len(data) > LONGEST:
            raise ValueError(f"more than {LONGEST} bytes")
    return bytes(data)


# ---- the server


async def answer(stream: MuxadoStream) -> None:
    """Serve one request."""
    try:
        request = json.loads(await receive_all(stream))
        name, arguments = str(request["method"]), list(request["arguments"])
    except (ValueError, KeyError, TypeError):
        await stream.reset(BAD_REQUEST)
        return
    if name not in METHODS:
        await stream.reset(UNKNOWN_METHOD)
        return
    await stream.send_all(json.dumps(METHODS[name](*arguments)).encode())


async def handle_stream(stream: MuxadoStream) -> None:
    """Keep a bug, or a request that takes too long, from ending the server."""
    try:
        with trio.move_on_after(PATIENCE) as patience:
            await answer(stream)
        if patience.cancelled_caught:
            await stream.reset()
    except MuxadoError:
        raise  # the stream or its session has ended: serve_streams deals with it
    except Exception:
        logging.exception("a request failed")
        await stream.reset(ErrorCode.INTERNAL_ERROR)


async def handle_session(session: MuxadoSession) -> None:
    """Serve one client."""
    await session.serve_streams(handle_stream)


async def serve(port: int) -> None:
    """Serve until interrupted."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_muxado, handle_session, port, host=HOST))
        print("listening on port", listeners[0].socket.getsockname()[1], flush=True)


# ---- the client


async def call(session: MuxadoSession, method: str, *arguments: Any) -> Any:
    """Send one request and return its answer. Any number of calls may run at once."""
    async with await session.open_stream() as stream:
        request = {"method": method, "arguments": arguments}
        await stream.send_all(json.dumps(request).encode())
        await stream.send_eof()
        return json.loads(await receive_all(stream))


async def ask(port: int, method: str, arguments: list[Any]) -> None:
    """Call one method, and show the result."""
    async with open_muxado_session(HOST, port) as session:
        try:
            with trio.fail_after(PATIENCE):
                print(json.dumps(await call(session, method, *arguments)))
        except StreamResetError as error:
            code = error.code
            print("refused:", NAMES[code] if isinstance(code, int) and code in NAMES else error)


def parsed(argument: str) -> Any:
    """Parse JSON, and take anything else as text."""
    try:
        return json.loads(argument)
    except ValueError:
        return argument


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", *port]:
            trio.run(serve, int(port[0]) if port else 8765)
        case ["client", port, method, *arguments]:
            trio.run(ask, int(port), method, [parsed(argument) for argument in arguments])
        case _:
            sys.exit(__doc__)
