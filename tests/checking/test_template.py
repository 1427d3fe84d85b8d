"""The template for new attributors is a valid one, and is graded like any other."""

from pathlib import Path

from attriboard.attribution.plugins import load_plugin_file
from attriboard.attributors.grad_dot import GradDot
from attriboard.checking.conformance import Subject, small_context
from attriboard.checking.files import check_file
from attriboard.contracts.attributor import Attributor

TEMPLATE = Path(__file__).parent.parent.parent / "docs" / "my_method.py"


def test_the_template_passes_the_conformance_suite() -> None:
    assert check_file(TEMPLATE).errors == ()


def test_the_template_computes_what_it_says() -> None:
    method = load_plugin_file(TEMPLATE, Attributor, "attributor")
    assert method.name == TEMPLATE.stem
    context = small_context()
    actual, expected = Subject(method, context, {"power": 0.0}).scores(), Subject(GradDot, context).scores()
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5
