"""Selection in the attributor's process: whose spectrum, which refusals, and what a plugin cannot get at."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import selecting
import tiny
import torch
from selecting import GRID, write, write_ridge
from tiny import Published

from attriboard.attribution import choosing
from attriboard.attribution.choosing import Chooser
from attriboard.attribution.context import build_context
from attriboard.attribution.job import Donated, Selected
from attriboard.attribution.plugins import code_sha256
from attriboard.attributors.if_cg import IFCG
from attriboard.attributors.iffim import IFFIM
from attriboard.base.errors import InputError, NotApplicableError, UnknownNameError
from attriboard.contracts.attributor import Attributor, Context, Hyperparameter
from attriboard.contracts.selector import Choice
from attriboard.evaluation.catalog import attributor_spec, selector_names, selector_spec, spectrum_donors
from attriboard.toolkit.regularization import pick_by_xi


@pytest.fixture(scope="module")
def context(published: Published) -> Context:
    return build_context(published.task, published.checkpoints, seed=3)


def choose(
    published: Published,
    context: Context,
    method: type[Attributor],
    selectors: Sequence[str | Path],
    *,
    donor: type[Attributor] | None = IFFIM,
    known: Sequence[Donated] = (),
    candidates: dict[str, tuple[float, ...]] | None = None,
    **values: Any,
) -> list[Selected]:
    """Fit a method in this process and let selectors choose."""
    attributor = method()
    configuration = method.configure(values)
    state = attributor.fit(context, **method.stage(configuration, "fit"))
    loaded = [selector_spec(name).load_selector()() for name in selectors]
    chooser = Chooser(loaded, published.task.card, context, attributor, donor, known, candidates or {})
    return chooser.choose(configuration, state)


def fisher_pick(context: Context) -> float:
    """λ by ξ on the calibration points of IFFIM's spectrum, over GRID."""
    attributor = IFFIM()
    state = attributor.fit(context, **IFFIM.stage(IFFIM.configure({}), "fit"))
    from attriboard.scoring.split import split_test_points

    points = split_test_points(tiny.N_TEST, 0.2, 0).calibration
    spectra = [spectrum.at(points) for spectrum in attributor.spectrum(state)]
    return float(pick_by_xi(spectra, GRID).values["regularization"] or 0)


@pytest.mark.parametrize(("name", "stage"), [("regularization", "score"), ("regularization", "fit")])
def test_method_without_a_spectrum_gets_the_lambda_of_the_fisher_spectrum(
    published: Published, context: Context, tmp_path: Path, name: str, stage: str
) -> None:
    method = attributor_spec(write_ridge(tmp_path, name=name, stage=stage)).load_attributor()
    (choice,) = choose(published, context, method, ["surrogate"], **{name: 1.0})
    assert choice.reason is None
    assert choice.transferred
    assert choice.hyperparameter == name
    assert choice.values == {name: fisher_pick(context)}
    assert choice.candidates == GRID


def test_method_that_inverts_the_hessian_gets_the_lambda_of_the_hessian(published: Published, context: Context) -> None:
    donors = {curvature: spec.load_attributor() for curvature, spec in spectrum_donors().items()}
    assert donors == {"fisher": IFFIM, "hessian": IFCG}
    lissa = attributor_spec("if_lissa").load_attributor()
    candidates = {"regularization": GRID}
    values = {"recursion_depth": 2, "scaling": 1e6}
    donor = donors[lissa.curvature]
    (given,) = choose(published, context, lissa, ["surrogate"], donor=donor, candidates=candidates, **values)
    (own,) = choose(published, context, IFCG, ["surrogate"], candidates=candidates)
    assert (given.transferred, own.transferred) == (True, False)
    assert given.values == own.values
    assert given.criterion == pytest.approx(own.criterion, rel=1e-4)


