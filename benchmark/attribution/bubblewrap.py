"""A sandbox made by bubblewrap (https://github.com/containers/bubblewrap), 0.8 or newer."""

import os
from collections.abc import Iterable

from attriboard.attribution.inside import Inside, Wrapped, program
from attriboard.attribution.seccomp import seccomp_program
from attriboard.attribution.view import Step

NEEDS = ("bwrap",)
"""Programs."""


def wrapped(inside: Inside) -> Wrapped:
    """See `attriboard.attribution.inside`.

    Root needs no user namespace, in which it would stay root to the kernel: the worker gives its rights up when it
    starts, and has those alone that this takes.
    """
    own, results, size = str(inside.folder.path), str(inside.folder.results), str(inside.file_bytes)
    arguments = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--hostname", "sandbox"]
    if inside.user is not None:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):
        arguments += ["--size", size, "--perms", "1777", "--tmpfs", place]
    arguments += [*mounts(inside.steps), "--ro-bind", own, own, "--bind", results, results]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    seccomp = _pipe(seccomp_program())
    worker = inside.worker(inside.events, inside.plans, inside.user)
    return Wrapped([program("bwrap"), *arguments, "--seccomp", str(seccomp), "--", *worker], (seccomp,))


def mounts(steps: Iterable[Step]) -> list[str]:
    """Arguments for the steps of a view."""
    arguments: list[str] = []
    last: list[str] = []
    for what, path, target in steps:
        place = str(path)
        match what:
            case "folder":
                arguments += ["--perms", "0755", "--dir", place]
            case "shown":
                arguments += ["--ro-bind", place, place]
            case "covered":
                arguments += ["--ro-bind", "/dev/null", place]
            case "link":
                arguments += ["--symlink", str(target), place]
            case "empty":
                arguments += ["--tmpfs", place]
                last += ["--remount-ro", place]
    return arguments + last


def _pipe(content: bytes) -> int:
    """A file descriptor from which a little content can be read."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(content)
    return read
