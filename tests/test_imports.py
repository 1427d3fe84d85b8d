"""The direction of imports, as ARCHITECTURE.md draws it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "attriboard": ROOT / "benchmark",
    "attriboard.tasks": ROOT / "tasks",
    "attriboard.attributors": ROOT / "attributors",
    "attriboard.leaderboard": ROOT / "leaderboard",
}
CONTRACTS = {
    "attriboard.contracts",
    "attriboard.errors",
    "attriboard.cards",
    "attriboard.canonical",
    "attriboard.files",
}
ALLOWED = {
    "attriboard.tasks": {*CONTRACTS, "attriboard.tasks"},
    "attriboard.attributors": {*CONTRACTS, "attriboard.toolkit", "attriboard.attributors"},
    "attriboard.toolkit": {*CONTRACTS, "attriboard.toolkit"},
    "attriboard.scoring": {"attriboard.errors", "attriboard.scoring"},
    "attriboard.leaderboard": {
        "attriboard.records",
        "attriboard.record_model",
        "attriboard.errors",
        "attriboard.canonical",
        "attriboard.cards",
        "attriboard.documents",
        "attriboard.headers",
        "attriboard.verifications",
        "attriboard.groundtruth.registry",
        "attriboard.leaderboard",
    },
}
# The only modules that may know concrete tasks and attributors.
KNOWS_EVERYTHING = {"attriboard.catalog", "attriboard.cli"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append((".".join([package, *parts]).removesuffix(".__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_every_module_is_in_the_wheel():
    import tomllib

    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    used = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules()}
    assert used == packages


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_package_imports_only_what_it_may(package):
    mine = [(name, path) for name, path in modules() if within(name, {package})]
    assert mine
    for name, path in mine:
        ours = {i for i in imports(path) if within(i, {"attriboard"}) and i != "attriboard"}
        assert {i for i in ours if not within(i, ALLOWED[package])} == set(), name


def test_only_the_catalogue_and_the_command_line_know_concrete_tasks_and_attributors():
    concrete = {"attriboard.tasks", "attriboard.attributors"}
    for name, path in modules():
        if not within(name, {*concrete, *KNOWS_EVERYTHING}):
            assert {i for i in imports(path) if within(i, concrete)} == set(), name


@pytest.mark.parametrize(
    "statement",
    [
        "import attriboard",
        "import attriboard.cli",
        "import attriboard.records",
        "import attriboard.leaderboard.board",
        "import attriboard.scoring.lds",
        "import attriboard.groundtruth.bundle",
        "import attriboard.catalog",
    ],
)
def test_import_does_not_load_torch(statement):
    code = f"{statement}\nimport sys\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
