"""The version of AttriBoard: `pyproject.toml`, records and `attriboard --version` read it here."""

VERSION = "0.2.0"
