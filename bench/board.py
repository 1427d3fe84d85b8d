"""How long the site of 10,000 synthetic records takes to build, how much memory, and how large its first page is."""

import resource
import sys
import tempfile
import time
from pathlib import Path

from attriboard.leaderboard.board import build_board
from attriboard.records.files import write_record
from bench.report import Measured

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from leaderboard_records import many_records

N_RECORDS = 10_000
FIRST_PAGE = ("index.html", "assets/board.css", "assets/theme.js")


def measure(repetitions: int = 1, n_records: int = N_RECORDS) -> Measured:
    """Seconds and peak memory of the build alone, once, and bytes that the first page loads."""
    with tempfile.TemporaryDirectory() as name:
        folder, site = Path(name) / "results", Path(name) / "site"
        for record in many_records(n_records):
            write_record(record, folder)
        started = time.perf_counter()
        summary = build_board([folder], site)
        seconds = time.perf_counter() - started
        return Measured(
            numbers={
                "records": summary.n_records,
                "build_seconds": round(seconds, 1),
                "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
                "first_page_bytes": sum((site / path).stat().st_size for path in FIRST_PAGE),
                "leaderboard_bytes": (site / "leaderboards" / "task_0-lds.html").stat().st_size,
            }
        )
