"""What a session is, a stream's life, a tunnel, and the parts of this library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from .svg import SMALL, WIDTH, Canvas

COLOURS = {3: "green", 5: "blue", 2: "amber"}


def session() -> Canvas:
    canvas = Canvas(
        "A session is one connection between two sides. Streams 3 and 5, opened by the client, and "
        "stream 2, opened by the server, run over it in both directions. On the wire their frames "
        "follow one another.",
        330,
    )
    canvas.box(140, 30, 280, 180, colour="pipe")
    canvas.text(WIDTH / 2, 14, "a session: one connection", colour="soft", size=SMALL)
    canvas.box(8, 30, 112, 180, "client", "your code")
    canvas.box(WIDTH - 120, 30, 112, 180, "server", "your code")
    lanes = [(3, "stream 3"), (5, "stream 5"), (2, "stream 2, by the server")]
    for index, (stream, words) in enumerate(lanes):
        y = 46 + index * 52
        canvas.box(152, y, 256, 44, colour=COLOURS[stream])
        canvas.text(WIDTH / 2, y + 15, words, size=SMALL)
        canvas.path(f"M124 {y + 32}H436", both=True)
    canvas.text(
        WIDTH / 2, 240, "on the wire, one way: frames of all streams", colour="soft", size=SMALL
    )
    frames = [
        ("SYN", 3, 52),
        ("DATA", 3, 82),
        ("DATA", 5, 130),
        ("RST", 2, 52),
        ("DATA", 3, 110),
        ("FIN", 5, 52),
    ]
    x = (WIDTH - sum(width + 6 for _, _, width in frames) + 6) / 2
    for kind, stream, width in frames:
        canvas.box(
            x, 258, width, 54, kind, str(stream), colour=COLOURS[stream], size=SMALL, round=3
        )
        x += width + 6
    return canvas


class Edge(NamedTuple):
    """A step of a stream, by the names of its states and of the input, and how it is drawn."""

    before: str
    input: str
    after: str
    path: str
    words: tuple[str, ...]
    x: float
    y: float
    anchor: str = "middle"


STATES = {  # name: x, y and width of its box, and what it says
    "OPEN": (200, 14, 160, ("open",)),
    "HALF_CLOSED_LOCAL": (8, 150, 190, ("half-closed", "(local)")),
    "HALF_CLOSED_REMOTE": (362, 150, 190, ("half-closed", "(remote)")),
    "CLOSED_LOCAL": (8, 316, 190, ("closed (local)",)),
    "CLOSED": (290, 430, 160, ("closed",)),
}
HEIGHTS = {"HALF_CLOSED_LOCAL": 62, "HALF_CLOSED_REMOTE": 62}
RESETS = ("SEND_RESET", "RECEIVE_RESET", "SESSION_END")
EDGES = (
    Edge(
        "OPEN", "SEND_END", "HALF_CLOSED_LOCAL", "M215 58L120 146", ("we send FIN",), 150, 98, "end"
    ),
    Edge(
        "OPEN",
        "RECEIVE_END",
        "HALF_CLOSED_REMOTE",
        "M345 58L440 146",
        ("FIN comes",),
        412,
        98,
        "start",
    ),
    Edge(
        "OPEN",
        "CLOSE",
        "CLOSED_LOCAL",
        "M262 58C262 220 262 300 202 328",
        ("we close",),
        270,
        180,
        "start",
    ),
    Edge(
        "HALF_CLOSED_LOCAL", "CLOSE", "CLOSED_LOCAL", "M70 216V312", ("we close",), 80, 264, "start"
    ),
    Edge(
        "HALF_CLOSED_LOCAL",
        "RECEIVE_END",
        "CLOSED",
        "M180 216C200 270 320 330 345 426",
        ("FIN", "comes"),
        326,
        318,
        "start",
    ),
    Edge(
        "HALF_CLOSED_REMOTE",
        "SEND_END",
        "CLOSED",
        "M430 216C425 300 412 360 398 426",
        ("we send", "FIN or close"),
        434,
        300,
        "start",
    ),
    Edge("HALF_CLOSED_REMOTE", "CLOSE", "CLOSED", "", (), 0, 0),
    Edge(
        "CLOSED_LOCAL",
        "RECEIVE_END",
        "CLOSED",
        "M120 364C140 420 200 450 286 452",
        ("FIN comes",),
        124,
        420,
        "end",
    ),
)


def stream() -> Canvas:
    canvas = Canvas(
        "A stream's life at one side. It begins open. When this side sends FIN it is half-closed "
        "(local), when FIN comes half-closed (remote), and when both have happened closed. When "
        "the application closes it before FIN has come it is closed (local) until FIN comes. RST "
        "from either side, or the end of the session, leads to closed from everywhere.",
        530,
    )
    canvas.path("M150 36H196", arrow=True)
    canvas.text(142, 36, "SYN", anchor="end")
    for edge in EDGES:
        if edge.path:
            canvas.path(edge.path, arrow=True)
        for index, line in enumerate(edge.words):
            canvas.text(edge.x, edge.y + index * 20, line, size=SMALL, anchor=edge.anchor)
    for name, (x, y, width, words) in STATES.items():
        height = HEIGHTS.get(name, 44)
        canvas.box(x, y, width, height, colour="green" if name == "OPEN" else "blue")
        step = 22
        top = y + height / 2 - step * (len(words) - 1) / 2
        for index, line in enumerate(words):
            canvas.text(x + width / 2, top + index * step, line, bold=index == 0)
    canvas.text(
        WIDTH / 2, 502, "RST, or the end of the session: from any state to closed", size=SMALL
    )
    return canvas


def tunnel() -> Canvas:
    canvas = Canvas(
        "A reverse tunnel. An agent behind NAT dials out to a relay on the internet. For each "
        "visitor the relay opens a stream back over that connection, and the agent connects it to "
        "the service.",
        300,
    )
    canvas.text(134, 20, "the internet", colour="soft", size=SMALL)
    canvas.text(426, 20, "behind NAT", colour="soft", size=SMALL)
    canvas.path("M280 8V92M280 196V244", dashed=True)
    for y in (50, 120, 190):
        canvas.box(8, y, 84, 48, "visitor", colour="amber", size=SMALL)
        canvas.path(f"M92 {y + 24}L140 144", arrow=True)
    canvas.box(144, 80, 76, 128, "relay", colour="green")
    canvas.box(224, 96, 112, 96, colour="pipe")
    for y in (112, 144, 176):
        canvas.path(f"M228 {y}H332", arrow=True)
    canvas.box(340, 80, 76, 128, "agent", colour="green")
    canvas.box(464, 120, 88, 48, "service", colour="blue", size=SMALL)
    for y in (112, 144, 176):
        canvas.path(f"M416 {y}L460 144", arrow=True)
    canvas.path("M378 212V246H182V212", arrow=True)
    canvas.text(WIDTH / 2, 264, "1  the agent dials out: one connection", size=SMALL)
    canvas.text(WIDTH / 2, 286, "2  a stream back for each visitor", size=SMALL)
    return canvas


def architecture() -> Canvas:
    canvas = Canvas(
        "The architecture. Users hold a MuxadoSession and its MuxadoStreams. Below, an Engine has "
        "one nursery with three tasks: FrameReader, FrameWriter and Keepalive, which share the "
        "transport. They and the users' calls go through Steps to the Connection, which does no "
        "I/O. It is made of Session, Streams, Inbound with the Decoder, and Outbox.",
        560,
    )
    left, wide = 8, WIDTH - 16
    canvas.box(left, 8, 264, 52, "MuxadoSession", colour="amber")
    canvas.box(288, 8, 264, 52, "MuxadoStream", colour="amber")
    canvas.path("M140 60V92", arrow=True)
    canvas.path("M420 60V92", arrow=True)
    canvas.box(left, 96, wide, 150)
    canvas.text(WIDTH / 2, 114, "Engine: one nursery, three tasks")
    for index, (name, what) in enumerate(
        [("FrameReader", "bytes in"), ("FrameWriter", "bytes out"), ("Keepalive", "timers")]
    ):
        canvas.box(22 + index * 176, 134, 164, 58, name, what, colour="green", size=SMALL)
    canvas.box(22, 210, 340, 30, "the transport", size=SMALL)
    canvas.path("M104 210V196", arrow=True)
    canvas.path("M280 192V206", arrow=True)
    canvas.path("M280 246V274", arrow=True)
    canvas.box(left, 278, wide, 40, "Steps: step the connection, then wake the writer", size=SMALL)
    canvas.path("M280 318V356", arrow=True)
    canvas.path("M8 337H262M298 337H552", dashed=True)
    canvas.box(left, 360, wide, 190)
    canvas.text(WIDTH / 2, 378, "Connection: no I/O from here on")
    for index, (name, what) in enumerate(
        [
            ("Session", "its state"),
            ("Streams", "all streams, and their ends"),
            ("Inbound", "frames that come"),
            ("Outbox", "what waits to be sent"),
        ]
    ):
        x, y = 22 + index % 2 * 264, 398 + index // 2 * 74
        canvas.box(x, y, 252, 64, name, what, colour="blue", size=SMALL)
    return canvas


def flow(title: str, places: list[tuple[str, str]]) -> Canvas:
    """Boxes in the order in which a byte passes them: three in a row, and back in the next."""
    columns, wide, high, step = 3, 160, 60, 100
    rows = -(-len(places) // columns)
    canvas = Canvas(title, rows * step - (step - high) + 16)
    corners = []
    for index, (name, colour) in enumerate(places):
        row, column = divmod(index, columns)
        if row % 2:
            column = columns - 1 - column
        x, y = 8 + column * 192, 8 + row * step
        canvas.box(x, y, wide, high, name, colour=colour)
        corners.append((row, column, x, y))
    for (row, column, x, y), (next_row, next_column, _, _) in pairwise(corners):
        if row != next_row:
            canvas.path(f"M{x + wide / 2} {y + high}v{step - high - 4}", arrow=True)
        elif next_column > column:
            canvas.path(f"M{x + wide} {y + high / 2}h28", arrow=True)
        else:
            canvas.path(f"M{x} {y + high / 2}h-28", arrow=True)
    return canvas


def way(title: str, names: str, colours: str) -> Callable[[], Canvas]:
    """A flow from names and the first letters of their colours."""
    of = {"a": "amber", "g": "green", "b": "blue", "p": "pipe"}
    places = list(zip(names.split(), [of[letter] for letter in colours], strict=True))
    return lambda: flow(f"{title}: {', '.join(names.split())}", places)


SCENES = {
    "session": session,
    "stream": stream,
    "tunnel": tunnel,
    "architecture": architecture,
    "byte-in": way(
        "A byte on its way in passes",
        "transport FrameReader Decoder Inbound events "
        "ReceiveChannel channel receive_some application",
        "pgbbbggaa",
    ),
    "byte-out": way(
        "A byte on its way out passes",
        "application send_all Connection ByteQueue Scheduler "
        "Outbox FrameWriter BatchSender transport",
        "aabbbbggp",
    ),
}
