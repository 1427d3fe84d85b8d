"""What an attributor's process may use: wall-clock time, and memory together with everything that it starts.

Memory is measured, not forbidden: a limit of the address space (RLIMIT_AS, RLIMIT_DATA) would count what CUDA and
memory-mapped files only reserve, and would hold for each process by itself. So the resident memory of the whole session
is looked at every few hundredths of a second. Between two looks a fast allocation can go beyond the limit; it is ended
at the next.
"""

import os
from contextlib import suppress
from dataclasses import dataclass

import psutil

MEMORY_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """Limits of one process of an attributor; `None` is no limit.

    Attributes:
        seconds: wall-clock time.
        bytes: resident memory of the process and everything that it started.
    """

    seconds: float | None = None
    bytes: int | None = None


NO_LIMITS = Limits()


class MemoryWatch:
    """Resident memory of a session against a limit.

    Args:
        session: id of the session, which is the process id of its leader.
        limit: bytes, or `None`.
    """

    def __init__(self, session: int, limit: int | None) -> None:
        self._session = session
        self._limit = limit
        self._found = 0

    @property
    def reason(self) -> str | None:
        """What was found, once it was too much."""
        if self._limit is None or self._found <= self._limit:
            return None
        return f"out_of_memory: {self._found / 2**20:,.0f} MiB resident, the limit is {self._limit / 2**20:,.0f} MiB"

    def exceeded(self) -> bool:
        """Measure, and say whether it is more than the limit now or ever was."""
        if self._limit is None or self._found > self._limit:
            return self._limit is not None
        members = self._members()
        # Pages that processes share count in each of them; who shares what is looked up only where it may matter.
        if sum(map(_resident, members)) > self._limit:
            self._found = sum(map(_proportional, members))
        return self._found > self._limit

    def _members(self) -> list[psutil.Process]:
        """Every process of the session, those included whose parents are gone."""
        found = []
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) == self._session:
                    found.append(psutil.Process(pid))
        return found


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional(process: psutil.Process) -> int:
    """Resident bytes, those shared by k processes counted as a k-th; unshared ones where the system cannot say."""
    with suppress(psutil.Error):
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.uss))
    return 0
