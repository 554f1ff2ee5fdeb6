"""Send files, all at once over one connection, with a progress bar for each.

    python file_transfer.py receive FOLDER [PORT]
    python file_transfer.py send PORT FILE ...

Each file is a stream: a line of JSON with name, size and digest, and then the bytes. A file appears
in the folder only when all of it has arrived and the digest is right. The progress bars need rich,
which `trio_muxado[demo]` brings.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import trio
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

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
PIECE = 64 * 1024
LONGEST_HEADER = 4096

# The application's own codes.
BAD_HEADER, BAD_DIGEST = 16, 17


# ---- receiving


async def receive_header(stream: MuxadoStream) -> tuple[dict[str, Any], bytes]:
    """Return the first line, and the bytes that came with it."""
    data = b""
    while b"\n" not in data:
        chunk = await stream.receive_some()
        data += chunk
        if not chunk or len(data) > LONGEST_HEADER + PIECE:
            raise ValueError("no header")
    line, _, rest = data.partition(b"\n")
    header = json.loads(line)
    name = header["name"]
    if not isinstance(name, str) or name != PurePosixPath(name).name or name in ("", ".", ".."):
        raise ValueError("a name must not lead anywhere else")
    return header, rest


async def receive_file(folder: Path, stream: MuxadoStream) -> None:
    """Write one file. An incomplete one leaves nothing behind."""
    try:
        header, rest = await receive_header(stream)
        name, size, expected = header["name"], int(header["size"]), header["sha256"]
    except (ValueError, KeyError, TypeError):
        await stream.reset(BAD_HEADER)
        return
    handle, part = tempfile.mkstemp(dir=folder, prefix=".part-")
    try:
        digest, count = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as file:
            chunk = rest or await stream.receive_some()
            while chunk:
                digest.update(chunk)
                count += len(chunk)
                # Disks can be slow, and nothing else must wait for them.
                await trio.to_thread.run_sync(file.write, chunk)
                if count > size:
                    break
                chunk = await stream.receive_some()
        if count != size or digest.hexdigest() != expected:
            await stream.reset(BAD_DIGEST)
            return
        await trio.Path(part).replace(folder / name)
    finally:
        with trio.CancelScope(shield=True):
            await trio.Path(part).unlink(missing_ok=True)
    await stream.send_all(b"ok")
    print("received", name, size, "bytes", flush=True)


async def handle_stream(folder: Path, stream: MuxadoStream) -> None:
    """Keep one file, such as one with a name that can't be used, from ending the others."""
    try:
        await receive_file(folder, stream)
    except MuxadoError:
        raise  # the stream or its session has ended: serve_streams deals with it
    except Exception:
        logging.exception("a file could not be received")
        await stream.reset(ErrorCode.INTERNAL_ERROR)


async def receive(folder: Path, port: int) -> None:
    """Receive files until interrupted."""

    async def handle_session(session: MuxadoSession) -> None:
        await session.serve_streams(partial(handle_stream, folder))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_muxado, handle_session, port, host=HOST))
        print("listening on port", listeners[0].socket.getsockname()[1], flush=True)


# ---- sending


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


async def send_file(session: MuxadoSession, path: Path, progress: Progress) -> None:
    """Send one file. `send_all` waits while the receiver does, so the bar shows its pace."""
    size = (await trio.Path(path).stat()).st_size
    bar = progress.add_task(path.name, total=size)
    digest = await trio.to_thread.run_sync(digest_of, path)
    header = {"name": path.name, "size": size, "sha256": digest}
    async with await session.open_stream() as stream:
        await stream.send_all(json.dumps(header).encode() + b"\n")
        with path.open("rb") as file:
            read: partial[bytes] = partial(read_piece, file)
            while piece := await trio.to_thread.run_sync(read):
                await stream.send_all(piece)
                progress.advance(bar, len(piece))
        await stream.send_eof()
        try:
            answer = b"".join([chunk async for chunk in stream])
        except StreamResetError as error:
            answer = f"refused, code {error.code}".encode()
    progress.update(bar, description=f"{path.name}: {answer.decode()}")


def read_piece(file: IO[bytes]) -> bytes:
    """Read a piece, in a thread."""
    return file.read(PIECE)


async def send(port: int, paths: list[Path]) -> None:
    """Send all files at once."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns) as progress:
        async with open_muxado_session(HOST, port) as session, trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(send_file, session, path, progress)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive", folder, *port]:
            trio.run(receive, Path(folder), int(port[0]) if port else 8765)
        case ["send", port, *paths] if paths:
            trio.run(send, int(port), [Path(path) for path in paths])
        case _:
            sys.exit(__doc__)
