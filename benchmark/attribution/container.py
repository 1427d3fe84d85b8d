"""A sandbox made by crun (https://github.com/containers/crun), 1.8 or newer: the runtime that Podman starts.

The container has no image: its files are the machine's own, as a view shows them. crun gets them as a bundle of the
OCI runtime specification (https://github.com/opencontainers/runtime-spec), version 1.0. It makes no control groups, and
refuses some layouts of those that the machine has, so it does not see them. Nothing else outlives a runner that is
killed: crun runs in a process namespace of its own, whose first process the kernel ends with the runner.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

from attriboard.attribution.inside import Inside, Wrapped, program
from attriboard.attribution.seccomp import seccomp_program

NEEDS = ("crun", "unshare", "setpriv", "mount", "sh")
"""Programs."""

_EVENTS, _PLANS = 3, 4  # file descriptors inside
_NOBODY = 65534
_HIDDEN = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
           "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi")  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/dev")


def wrapped(inside: Inside) -> Wrapped:
    """See `attriboard.attribution.inside`.

    As an ordinary user there are two user namespaces: in the outer one that user may mount, in the inner one nobody
    has a right.
    """
    bundle = inside.folder.path / "container"
    root = bundle / "root"
    for folder in (bundle, root, root / "tmp"):
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    for step in inside.steps:
        if step.what == "link":
            _link(root, step.path, step.target)
    (bundle / "config.json").write_text(json.dumps(_configuration(inside)), encoding="utf-8")
    one, other = sorted({5, 6, 7, 8, 9} - {inside.events, inside.plans})[:2]  # shells name one digit only
    script = (
        f"{program('mount')} -t tmpfs -o ro none /sys/fs/cgroup || exit 1\n"
        f"exec {one}>/proc/self/fd/{inside.events} {other}</proc/self/fd/{inside.plans}\n"
        f"exec {_EVENTS}>&{one} {_PLANS}<&{other} {one}>&- {other}<&-\n"
        'exec "$1" --cgroup-manager=disabled --root "$0/state" run --preserve-fds=2 --bundle "$0" sandbox\n'
    )
    rootless = [] if inside.user is not None else ["--user", "--map-root-user"]
    around = [
        program("setpriv"),
        "--pdeathsig",
        "KILL",
        "--",
        program("unshare"),
        *rootless,
        "--mount",
        "--pid",
        "--fork",
    ]
    around += ["--kill-child=KILL", "--mount-proc", "--"]
    return Wrapped([*around, program("sh"), "-c", script, str(bundle), program("crun")])


def _configuration(inside: Inside) -> dict[str, Any]:
    """The bundle's `config.json`."""
    nobody = inside.user is None
    user = _NOBODY if inside.user is None else inside.user
    namespaces = ["pid", "network", "ipc", "uts", "mount", *(["user"] if nobody else [])]
    mappings = [{"containerID": _NOBODY, "hostID": 0, "size": 1}]
    sealed = [str(path) for what, path, _ in inside.steps if what == "empty"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": "root", "readonly": True},
        "mounts": _mounts(inside),
        "annotations": {"run.oci.seccomp_bpf_data": base64.b64encode(seccomp_program()).decode()},
        "process": {
            "user": {"uid": user, "gid": user},
            "args": inside.worker(_EVENTS, _PLANS, None),
            "env": [f"{name}={value}" for name, value in inside.environment.items()],
            "cwd": "/tmp",
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
        },
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(_HIDDEN),
            "readonlyPaths": [*sealed, *_READ_ONLY],
            **({"uidMappings": mappings, "gidMappings": mappings} if nobody else {}),
        },
    }


def _mounts(inside: Inside) -> list[dict[str, Any]]:
    """Those of the system, of the view, and of the worker's folder, in this order."""
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
    ]
    for place in ("/dev/shm", "/tmp"):  # where links lie that are made beforehand
        copied = ["tmpcopyup"] if place == "/tmp" else []
        mounts.append(_mount(place, "tmpfs", "nosuid", "nodev", "mode=1777", f"size={inside.file_bytes}", *copied))
    for what, path, _ in inside.steps:
        if what == "shown":
            mounts.append(_bind(path, path))
        elif what == "covered":
            mounts.append(_bind(Path(os.devnull), path))
        elif what == "empty":
            mounts.append(_mount(str(path), "tmpfs", "nosuid", "nodev", "mode=755"))
    own, results = inside.folder.path, inside.folder.results
    return [*mounts, _bind(own, own), _mount(str(results), "bind", "bind", "nosuid", "nodev", source=str(results))]


def _bind(source: Path, path: Path) -> dict[str, Any]:
    """A file or folder of the machine with all that is mounted below, nothing of it writable."""
    options = ["rbind", "rro", "rnosuid", "rnodev"] if source.is_dir() else ["bind", "ro", "nosuid", "nodev"]
    return _mount(str(path), "bind", *options, source=str(source))


def _mount(path: str, kind: str, *options: str, source: str = "none") -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": source, "options": list(options)}


def _link(root: Path, path: Path, target: Path | None) -> None:
    """A link in the container's own root."""
    place = root / path.relative_to("/")
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.symlink_to(str(target))
