"""The command line: `attriboard …`.

Each module holds one family of commands. They import what they need when they run, so that `attriboard --help`
answers at once.
"""

from attriboard.cli.app import app

__all__ = ["main"]


def main() -> None:
    """Entry point of the `attriboard` command."""
    app()
