"""Attributors that nobody trusts: a process inside bubblewrap, which sees what a run takes and nothing else.

Inside are, read-only, the system, the interpreter with its packages, the plugin's folder, the task's data and the
checkpoints; writable are a folder for scores and a small `/tmp` of its own. Not there: bundles of ground truth,
results, the cache, the home folder, the network, other processes, the environment. `docs/isolation.md` says which
features of the kernel that takes, and what it does not protect from.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from attriboard.attribution.executors import Launch, OwnProcess, worker_command
from attriboard.attribution.job import Confinement, Folder, Job
from attriboard.attribution.limits import Limits
from attriboard.attribution.plugins import PluginSpec
from attriboard.attribution.seccomp import seccomp_program
from attriboard.attribution.withheld import PRUNED, withheld_below
from attriboard.base.errors import InputError
from attriboard.base.paths import cache_folder, datasets_folder, leaderboard_folder
from attriboard.contracts.task import FILE

SECONDS = 6 * 3600.0
"""Time limit where none is given."""

MEMORY_SHARE = 0.8
"""Of the memory that is free at the start: the limit where none is given."""

PROCESSES = 1024
"""Processes and threads inside, where no limit is given."""

FILE_BYTES = 1 << 30
"""What may be written to the disk, and the sizes of `/tmp` and `/dev/shm`, where no limit is given."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
_BOARD = ("groundtruth", "results", "entries")  # folders of the leaderboard
_PLACES: tuple[str, ...] = ("PYTHONPATH", "ATTRIBOARD_DATA", "ATTRIBOARD_DATASETS")
_PASSED_ON = ("LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONHASHSEED")
_PASSED_ON_FAMILIES = ("LC_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "TORCH_", "ATEN_", "DNNL_", "ONEDNN_")
_FIRST_USER, _USERS = 60_001, 4_000  # ids that Debian gives to nobody


@dataclass(frozen=True)
class Sandbox(OwnProcess):
    """A process inside bubblewrap, with limits on time, memory, processes and files; see the module.

    Attributes:
        limits: of a process; where one is `None`, what the module says.
        hidden: folders and files that hold results or ground truth, should one lie inside of what is shown.
    """

    hidden: tuple[Path, ...] = ()

    def launch(self, folder: Folder, events: int, plans: int) -> Launch:
        """See `OwnProcess`.

        Raises:
            InputError: no bubblewrap here, a device other than the CPU, or a plugin in a folder that cannot be shown.
        """
        bwrap = find_bubblewrap()
        job = Job.model_validate_json(folder.job.read_text(encoding="utf-8"))
        if job.device != "cpu":
            raise InputError(f"--sandbox: shows no devices, so --device {job.device} is not there; take cpu")
        if self.log is not None:
            self.log.open("ab").close()
        limits, rooted = self.enforced(job), os.geteuid() == 0
        # As root: a user that nobody is, another one for each process of ours, for processes are counted by user.
        user = _FIRST_USER + os.getpid() % _USERS if rooted else None
        if user is not None:
            os.chown(folder.results, user, user)
            folder.path.chmod(0o755)
            if job.task.folder is not None and Path(job.task.folder).parent == Path(tempfile.gettempdir()):
                Path(job.task.folder).chmod(0o755)
                for file in Path(job.task.folder).iterdir():
                    file.chmod(0o644)
        confined = Confinement(user=user, processes=limits.processes, file_bytes=limits.file_bytes)
        own, results, size = str(folder.path), str(folder.results), str(limits.file_bytes)
        arguments = [*_namespaces(rooted), "--proc", "/proc", "--dev", "/dev"]
        for place in ("/tmp", "/dev/shm"):
            arguments += ["--size", size, "--perms", "1777", "--tmpfs", place]
        arguments += [*_View(job, self.hidden).mounts(), "--ro-bind", own, own, "--bind", results, results]
        arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
        seccomp = _pipe(seccomp_program())
        worker = [*worker_command(folder, events, plans), confined.model_dump_json()]
        return Launch(
            [bwrap, *arguments, "--seccomp", str(seccomp), "--", *worker],
            _environment(self.environment()),
            folder.path,
            folder.log,
            limits,
            written=(folder.results,),
            descriptors=(seccomp,),
            wrapped=True,
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


def find_bubblewrap() -> str:
    """The program.

    Raises:
        InputError: it is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise InputError(
            "--sandbox: needs bubblewrap, and there is no bwrap on the PATH; install it (apt install bubblewrap, dnf "
            "install bubblewrap; Linux only), or say --no-sandbox where you trust the code"
        )
    return found


def _namespaces(rooted: bool) -> list[str]:
    """Its own processes, network, host name and System V memory; an unprivileged user.

    Root needs no user namespace, in which it would stay root to the kernel: the process gives its rights up when it
    starts, and has those alone that this takes.
    """
    common = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    common += ["--die-with-parent", "--hostname", "sandbox"]
    if rooted:
        return [*common, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*common, "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]


@dataclass(frozen=True)
class _View:
    """What a job needs to see, and what must not be seen."""

    job: Job
    hidden: tuple[Path, ...]

    def mounts(self) -> list[str]:
        """Arguments of bubblewrap, outer folders first, so that what lies deeper decides."""
        shown, links = self._shown()
        withheld = {path.resolve() for path in self._withheld() if path.exists()} - self._kept()
        arguments: list[str] = []
        masks: list[str] = []
        made = {Path("/"), Path("/tmp")}

        def folders_around(path: Path) -> Iterator[str]:
            """Those that are not there yet; bubblewrap's own would be closed to others."""
            for parent in reversed(path.parents):
                if parent not in made:
                    made.add(parent)
                    yield from ("--perms", "0755", "--dir", str(parent))

        for path in sorted(shown | withheld, key=lambda path: (len(path.parts), path)):
            around = next((parent for parent in path.parents if parent in shown | withheld), None)
            visible = around is not None and around not in withheld
            if visible != (path in withheld):
                continue  # it is as what lies around it
            if not visible:
                arguments += folders_around(path)
            if path not in withheld:
                arguments += ["--ro-bind", str(path), str(path)]
            elif path.is_dir():
                arguments += ["--tmpfs", str(path)]
                masks += ["--remount-ro", str(path)]
            else:
                arguments += ["--ro-bind", "/dev/null", str(path)]
        for link, target in sorted(links.items()):
            if not any(parent in shown for parent in link.parents):
                arguments += folders_around(link)
                arguments += ["--symlink", str(target), str(link)]
        return [*arguments, *masks]

    def _shown(self) -> tuple[set[Path], dict[Path, Path]]:
        """Folders and files, read-only, some inside of others; and links to them."""
        packages = ["attriboard", "attriboard.tasks", "attriboard.attributors", "attriboard.leaderboard"]
        packages += [name.partition(":")[0].partition(".")[0] for name in self._references()]
        data = [Path(value).absolute() for value in (os.environ.get("ATTRIBOARD_DATA"),) if value]
        wanted = [*map(Path, (*_SYSTEM, *_SETTINGS)), *_prefixes(), *self._code(), *_packages(packages), *data]
        there = [path for path in (*wanted, *self._own_folders(), *self._kept()) if path.exists()]
        real = {path: path.resolve() for path in there}
        return set(real.values()), {path: target for path, target in real.items() if path != target}

    def _code(self) -> set[Path]:
        """Where modules are looked for; not where this process happens to have been started."""
        started = {Path.cwd(), Path(sys.argv[0]).absolute().parent} - set(_python_path())
        return {Path(entry).absolute() for entry in sys.path if entry} - started

    def _withheld(self) -> Iterator[Path]:
        """Folders and files that would be seen otherwise."""
        yield from (board / name for board in _boards() for name in _BOARD)
        yield from (cache_folder(), Path.home(), *self.hidden)
        for path in {*self._own_folders(), *(path.resolve() for path in self._code())}:
            if path.is_dir() and not _installed(path):
                yield from withheld_below(path)

    def _kept(self) -> set[Path]:
        """What is needed although it may lie in what is withheld."""
        saved = [Path(folder) for folder in (self.job.task.folder,) if folder]
        return {path.resolve() for path in (self.job.checkpoints, datasets_folder(), *saved)}

    def _own_folders(self) -> list[Path]:
        """Folders of the files that people give: the plugin, selectors, the task.

        Raises:
            InputError: one of them holds much more.
        """
        files = [Path(plugin.location) for plugin in self._plugins() if plugin.origin == "file"]
        task = self.job.task
        if task.reference.startswith(FILE):
            files.append(Path(task.reference.removeprefix(FILE).rpartition(":")[0]))
        if task.script is not None:
            files.append(Path(task.script))
        if task.folder is not None:
            files.append(Path(task.folder) / "task")
        files += map(Path, task.sources)
        folders = sorted({file.resolve().parent for file in files})
        private = ((Path.home(), "your home"), (leaderboard_folder(), "the leaderboard"), (cache_folder(), "the cache"))
        for folder in folders:
            for path, what in private:
                if path.resolve().is_relative_to(folder):
                    raise InputError(
                        f"--sandbox: shows the attributor the folder of its file, and {folder} holds {what}; move the "
                        "file to a folder of its own"
                    )
            if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
                raise InputError(
                    f"--sandbox: the attributor runs as an unprivileged user, who cannot read {folder}; let others "
                    f"read it: chmod -R o+rX {folder}"
                )
        return folders

    def _plugins(self) -> list[PluginSpec]:
        return [self.job.attributor, *self.job.selectors, *self.job.donors.values()]

    def _references(self) -> Iterator[str]:
        yield from (plugin.location for plugin in self._plugins() if plugin.origin != "file")
        if not self.job.task.reference.startswith(FILE) and self.job.task.script is None:
            yield self.job.task.reference


def _boards() -> set[Path]:
    """The leaderboard of this installation, and of every other one that the interpreter's folders hold."""
    roots = {*map(Path, (*sys.path, "/usr", "/usr/local")), *_prefixes()}
    packages = [*roots, *(found for root in roots for found in root.glob("lib*/python*/*-packages"))]
    return {leaderboard_folder(), *(folder / "attriboard" / "leaderboard" for folder in packages)}


def _installed(folder: Path) -> bool:
    """Whether a folder on the module search path is the interpreter's or an environment's."""
    return folder.name in PRUNED or any(folder.is_relative_to(prefix.resolve()) for prefix in _prefixes())


def _prefixes() -> list[Path]:
    """Where the interpreter and its environment are installed."""
    return [Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)]


def _python_path() -> list[Path]:
    return [Path(part).absolute() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _packages(names: Iterable[str]) -> Iterator[Path]:
    """Where packages and modules lie, wherever their installation points."""
    for name in names:
        spec = None
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        if spec.submodule_search_locations is None:
            yield from (Path(place).absolute() for place in (spec.origin,) if place)
            continue
        for place in spec.submodule_search_locations:
            yield Path(place).absolute()
            yield (Path(place) / "__init__.py").resolve().parent  # a strict editable installation links its files


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


def _pipe(content: bytes) -> int:
    """A file descriptor from which a little content can be read."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(content)
    return read
