"""The context that an attributor is given: data, models and functions of a task, and nothing else."""

from pathlib import Path

from attriboard.contracts import Context, Examples, Task
from attriboard.groundtruth.checkpoints import read_checkpoints

__all__ = ["build_context"]


def build_context(task: Task, checkpoints: Path, *, device: str = "cpu", seed: int = 0) -> Context:
    """Assemble a context.

    Args:
        task: the task; its data is loaded.
        checkpoints: its checkpoint bundle.
        device: where tensors go.
        seed: for the attributor's randomness.

    Raises:
        DataError: the data is not to be had.
        FormatError: the checkpoints are damaged or of another task.
    """
    data = task.load_data()

    def place(examples: Examples) -> Examples:
        return Examples(examples.inputs.to(device), examples.targets.to(device))

    return Context(
        train=place(data.train),
        test=place(data.test),
        model=task.build_model().to(device).eval().requires_grad_(False),
        checkpoints=read_checkpoints(checkpoints, task.card.fingerprint, device),
        loss=task.loss,
        margin=task.margin,
        target=task.target,
        device=device,
        seed=seed,
    )
