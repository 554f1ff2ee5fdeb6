"""The command ``trio-muxado``, for those who have installed the extra ``cli``.

One module a command, which ``group.py`` names and imports when it is called for.  What all of them
share: ``options.py`` (addresses, TLS), ``configuration.py`` (the TOML file), ``ending.py`` (Ctrl-C,
errors, exit codes) and ``output.py`` (tables).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; the arguments are the process's own if they are None."""
    try:
        from .group import commands
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.stderr.write(
            "trio-muxado needs click: python -m pip install 'trio_muxado[cli]' installs it\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    commands.main(arguments)
