"""A dask cluster on loopback, of real processes, for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

TESTS = Path(__file__).parents[1]


class Site:
    """A scheduler at one address and workers, all of which may be killed and started again.

    Args:
        folder: for scratch files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, *workers: str) -> dict[str, subprocess.Popen[bytes]]:
        """Start the scheduler and those workers that are not running, and wait for them."""
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(self._port))
        for name in workers:
            self._start(name, "worker", self.address, "--nthreads", "1", "--no-nanny", "--name", name)
        end = time.monotonic() + 90
        with Client(self.address, timeout=60, set_as_default=False) as client:
            while len(client.nthreads()) != len(self._running()) - 1:  # the dead are no longer counted either
                assert time.monotonic() < end
                time.sleep(0.1)
        return {name: self._processes[name] for name in workers}

    def kill(self, name: str) -> None:
        """As a node that fails."""
        self._processes[name].kill()
        self._processes[name].wait()

    def close(self) -> None:
        for name in self._running():
            self.kill(name)

    def _running(self) -> list[str]:
        return [name for name, process in self._processes.items() if process.poll() is None]

    def _start(self, name: str, program: str, *arguments: str) -> None:
        if name in self._running():
            return
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", program, *arguments, "--no-dashboard"],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=os.environ | {"PYTHONPATH": path},
            )


@contextmanager
def cluster_site(folder: Path) -> Iterator[Site]:
    """A site; nothing of it outlives the block."""
    site = Site(folder)
    try:
        yield site
    finally:
        site.close()
