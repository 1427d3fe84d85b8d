"""The template for new attributors is a valid one, and is graded like any other."""

from pathlib import Path

import torch

from attriboard.attribution.plugins import load_plugin_file
from attriboard.attributors.grad_dot import GradDot
from attriboard.checking.conformance import Subject, failures, small_context
from attriboard.checking.files import check_file
from attriboard.contracts.attributor import Attributor, Context

TEMPLATE = Path(__file__).parent.parent.parent / "docs" / "my_method.py"


def test_the_template_passes_the_conformance_suite() -> None:
    assert check_file(TEMPLATE).errors == ()


def test_the_template_computes_what_it_says() -> None:
    method = load_plugin_file(TEMPLATE, Attributor, "attributor")
    assert method.name == TEMPLATE.stem
    context = small_context()
    actual, expected = Subject(method, context, {"power": 0.0}).scores(), Subject(GradDot, context).scores()
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5


def test_one_exception_is_said_once_with_the_authors_frames() -> None:
    class Broken(Attributor):
        name = "broken"

        def fit(self, context: Context) -> None:
            raise ValueError("too wide")

        def score(self, state: None) -> torch.Tensor:
            raise AssertionError("never reached")

    (found,) = failures(Subject(Broken, small_context()))
    first, *frames = found["message"].splitlines()
    assert first == "raised ValueError: too wide"
    assert any("test_template.py" in line and line.endswith("in fit") for line in frames)
    assert not [line for line in frames if "conformance.py" in line]
