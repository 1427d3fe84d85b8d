"""The direction of imports, as ARCHITECTURE.md draws it: rooms on floors, arrows downward only."""

import ast
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "attriboard": ROOT / "benchmark",
    "attriboard.tasks": ROOT / "tasks",
    "attriboard.attributors": ROOT / "attributors",
    "attriboard.leaderboard": ROOT / "leaderboard",
}
FLOORS = {
    "cli": 8,
    "checking": 7,
    "": 7,  # attriboard/__init__.py, the Python interface
    "evaluation": 6,
    "attribution": 5,
    "leaderboard": 5,
    "groundtruth": 4,
    "attributors": 4,
    "toolkit": 3,
    "tasks": 3,
    "retraining": 3,
    "contracts": 2,
    "scoring": 2,
    "records": 2,
    "base": 1,
}
# The one module that may know concrete tasks and attributors.
CATALOG = "attriboard.evaluation.catalog"
# Code that others copy and extend sees contracts and numerics alone.
PLUGINS = {
    "attriboard.tasks": {"attriboard.base", "attriboard.contracts", "attriboard.tasks"},
    "attriboard.attributors": {
        "attriboard.base", "attriboard.contracts", "attriboard.toolkit", "attriboard.attributors",
    },
}  # fmt: skip


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
    stubs = {"attriboard.errors", "attriboard.cards"}  # the short names
    assert used | stubs == packages


def test_of_bundles_the_wheel_has_those_of_the_embedded_data_set_alone():
    """By the patterns; tests of a whole release take minutes."""
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    names = {path.name for path in (ROOT / "leaderboard" / "groundtruth").glob("*.safetensors")}
    names |= {"digits_mlp-start.safetensors", "wikitext2_gpt2_small-start.safetensors"}
    packed = {n for n in names if any(fnmatch(f"groundtruth/{n}", p) for p in patterns["attriboard.leaderboard"])}
    assert packed == {"digits_mlp-groundtruth.safetensors", "digits_mlp-checkpoints.safetensors"}


def room(name: str) -> str:
    first = name.split(".")[1] if "." in name else ""
    return first if first in FLOORS else ""


def test_every_room_has_a_floor():
    assert {room(name) for name, _ in modules()} == set(FLOORS)
    assert {name.split(".")[1] for name, _ in modules() if "." in name} <= set(FLOORS)


def test_the_root_of_the_engine_has_folders_alone():
    folders = {path.name for path in FOLDERS["attriboard"].iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.name for path in FOLDERS["attriboard"].iterdir() if path.is_file()}
    assert (len(folders), files) == (11, {"__init__.py", "py.typed"})


def test_imports_go_downward_only():
    upward = {
        (name, imported)
        for name, path in modules()
        for imported in imports(path)
        if within(imported, {"attriboard"})
        and room(imported) != room(name)
        and FLOORS[room(imported)] >= FLOORS[room(name)]
    }
    assert upward == set()


@pytest.mark.parametrize("package", sorted(PLUGINS))
def test_plugins_import_contracts_and_numerics_alone(package):
    mine = [(name, path) for name, path in modules() if within(name, {package})]
    assert mine
    for name, path in mine:
        ours = {i for i in imports(path) if within(i, {"attriboard"}) and i != "attriboard"}
        assert {i for i in ours if not within(i, PLUGINS[package])} == set(), name


def test_only_the_catalog_knows_concrete_tasks_and_attributors():
    for name, path in modules():
        if not within(name, {*PLUGINS, CATALOG}):
            assert {i for i in imports(path) if within(i, set(PLUGINS))} == set(), name


@pytest.mark.parametrize(
    "statement",
    [
        "import attriboard",
        "import attriboard.cli",
        "import attriboard.records.files",
        "import attriboard.leaderboard.board",
        "import attriboard.scoring.lds",
        "import attriboard.groundtruth.bundle",
        "import attriboard.evaluation.catalog",
        "import attriboard.evaluation.selection, attriboard.evaluation.sweeps, attriboard.evaluation.selection_cost",
    ],
)
def test_import_does_not_load_torch(statement):
    code = f"{statement}\nimport sys\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_graded_run_loads_torch_in_the_attributors_process_only(tmp_path):
    code = (
        "import sys; from attriboard.cli import main\n"
        f"sys.argv = ['attriboard', 'run', 'digits_mlp', 'random', '--out', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
    assert list(tmp_path.rglob("*.json"))


def test_no_two_files_of_tests_share_a_name():
    """pytest imports them as top-level modules, and refuses the second of a name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
