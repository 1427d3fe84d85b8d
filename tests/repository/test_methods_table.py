"""The table of hyperparameters in docs/methods.md is that of the attributors.

`python tests/repository/test_methods_table.py` prints it anew.
"""

import json
from pathlib import Path

from attriboard import leaderboard
from attriboard.leaderboard.formats import plain

PAGE = Path(__file__).parent.parent.parent / "docs" / "methods.md"
CATALOGUE = Path(leaderboard.__file__).parent / "methods" / "catalogue.json"


def table() -> str:
    lines = [
        "| method | hyperparameter | default | stage | values to try | source of the default |",
        "|---|---|---|---|---|---|",
    ]
    for row in json.loads(CATALOGUE.read_text(encoding="utf-8")):
        own = [hp for hp in row["hyperparameters"] if hp["name"] != "epoch"]  # the same everywhere, and said above it
        for position, hp in enumerate(own):
            name = f"`{row['name']}`" if position == 0 else ""
            grid = [plain(value) for value in hp["grid"]]
            values = ", ".join(grid if len(grid) < 9 else [grid[0], "…", grid[-1]]) or "–"
            lines.append(
                f"| {name} | `{hp['name']}` | {plain(hp['default'])} | {hp['stage']} | {values} | {hp['source']} |"
            )
    return "\n".join(lines)


def test_the_table_of_hyperparameters_is_that_of_the_attributors() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "run: python tests/repository/test_methods_table.py"


if __name__ == "__main__":
    print(table())