def test_seconds_of_a_transferred_choice_include_the_donors_fit(
    published: Published, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = attributor_spec(write_ridge(tmp_path)).load_attributor()
    import time

    fit = IFFIM.fit

    def slow(self: IFFIM, *args: Any, **values: Any) -> Any:
        time.sleep(0.3)
        return fit(self, *args, **values)

    monkeypatch.setattr(IFFIM, "fit", slow)
    surrogate, default = choose(published, context, method, ["surrogate", "default"])
    assert surrogate.seconds > 0.3
    assert default.seconds < 0.3
    assert not default.transferred


def test_method_with_its_own_spectrum_uses_that(published: Published, context: Context) -> None:
    (choice,) = choose(published, context, IFFIM, ["surrogate"], candidates={"regularization": GRID})
    assert not choice.transferred
    assert choice.values == {"regularization": fisher_pick(context)}


def test_every_refusal_is_a_choice_with_a_reason(published: Published, context: Context, tmp_path: Path) -> None:
    plain = attributor_spec(write(tmp_path / "plain.py", selecting.PLAIN)).load_attributor()
    names = selector_names()
    by_name = {choice.selector: choice for choice in choose(published, context, plain, names)}
    assert by_name.pop("default").reason is None
    assert by_name.pop("effective_dimension").reason == (
        "not_applicable: the method has no spectrum, and no regularization that one of another method could be for"
    )
    assert {choice.reason for choice in by_name.values()} == {
        "not_applicable: the method has no regularization to choose"
    }


def test_without_a_donor_only_selectors_that_need_no_spectrum_choose(
    published: Published, context: Context, tmp_path: Path
) -> None:
    method = attributor_spec(write_ridge(tmp_path)).load_attributor()
    choices = choose(published, context, method, selector_names(), donor=None)
    assert {c.selector for c in choices if c.reason is None} == {"default", "training_horizon", "random_grid"}
    assert not any(c.transferred for c in choices)


ASKING = """
from attriboard.contracts import Choice, Selector

class Asking(Selector):
    name = "asking"
    needs_spectrum = False
    needs_gradient_squares = {asks}

    def select(self, evidence):
        return Choice({{}}, note=repr(sorted(evidence.gradient_squares.items())))
"""


def test_a_selector_that_asks_gets_the_mean_squared_gradients_of_one_run_by_epoch(
    published: Published, context: Context, tmp_path: Path
) -> None:
    path = write(tmp_path / "asking.py", ASKING.format(asks=True))
    (choice,) = choose(published, context, IFFIM, [path])
    first, loss = context.checkpoints[0], context.functional(context.loss)
    expected = []
    for model in context.checkpoints:
        if (model.seed, model.indices is None) == (first.seed, first.indices is None):
            exact = {name: value.double() for name, value in model.parameters.items()}
            rows = zip(context.train.inputs.double(), context.train.targets, strict=True)
            gradients = [torch.func.grad(loss)(exact, x, y) for x, y in rows]
            squares = [sum(float(part.square().sum()) for part in gradient.values()) for gradient in gradients]
            expected.append((model.epoch, sum(squares) / len(squares)))
    found = ast.literal_eval(choice.note)
    assert [epoch for epoch, _ in found] == [epoch for epoch, _ in sorted(expected)]
    assert len(found) > 1
    assert [value for _, value in found] == pytest.approx([value for _, value in sorted(expected)], rel=1e-5)
    quiet = write(tmp_path / "quiet.py", ASKING.format(asks=False).replace("asking", "quiet"))
    assert choose(published, context, IFFIM, [quiet])[0].note == "[]"


def test_gradients_that_cannot_be_had_refuse_only_the_selector_that_asks(
    published: Published, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no gradients")

    monkeypatch.setattr(choosing, "squared_lengths", fail)
    path = write(tmp_path / "asking.py", ASKING.format(asks=True))
    asking, other = choose(published, context, IFFIM, [path, "surrogate"], candidates={"regularization": GRID})
    assert asking.reason == "not_applicable: RuntimeError: no gradients"
    assert other.reason is None


def test_an_empty_grid_refuses_only_selectors_of_candidates(
    published: Published, context: Context, tmp_path: Path
) -> None:
    method = attributor_spec(write_ridge(tmp_path, grid=())).load_attributor()
    choices = choose(published, context, method, selector_names())
    assert {c.selector for c in choices if c.reason is None} == {
        "default",
        "mean_eigenvalue",
        "mean_eigenvalue_10",
        "training_horizon",
    }
    reasons = {c.reason for c in choices} - {None}
    assert all(reason and reason.startswith("not_applicable: ") for reason in reasons)
    assert any("no positive number to choose from" in str(reason) for reason in reasons)


class Unfitted(IFFIM):
    """A donor that must not be fitted."""

    def fit(self, context: Context, **values: Any) -> Any:
        raise AssertionError("fitted although nobody needs its spectrum")


def test_a_donor_whose_choices_are_known_is_not_fitted(published: Published, context: Context, tmp_path: Path) -> None:
    names = ["surrogate", "gcv"]
    own = choose(published, context, IFFIM, [*names, "default"], candidates={"regularization": GRID})
    known = [
        Donated(
            donor=IFFIM.name,
            code_sha256=code_sha256(Unfitted),
            hyperparameters=IFFIM.configure({}),
            choice=Choice({"regularization": made.values.get("regularization", 7.0)}, made.criterion, made.objective),
            **made.model_dump(include={"selector", "candidates", "seconds"}),
        )
        for made in own
    ]
    method = attributor_spec(write_ridge(tmp_path)).load_attributor()
    found = choose(published, context, method, [*names, "default"], donor=Unfitted, known=known)
    assert [choice.reason for choice in found] == [None, None, None]
    assert [choice.transferred for choice in found] == [True, True, False]
    assert 7.0 not in found[-1].values.values()  # what the default of a donor is does not matter
    for given, made in zip(found[:-1], own[:-1], strict=True):
        assert (given.values, given.criterion, given.objective) == (made.values, made.criterion, made.objective)
        assert "spectrum of iffim" in given.note
        assert given.seconds >= made.seconds
    for change in (
        {"code_sha256": "0" * 64},
        {"candidates": GRID[1:]},
        {"hyperparameters": IFFIM.configure({"projection_dim": 8})},
        {"selector": "gcv"},
    ):
        others = [one.model_copy(update=change) for one in known]
        (refused,) = choose(published, context, method, ["surrogate"], donor=Unfitted, known=others)
        assert refused.reason == "not_applicable: AssertionError: fitted although nobody needs its spectrum"


def test_donor_that_does_not_work_is_the_reason(published: Published, context: Context, tmp_path: Path) -> None:
    class Broken(IFFIM):
        def fit(self, context: Context, **values: Any) -> Any:
            raise NotApplicableError("the kernel is zero")

    method = attributor_spec(write_ridge(tmp_path)).load_attributor()
    (choice,) = choose(published, context, method, ["surrogate"], donor=Broken)
    assert choice.reason == "not_applicable: the kernel is zero"


def test_no_donor_is_fitted_for_selectors_that_need_no_spectrum(
    published: Published, context: Context, tmp_path: Path
) -> None:
    method = attributor_spec(write_ridge(tmp_path)).load_attributor()
    choices = choose(published, context, method, ["default", "random_grid", "training_horizon"], donor=Unfitted)
    assert [c.reason for c in choices] == [None, None, None]
    (needing,) = choose(published, context, method, ["surrogate"], donor=Unfitted)
    assert needing.reason == "not_applicable: AssertionError: fitted although nobody needs its spectrum"


def test_spectrum_that_raises_is_the_reason(published: Published, context: Context) -> None:
    class Broken(IFFIM):
        def spectrum(self, state: Any) -> Any:
            raise RuntimeError("no\neigenvalues")

    (choice,) = choose(published, context, Broken, ["surrogate"])
    assert choice.reason == "not_applicable: RuntimeError: no eigenvalues"


BAD_SELECTOR = """
from attriboard.contracts import Choice, Selector

class Bad(Selector):
    name = "bad"
    needs_spectrum = False

    def select(self, evidence):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "error: ZeroDivisionError: division by zero"),
        ("return None", "error: AttributeError: "),
        ('return Choice({"regularization": -1.0})', "not_applicable: regularization = -1.0: must be at least 0"),
        ('return Choice({"temperature": 1.0})', "not_applicable: iffim has no hyperparameter 'temperature'"),
        ('return Choice({}, criterion=(float("nan"),) * 3)', "not_applicable: its curve"),
        ("return Choice({}, objective=(1.0,))", "not_applicable: its curve"),
    ],
)
def test_selector_plugin_that_misbehaves_is_a_row(
    published: Published, context: Context, tmp_path: Path, body: str, reason: str
) -> None:
    path = write(tmp_path / "bad.py", BAD_SELECTOR.format(body=body))
    candidates = {"regularization": (0.1, 1.0, 10.0)}
    bad, good = choose(published, context, IFFIM, [path, "surrogate"], candidates=candidates)
    assert bad.reason is not None
    assert bad.reason.startswith(reason)
    assert (bad.values, bad.criterion, bad.objective) == ({}, None, None)
    assert good.reason is None


def test_selectors_see_calibration_points_only(published: Published, context: Context, tmp_path: Path) -> None:
    path = write(
        tmp_path / "counting.py",
        """
        from attriboard.contracts import Choice, Selector

        class Counting(Selector):
            name = "counting"

            def select(self, evidence):
                return Choice({}, note=str([len(s.coefficients) for s in evidence.spectra]))
        """,
    )
    (choice,) = choose(published, context, IFFIM, [path])
    assert choice.note == "[3]"  # a fifth of 13


def test_numbers_for_a_selector_are_positive_distinct_and_ascending(published: Published, context: Context) -> None:
    class Mixed(IFFIM):
        hyperparameters = (
            *IFFIM.hyperparameters[:1],
            Hyperparameter("projection_dim", None, "here", type=int, grid=(None, 32, 8)),
            *IFFIM.hyperparameters[2:],
        )

    (choice,) = choose(
        published, context, Mixed, ["effective_dimension"], candidates={"regularization": (0.0, 1.0, 0.1, 1.0)}
    )
    assert choice.hyperparameter == "projection_dim"
    assert choice.candidates == (8.0, 32.0)
    assert choice.values["projection_dim"] in (8, 32)
    assert isinstance(choice.values["projection_dim"], int)


def test_oracle_is_no_selector_that_can_be_asked_for() -> None:
    assert "oracle" not in selector_names()
    with pytest.raises(UnknownNameError, match="no selector named 'oracle'"):
        selector_spec("oracle")


def test_plugin_cannot_enter_as_a_selector_with_ground_truth(tmp_path: Path) -> None:
    path = write(
        tmp_path / "cheat.py",
        """
        from attriboard.contracts.selector import GroundTruthSelector

        class Cheat(GroundTruthSelector):
            name = "cheat"

            def select(self, lds):
                return 0
        """,
    )
    with pytest.raises(InputError, match="must define exactly one Selector subclass, found none"):
        selector_spec(path).load_selector()
    by_reference = selector_spec("surrogate").model_copy(
        update={"location": "attriboard.attributors.selectors.oracle:Oracle", "origin": "entry_point"}
    )
    with pytest.raises(InputError, match="is no subclass of attriboard's Selector"):
        by_reference.load_selector()


def test_where_selectors_run_ground_truth_is_not_even_imported() -> None:
    code = (
        "import sys, attriboard.attribution.worker, attriboard.attributors.selectors.surrogate\n"
        "held = {'attriboard.groundtruth.bundle', 'attriboard.evaluation.grader', 'attriboard.evaluation.selection', "
        "'attriboard.attributors.selectors.oracle'}\n"
        "sys.exit(', '.join(sorted(held & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
