"""A local process that retrains: `python -m attriboard.retraining.worker MODULE:FUNCTION FOLDER`.

Numbers come in on standard input, one a line. For each, the function is called with the text of the file
`NUMBER.payload` in FOLDER, what it returns is written to the file `NUMBER`, and a line of JSON on standard output says
so, or which error there was. Results travel as files, so that a line is written whole or not at all. The process ends
when its input does: a parent that is killed cannot tell it.
"""

import json
import os
import pkgutil
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue


def main(reference: str, folder: Path) -> None:
    """Work until there is nobody who asks."""
    orders, answers = os.fdopen(os.dup(0)), os.dup(1)
    # What a task's code prints or reads is no part of the conversation.
    os.dup2(2, 1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    numbers: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in orders:
            numbers.put(line.strip())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        number = numbers.get()
        answer: dict[str, object] = {"number": int(number)}
        try:
            payload = (folder / f"{number}.payload").read_text(encoding="utf-8")
            (folder / number).write_bytes(pkgutil.resolve_name(reference)(payload))
        except (Exception, SystemExit) as error:
            shown = traceback.format_exc()
            answer["error"] = {"kind": type(error).__name__, "message": str(error), "traceback": shown}
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
