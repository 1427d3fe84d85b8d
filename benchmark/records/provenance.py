"""Where a result comes from: code, versions, machine and command, without names of people or machines."""

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from attriboard.base.version import VERSION
from attriboard.records.model import GitState, Hardware, Provenance

PACKAGES = ("numpy", "pydantic", "safetensors", "scikit-learn", "scipy", "torch", "transformers")


def provenance(threads: int | None = None) -> Provenance:
    """Collect the provenance of this process; what cannot change is looked up once.

    The GPU is PyTorch's where it is loaded already; it is never imported for it.

    Args:
        threads: of the process that did the work; by default those of this one.
    """
    return Provenance(
        attriboard=VERSION,
        git=_git_state(Path(__file__).resolve().parent),
        python=platform.python_version(),
        packages=dict(_versions(PACKAGES)),
        hardware=Hardware(
            cpu=_cpu_model(),
            cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            gpu=_gpu(),
        ),
        threads=threads or _threads(),
        platform="-".join(part for part in (platform.system(), platform.machine(), *platform.libc_ver()) if part),
        command_line=_anonymous(sys.argv),
    )


@functools.cache
def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _git_state(package: Path) -> GitState | None:
    """The commit of the checkout that tracks `package`; `None` for an installed copy."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a virtual environment may lie inside a checkout
        return GitState(commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain", "-uno")))
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name, with family and model where the system has them: rented machines name many models alike."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = facts.get("model name") or platform.processor() or platform.machine()
    exact = ("cpu family", "model")
    return f"{name} (family {facts[exact[0]]}, model {facts[exact[1]]})" if facts.keys() >= {*exact} else name


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))


def _threads() -> int:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else os.cpu_count() or 1


def _anonymous(arguments: Sequence[str]) -> tuple[str, ...]:
    """The command line with paths cut to their last part, URLs to their scheme, and home folders left out."""
    private = {Path.home().name, platform.node()}

    def shorten(part: str) -> str:
        if "://" in part:
            return f"{part.partition('://')[0]}://…"
        if not re.search(r"[/\\~]", part):
            return part
        last = re.split(r"[/\\]", part.rstrip("/\\"))[-1]
        return "…" if last in private or last.startswith("~") else last

    return tuple("=".join(map(shorten, argument.split("=")))[:2000] for argument in arguments)
