"""`make release`: a small wheel that works in an empty environment, with bundles from the folder beside it."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URL = "https://bundles.example.org/v1"
MAIN = "import sys; from attriboard.cli import main; sys.exit(main())"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the last commit."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    binaries = f"BIN={Path(sys.executable).parent}"
    subprocess.run(["make", "-o", "setup", "release", f"URL={URL}", f"DIST={folder}", binaries], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and, of everything else that is installed here, what it depends on."""
    import torch

    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    (wheel,) = dist.glob("*.whl")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-index", "--target", str(site))
    subprocess.run([sys.executable, *pip, str(wheel)], check=True)
    (site / "others.pth").write_text(str(Path(torch.__file__).parents[1]))  # after this folder on the path
    return folder / "bin" / "python"


def attriboard(python: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"ATTRIBOARD_CACHE": str(folder / "cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [python, "-c", MAIN, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_the_wheel_is_small_and_lists_every_bundle_with_its_url(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.stat().st_size <= 12_000_000
    with zipfile.ZipFile(wheel) as packed:
        listed = packed.read("attriboard/leaderboard/groundtruth/registry.json")
        names = {Path(name).name for name in packed.namelist() if name.endswith(".safetensors")}
    assert names == {"digits_mlp-groundtruth.safetensors", "digits_mlp-checkpoints.safetensors"}
    assert listed == (dist / "registry.json").read_bytes()
    for entry in json.loads(listed)["bundles"]:
        assert entry["urls"] == [f"{URL}/{entry['file']}"]
        assert (dist / "bundles" / entry["file"]).stat().st_size == entry["bytes"]


def test_demo_and_board_need_nothing_but_the_wheel(python: Path, tmp_path: Path) -> None:
    assert str(python.parents[1]) in subprocess.check_output(
        [python, "-c", "import attriboard; print(attriboard.__file__)"], text=True, cwd=tmp_path
    )
    assert "page: " in attriboard(python, tmp_path, "demo", "--out", "demo")
    assert (tmp_path / "demo" / "site" / "index.html").is_file()
    attriboard(python, tmp_path, "board", "build", "--out", "site")
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.data
def test_other_bundles_come_from_the_folder_of_the_release(dist: Path, python: Path, tmp_path: Path) -> None:
    attriboard(python, tmp_path, "groundtruth", "pull", "mnist_mlp", "--from", str(dist / "bundles"))
    run = json.loads(attriboard(python, tmp_path, "run", "mnist_mlp", "grad_dot", "--json"))
    assert (run["status"], run["attributor"]["name"]) == ("ok", "grad_dot")
