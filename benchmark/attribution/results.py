"""What a worker leaves in its folder, read with care: other people's code may leave anything there."""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Folder, Job
from attriboard.base.errors import FormatError
from attriboard.base.scores import Scores, map_scores


@dataclass(frozen=True)
class Results:
    """The files of finished configurations.

    Attributes:
        folder: the worker's.
        job: what it was asked.
        trusted: whether our own code wrote them.
    """

    folder: Folder
    job: Job
    trusted: bool

    def scores(self, configuration: int) -> Scores:
        """The scores of a finished configuration, mapped into memory; the mapping keeps the bytes.

        Raises:
            OSError, FormatError, TypeError, ValueError: what lies there is no score matrix of this job.
        """
        path = self._readable(self.folder.scores(configuration))
        scores = map_scores(path)
        path.unlink()
        data = self.job.task.card.data
        shape = (data.n_train if self.job.queries == "train" else data.n_test, data.n_train)
        if scores.shape != shape:
            raise FormatError(f"shape: scores are {scores.shape}, must be (n_test, n_train) = {shape}")
        return scores

    def tokens(self, configuration: int) -> dict[int, NDArray[np.float64]]:
        """Training example → scores of its tokens; nothing where none were asked for.

        Raises:
            OSError, FormatError: what lies there is something else.
        """
        if self.job.tokens is None:
            return {}
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._readable(self.folder.tokens(configuration))
        try:
            found = load_file(path)
            examples, scores = found["examples"], found["scores"]
            if (examples.dtype.kind, scores.dtype.kind, scores.ndim) != ("i", "f", 2):
                raise ValueError(f"examples are {examples.dtype}, scores {scores.dtype} {scores.shape}")
            return dict(zip(examples.tolist(), scores, strict=True))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: holds no scores of tokens: {error}") from error

    def _readable(self, path: Path) -> Path:
        return path if self.trusted else _taken(path, self.folder.path / path.name)


def _taken(path: Path, copy: Path) -> Path:
    """A copy of a file that other people's code wrote, and may still change.

    Raises:
        OSError: a link, or no file.
        FormatError: a pipe or another thing to wait for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as source, copy.open("wb") as target:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError("not a plain file")
        shutil.copyfileobj(source, target)
    path.unlink()
    return copy
