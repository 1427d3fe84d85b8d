"""What every attributor must do, whatever it computes: the suite behind `attriboard check attributor FILE`.

Built-in methods go through the same checks in our own tests. The problem is small and real: 60 digits, 12 test points,
a network with five full-data and five half-data models at two epochs. Run as a program,
`python -m attriboard.checking.conformance FILE|NAME RESULT` writes what failed as JSON to the file RESULT. The program
is a process of its own: the method's file is other people's code, and what is printed there is theirs, too.
"""

import copy
import inspect
import json
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from attriboard.attribution.frames import own_frames
from attriboard.base.digits import digits_table
from attriboard.base.errors import AttriboardError, HyperparameterError, InputError, NotApplicableError
from attriboard.base.paths import write_atomically
from attriboard.checking.orders import PermutedOrder, ShuffledOrder
from attriboard.contracts.attributor import Attributor, Checkpoint, Context
from attriboard.contracts.card import Recipe
from attriboard.contracts.run import Run
from attriboard.contracts.task import Examples
from attriboard.toolkit.replaying import PlainReplay

N_TRAIN, N_TEST = 60, 12
N_TRAIN_MEMORY, N_TEST_MEMORY = 300, 60
EPOCHS = (30, 60)
SMALL_CHANGE = 1 << 16
"""Bytes that nobody needs to declare."""


@dataclass(frozen=True)
class Subject:
    """An attributor under test.

    Attributes:
        method: its class.
        context: the problem.
        quick: values that make it take seconds where defaults take minutes.
        settled: values at which its scores are no accident of rounding or of draws by position.
    """

    method: type[Attributor]
    context: Context
    quick: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, context: Context | None = None, *, settled: bool = False) -> Tensor:
        """Fit and score once."""
        values = self.method.configure({**self.quick, **(self.settled if settled else {})})
        attributor = self.method()
        state = attributor.fit(context or self.context, **self.method.stage(values, "fit"))
        return attributor.score(state, **self.method.stage(values, "score"))


@dataclass(frozen=True)
class Check:
    """One rule.

    Attributes:
        rule: as a sentence.
        remedy: what to do where it is broken.
        find: what is wrong, or `None`.
    """

    rule: str
    remedy: str
    find: Callable[[Subject], str | None]


def failures(subject: Subject) -> list[dict[str, str]]:
    """Every rule that an attributor breaks: `where` the rule, `message` what was seen and how to fix it."""
    found, raised, comparable = [], set(), True
    for check in CHECKS:
        if not comparable and check.find not in WITHOUT_SCORES:
            continue
        try:
            # A copy each time: what one check sees an attributor break must not spoil the next.
            problem = check.find(replace(subject, context=copy.deepcopy(subject.context)))
        except Exception as error:
            text = str(error) if isinstance(error, AttriboardError) else f"raised {type(error).__name__}: {error}"
            frames = own_frames(error, Path(inspect.getfile(subject.method)))
            # One bug breaks many rules: it is said at the first.
            if text not in raised:
                found.append({"where": check.rule, "message": f"{text}\n{frames}" if frames else text})
            raised.add(text)
            continue
        if problem:
            found.append({"where": check.rule, "message": f"{problem}. {check.remedy}"})
            comparable &= check.find is not _finite
    return found


def _shape(subject: Subject) -> str | None:
    scores: Any = subject.scores()
    if not isinstance(scores, Tensor):
        return f"score returned {type(scores).__name__}"
    expected = (len(subject.context.test), len(subject.context.train))
    if tuple(scores.shape) != expected or scores.dtype != torch.float32:
        return f"scores are {tuple(scores.shape)} {scores.dtype}, expected {expected} torch.float32"
    return None


def _finite(subject: Subject) -> str | None:
    bad = int((~torch.isfinite(subject.scores())).sum())
    return f"{bad} scores are NaN or infinite at the defaults" if bad else None


def _repeats(subject: Subject) -> str | None:
    return None if torch.equal(subject.scores(), subject.scores()) else "two runs under one seed differ"


def _state(subject: Subject) -> str | None:
    values = subject.method.configure(subject.quick)
    attributor = subject.method()
    state = attributor.fit(subject.context, **subject.method.stage(values, "fit"))
    first = attributor.score(state, **subject.method.stage(values, "score"))
    kept = first.clone()
    first.zero_()
    again = attributor.score(state, **subject.method.stage(values, "score"))
    return None if torch.equal(again, kept) else "scoring a second time from one state gives other scores"


def _context(subject: Subject) -> str | None:
    before = copy.deepcopy(subject.context)
    subject.scores()
    if not same(before, subject.context):
        return "the context was changed"
    if any(module._forward_hooks for module in subject.context.model.modules()):
        return "hooks were left on the model"
    return None


