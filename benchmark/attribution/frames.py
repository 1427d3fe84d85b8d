"""Tracebacks for authors: the frames of their own code, without those of the engine and of the libraries they call."""

import traceback
from pathlib import Path

MAX_FRAMES = 5


def own_frames(error: BaseException, code: Path) -> str:
    """The last frames of an exception in an attributor's code, with file and line as Python writes them, and its text.

    Args:
        error: what it raised.
        code: the attributor's file; what lies beside and below it is its code too.

    Returns:
        Nothing where no frame is the attributor's.
    """
    folder = code.resolve().parent
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_below(frame.filename, folder)]
    if not frames and not (isinstance(error, SyntaxError) and error.filename):
        return ""
    lines = [*traceback.format_list(frames[-MAX_FRAMES:]), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip().encode(errors="backslashreplace").decode()  # a path may hold what no JSON can


def _is_below(filename: str, folder: Path) -> bool:
    return not filename.startswith("<") and Path(filename).resolve().is_relative_to(folder)
