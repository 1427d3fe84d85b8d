"""An installed package adds an attributor with an entry point, and is scored like the built-in ones."""

import os

import pytest

METHOD = '''
import torch
from attriboard import Attributor, Hyperparameter


class Ones(Attributor):
    """Scores that say nothing but one thing."""

    name = "ones_and_two"
    paper = "arXiv 0000.00000"
    hyperparameters = (Hyperparameter("value", 1.0, source="this package", stage="score", grid=(1.0, 2.0)),)

    def fit(self, context):
        return torch.ones(len(context.test), len(context.train))

    def score(self, state, value):
        scores = state.clone()
        scores[:, 0] = 1 + value
        return scores
'''


@pytest.fixture
def site(tmp_path):
    """A folder like site-packages, with one good method and one that does not import."""
    folder = tmp_path / "site packages"
    information = folder / "third_party-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[attriboard.attributors]\nones_and_two = third_party:Ones\nbroken_one = third_party_broken:Method\n"
    )
    (folder / "third_party.py").write_text(METHOD, encoding="utf-8")
    (folder / "third_party_broken.py").write_text("raise RuntimeError('needs a license')\n")
    return folder


def test_entry_points_are_listed_and_run(shell, site, tmp_path):
    environment = os.environ | {"PYTHONPATH": site.name}  # relative: the attributor's process must find it too
    listed = shell("attributors", "--json", env=environment)
    assert listed.code == 0
    (document,) = [d for d in listed.document if d["name"] == "ones_and_two"]
    assert document["hyperparameters"][0]["source"] == "this package"
    assert "left out: attributor 'broken_one': cannot import third_party_broken:Method: RuntimeError" in listed.err

    done = shell("run", "digits_mlp", "ones_and_two", "--hp", "value=3", "--out", "out", "--json", env=environment)
    assert done.code == 0, done.err
    assert done.document["hyperparameters"] == {"value": 3.0}
    assert done.document["record"].startswith("out/digits_mlp/ones_and_two/")
    assert '"origin": "entry_point"' in (tmp_path / done.document["record"]).read_text()
