"""Golden bytes: every entry of trio_muxado/vectors, however the bytes are cut.

A decoder reports a GOAWAY and its debug text apart, and a payload in pieces; both are put together
again here, into the vocabulary of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trio_muxado._check.vectors import read
from trio_muxado._protocol.codec import HEADER_SIZE, SYN_FIN, Wire
from trio_muxado._protocol.decoder import Decoder
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import GoAwayReceived, SessionFailed
from trio_muxado._protocol.frames import (
    Data,
    Frame,
    GoAway,
    GoAwayDebug,
    Malformed,
    Rst,
    Syn,
    Unknown,
    WndInc,
)
from trio_muxado._protocol.wire import WIRES

from .driver import V1, V2, End, join

FILES = {wire: read(wire.name) for wire in (V1, V2)}

Entry = dict[str, Any]


def entries(kind: str, condition: Callable[[Entry], bool] = lambda entry: True) -> Any:
    return pytest.mark.parametrize(
        "wire, entry",
        [
            pytest.param(wire, entry, id=f"{wire.name}-{entry['name']}")
            for wire, file in FILES.items()
            for entry in file[kind]
            if condition(entry)
        ],
    )


def raw(entry: Entry) -> bytes:
    return bytes.fromhex(entry["hex"])


def decoder(wire: Wire, entry: Entry) -> Decoder:
    context = entry.get("context", {"alive": [], "next_remote_id": None})

    def knows_stream(stream_id: int, opening: bool) -> bool:
        return stream_id == context["next_remote_id"] if opening else stream_id in context["alive"]

    return Decoder(wire, knows_stream)


def decode(wire: Wire, entry: Entry, *pieces: bytes) -> list[Entry]:
    receiver = decoder(wire, entry)
    return as_entries(wire, (frame for piece in pieces for frame in receiver.feed(piece)))


def as_entries(wire: Wire, frames: Iterator[Frame]) -> list[Entry]:
    """Frames in the words of trio_muxado/vectors/README.md."""
    found: list[Entry] = []
    for frame in join(frames):
        match frame:
            case Syn(stream_id, priority, stream_type, fin):
                found.append(
                    {
                        "frame": "SYN",
                        "stream_id": stream_id,
                        "priority": priority,
                        "type": stream_type,
                        "fin": fin,
                    }
                )
            case Data(stream_id, length, payload, syn, fin):
                assert length == len(payload)
                entry = {
                    "frame": "DATA",
                    "stream_id": stream_id,
                    "payload": payload.hex(),
                    "fin": fin,
                }
                found.append(entry if wire is V1 else entry | {"syn": syn})
                assert wire is V2 or not syn
            case Rst(stream_id, code):
                found.append({"frame": "RST", "stream_id": stream_id, "error_code": code})
            case WndInc(stream_id, increment):
                found.append({"frame": "WNDINC", "stream_id": stream_id, "increment": increment})
            case GoAway(last, code):
                found.append(
                    {"frame": "GOAWAY", "last_stream_id": last, "error_code": code, "debug": ""}
                )
            case GoAwayDebug(debug):
                found[-1]["debug"] = debug.hex()
            case Unknown(frame_type, flags, stream_id, length):
                found.append(
                    {
                        "frame": "UNKNOWN",
                        "type": frame_type,
                        "flags": flags,
                        "stream_id": stream_id,
                        "length": length,
                    }
                )
            case _:
                found.append({"frame": frame})
    return found


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def splits(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((data[:i], data[i:]) for i in range(1, len(data)))


def encode(wire: Wire, frame: Entry) -> bytes:
    match frame["frame"]:
        case "SYN":
            syn = bytearray(wire.syn(frame["stream_id"], frame["priority"], frame["type"]))
            # The encoder has no FIN for SYN, because nothing here may ever send it.
            syn[2] |= SYN_FIN * frame["fin"]
            return bytes(syn)
        case "DATA":
            payload = bytes.fromhex(frame["payload"])
            header = wire.data_header(
                frame["stream_id"], len(payload), fin=frame["fin"], syn=frame.get("syn", False)
            )
            return header + payload
        case "RST":
            return wire.rst(frame["stream_id"], frame["error_code"])
        case "WNDINC":
            return wire.wndinc(frame["stream_id"], frame["increment"])
        case "GOAWAY":
            debug = bytes.fromhex(frame["debug"])
            return wire.goaway(frame["last_stream_id"], frame["error_code"], debug)
    raise AssertionError(frame)


# ---- vectors


@entries("vectors")
def test_a_frame_is_decoded(wire: Wire, entry: Entry) -> None:
    assert decode(wire, entry, raw(entry)) == entry["frames"]


@entries("vectors")
def test_a_frame_is_decoded_byte_by_byte(wire: Wire, entry: Entry) -> None:
    assert decode(wire, entry, *single_bytes(raw(entry))) == entry["frames"]


@entries("vectors")
def test_a_frame_is_decoded_wherever_it_is_split(wire: Wire, entry: Entry) -> None:
    for pieces in splits(raw(entry)):
        assert decode(wire, entry, *pieces) == entry["frames"]


@entries("vectors")
def test_a_frame_takes_nothing_of_the_next(wire: Wire, entry: Entry) -> None:
    for behind in FILES[wire]["vectors"]:
        expected = entry["frames"] + behind["frames"]
        assert decode(wire, entry, raw(entry) + raw(behind)) == expected


@entries("vectors", lambda entry: entry["canonical"])
def test_a_frame_is_encoded_to_these_bytes(wire: Wire, entry: Entry) -> None:
    assert encode(wire, entry["frames"][0]) == raw(entry)


# ---- headers


@entries("headers", lambda entry: entry["header"]["length"] > 0)
def test_a_long_frame_is_known_by_its_header(wire: Wire, entry: Entry) -> None:
    header = entry["header"]
    names = {number: name for name, number in wire.types.items()}
    receiver = decoder(wire, entry)
    frames = receiver.feed(raw(entry))
    match names.get(header["type"]):
        case "DATA":
            syn, fin = bool(header["flags"] & wire.syn_flag), bool(header["flags"] & 1)
            assert frames == [Data(header["stream_id"], header["length"], b"", syn, fin)]
        case "GOAWAY":
            assert frames == []
            assert receiver.feed(bytes(8)) == [GoAway(0, 0)]
        case _:
            assert frames == [
                Unknown(header["type"], header["flags"], header["stream_id"], header["length"])
            ]


@entries("headers", lambda entry: entry["header"]["length"] > 0)
def test_a_long_frame_ends_where_its_header_says(wire: Wire, entry: Entry) -> None:
    left = entry["header"]["length"]
    receiver = decoder(wire, entry)
    receiver.feed(raw(entry))
    piece = b"\xff" * 50_000
    while left:
        receiver.feed(piece[:left])
        left -= len(piece[:left])
    assert receiver.feed(wire.rst(3, 7)) == [Rst(3, 7)]


@entries("headers", lambda entry: entry["name"] == "type-bits-all")
def test_only_five_bits_of_a_v1_type_count(wire: Wire, entry: Entry) -> None:
    message = f"unknown frame type {entry['header']['type']}"
    assert decoder(wire, entry).feed(raw(entry)) == [Malformed(ErrorCode.PROTOCOL_ERROR, message)]


@entries("headers", lambda entry: entry["name"] in ("data-largest", "goaway-largest"))
def test_a_long_header_is_encoded_to_these_bytes(wire: Wire, entry: Entry) -> None:
    name = entry["name"].split("-")[0].upper()
    header = entry["header"]
    encoded = wire.header(name, header["length"], header["flags"], header["stream_id"])
    assert encoded == raw(entry)


# ---- invalid


@entries("invalid")
def test_an_invalid_frame_ends_the_session(wire: Wire, entry: Entry) -> None:
    (failed,) = End(wire).feed(raw(entry))
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode[entry["error"]]


@entries("invalid")
def test_an_invalid_frame_is_refused_as_soon_as_it_is_certain(wire: Wire, entry: Entry) -> None:
    end = End(wire)
    pieces = single_bytes(raw(entry)[: entry["at"]])
    assert end.feed(*pieces[:-1]) == []
    (failed,) = end.feed(pieces[-1])
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode[entry["error"]]


@entries("invalid")
def test_nothing_is_read_behind_an_invalid_frame(wire: Wire, entry: Entry) -> None:
    end = End(wire)
    (failed,) = end.feed(raw(entry) + end.syn(5))
    assert isinstance(failed, SessionFailed)
    assert end.feed(end.syn(7)) == []


@entries("invalid")
def test_what_is_complete_before_an_invalid_frame_counts(wire: Wire, entry: Entry) -> None:
    end = End(wire)
    opened, *_, failed = end.feed(end.syn(3) + end.data(3, b"x") + raw(entry))
    assert type(opened).__name__ == "StreamOpened"
    assert isinstance(failed, SessionFailed)


# ---- sequences


def without_trailing(entry: Entry) -> bytes:
    data, trailing = raw(entry), bytes.fromhex(entry.get("trailing", ""))
    assert data.endswith(trailing)
    return data[: len(data) - len(trailing)]


@entries("sequences")
def test_a_sequence_is_decoded(wire: Wire, entry: Entry) -> None:
    assert decode(wire, entry, without_trailing(entry)) == entry["frames"]


def less_debug(frames: list[Entry]) -> list[Entry]:
    return [frame | {"debug": ""} if frame["frame"] == "GOAWAY" else frame for frame in frames]


@entries("sequences")
def test_a_sequence_is_decoded_byte_by_byte(wire: Wire, entry: Entry) -> None:
    found = decode(wire, entry, *single_bytes(without_trailing(entry)))
    assert found == entry["frames"]


@entries("sequences")
def test_a_sequence_is_decoded_wherever_it_is_split(wire: Wire, entry: Entry) -> None:
    for pieces in splits(without_trailing(entry)):
        assert decode(wire, entry, *pieces) == entry["frames"]


@entries("sequences", lambda entry: "trailing" in entry)
def test_trailing_bytes_report_no_frame_but_an_unknown_one(wire: Wire, entry: Entry) -> None:
    frames = decode(wire, entry, raw(entry))
    expected = len(entry["frames"])
    assert frames[:expected] == entry["frames"]
    for frame in frames[expected:]:
        assert frame["frame"] == "UNKNOWN" or isinstance(frame["frame"], Malformed)


@entries("sequences", lambda entry: entry["frames"][0]["frame"] == "GOAWAY")
def test_a_goaway_is_acted_on_without_a_further_byte(wire: Wire, entry: Entry) -> None:
    assert decode(wire, entry, raw(entry)[:16]) == less_debug(entry["frames"][:1])


@entries("sequences", lambda entry: entry["frames"][0]["frame"] == "GOAWAY")
def test_no_known_goaway_is_a_protocol_error(wire: Wire, entry: Entry) -> None:
    for pieces in ([raw(entry)], single_bytes(raw(entry)), *splits(raw(entry))):
        end = End(wire, client=True)
        for _ in range(2):
            end.open()
        events = end.feed(*pieces)
        assert isinstance(events[0], GoAwayReceived)
        assert not any(isinstance(event, SessionFailed) for event in events)


@entries("sequences", lambda entry: entry["frames"][0]["frame"] != "GOAWAY")
def test_no_known_sequence_is_a_protocol_error(wire: Wire, entry: Entry) -> None:
    for pieces in ([raw(entry)], single_bytes(raw(entry)), *splits(raw(entry))):
        events = End(wire).feed(*pieces)
        assert not any(isinstance(event, SessionFailed) for event in events)


# ---- the files themselves


@pytest.mark.parametrize("wire", FILES)
@pytest.mark.parametrize("kind", ["vectors", "headers", "invalid", "sequences"])
def test_names_are_unique(wire: Wire, kind: str) -> None:
    names = [entry["name"] for entry in FILES[wire][kind]]
    assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize("wire", FILES)
def test_every_frame_type_has_a_vector(wire: Wire) -> None:
    types = {frame["frame"] for entry in FILES[wire]["vectors"] for frame in entry["frames"]}
    assert types >= wire.types.keys()


def test_every_generation_has_a_file() -> None:
    assert {file["wire"] for file in FILES.values()} == set(WIRES)
    assert all(
        len(raw(entry)) >= HEADER_SIZE for file in FILES.values() for entry in file["headers"]
    )
