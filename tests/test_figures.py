"""The figures of speed on the pages, and the picture: from one run, by a program."""

import re
import subprocess
import xml.etree.ElementTree as ET
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import trio

from benchmarks import _pages, _versions, run
from benchmarks._common import (
    CHUNK,
    HOST,
    RECEIVE,
    SMALL,
    Peer,
    StreamPeer,
    answer,
    arguments,
    together_trio,
)
from benchmarks._common import run as do_work
from benchmarks._picture import draw
from benchmarks._registry import CONTENDERS, IDLE_CPU, SESSION_MEMORY, WORKS
from benchmarks._report import Outcome, Outcomes
from benchmarks.contenders import ours, trio_tcp
from docs.pictures.svg import WIDTH
from trio_muxado import MuxadoStream

ROOT = Path(__file__).parents[1]


DOCUMENT = {
    "when": "2026-11-05T08:09:10+00:00",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "changed": False,
    "machine": {"cpu": "a CPU", "cores": 2, "system": "Linux", "python": "3.11.2"},
    "settings": {"rounds": 3, "seconds": 2.0},
}


def a_run() -> _pages.Run:
    return _pages.Run(DOCUMENT | {"counts": counts()}, outcomes_of_a_run())


def counts() -> dict[str, dict[str, dict[str, float]]]:
    kinds = ("calls, ours", "calls", "task switches", "frames", "transport writes")
    one = {name: float(100 * (place + 1)) for place, name in enumerate(kinds)}
    both = {"request, 1 at once": one, "request, 64 at once": one}
    return {"v1": both, "v2": both}


def outcomes_of_a_run() -> dict[str, Outcomes]:
    """Three rounds of everything, in which each contender is slower than the one before it."""
    outcomes: dict[str, Outcomes] = {}
    for work in WORKS:
        outcomes[work.name] = {}
        for place, contender in enumerate(CONTENDERS):
            if contender.why_not(work):
                continue
            rounds: list[dict[str, float] | None] = [
                {
                    "requests": 1e5 * turn,
                    "bytes": 1e9 * turn,
                    "seconds": 1.0 + place,
                    "p50": 1e-3 * (1 + place),
                    "p99": 2e-3 * (1 + place),
                    "client_cpu": 1.0,
                    "server_cpu": 1.0,
                    "client_memory": 1000.0 * (1 + place),
                    "server_memory": 2000.0 * (1 + place),
                    "beside_bytes": 1e9,
                    "beside_seconds": 1.0,
                    "client_idle_cpu": 0.1,
                    "server_idle_cpu": 0.2,
                }
                for turn in (1, 2, 3)
            ]
            outcomes[work.name][contender.name] = Outcome(rounds)
    return outcomes


def blocks(text: str) -> dict[str, str]:
    found = {block[2]: block[3] for block in _pages.BLOCK.finditer(text)}
    assert len(found) == text.count("<!-- figures:") == text.count("<!-- end of figures -->")
    return found


