"""What a sandbox shows of the machine: what a job needs, read-only, and nothing that lies in between.

The tools that make sandboxes get it as steps, and carry out each with one of their mounts.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from attriboard.attribution.job import Job
from attriboard.attribution.plugins import PluginSpec
from attriboard.attribution.withheld import PRUNED, withheld_below
from attriboard.base.errors import InputError
from attriboard.base.paths import cache_folder, datasets_folder, leaderboard_folder
from attriboard.contracts.task import FILE

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
_BOARD = ("groundtruth", "results", "entries")  # folders of the leaderboard


class Step(NamedTuple):
    """One thing to make inside.

    Attributes:
        what: `shown`, as it is outside and read-only; `folder`, which others can read and what follows fills; `empty`,
            a folder that hides another and is read-only once all steps are done; `covered`, a file that cannot be
            opened; `link`, a symbolic one.
        path: of it, outside and inside.
        target: of a link.
    """

    what: Literal["shown", "folder", "empty", "covered", "link"]
    path: Path
    target: Path | None = None


@dataclass(frozen=True)
class View:
    """What a job needs to see, and what must not be seen.

    Attributes:
        job: the job.
        hidden: folders and files that hold results or ground truth, should one lie inside of what is shown.
    """

    job: Job
    hidden: tuple[Path, ...] = ()

    def steps(self) -> list[Step]:
        """Outer folders first, so that what lies deeper decides.

        Raises:
            InputError: a folder that would have to be shown holds much more than a plugin.
        """
        shown, links = self._shown()
        withheld = {path.resolve() for path in self._withheld() if path.exists()} - self._kept()
        steps: list[Step] = []
        made = {Path("/"), Path("/tmp")}

        def folders_around(path: Path) -> Iterator[Step]:
            """Those that are not there yet; a tool's own could be closed to others."""
            for parent in reversed(path.parents):
                if parent not in made:
                    made.add(parent)
                    yield Step("folder", parent)

        for path in sorted(shown | withheld, key=lambda path: (len(path.parts), path)):
            around = next((parent for parent in path.parents if parent in shown | withheld), None)
            visible = around is not None and around not in withheld
            if visible != (path in withheld):
                continue  # it is as what lies around it
            if not visible:
                steps += folders_around(path)
            if path not in withheld:
                steps.append(Step("shown", path))
            else:
                steps.append(Step("empty" if path.is_dir() else "covered", path))
        for link, target in sorted(links.items()):
            if not any(parent in shown for parent in link.parents):
                steps += [*folders_around(link), Step("link", link, target)]
        return steps

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
