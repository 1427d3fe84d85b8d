"""The records that come with an installation."""

from pathlib import Path

from attriboard.base.paths import leaderboard_folder


def published_results() -> Path:
    """The records that come with this installation: all in a checkout, those on the embedded data set in a wheel."""
    return leaderboard_folder() / "results"


def published_folders() -> list[Path]:
    """Everything that has records in this installation: our own results, and the entries that were handed in."""
    return [folder for folder in (published_results(), leaderboard_folder() / "entries") if folder.is_dir()]
