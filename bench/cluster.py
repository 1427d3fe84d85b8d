"""What a dask cluster costs beside the work: many one-thread workers on this machine, tasks that only sleep.

Two numbers: the share by which `tasks` sleeps on `workers` workers take longer than the ideal time, and the CPU
seconds of the scheduler per task. A cluster of W workers with tasks of d seconds asks for W/d tasks a second: the
workers here ask for as many as 1,000 workers whose tasks are longer in the same ratio.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from attriboard.retraining.cluster import DaskCluster
from bench.report import Measured

WORKERS, TASKS = 100, 2_000
SECONDS = 6.0  # of a stack of mnist_mlp on one core, about the shortest task there is


# What a worker does many times a second for itself is its own core's work; here hundreds of them share one.
IDLE = {
    "distributed.admin.tick.interval": "1h",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.worker.profile.enabled": False,
}


def nap(payload: str) -> bytes:
    """A task that only takes time."""
    time.sleep(float(payload.partition(":")[0]))
    return payload.encode()


@contextmanager
def workers(count: int) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a scheduler, with so many one-thread workers in one other process: they only sleep."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port)]
    host = f"import asyncio; from bench.cluster import host; asyncio.run(host({address!r}, {count}))"
    processes = [
        subprocess.Popen([*scheduler, "--no-dashboard"], **quiet),
        subprocess.Popen([sys.executable, "-c", host], **quiet),
    ]
    try:
        _wait_for(address, count)
        yield address, psutil.Process(processes[0].pid)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


async def host(address: str, count: int) -> None:
    """Be so many workers until the scheduler ends."""
    import dask
    from distributed import Worker

    with dask.config.set(IDLE):
        workers = [Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(count)]
        await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def _wait_for(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=240)


def run(address: str, payloads: list[str]) -> float:
    """Seconds from the first submission to the last result."""
    cluster = DaskCluster(address)
    cluster.n_workers  # noqa: B018  # connects
    started = time.perf_counter()
    assert sum(1 for _ in cluster.map(nap, payloads)) == len(payloads)
    return time.perf_counter() - started


def measure(repetitions: int = 1, n_workers: int = WORKERS, n_tasks: int = TASKS, seconds: float = SECONDS) -> Measured:
    """Overhead over the ideal time, and seconds per task, once."""
    with workers(n_workers) as (address, scheduler):
        run(address, [f"0:{number}" for number in range(n_workers)])  # first contacts
        before = _busy(scheduler), time.process_time()
        wall = run(address, [f"{seconds}:{number}" for number in range(n_tasks)])
        scheduling, submitting = _busy(scheduler) - before[0], time.process_time() - before[1]
    ideal = seconds * -(-n_tasks // n_workers)
    return Measured(
        numbers={
            "workers": n_workers,
            "tasks": n_tasks,
            "task_seconds": seconds,
            "ideal_seconds": ideal,
            "seconds": wall,
            "overhead_share": wall / ideal - 1,
            "as_1000_workers_with_task_seconds": 1000 * seconds / n_workers,
            "scheduler_seconds_per_task": scheduling / n_tasks,
            "submitter_seconds_per_task": submitting / n_tasks,
            "load_average": os.getloadavg()[0],
        }
    )


def _busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
