"""The measurements: `python -m bench [NAME …]`. Each runs in a process of its own."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.page import write_page
from bench.report import draw, losses, table

NAMES = {
    "startup": "how long attriboard --help and attriboard tasks take",
    "lds": "LDS scoring against dattri; the bootstrap",
    "gradients": "per-example gradients and projections against torch.func, dattri and traker",
    "iffim": "the exact kernel and its decomposition; Fourier against Rademacher projection",
    "selection": "a 25-point λ path with ξ against one λ, and against dattri's conjugate gradients",
    "retraining": "mnist_mlp retrains against dattri's loop, and against the machine's GEMM rate",
    "resnet9": "cifar2_resnet9_mini retrains against dattri's loop",
    "gpt2_mini": "wikitext2_gpt2_mini retrains against dattri's loop",
    "roofline": "operations, bytes and floors of stacked retraining on one core",
    "end_to_end": "attriboard run mnist_mlp iffim: wall-clock time and peak memory",
    "board": "the site of 10,000 records",
    "peers": "the page that sets our methods beside the peers' on one task: an hour",
    "theory": "the sign rule of ξ and ω on real ground truth",
    "score_xi": "ξ from scores alone beside ξ from spectra, and ω at the peak of LDS",
    "cluster": "scheduling overhead of a dask cluster",
    "large": "kernels of 1,000 to 50,000 examples: minutes to half an hour",
}
ON_REQUEST = ("peers", "theory", "score_xi", "cluster", "large")
BY_DEFAULT = tuple(name for name in NAMES if name not in ON_REQUEST)

COMPARISON = "python -m bench same_scores --against REV: whether scores have the same bits as at another revision"


def arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<11} {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure against peers, in ratios, on this machine.",
        epilog=f"measurements (by default all but {', '.join(ON_REQUEST)}):\n{listed}\n\n{COMPARISON}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="interleaved repetitions (5)")
    parser.add_argument("--json", action="store_true", help="print the JSON document instead of the table")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), metavar="FILE", help="the JSON document")
    parser.add_argument("--figure", type=Path, default=Path("build/bench.svg"), metavar="FILE", help="the figure")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md, too; not with NAME")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"no measurement {', '.join(unknown)}; known: {', '.join(NAMES)}")
    if chosen.page and (left_out := sorted(set(BY_DEFAULT) - set(chosen.names or BY_DEFAULT))):
        parser.error(f"--page: the page has every measurement of a run; without NAME, or also {' '.join(left_out)}")
    if chosen.repetitions < 1:
        parser.error(f"--repetitions {chosen.repetitions}: must be at least 1")
    if "ATTRIBOARD_DATA" not in os.environ:
        parser.error("ATTRIBOARD_DATA must name a folder with mnist_5000_500.npz")
    return chosen


def run(name: str, repetitions: int) -> dict[str, Any] | None:
    """One measurement in a process of its own; `None` where it fails."""
    code = f"import json; from bench.{name} import measure; print(json.dumps(measure({repetitions}).to_json()))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{name}: failed with exit code {done.returncode}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    if sys.argv[1:2] == ["same_scores"]:
        from bench.same_scores import main as compare

        return compare(sys.argv[2:])
    chosen = arguments()
    results, failed = {}, False
    for name in chosen.names or BY_DEFAULT:
        found = run(name, chosen.repetitions)
        failed = failed or found is None
        if found is not None:
            results[name] = found
            print(table({name: found}), file=sys.stderr if chosen.json else sys.stdout, flush=True)
    document = {"results": results, "losses": losses(results)}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if any(result["comparisons"] for result in results.values()):
        draw(results, chosen.figure)
        if chosen.page and failed:
            print("the page stays as it is: a measurement failed", file=sys.stderr)
        elif chosen.page:
            write_page(results, chosen.repetitions)
    if chosen.json:
        print(json.dumps(document, indent=2))
    else:
        lost = losses(results)
        print("where we lose:" if lost else "no comparison is lost")
        for sentence in lost:
            print(f"  {sentence}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
