"""A control group of its own for a sandbox, where one can be made: the kernel counts all that is inside, always.

That takes the second version of control groups (https://docs.kernel.org/admin-guide/cgroup-v2.html) with the
controllers of memory and processes handed on to groups below ours, or beside it, and the right to make one there: as
root on most machines, as a user below systemd's `user@.service`. Elsewhere `attriboard.attribution.limits` measures
alone.
"""

import os
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from attriboard.attribution.limits import OWN_PROCESSES, Limits, beyond_memory

_MOUNTED = Path("/sys/fs/cgroup")
_OURS = Path("/proc/self/cgroup")
ENDING_SECONDS = 5.0  # that the kernel is given for it; a moment is enough
_numbers = count()


class ControlGroup:
    """A group that nothing has entered yet.

    Args:
        folder: of the group, which exists.
        limits: of memory and processes, all of them set.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        assert limits.bytes is not None
        assert limits.processes is not None
        self.folder = folder
        self._bytes = limits.bytes
        for name, value in (
            ("memory.max", limits.bytes),
            ("memory.oom.group", 1),
            ("pids.max", limits.processes + OWN_PROCESSES),
        ):
            (folder / name).write_text(f"{value}\n")
        with suppress(OSError):  # not there where swap is not counted
            (folder / "memory.swap.max").write_text("0\n")

    def entering(self, command: list[str]) -> list[str]:
        """A command that enters the group and becomes another one."""
        return [
            shutil.which("sh") or "/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"),
            *command,
        ]  # fmt: skip

    def exceeded(self) -> str | None:
        """Why the kernel ended it, if it did: `category: text`."""
        with suppress(OSError):
            events = dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())
            if int(events.get("oom_kill", 0)):
                return beyond_memory("ended by the kernel", self._bytes)
        return None

    def close(self) -> None:
        """End all that is inside, and the group."""
        with suppress(OSError):  # since Linux 5.14
            (self.folder / "cgroup.kill").write_text("1\n")
        end = time.monotonic() + ENDING_SECONDS
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > end:
                    return None
            time.sleep(0.01)


def make_group(limits: Limits, mounted: Path = _MOUNTED, ours: Path = _OURS) -> ControlGroup | None:
    """A new group below our own or beside it, or nothing where that cannot be.

    Args:
        limits: of memory and processes, all of them set.
        mounted: where control groups are mounted.
        ours: the file that names our own.
    """
    with suppress(OSError, StopIteration):
        own = next(line[4:] for line in ours.read_text().splitlines() if line.startswith("0::/"))
        place = mounted / own
        # Only the root of all may hold processes and hand controllers on; other groups do one or the other.
        for around in dict.fromkeys((place, mounted / Path(own).parent)):
            handed_on = (around / "cgroup.subtree_control").read_text().split()
            if not {"memory", "pids"} <= set(handed_on) or not os.access(around / "cgroup.procs", os.W_OK):
                continue
            folder = around / f"attriboard-{os.getpid()}-{next(_numbers)}"
            folder.mkdir()
            try:
                return ControlGroup(folder, limits)
            except OSError:
                folder.rmdir()
                raise
    return None