def _memory(subject: Subject) -> str | None:
    # More examples than elsewhere, so that matrices outweigh small change.
    tokens = not subject.context.train.inputs.is_floating_point()
    train, test = _digits(0, N_TRAIN_MEMORY, tokens), _digits(N_TRAIN_MEMORY, N_TEST_MEMORY, tokens)
    larger = replace(subject.context, train=train, test=test)
    values = subject.method.stage(subject.method.configure({**subject.quick, **subject.settled}), "fit")
    need = subject.method().memory_need(larger, **values)
    if need is None:
        return None
    if not all(isinstance(size, int) and size >= 0 for size in need.values()):
        return f"memory_need gives {need}, and must give whole numbers of bytes"
    used, declared = _allocated(lambda: subject.scores(larger, settled=True)), sum(need.values())
    return f"{used:,} bytes were held at once, {declared:,} are declared" if used > declared + SMALL_CHANGE else None


def _unknown(subject: Subject) -> str | None:
    try:
        subject.method.configure({"no_such_hyperparameter": 1.0})
    except HyperparameterError:
        return None
    return "a hyperparameter that is not in the table was accepted"


def _grids(subject: Subject) -> str | None:
    attributor, method = subject.method(), subject.method
    state = attributor.fit(subject.context, **method.stage(method.configure(subject.quick), "fit"))
    for hp in method.hyperparameters:
        for value in (hp.default, *hp.grid) if hp.stage == "score" else ():
            values = method.stage(method.configure({**subject.quick, hp.name: value}), "score")
            if not torch.isfinite(attributor.score(state, **values)).all():
                return f"{hp.name} = {value} gives NaN or infinite scores"
    return None


def _train_order(subject: Subject) -> str | None:
    if subject.method.blind:
        return None
    order = torch.randperm(len(subject.context.train), generator=torch.Generator().manual_seed(1))
    permuted = replace(subject.context, train=subject.context.train[order])
    if subject.method.order_sensitive:  # the same examples, one after the other, where they lie now
        runs = (replace(run, order=PermutedOrder(run.order, order.argsort())) for run in permuted.runs)
        permuted = replace(permuted, runs=tuple(runs))
    expected = subject.scores(settled=True)[:, order]
    return _unequal(subject.scores(permuted, settled=True), expected, 1e-4)


def _test_order(subject: Subject) -> str | None:
    if subject.method.blind:
        return None
    order = torch.randperm(len(subject.context.test), generator=torch.Generator().manual_seed(1))
    permuted = replace(subject.context, test=subject.context.test[order])
    return _unequal(subject.scores(permuted, settled=True), subject.scores(settled=True)[order], 1e-4)