@pytest.mark.parametrize("page", _pages.PAGES)
def test_a_page_is_filled_in_from_a_run(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    filled = _pages.filled(text, a_run())
    assert filled != text
    assert _pages.filled(filled, a_run()) == filled
    inside = blocks(filled)
    assert inside.keys() <= _pages.TABLES.keys() | _pages.PARAGRAPHS.keys()
    assert "6.0" in inside["readme" if "README" in page else "results"]
    # A run has a figure for every cell, and changes nothing else.
    assert _pages.MISSING not in "".join(inside.values())
    assert _pages.BLOCK.sub("", filled) == _pages.BLOCK.sub("", text)
    for name in inside.keys() & _pages.TABLES.keys():
        columns = len(_pages.TABLES[name][0])
        own = [
            [line.split("|")[: -1 - columns] for line in table[name].splitlines()]
            for table in (blocks(text), inside)
        ]
        assert own[0] == own[1]


def test_every_table_stands_on_a_page() -> None:
    used = [name for page in _pages.PAGES for name in blocks((ROOT / page).read_text("utf-8"))]
    assert set(used) == _pages.TABLES.keys() | _pages.PARAGRAPHS.keys()


@pytest.mark.parametrize("page", _pages.PAGES)
def test_a_page_names_the_commit_of_the_run(page: str) -> None:
    """And says so where the library was not what the commit has."""
    text = (ROOT / page).read_text("utf-8")
    commit = "`0123456789`"
    filled = _pages.filled(text, a_run())
    assert filled.count(commit) == 1
    changed = _pages.Run({**a_run().document, "changed": True}, a_run().outcomes)
    (one,) = (line for line in _pages.filled(text, changed).splitlines() if commit in line)
    assert one not in filled


def test_how_the_run_is_told() -> None:
    assert _pages.source(DOCUMENT) == (
        "Commit `0123456789`, measured on 5 November 2026: CPython 3.11.2 on Linux, 2 cores "
        "(a CPU). 3 rounds; each measurement took 2 s."
    )
    assert _pages.short_source(DOCUMENT) == "Commit `0123456789`, 5 November 2026, CPython 3.11.2."


def test_what_the_figures_mean() -> None:
    """Ours on v1 comes first in the registry, on v2 second; Go v1 is sixth, and Go v2 seventh."""
    cells = [[cell(a_run()) for cell in row] for row in _pages.TABLES["results"]]
    assert cells[0] == ["6.0 (6.0 to 6.0)"]
    assert cells[1] == ["3.5 (3.5 to 3.5)"]
    assert cells[18] == ["3.0 (3.0 to 3.0) and 1.50 (1.50 to 1.50)"]
    assert cells[19] == ["1.00 (1.00 to 1.00) and 1.00 (1.00 to 1.00)"]
    ours, *_ = [[cell(a_run()) for cell in row] for row in _pages.TABLES["requests"]]
    assert ours == ["200,000", "200,000", "5", "5"]
    ours, *_ = [[cell(a_run()) for cell in row] for row in _pages.TABLES["memory"]]
    assert ours == ["1.0", "2.0"]
    ours, *_ = [[cell(a_run()) for cell in row] for row in _pages.TABLES["idle_sessions"]]
    assert ours == ["1.0", "2.0", "10.0", "20.0"]
    switches, *_ = [[cell(a_run()) for cell in row] for row in _pages.TABLES["counts"]]
    assert switches == ["300.0", "300.0"]


def test_a_loss_is_shown_as_one() -> None:
    """Two decimal places below 1, so that nothing is rounded up to a draw."""
    outcomes = outcomes_of_a_run()
    slow: list[dict[str, float] | None] = [{"requests": 99.0, "seconds": 1.0}] * 3
    fast: list[dict[str, float] | None] = [{"requests": 101.0, "seconds": 1.0}] * 3
    outcomes["a64"] |= {"ours-v1": Outcome(slow), "rust": Outcome(fast)}
    run = _pages.Run(DOCUMENT, outcomes)
    assert _pages.one("a64", "v1", "rust")(run) == "0.98"


def test_who_did_not_take_part_has_a_dash() -> None:
    empty, dash = _pages.Run(DOCUMENT, {}), _pages.MISSING
    for name, rows in _pages.TABLES.items():
        for row in rows:
            assert {cell(empty) for cell in row} <= {dash, f"{dash} and {dash}"}, name


@pytest.mark.parametrize("page", _pages.PAGES)
def test_the_pages_have_the_figures_of_the_run(page: str) -> None:
    """As soon as the run that they tell of is in the repository."""
    for source in (path for path in (_pages.SOURCE,) if path.exists()):
        document, outcomes = run.load(source)
        assert re.fullmatch("[0-9a-f]{40}", str(document["commit"]))
        text = (ROOT / page).read_text("utf-8")
        assert _pages.filled(text, _pages.Run(document, outcomes)) == text


def test_the_readme_agrees_with_the_page() -> None:
    """Each of its figures is a median there."""

    def block(page: str, name: str) -> str:
        return blocks((ROOT / page).read_text("utf-8"))[name]

    results = block("docs/performance.md", "results")
    page = set(re.findall(r"\d+(?:\.\d+)?", re.sub(r"\(\d[^)]*\)", "", results)))
    for line in block("README.md", "readme").splitlines()[2:]:
        for cell in line.split("|")[3:-1]:
            assert cell.strip() in page | {_pages.MISSING}, line


FILLED = re.compile(r"<!-- (\w+): \w+ -->\n\n.*?<!-- end of \1 -->", re.DOTALL)
"""A block that a script fills, of whatever name."""
COUNT = r"(?:\b\d[\d.,]*|\b(?:two|three|four|five|six|seven|eight|nine|ten))"
PART = r"(?:half|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|tenths?|twentieths?)"
COST = r"(?:cost|time|CPU time|core|speed|rate|memory|bulk|latency)"
WORK = r"(?:requests?|streams?|sessions?|connections?|messages?|bytes|visitors?)"
LESS = r"(?:faster|slower|more|less|fewer|cheaper|longer)"
SPEED = re.compile(
    rf"(?:{COUNT} times|\btwice) (?:as (?:many|fast|much|long)|the|that|what)\b"
    r"|\b\d[\d.,]* ?(?:µs|us|ms of CPU|[KMG]i?B(?:/s| (?:a|per) \w+))(?!\w)"
    rf"|\b\d[\d.,]* (?:\w+ )?{WORK} (?:a|per) second\b"
    rf"|\b{PART}(?: of)?(?: \w+)? {COST}\b|\b{PART} {LESS}\b"
    rf"|\b\d[\d.,]* ?(?:%|percent|per cent) (?:{LESS}|of (?:a|an|the|its|each) \w+)"
    rf"|\b\d[\d.,]* {LESS}\b"
    rf"|\b(?:slightly|much) {LESS}\b"
)
ALLOWED = {
    # What looks like a figure of speed and is none: a limit, a size, a setting, arithmetic.
    "docs/design.md": (
        "256 KiB on a link of 40 KB/s",
        "if it allows 500 MB per second",
        "rounds of twice the bytes",
        "is repeated after twice the time",
    ),
    "docs/guide.md": (
        # Of the sizes of batches and the times of heartbeats.
        "accepts less than 7 KB/s",
        "the minimum is 3 KB/s on v1. On typed v2 it is 1.5 KB/s",
        "and 6 KB/s if it buffers 128 KiB",
    ),
    "docs/howto/backpressure.md": ("while it allows less than 500 MB/s",),
    "docs/security.md": ("have to leave three times as much",),
    "docs/specification/security.md": ("16 more than the limit", "within twice the window"),
    "docs/specification/v1.md": ("exactly 4 times the number of the two flags",),
    "docs/testing.md": ("# both ways at 100 KB/s",),  # of a link that the page makes
    "docs/which.md": ("50 ms and 10 MB/s in each direction",),
}


def prose(page: Path) -> str:
    """A page without what scripts fill in, in one line."""
    return " ".join(FILLED.sub("", page.read_text("utf-8")).split())


@pytest.mark.parametrize(
    "sentence",
    [
        "It serves 1.25 (v1) and 1.34 times as many requests.",
        "This takes 2.8 µs of CPU time more.",
        "A visitor costs 0.54 to 0.71 ms of CPU time.",
        "It moved 3,561 MB/s.",
        "About 1,600 new connections a second are one core.",
        "An idle session takes 36 KiB a session.",
        "A thousand agents cost 9 % of a core.",
        "It saves about half of the cost of a request.",
        "An interpreter without it needed a fifth more time.",
        "Creating one is a tenth of the cost.",
        "They use about five times the CPU time of another.",
        "2 % less CPU time",
        "v1 is much faster.",
    ],
)
def test_a_figure_of_speed_is_known_when_seen(sentence: str) -> None:
    assert SPEED.search(sentence)


def test_no_figure_of_speed_stands_in_prose() -> None:
    """It would contradict the next run, and nobody would know where it comes from."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        name = str(page.relative_to(ROOT))
        if name in ("CHANGELOG.md", "docs/changelog.md") or "_build" in name:
            continue
        text = prose(page)
        for phrase in ALLOWED.get(name, ()):
            assert phrase in text, f"{name} no longer says {phrase!r}"
            text = text.replace(phrase, "")
        found = [text[max(0, m.start() - 30) : m.end() + 30] for m in SPEED.finditer(text)]
        assert not found, name


async def check_sessions(peer: Peer, args: Namespace) -> None:
    await peer.request()
    result = await do_work(peer, together_trio, args)
    assert all(metric.value(result) >= 0 for metric in IDLE_CPU)
    assert all(isinstance(metric.value(result), float) for metric in SESSION_MEMORY)


def of_sessions(port: int) -> Namespace:
    line = f"client m --sessions --idle 5 --watch 0.1 --port {port}"
    return arguments().parse_args(line.split())


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_our_sessions_are_measured(wire: str) -> None:
    async with trio.open_nursery() as nursery, ours.server(answer) as port:
        args = of_sessions(port)
        args.wire = wire
        async with ours.session(args) as only:
            reporter = StreamPeer(only.open_stream)
            await check_sessions(ours.SessionPeer(args, reporter, nursery), args)
        nursery.cancel_scope.cancel()


async def test_connections_without_a_session_are_measured() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host=HOST)
        (listener,) = await nursery.start(serve)
        args = of_sessions(listener.socket.getsockname()[1])
        async with trio_tcp.connect(args) as peer:
            assert isinstance(peer, trio_tcp.ConnectionPeer)
            await check_sessions(peer, args)
            for stream in peer._held:
                await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("flags, most", [("", RECEIVE), ("--small-reads", len(CHUNK))])
async def test_bulk_is_read_as_the_work_says(flags: str, most: int) -> None:
    limits: set[int] = set()

    async def answer_and_note(stream: MuxadoStream) -> None:
        receive = stream.receive_some

        async def receive_some(max_bytes: int) -> bytes:
            limits.add(max_bytes)
            return await receive(max_bytes)

        await answer(Namespace(receive_some=receive_some, send_all=stream.send_all))

    line = f"client b {flags} --bytes 1000000 --seconds 60"
    async with ours.server(answer_and_note) as port, ours.session_to(port, "v2") as session:
        peer = StreamPeer(session.open_stream)
        result = await do_work(peer, together_trio, arguments().parse_args(line.split()))
    assert result["bytes"] >= 1000000
    assert limits == {SMALL, most}


def test_the_picture_is_drawn_for_both_widths(tmp_path: Path) -> None:
    wide, narrow = draw(a_run().outcomes, CONTENDERS, "where and how. " * 12, tmp_path / "bars.svg")
    assert (wide.name, narrow.name) == ("bars.svg", "bars-narrow.svg")
    shapes = []
    for file in (wide, narrow):
        root = ET.fromstring(file.read_text("utf-8"))
        width, height = (float(root.get(side, "")) for side in ("width", "height"))
        shapes.append((width, height))
        for rect in root.iterfind(".//{*}rect"):
            right = float(rect.get("x", "")) + float(rect.get("width", ""))
            assert right < width
            assert float(rect.get("width", "")) < width / 2  # no slab behind it
        for text in root.iterfind(".//{*}text"):
            assert 0 < float(text.get("y", "")) < height
            if text.get("text-anchor") == "end":  # a name, beside its panel's left edge
                reach = 0.54 * float(text.get("font-size", "")) * len(text.text or "")
                assert float(text.get("x", "")) % WIDTH > reach, text.text
        style = root.findtext("{*}style")
        assert style
        assert "prefers-color-scheme:dark" in style
        assert sum(rect.get("class") == "ours" for rect in root.iterfind(".//{*}rect")) == 8
    assert shapes[0][0] > shapes[1][0]
    assert shapes[0][1] < shapes[1][1]


def test_a_run_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages need it to say what was measured. An unpacked sdist has none."""
    monkeypatch.setattr(_versions, "SOURCE", tmp_path)
    assert _versions.head() == ("unknown", False)

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    library = tmp_path / "trio_muxado" / "__init__.py"
    library.parent.mkdir()
    library.touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert _versions.head() == (git("rev-parse", "HEAD"), False)
    library.write_text("changed = True")
    assert _versions.head() == (git("rev-parse", "HEAD"), True)
