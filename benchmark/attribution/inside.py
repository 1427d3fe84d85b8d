"""What a sandbox must hold, in the form that its tools take."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from attriboard.attribution.executors import worker_command
from attriboard.attribution.job import Confinement, Folder
from attriboard.attribution.view import Step


@dataclass(frozen=True)
class Inside:
    """A worker and what is around it.

    Attributes:
        steps: what is shown of the machine.
        folder: of the worker, read-only but for its results.
        events, plans: file descriptors of the worker, as this process has them.
        user: whose id the worker takes where this process is root's; `None` where it is not.
        processes: processes and threads inside.
        file_bytes: of each file, and the sizes of `/tmp` and `/dev/shm`.
        environment: of the worker, all of it.
    """

    steps: list[Step]
    folder: Folder
    events: int
    plans: int
    user: int | None
    processes: int | None
    file_bytes: int | None
    environment: dict[str, str]

    def worker(self, events: int, plans: int, user: int | None) -> list[str]:
        """The command that runs inside.

        Args:
            events: file descriptor as it is inside.
            plans: likewise.
            user: whose id it takes itself, if it starts as root.
        """
        confined = Confinement(user=user, processes=self.processes, file_bytes=self.file_bytes)
        return [*worker_command(self.folder, events, plans), confined.model_dump_json()]


class Wrapped(NamedTuple):
    """What is started for it.

    Attributes:
        command: the tool with its arguments.
        descriptors: more file descriptors that it reads; closed here once it has started.
    """

    command: list[str]
    descriptors: tuple[int, ...] = ()


def program(name: str) -> str:
    """Where a program is; the PATH inside is another one."""
    return shutil.which(name) or name


Wrap = Callable[[Inside], Wrapped]
