"""What an attributor's process may use: wall-clock time, and memory, processes and disk together with all it starts.

Memory is measured, not forbidden: a limit of the address space (RLIMIT_AS, RLIMIT_DATA) would count what CUDA and
memory-mapped files only reserve, and would hold for each process by itself. So the resident memory of the whole tree
is looked at every few hundredths of a second. Between two looks a fast allocation can go beyond the limit; it is ended
at the next.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_SECONDS = 0.05
OWN_PROCESSES = 8  # of a sandbox are among those that are seen; also, the system's own limit shall come first
_MAX_FILES = 10_000  # in a folder that an attributor may write to


@dataclass(frozen=True)
class Limits:
    """Limits of one process of an attributor; `None` is no limit.

    Attributes:
        seconds: wall-clock time.
        bytes: resident memory of the process and everything that it started.
        processes: processes and threads.
        file_bytes: of each file, and of all that it writes to the disk.
    """

    seconds: float | None = None
    bytes: int | None = None
    processes: int | None = None
    file_bytes: int | None = None

    @property
    def watched(self) -> bool:
        """Whether anything has to be measured."""
        return (self.bytes, self.processes, self.file_bytes) != (None, None, None)


NO_LIMITS = Limits()


def beyond_memory(found: str, limit: int) -> str:
    """Why a process was ended that took more memory than its limit, `category: text`.

    Args:
        found: what was seen of it.
        limit: bytes.
    """
    return f"out_of_memory: {found}, the limit is {limit / 2**20:,.0f} MiB"


class Watch:
    """What a process and everything that it started use, against limits.

    Args:
        leader: id of the process, which leads a session.
        limits: what is allowed.
        written: files and folders that it can write to.

    Attributes:
        reason: what was found, once it was too much: `category: text`.
    """

    def __init__(self, leader: int, limits: Limits, written: Sequence[Path] = ()) -> None:
        self._leader = leader
        self._limits = limits
        self._written = written
        self.reason: str | None = None

    def exceeded(self) -> bool:
        """Measure, and say whether it is more than a limit now or ever was."""
        if self.reason is None and self._limits.watched:
            members = self.members()
            self.reason = self._memory(members) or self._processes(members) or self._files()
        return self.reason is not None

    def _memory(self, members: list[psutil.Process]) -> str | None:
        limit = self._limits.bytes
        # Pages that processes share count in each of them; who shares what is looked up only where it may matter.
        if limit is None or sum(map(_resident, members)) <= limit:
            return None
        found = sum(map(_proportional, members))
        if found <= limit:
            return None
        return beyond_memory(f"{found / 2**20:,.0f} MiB resident", limit)

    def _processes(self, members: list[psutil.Process]) -> str | None:
        limit = self._limits.processes
        if limit is None or len(members) <= limit + OWN_PROCESSES:
            return None
        return f"too_many_processes: {len(members)}, the limit is {limit}"

    def _files(self) -> str | None:
        limit = self._limits.file_bytes
        if limit is None:
            return None
        count, size = 0, 0
        for path in self._written:
            for file in path.iterdir() if path.is_dir() else [path]:
                count += 1
                with suppress(OSError):
                    size += file.lstat().st_blocks * 512
                if count > _MAX_FILES:
                    return f"too_many_files: more than {_MAX_FILES} written"
        if size <= limit:
            return None
        return f"too_much_written: {size / 2**20:,.0f} MiB, the limit is {limit / 2**20:,.0f} MiB"

    def members(self) -> list[psutil.Process]:
        """Its descendants and every process of its session, those included whose parents are gone."""
        pids = _descendants(self._leader)
        for pid in psutil.pids():
            with suppress(OSError):
                if os.getsid(pid) == self._leader:
                    pids.add(pid)
        found = []
        for pid in pids:
            with suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found


def _descendants(leader: int) -> set[int]:
    """A process and what it started, as far as parents live; Linux knows children by thread."""
    found, waiting = {leader}, [leader]
    while waiting:
        with suppress(OSError):
            for children in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                new = set(map(int, children.read_text().split())) - found
                found |= new
                waiting += new
    return found


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional(process: psutil.Process) -> int:
    """Resident bytes, those shared by k processes counted as a k-th; in full where the system does not say."""
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.uss))
    except psutil.NoSuchProcess:
        return 0
    except psutil.Error:  # a process can forbid to look at its pages
        return _resident(process)
