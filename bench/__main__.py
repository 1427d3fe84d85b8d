"""Run all measurements, or those named: `python -m bench [NAME …]`. Each runs in a process of its own.

Prints one line per number and writes `build/bench.json`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

NAMES = ("startup", "lds", "iffim", "selection", "theory", "retraining", "resnet9", "gpt2_mini", "board", "peers")


def main(names: list[str]) -> int:
    if unknown := set(names) - set(NAMES):
        print(f"no measurement {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if "ATTRIBOARD_DATA" not in os.environ:
        print("ATTRIBOARD_DATA must name a folder with mnist_5000_500.npz", file=sys.stderr)
        return 2
    results = {}
    for name in names or NAMES:
        code = f"import json; from bench.{name} import measure; print(json.dumps(measure()))"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
        for key, value in results[name].items():
            print(f"{name:<12} {key:<36} {value}", flush=True)
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
