"""`make kill`: kill every kind of work 50 times, and count. One result that differs, one torn file ends with code 1."""

import argparse
import sys
import tempfile
from pathlib import Path

from killing.campaign import kill_at_random
from killing.works import WORKS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--kills", type=int, default=50, help="of each kind of work")
parser.add_argument("--work", action="append", choices=WORKS, help="only this one; repeatable")
arguments = parser.parse_args()
bad = False
print(f"{'work':<20}{'kills':>7}{'finished':>10}{'differing':>11}{'broken':>8}")
for name in arguments.work or WORKS:
    with tempfile.TemporaryDirectory(prefix="attriboard-kill-") as folder:
        outcome = kill_at_random(WORKS[name](), Path(folder), arguments.kills)
    print(
        f"{name:<20}{outcome.kills:>7}{outcome.finished:>10}{outcome.differing:>11}{len(outcome.broken):>8}", flush=True
    )
    for complaint in outcome.broken[:5]:
        print(f"  {complaint}")
    bad |= bool(outcome.differing or outcome.broken)
sys.exit(bad)
