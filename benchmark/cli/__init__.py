"""The command line: `attriboard …`.

Each module holds one family of commands. They import what they need when they run, so that `attriboard --help`
answers at once.
"""

import sys
from io import TextIOWrapper

from attriboard.cli.app import app


def main() -> None:
    """Entry point of the `attriboard` command."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error does; a result is never lost to "…"
    app()
