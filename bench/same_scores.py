"""Do the scores of the built-in attributors have the same bits as at another revision?

    python -m bench same_scores --against REV

Each attributor runs on `digits_mlp` and `mnist_lr` at its default and at the λ of its newest published selection, once
with this checkout and once with one of REV, each in a process of its own; what is compared is the SHA-256 of the score
matrices. A failure counts as the same where its reason is. REV's digests are kept in `build/same_scores/`, so that a
run that was interrupted goes on where it stopped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from attriboard.attributors import ATTRIBUTORS
from attriboard.base.paths import write_atomically
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import AnyRecord, read_records
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord, SelectionRecord
from attriboard.records.published import published_results

TASKS = ("digits_mlp", "mnist_lr")
ROOT = Path(__file__).resolve().parent.parent

WORKER = """
import hashlib, importlib, json, sys
import torch
import attriboard
from attriboard.attribution.context import build_context
from attriboard.attributors import ATTRIBUTORS

task, checkpoints, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
context = build_context(attriboard.load_task(task), __import__("pathlib").Path(checkpoints))
for line in sys.stdin:
    name, knob, settings = json.loads(line)
    if name not in ATTRIBUTORS:
        print(json.dumps(dict.fromkeys(settings, "absent")), flush=True)
        continue
    module, kind = ATTRIBUTORS[name].split(":")
    method = getattr(importlib.import_module(module), kind)
    attributor, known, found = method(), {hp.name for hp in method.hyperparameters}, {}
    key, state = None, None
    for setting in settings:
        values = method.configure({} if knob is None else {knob if knob in known else "damping": setting})
        try:
            if key != (key := method.stage(values, "fit")):
                state = attributor.fit(context, **key)
            scores = attributor.score(state, **method.stage(values, "score"))
            found[setting] = hashlib.sha256(scores.contiguous().numpy()).hexdigest()
        except Exception as error:
            found[setting] = f"{type(error).__name__}: {error}"
    state = scores = None
    print(json.dumps(found), flush=True)
"""
"""Runs at either revision: cases on standard input, digests on standard output, a line each."""

# An editable install puts its own checkout first; this module runs after that.
FIRST = "import sys\nfrom pathlib import Path\n\nsys.path.insert(0, str(Path(__file__).parent))\n"

Digests = dict[str, str]
"""λ, or `default` → SHA-256 of the scores, or the reason of a failure."""


@dataclass(frozen=True)
class Case:
    """One attributor on one task.

    Attributes:
        knob, values: its λ and what it is set to, as on the command line; none where it has no λ.
        seconds: of the published fit.
    """

    task: str
    method: str
    knob: str | None
    values: tuple[str, ...]
    seconds: float

    @property
    def key(self) -> str:
        """What the cache knows it by."""
        return f"{self.task} {self.method} {self.knob}={','.join(self.values)}"


def cases(tasks: list[str], methods: list[str]) -> list[Case]:
    """Every built-in attributor of ours on every task, the quickest first."""
    found = []
    for task in tasks:
        records = read_records(published_results() / task)
        found += [_case(task, method, [one for one in records if one.attributor.name == method]) for method in methods]
    return sorted(found, key=lambda case: case.seconds)


def _case(task: str, method: str, records: list[AnyRecord]) -> Case:
    runs = [one for one in records if isinstance(one, AttributionRecord) and one.variant == "default"]
    seconds = max((one.fit_seconds or 0.0 for one in runs), default=0.0)
    choices = [one for one in records if isinstance(one, SelectionRecord) and one.selector == HEADLINE_SELECTOR]
    chosen = [one for one in choices if one.selected is not None]
    if not chosen:
        return Case(task, method, None, ("default",), seconds)
    newest = max(chosen, key=lambda one: one.created)
    assert newest.selected is not None
    knob = newest.hyperparameter
    both = (one.hyperparameters[knob] for one in (newest.default, newest.selected))
    values = tuple(dict.fromkeys("none" if value is None else repr(value) for value in both))
    return Case(task, method, knob, values, seconds)


class Runner:
    """Runs cases of one task with the code of one checkout, in one process.

    Args:
        checkout: its folder.
        task: its name.
        threads: of the numerical libraries.
    """

    def __init__(self, checkout: Path, task: str, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        _link(checkout, Path(self._folder.name))
        environment = os.environ | {"PYTHONPATH": self._folder.name, "OMP_NUM_THREADS": str(threads)}
        space = Workspace(task)
        bundle = space.bundles.checkpoints(space.executor)
        command = [sys.executable, "-c", WORKER, task, str(Path(bundle).resolve()), str(threads)]
        self._process = subprocess.Popen(
            command, cwd=self._folder.name, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def digests(self, case: Case) -> Digests:
        """Run a case.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([case.method, case.knob, case.values]) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{case.key}: the process ended with {self._process.wait()}")
        found: Digests = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()


