"""Kill work at random moments with SIGKILL, start it again until it ends, and compare with work that nobody killed.

The work runs in a forked child: a process of its own, without the seconds that starting Python and PyTorch takes, so
that kills fall into the work and not into imports.
"""

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Campaign", "Outcome", "kill_at_random"]

PATIENCE = 300.0  # seconds for one run


@dataclass(frozen=True)
class Campaign:
    """Something that can be killed and started again.

    Attributes:
        work: does everything below a folder, from wherever it stands there.
        result: what the finished folder holds; equal for equal work.
        inspect: looks at a folder after a kill and raises where something is there that should not be.
    """

    work: Callable[[Path], None]
    result: Callable[[Path], object]
    inspect: Callable[[Path], None]


@dataclass
class Outcome:
    """What a campaign came to.

    Attributes:
        kills: processes that were killed at work.
        finished: runs that came to their end and to the right result.
        differing: runs whose result was another one.
        broken: what inspections and runs complained of.
    """

    kills: int = 0
    finished: int = 0
    differing: int = 0
    broken: list[str] = field(default_factory=list)


def kill_at_random(campaign: Campaign, folder: Path, kills: int, seed: int = 0) -> Outcome:
    """Kill so often, at moments spread over the whole of the work, and see every killed work through to its end.

    Args:
        campaign: the work.
        folder: an empty folder.
        kills: how many.
        seed: of the moments.
    """
    moments, outcome = random.Random(seed), Outcome()
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir(parents=True)
    _run(campaign, undisturbed, None)  # the first touches files and pages for all
    shutil.rmtree(undisturbed)
    undisturbed.mkdir(parents=True)
    started = time.monotonic()
    if error := _run(campaign, undisturbed, None):
        raise RuntimeError(error)
    duration = time.monotonic() - started
    expected = campaign.result(undisturbed)
    number = 0
    while outcome.kills < kills:
        place = folder / f"killed-{number}"
        place.mkdir()
        number += 1
        while outcome.kills < kills:
            error = _run(campaign, place, moments.uniform(0, duration))
            if error == KILLED:
                outcome.kills += 1
                _try(campaign.inspect, place, outcome)
                continue
            break
        else:
            error = _run(campaign, place, None)
        if error:
            outcome.broken.append(error)
            continue
        if campaign.result(place) == expected:
            outcome.finished += 1
        else:
            outcome.differing += 1
        shutil.rmtree(place)
    return outcome


KILLED = "killed"


def _run(campaign: Campaign, folder: Path, moment: float | None) -> str | None:
    """Run the work in a child, which is killed after `moment` seconds if it still runs; `None`: it came to its end."""
    log = folder / "log.txt"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            campaign.work(folder)
            code = 0
        except BaseException:
            log.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    deadline = time.monotonic() + (PATIENCE if moment is None else moment)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return None if status == 0 else log.read_text(encoding="utf-8")
        time.sleep(min(0.002, max(deadline - time.monotonic(), 0)))
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # not its own session yet
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED if moment is not None else f"did not end in {PATIENCE:g} s"
    return None if status == 0 else log.read_text(encoding="utf-8")


def _try(inspect: Callable[[Path], None], folder: Path, outcome: Outcome) -> None:
    try:
        inspect(folder)
    except Exception as error:
        outcome.broken.append(f"{type(error).__name__}: {error}")
