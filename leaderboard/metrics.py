"""Metrics: each gives one leaderboard per task. A new metric is one `*_table.py` and one line in `METRICS`."""

from collections.abc import Callable
from dataclasses import dataclass

from attriboard.leaderboard.lds_table import lds_table
from attriboard.leaderboard.removal_table import removal_table
from attriboard.leaderboard.study import TaskStudy
from attriboard.leaderboard.tables import Table
from attriboard.leaderboard.use_tables import brittleness_table, mislabel_table, qld_table


@dataclass(frozen=True)
class Metric:
    """One way of grading.

    Attributes:
        key: in file names.
        kind: of the records that it is made of.
        title: short name.
        explanation: one sentence under the heading.
        direction: which way is better.
        footer: what the numbers are, in a sentence or two.
        unit: what the number that orders its rows is.
        commands: that score a method; `{task}` is replaced by the task.
        table: from a task's study to its leaderboard; none where no record has this metric.
    """

    key: str
    kind: str
    title: str
    explanation: str
    direction: str
    footer: str
    unit: str
    commands: tuple[str, ...]
    table: Callable[[TaskStudy], Table | None]


METRICS = (
    Metric(
        "lds",
        "attribution",
        "LDS",
        "The linear datamodeling score: how well summed scores rank what retraining on random half-subsets does.",
        "↑\N{NO-BREAK SPACE}Higher is better; compare with the noise ceiling, not with 1.",
        "LDS: Spearman's correlation, over random half-subsets of the training data, between summed attribution scores "
        "and the outputs of models retrained on those subsets; averaged over scoring points; higher is better. The "
        "noise ceiling is the LDS that a perfect predictor would have, because retraining is noisy.",
        "LDS",
        ("attriboard run {task} ATTRIBUTOR", "attriboard select {task} ATTRIBUTOR"),
        lds_table,
    ),
    Metric(
        "removal",
        "removal",
        "data selection",
        "Remove the examples that a method calls most helpful, retrain, measure.",
        "↓\N{NO-BREAK SPACE}Lower accuracy (or higher perplexity) is better.",
        "Data selection: the examples with the highest scores, summed over calibration points, are removed, and models "
        "are trained on the rest; accuracy or perplexity is on scoring points. It ranks methods differently from "
        "LDS: sums over test points reward methods that remove whole classes, and random halves never lack a class.",
        "after the most helpful examples were removed",
        ("attriboard removal {task} ATTRIBUTOR",),
        removal_table,
    ),
    Metric(
        "brittleness",
        "brittleness",
        "brittleness",
        "The fewest training examples whose removal flips a prediction, found by retraining.",
        "Fewer removals (↓) and more flipped predictions (↑) are better.",
        "Brittleness: for each test point, the fewest training examples, in the order of its own scores, whose removal "
        "flips its prediction in most retrains. Points that do not flip count as beyond the largest number tried.",
        "removals flip the median prediction",
        ("attriboard brittleness {task} ATTRIBUTOR",),
        brittleness_table,
    ),
    Metric(
        "qld",
        "qld",
        "query loss difference",
        "Remove each test point's own top examples, retrain with the same seed, and compare with random removals.",
        "↑ A larger drop of the target is better; 0 is chance.",
        "Query loss difference: for each test point, the examples with its own highest scores are removed, a model is "
        "trained without them, and its target on that point is compared with that of models trained without as many "
        "random examples, from the same seed. Where the target is minus the loss, the drop is the difference in loss.",
        "drop of the target beyond random removals",
        ("attriboard qld {task} ATTRIBUTOR",),
        qld_table,
    ),
    Metric(
        "mislabel",
        "mislabel",
        "mislabel detection",
        "Find training labels that were flipped on purpose, so the answer is known.",
        "↑\N{NO-BREAK SPACE}Higher AUC is better; chance is 0.5.",
        "Mislabel detection: the area under the ROC curve of finding the wrong labels when examples are ordered by how "
        "suspicious a method finds them, by self-influence or by the harm done to calibration points. Nothing is "
        "retrained.",
        "AUC of finding wrong labels",
        ("attriboard mislabel {task} ATTRIBUTOR", "attriboard mislabel {task} ATTRIBUTOR --by summed"),
        mislabel_table,
    ),
)