def _threads(subject: Subject) -> str | None:
    expected = subject.scores(settled=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _unequal(subject.scores(settled=True), expected, 1e-5)
    finally:
        torch.set_num_threads(threads)


def _sign(subject: Subject) -> str | None:
    if subject.method.blind:
        return None
    rows = torch.arange(len(subject.context.test))
    train = subject.context.train
    twins = replace(subject.context, test=Examples(train.inputs[rows], train.targets[rows]))
    scores = subject.scores(twins, settled=True)
    if scores.shape != (len(rows), len(train)):
        return None  # the first rule says so
    own = scores[rows, rows]
    harmed = int((own <= 0).sum())
    return f"{harmed} of {len(rows)} test points are not helped by their own copy in training" if harmed else None


_CONTRACT = "See the docstring of attriboard.contracts.attributor.Attributor"
_BY_CONTENT = "Scores must be a function of the examples, not of their positions"
CHECKS: tuple[Check, ...] = (
    Check("scores are (n_test, n_train) float32 tensors", _CONTRACT, _shape),
    Check("scores are finite at the defaults", "Raise NotApplicableError with a reason instead", _finite),
    Check("scores repeat under one seed", "Draw from a torch.Generator seeded with context.seed", _repeats),
    Check("score leaves the state alone", "Return a new tensor, and do not work in place on the state", _state),
    Check("fit leaves the context alone", "Work on copies, and remove hooks", _context),
    Check("memory stays within the declared need", "Count what is held at once in memory_need, or do without", _memory),
    Check("unknown hyperparameters are refused", "Do not override configure", _unknown),
    Check("every value of the score-stage grids gives finite scores", "Narrow the grid, or raise", _grids),
    Check("permuting training examples permutes the columns", _BY_CONTENT, _train_order),
    Check("permuting test examples permutes the rows", _BY_CONTENT, _test_order),
    Check("scores do not depend on the number of threads", "Avoid reductions in an order that varies", _threads),
    Check("positive means helpful", "Flip the sign: including the example must raise the target", _sign),
)
WITHOUT_SCORES = (_shape, _finite, _context, _memory, _unknown)  # the others compare scores, which NaN does not allow


def small_context(*, tokens: bool = False, ordered: bool = False) -> Context:
    """The problem; a new copy each time, trained once per process.

    Args:
        tokens: whether every pixel is a token, for methods of text.
        ordered: whether models are trained in small batches, so that the order of examples matters.
    """
    return copy.deepcopy(_trained_context(tokens, ordered))


@cache
def _trained_context(tokens: bool, ordered: bool) -> Context:
    train, test = _digits(0, N_TRAIN, tokens), _digits(N_TRAIN, N_TEST, tokens)
    network = _network(tokens).eval()
    checkpoints, runs = [], []
    context = Context(train, test, network, (), _cross_entropy, _log_odds, _log_odds, seed=3)
    for seed in range(5):
        order = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(seed))
        half = order[: N_TRAIN // 2].sort()[0]
        for number, indices in ((seed, None), (100 + seed, half)):
            runs.append(_run(N_TRAIN, number, indices, tokens, ordered))
            checkpoints += _follow(context, runs[-1]) if ordered else _train(train, number, indices, tokens)
    return replace(context, checkpoints=tuple(checkpoints), runs=tuple(runs))


def _run(n_train: int, seed: int, indices: Tensor | None, tokens: bool, ordered: bool) -> Run:
    """SGD with momentum: in batches of ten, or on all examples at once."""
    rows = torch.arange(n_train) if indices is None else indices
    batch_size, rate, momentum, epochs = (10, 0.05, 0.5, 16) if ordered else (n_train, 0.1, 0.9, EPOCHS[-1])
    recipe = Recipe(optimizer="sgd", learning_rate=rate, momentum=momentum, epochs=epochs, batch_size=batch_size)
    initial = {name: value.detach() for name, value in _new_network(seed, tokens).named_parameters()}
    rates = (rate,) * (epochs * -(-len(rows) // batch_size))
    return Run(recipe, seed, len(rows), rates, ShuffledOrder(rows, seed), PlainReplay(initial), indices)


def _follow(context: Context, run: Run) -> list[Checkpoint]:
    """The models of a run after half of its epochs and all."""
    kept = {run.recipe.epochs // part * run.steps_per_epoch: run.recipe.epochs // part for part in (2, 1)}
    states = {state.step: state for state in run.replay(context) if state.step in kept}
    return [Checkpoint(states[step].parameters, epoch, run.seed, run.indices) for step, epoch in kept.items()]


def _digits(start: int, count: int, tokens: bool) -> Examples:
    rows = torch.from_numpy(digits_table())[start : start + count]
    return Examples(rows[:, :-1].long() if tokens else (rows[:, :-1] / 16).float(), rows[:, -1].long())


def _network(tokens: bool) -> nn.Module:
    first = [nn.Embedding(17, 2), nn.Flatten(), nn.Linear(128, 8)] if tokens else [nn.Linear(64, 8)]
    return nn.Sequential(*first, nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 10))


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def _log_odds(outputs: Tensor, targets: Tensor) -> Tensor:
    right = outputs.gather(1, targets[:, None]).squeeze(1)
    return right - outputs.scatter(1, targets[:, None], -torch.inf).logsumexp(1)


def _new_network(seed: int, tokens: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(tokens)


def _train(train: Examples, seed: int, indices: Tensor | None, tokens: bool) -> list[Checkpoint]:
    model = _new_network(seed, tokens)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = train if indices is None else train[indices]
    kept = []
    for epoch in range(1, EPOCHS[-1] + 1):
        optimizer.zero_grad()
        _cross_entropy(model(seen.inputs), seen.targets).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if epoch in EPOCHS:
            parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
            kept.append(Checkpoint(parameters, epoch, seed, indices))
    return kept


def _allocated(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch's and NumPy's arrays of some work take at once."""
    tracemalloc.start()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            work()
        arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(arrays + max(accumulate((event.nbytes() for event in events), initial=0)))


def _unequal(actual: Tensor, expected: Tensor, relative: float) -> str | None:
    difference = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return f"scores differ by {difference:.1e} of the largest" if not difference <= relative else None


def same(one: object, other: object) -> bool:
    """Whether two contexts, or parts of them, are equal to the last bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return one.training == other.training and same(one.state_dict(), other.state_dict())
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one is other or one == other


def main(name: str, result: Path) -> None:
    """Check one attributor, and write what failed and what is odd to a file."""
    from attriboard.evaluation.catalog import attributor_spec, known_names

    spec = attributor_spec(name)
    try:
        method = spec.load_attributor()
    except InputError as error:
        _write(result, [{"where": "import", "message": str(error)}], [])
        return
    kind = known_names().get(method.name) if spec.origin == "file" else None
    odd = {"where": "name", "message": f"{method.name} is the name of a known {kind}; give the class its own"}
    subject = Subject(method, small_context(ordered=method.order_sensitive))
    try:
        replace(subject, context=copy.deepcopy(subject.context)).scores()  # a copy: it may change what it is given
    except NotApplicableError:
        subject = replace(subject, context=small_context(tokens=True))
    except Exception:
        pass  # the suite says what it is
    _write(result, failures(subject), [odd] if kind else [])


def _write(result: Path, errors: list[dict[str, str]], warnings: list[dict[str, str]]) -> None:
    write_atomically(result, json.dumps({"errors": errors, "warnings": warnings}).encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv.pop()))  # taken off: the method's file is not told where its verdict goes
