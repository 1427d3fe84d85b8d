"""Commands in this process, by what they print as JSON."""

import json
from typing import Any

import pytest


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The document that `attriboard ARGUMENTS --json` prints; the exit code is 2 where it is an error, else 0."""
    from attriboard.cli.app import app

    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app([*map(str, arguments), "--json"], prog_name="attriboard")
    out = json.loads(capsys.readouterr().out)
    assert end.value.code == (2 if "error" in out else 0), out
    return out
