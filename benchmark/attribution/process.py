"""The worker as a process of its own: `python -m attriboard.attribution.process FOLDER EVENTS PLANS [CONFINEMENT]`.

Plans are read from the file descriptor PLANS, events are written to EVENTS, scores go into FOLDER. Standard output and
error are the attributor's own and end up in a log.
"""

import gc
import io
import os
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pydantic import BaseModel

    from attriboard.attribution.job import Confinement

_OPEN_FILES = 4096  # of a confined process
_PR_SET_DUMPABLE = 4


def main(arguments: list[str]) -> None:
    """Entry point of the process."""
    gc.disable()  # imports make a million objects and no garbage
    from attriboard.attribution.job import Confinement, Done, Folder, Job, Plan, Refused

    for text in arguments[3:]:
        _confine(Confinement.model_validate_json(text))
    from attriboard.attribution.worker import Attributing
    from attriboard.base.errors import AttriboardError

    folder, events, plans = Folder(Path(arguments[0])), int(arguments[1]), int(arguments[2])

    def report(event: "BaseModel") -> None:
        os.write(events, event.model_dump_json().encode() + b"\n")

    try:
        attributing = Attributing(Job.model_validate_json(folder.job.read_text(encoding="utf-8")), folder, report)
        for event in attributing.describe():
            report(event)
        gc.freeze()
        gc.enable()
        with os.fdopen(plans, encoding="utf-8") as lines:
            for line in lines:
                done = False
                for event in attributing.work(Plan.model_validate_json(line)):
                    report(event)
                    done = isinstance(event, Done)
                if not done:  # it is of no more use
                    return
    except AttriboardError as error:  # the job itself is wrong: say so to the runner, for the user
        report(Refused(message=str(error)))


def _confine(to: "Confinement") -> None:
    """Take a user without rights, and limits that no process below this one can raise."""
    import ctypes
    import resource

    limits = {resource.RLIMIT_NPROC: to.processes, resource.RLIMIT_FSIZE: to.file_bytes, resource.RLIMIT_CORE: 0}
    for kind, limit in (limits | {resource.RLIMIT_NOFILE: _OPEN_FILES}).items():
        hard = resource.getrlimit(kind)[1]
        if limit is not None and (hard == resource.RLIM_INFINITY or limit < hard):
            resource.setrlimit(kind, (limit, limit))
    if to.user is not None:
        os.setgroups([])
        os.setresgid(to.user, to.user, to.user)
        os.setresuid(to.user, to.user, to.user)
        # A process that changes its user cannot look at its own /proc any more, where peaks of memory are.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _end_with_the_runner(events: int) -> None:
    """End this process and whatever it started once nobody reads its events: the runner was killed."""
    reader = select.poll()
    reader.register(events, 0)  # errors are reported always, and a pipe without a reader is one
    reader.poll()
    os.killpg(0, signal.SIGKILL)
    os._exit(1)  # the first process of a namespace is spared by its own signals; the rest ends with it


def run(arguments: list[str]) -> NoReturn:
    """Be the worker that the arguments name, and end this process with it."""
    threading.Thread(target=_end_with_the_runner, args=(int(arguments[1]),), daemon=True).start()
    code = 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a crash takes nothing along
    try:
        main(arguments)
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)  # threads and children that the attributor left behind are not waited for


if __name__ == "__main__":
    run(sys.argv[1:])
