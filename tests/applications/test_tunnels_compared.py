"""A round of the benchmark of tunnels: every request is answered, through ours and `ssh -R`."""

from collections.abc import Callable

import pytest

from benchmarks import tunnels
from benchmarks._tunnels import KINDS

pytestmark = pytest.mark.applications


def test_a_round(program: Callable[[str], str]) -> None:
    for name in ("go", "redis-server", "sshd", "wrk"):
        program(name)
    kinds = [kind for kind in KINDS if kind.name != tunnels.BORE]  # cargo takes minutes to build it
    results = tunnels.measure(kinds, rounds=1)["results"]
    for load, found in results.items():
        for kind, (figures,) in found.items():
            assert figures["requests"] > 0, (load, kind)
            assert not figures.get("errors"), (load, kind)
            is_direct = kind == tunnels.DIRECT
            assert is_direct or min(figures["relay_cpu"], figures["agent_cpu"]) > 0, (load, kind)
