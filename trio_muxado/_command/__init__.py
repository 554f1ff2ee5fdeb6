"""The command ``trio-muxado``, for those who have installed the extra ``cli``.

One module a command, which ``group.py`` names and imports when it is called for.  What all of them
share: ``options.py`` (addresses, TLS), ``configuration.py`` (the TOML file), ``ending.py`` (Ctrl-C,
errors, exit codes) and ``output.py`` (tables).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .stderr import replace_stderr


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; the arguments are the process's own if they are None."""
    _prepare_standard_streams()
    replace_stderr()
    try:
        from .group import commands
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.stderr.write(
            "trio-muxado needs click: python -m pip install 'trio_muxado[cli]' installs it\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:  # which a command says in the same words
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    commands.main(arguments)


def _prepare_standard_streams() -> None:
    """Have all three, and an output that takes any text, as the error stream does.

    A process may be started without some: then a socket would get the number of one, and what a
    library prints would go to its peer.  And where a terminal or a file is not UTF-8, a peer's text
    must not end the command.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free, which is the one that is missing.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", closefd=False))
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
