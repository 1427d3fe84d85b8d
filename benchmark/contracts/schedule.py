"""How many updates a recipe makes, and the learning rate of each."""

import math

from attriboard.contracts.card import Recipe


def steps_per_epoch(recipe: Recipe, n_examples: int) -> int:
    """Number of updates in an epoch on `n_examples`; the last batch may be short."""
    return -(-n_examples // recipe.batch_size)


def n_steps(recipe: Recipe, n_examples: int) -> int:
    """Number of updates in a whole training on `n_examples`."""
    return recipe.epochs * steps_per_epoch(recipe, n_examples)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The learning rate of one update.

    With the peak η, `total` = T updates and W = round(warmup · T) of them for warming up:

        η (t + 1)/(W + 1)                       for t < W
        η (1 − p)  or  η (1 + cos πp)/2         from W on, with p = (t − W)/(T − W)

    so that no update has rate 0, update W has the peak, and 0 would come after the last.

    Args:
        recipe: the recipe.
        step: t, from 0.
        total: see `n_steps`.
    """
    rising = round(recipe.warmup * total)
    if step < rising:
        return recipe.learning_rate * (step + 1) / (rising + 1)
    progress = (step - rising) / (total - rising)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate
