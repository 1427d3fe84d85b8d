"""Workers that start in milliseconds: each is a fork of a server that has imported what they all need.

Importing PyTorch takes a core a second or two, more than many attributors do. The server is a program of its own with
the environment of a worker. It never sees a job or the ground truth; a fork of it is what a worker is after its
imports. It ends with the process that started it.

The first worker of a process starts as a program all the same, for most commands need no second one.
"""

import atexit
import gc
import json
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

_MAX_MESSAGE = 1 << 17
_UNKNOWN = 1  # exit code of a worker whose server was killed before it
_READ_LATE = ("ATTRIBOARD_", "PYTEST_")  # variables that no library reads when it is imported


class ForkedWorker:
    """A worker that the server forked; has the part of `subprocess.Popen` that its starter needs.

    Its id stays its own until its end was looked at, as that of a child does.
    """

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self._process, self._status = os.pidfd_open(pid), status
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or −1 times the signal that ended it; `None` while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, after `timeout` seconds.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self._code is None and self._has_ended(timeout):
            with self._status:
                self._code = int(self._status.recv(_MAX_MESSAGE) or _UNKNOWN)
            os.close(self._process)
        return self._code

    def _has_ended(self, timeout: float | None) -> bool:
        ended = select.poll()  # `select.select` takes no descriptor above 1,023
        ended.register(self._process, select.POLLIN)
        return bool(ended.poll(None if timeout is None else 1000 * timeout))


class _Server:
    """The server of an environment, from the side of the process that started it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment, self._owner = _early(environment), os.getpid()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "attriboard.attribution.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the process that started it
            )

    def fits(self, environment: dict[str, str]) -> bool:
        """Whether it is ours, and its forks are what a program with this environment would be."""
        return (self._environment, self._owner) == (_early(environment), os.getpid())

    def fork(self, folder: Path, environment: dict[str, str], descriptors: list[int]) -> ForkedWorker | None:
        request = json.dumps([str(folder), {k: v for k, v in environment.items() if k.startswith(_READ_LATE)}])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self._requests, [request.encode()], [*descriptors, theirs.fileno()])
            if pid := ours.recv(_MAX_MESSAGE):
                return ForkedWorker(int(pid), ours)
        except OSError:
            pass  # it is gone
        except BaseException:
            ours.close()
            raise
        ours.close()
        return None

    def close(self) -> None:
        self._requests.close()
        if os.getpid() == self._owner:
            self._process.wait()


_lock = threading.Lock()
_server: _Server | None = None
_first = True


def fork_worker(
    folder: Path, environment: dict[str, str], log: BinaryIO, events: int, plans: int
) -> ForkedWorker | None:
    """A worker of a folder, forked; `None` where it is to be started as a program.

    Args:
        folder: the worker's own.
        environment: all of it.
        log: gets what it prints.
        events: file descriptor that it reports to.
        plans: file descriptor that it reads plans from.
    """
    global _server, _first
    with _lock:
        if _first or sys.platform != "linux":
            _first = False
            return None
        if _server is None or not _server.fits(environment):
            close_server()
            _server = _Server(environment)
        worker = _server.fork(folder, environment, [log.fileno(), events, plans])
        if worker is None:
            close_server()
        return worker


@atexit.register
def close_server() -> None:
    """End the server, if there is one; workers that it forked live on."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


def _early(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_READ_LATE)}


def serve(descriptor: int) -> None:
    """Fork a worker for every request that comes, and report how each ends, until nobody can ask any more."""
    gc.disable()  # imports make a million objects and no garbage
    import attriboard.attribution.worker  # noqa: F401

    gc.freeze()
    with socket.socket(fileno=descriptor) as requests, selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    _attend(selector, key)
                    continue
                request, descriptors, _, _ = socket.recv_fds(requests, _MAX_MESSAGE, 4)
                if not request:
                    return
                _fork(selector, request, *descriptors)


def _fork(selector: selectors.BaseSelector, request: bytes, log: int, events: int, plans: int, status: int) -> None:
    pid = os.fork()
    if not pid:
        for key in selector.get_map().values():  # of the server and of other workers
            for descriptor in {key.fd, *(key.data or ())[1:]}:
                os.close(descriptor)
        selector.close()
        folder, late = json.loads(request)
        _become_worker(folder, late, log, events, plans, status)
    for descriptor in (log, events, plans):
        os.close(descriptor)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _attend(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Report how a worker ended, or release the id of one whose end was looked at."""
    selector.unregister(key.fileobj)
    pid, status = key.data
    os.close(key.fd)
    if key.fd == status:
        os.waitpid(pid, 0)
        return
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None  # its descriptor said so
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with suppress(OSError):  # nobody wants to know any more
        os.write(status, str(code).encode())
    selector.register(status, selectors.EVENT_READ, (pid, status))


def _become_worker(folder: str, late: dict[str, str], log: int, events: int, plans: int, status: int) -> NoReturn:
    import numpy as np

    from attriboard.attribution.process import run

    os.setsid()  # so that whatever it starts can be ended with it
    os.write(status, str(os.getpid()).encode())
    os.close(status)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for name in [name for name in os.environ if name.startswith(_READ_LATE)]:
        del os.environ[name]
    os.environ.update(late)
    os.chdir(folder)
    sys.path[0] = folder
    np.random.seed()  # noqa: NPY002 - else the global generator of all workers has the server's state
    sys.argv[1:] = [folder, str(events), str(plans)]
    run(sys.argv[1:])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
