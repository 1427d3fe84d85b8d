"""Attributors that nobody trusts: a process inside bubblewrap or a container, which sees what a run takes alone.

Inside are, read-only, the system, the interpreter with its packages, the plugin's folder, the task's data and the
checkpoints; writable are a folder for scores and a small `/tmp` of its own. Not there: bundles of ground truth,
results, the cache, the home folder, the network, other processes, the environment. `docs/isolation.md` says which
features of the kernel that takes, and what it does not protect from.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from attriboard.attribution import bubblewrap, container
from attriboard.attribution.cgroups import make_group
from attriboard.attribution.executors import Launch, OwnProcess
from attriboard.attribution.inside import Inside, Wrap
from attriboard.attribution.job import Folder, Job
from attriboard.attribution.limits import Limits
from attriboard.attribution.view import View
from attriboard.base.errors import InputError

SECONDS = 6 * 3600.0
"""Time limit where none is given."""

MEMORY_SHARE = 0.8
"""Of the memory that is free at the start: the limit where none is given."""

PROCESSES = 1024
"""Processes and threads inside, where no limit is given."""

FILE_BYTES = 1 << 30
"""What may be written to the disk, and the sizes of `/tmp` and `/dev/shm`, where no limit is given."""

_PLACES: tuple[str, ...] = ("PYTHONPATH", "ATTRIBOARD_DATA", "ATTRIBOARD_DATASETS")
_PASSED_ON = ("LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONHASHSEED")
_PASSED_ON_FAMILIES = ("LC_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "TORCH_", "ATEN_", "DNNL_", "ONEDNN_")
_FIRST_USER, _USERS = 60_001, 4_000  # ids that Debian gives to nobody

_TOOLS: dict[str, tuple[tuple[str, ...], Wrap]] = {
    "bubblewrap": (bubblewrap.NEEDS, bubblewrap.wrapped),
    "crun": (container.NEEDS, container.wrapped),
}  # the best first


@dataclass(frozen=True)
class Sandbox(OwnProcess):
    """A process inside bubblewrap or a container, with limits on time, memory, processes and files; see the module.

    Attributes:
        limits: of a process; where one is `None`, what the module says.
        hidden: folders and files that hold results or ground truth, should one lie inside of what is shown.
        tool: that makes it, `bubblewrap` or `crun`; by default what `find_tool` finds.
    """

    hidden: tuple[Path, ...] = ()
    tool: str | None = None

    def launch(self, folder: Folder, events: int, plans: int) -> Launch:
        """See `OwnProcess`.

        Raises:
            InputError: no tool for it here, a device other than the CPU, or a plugin in a folder that cannot be shown.
        """
        tool = self.tool or find_tool()
        job = Job.model_validate_json(folder.job.read_text(encoding="utf-8"))
        if job.device != "cpu":
            raise InputError(f"--sandbox: shows no devices, so --device {job.device} is not there; take cpu")
        if self.log is not None:
            self.log.open("ab").close()
        limits = self.enforced(job)
        # As root: a user that nobody is, another one for each process of ours, for processes are counted by user.
        user = _FIRST_USER + os.getpid() % _USERS if os.geteuid() == 0 else None
        if user is not None:
            _open_to(user, folder, job)
        environment = _environment(self.environment())
        steps = View(job, self.hidden).steps()
        inside = Inside(steps, folder, events, plans, user, limits.processes, limits.file_bytes, environment)
        command, descriptors = _TOOLS[tool][1](inside)
        return Launch(
            command,
            environment,
            folder.path,
            folder.log,
            limits,
            written=(folder.results,),
            descriptors=descriptors,
            wrapped=True,
            group=make_group(limits),
        )

    def enforced(self, job: Job) -> Limits:
        """The limits of a job, all of them set.

        The job's own memory limit, by which methods choose what they do, stays what was asked for.
        """
        data = job.task.card.data
        matrix = 8 * (data.n_train if job.queries == "train" else data.n_test) * data.n_train
        limits = self.limits
        return Limits(
            limits.seconds or SECONDS,
            limits.bytes or int(MEMORY_SHARE * psutil.virtual_memory().available),
            limits.processes or PROCESSES,
            limits.file_bytes or max(FILE_BYTES, 4 * matrix),
        )


def find_tool() -> str:
    """The tool that makes sandboxes here, the best first.

    Raises:
        InputError: none is installed.
    """
    for name, (needs, _) in _TOOLS.items():
        if all(map(shutil.which, needs)):
            return name
    raise InputError(
        "--sandbox: needs bubblewrap, or else Podman's runtime crun, and there is no bwrap and no crun on the PATH; "
        "install one (apt install bubblewrap, dnf install bubblewrap; Linux only), or say --no-sandbox where you trust "
        "the code"
    )


def _open_to(user: int, folder: Folder, job: Job) -> None:
    """Let a user read what the worker reads of ours, and write its results."""
    os.chown(folder.results, user, user)
    folder.path.chmod(0o755)
    if job.task.folder is not None and Path(job.task.folder).parent == Path(tempfile.gettempdir()):
        Path(job.task.folder).chmod(0o755)
        for file in Path(job.task.folder).iterdir():
            file.chmod(0o644)


def _environment(paths: dict[str, str]) -> dict[str, str]:
    """Nothing of ours but what numerical libraries and the language look at, and where code and data are."""
    kept = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_FAMILIES)}
    places = {name: paths[name] for name in _PLACES if name in paths}
    return {
        **kept,
        **places,
        "PATH": os.pathsep.join((str(Path(sys.prefix) / "bin"), "/usr/local/bin", "/usr/bin", "/bin")),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "nobody",
        "LOGNAME": "nobody",
        "ATTRIBOARD_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
