"""`make fuzz`: feed every parser hostile inputs and count. One accepted, one traceback or one hang ends with code 1."""

import argparse
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.campaign import Tally, feed
from fuzzing.parsers import PARSERS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--inputs", type=int, default=10_000, help="different inputs for each parser")
parser.add_argument("--parser", action="append", choices=PARSERS, help="only this one; repeatable")
arguments = parser.parse_args()
bad = False
signal.signal(signal.SIGTERM, signal.default_int_handler)  # the counts are printed, however this ends
print(
    f"{'parser':<22}{'inputs':>8}{'refused':>9}{'accepted':>10}{'crashed':>9}{'slowest':>10}{'memory':>10}{'seconds':>9}"
)
for name in arguments.parser or PARSERS:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="attriboard-fuzz-") as folder:
        try:
            feed(PARSERS[name], Path(folder), arguments.inputs, tally)
        except KeyboardInterrupt:
            bad = True
            print(f"interrupted after {tally.tried} of {arguments.inputs} inputs:")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{name:<22}{tally.tried:>8}{tally.refused:>9}{len(tally.accepted):>10}{len(tally.crashed):>9}"
        f"{tally.slowest:>8.2f} s{grown:>6.0f} MiB{time.perf_counter() - started:>9.0f}",
        flush=True,
    )
    for kind, found in (("accepted", tally.accepted), ("crashed", tally.crashed), ("slow", tally.slow)):
        for example in found[:5]:
            print(f"  {kind}: {example}")
    bad |= bool(tally.accepted or tally.crashed or tally.slow) or grown > 500
sys.exit(bad)