def _link(checkout: Path, packages: Path) -> None:
    """The import package `attriboard` of a checkout, made of links."""
    package = packages / "attriboard"
    package.mkdir(parents=True)
    parts = [
        *(checkout / "benchmark").iterdir(),
        *(checkout / name for name in ("tasks", "attributors", "leaderboard")),
    ]
    for part in parts:
        if part.name != "__pycache__":
            (package / part.name).symlink_to(part)
    (packages / "sitecustomize.py").write_text(FIRST)


class Cache:
    """What was found at a commit, in a file: case → digests."""

    def __init__(self, commit: str, threads: int) -> None:
        self._path = ROOT / "build/same_scores" / f"{commit[:12]}-torch-{torch.__version__}-{threads}.json"
        self._known: dict[str, Digests] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def digests(self, case: Case, runner: Runner) -> Digests:
        """Known, or found now and kept."""
        if case.key not in self._known:
            self._known[case.key] = runner.digests(case)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self._known, indent=1).encode())
        return self._known[case.key]


@contextmanager
def checkout_of(commit: str, given: Path | None) -> Iterator[Path]:
    """The folder that was given, or a worktree for the time being."""
    if given is not None:
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "checkout")
        _git("worktree", "add", "--quiet", "--detach", str(place), commit)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    ours = [name for name in ATTRIBUTORS if ":" not in name]
    parser = argparse.ArgumentParser(prog="python -m bench same_scores", description=__doc__.splitlines()[0])
    parser.add_argument("--against", default="c28675b", metavar="REV", help="the other revision (c28675b)")
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="a checkout of REV; otherwise one is made")
    parser.add_argument("--methods", nargs="+", choices=ours, default=ours, metavar="NAME", help="only these")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help="only these")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the numerical libraries (1)")
    parser.add_argument(
        "--at-most", type=float, metavar="SECONDS", help="leave out what took longer to fit in its published record"
    )
    parser.add_argument("--cache-only", action="store_true", help="only find what is missing of REV's digests")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Compare; 0 where something was compared and everything is the same."""
    chosen = arguments(given)
    commit = _git("rev-parse", "--verify", f"{chosen.against}^{{commit}}")
    limit = float("inf") if chosen.at_most is None else chosen.at_most
    found = cases(chosen.tasks, chosen.methods)
    left_out = [case for case in found if case.seconds > limit]
    for case in left_out:
        print(f"left out   {case.key}: its published fit took {case.seconds:.0f} s")
    same = total = 0
    cache = Cache(commit, chosen.threads)
    with checkout_of(commit, chosen.checkout) as other:
        for task in chosen.tasks:
            theirs, ours = (Runner(checkout, task, chosen.threads) for checkout in (other, ROOT))
            for case in (one for one in found if one.task == task and one not in left_out):
                before = cache.digests(case, theirs)
                if "absent" in before.values():
                    print(f"left out   {case.key}: {commit[:7]} has no {case.method}")
                    continue
                now = before if chosen.cache_only else ours.digests(case)
                total, same = total + len(before), same + sum(before[one] == now[one] for one in before)
                _report(case, before, now)
            theirs.close()
            ours.close()
    if not total:
        print(f"nothing was compared; {len(left_out)} cases left out", file=sys.stderr)
        return 1
    print(
        f"{same} of {total} score matrices have the same bits as at {commit[:7]} "
        f"({platform.machine()}, torch {torch.__version__}, threads: {chosen.threads}); {len(left_out)} cases left out"
    )
    return int(same != total)


def _report(case: Case, before: Digests, now: Digests) -> None:
    for setting, old in before.items():
        new = now[setting]
        word, bits = ("same", new[:16]) if old == new else ("DIFFERENT", f"{old[:90]} → {new[:90]}")
        print(f"{word:<10} {case.task} {case.method} {case.knob or ''} {setting}: {bits}", flush=True)
