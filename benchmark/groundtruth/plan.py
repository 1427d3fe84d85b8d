"""Which retrains a task's published artifacts consist of: fixed by the card, extendable without change.

Mask k is the k-th random subset under the card's subset seed; the seed of its repeat r is 10⁶ (r + 1) + k.
Models for attributors have seeds below 10⁶ and subsets from k = 10⁶ on, so none of them is a ground-truth
retrain. Retrains of data selection and brittleness have seeds from 10¹² on, and random orders from k = 2·10⁶ on.
Retrains that choose hyperparameters have seeds from 10¹³ on, and subsets from k = 4·10⁶ on; held-out ones have
seeds from 10¹⁴ on. Every other question than the usual one has subsets from k = 10¹³ on and seeds from 10¹⁵ on, both
with an offset of its own. With any number of masks and fewer than a thousand repeats no two purposes share a retrain.

A retrain with the same seed is the full-data run of the first checkpoint, with weight 0 on the removed examples.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.contracts.card import TaskCard
from attriboard.contracts.question import Question
from attriboard.retraining.request import RetrainRequest, random_order, random_subset
from attriboard.scoring.split import Split, split_test_points

MAX_MASKS = 1_000_000
_HALF_SEED = 500_000
_REMOVAL_SEED = 10**12
_REMOVAL_ORDER = 2 * MAX_MASKS
_TUNING_SEED = 10**13
_TUNING_MASK = 4 * MAX_MASKS
_UNTRAINED_MASK = 5 * MAX_MASKS
_QUESTION_MASK = 10**13
_QUESTION_SEED = 10**15
_SAME_SEED = 0  # of the first full-data checkpoint


def mask_indices(card: TaskCard, k: int) -> NDArray[np.int64]:
    """Training rows of mask k, ascending."""
    return random_subset(card.data.n_train, card.subset_size, card.subsets.seed, k)


def as_masks(subsets: Sequence[NDArray[np.int64]], n_train: int) -> NDArray[np.bool_]:
    """Subsets, given by their rows, as masks (n_subsets, n_train)."""
    masks = np.zeros((len(subsets), n_train), dtype=bool)
    for mask, rows in zip(masks, subsets, strict=True):
        mask[rows] = True
    return masks


def retrain_seed(k: int, repeat: int) -> int:
    """Seed of one repeat of mask k."""
    return MAX_MASKS * (repeat + 1) + k


def kept_rows(card: TaskCard, question: Question | None, k: int) -> NDArray[np.int64]:
    """Training rows that mask k of a question's ground truth keeps, ascending; of the usual one without a question.

    Masks of leave-one-out leave out different examples, in a random order.
    """
    if question is None:
        return mask_indices(card, k)
    n_train, seed = card.data.n_train, card.subsets.seed
    stream = _QUESTION_MASK + MAX_MASKS * (2 * question.removed_ppm + (not question.same_seed))
    if question.removed_ppm == 0:
        return np.delete(np.arange(n_train), _left_out(n_train, seed, stream)[k])
    return random_subset(n_train, question.n_kept(n_train), seed, stream + k)


@cache
def _left_out(n_train: int, seed: int, stream: int) -> NDArray[np.int64]:
    """The order in which examples are left out one at a time, drawn once for all masks."""
    order = random_order(n_train, seed, stream)
    order.setflags(write=False)
    return order


def truth_seed(question: Question | None, k: int, repeat: int) -> int:
    """Seed of one repeat of mask k of a question's ground truth."""
    if question is None:
        return retrain_seed(k, repeat)
    return _SAME_SEED if question.same_seed else _QUESTION_SEED + MAX_MASKS * (1000 * question.removed_ppm + repeat) + k


def truth_request(card: TaskCard, question: Question | None, k: int, repeat: int) -> RetrainRequest:
    """The retrain of one mask and repeat; see `kept_rows`."""
    rows, seed = kept_rows(card, question, k), truth_seed(question, k, repeat)
    if question is None or not question.same_seed:
        return RetrainRequest(rows, seed)
    weights = np.zeros(card.data.n_train)
    weights[rows] = 1.0
    return RetrainRequest(np.arange(card.data.n_train), seed, weights=weights)


def truth_requests(
    card: TaskCard, n_masks: int, n_repeats: int, question: Question | None = None
) -> list[RetrainRequest]:
    """The retrains of a ground truth, repeat by repeat, so that an unfinished build has every mask at the same depth.

    Raises:
        InputError: sizes out of range.
    """
    if not 3 <= n_masks < MAX_MASKS or n_repeats < 1:
        raise InputError(f"masks = {n_masks}, repeats = {n_repeats}: need at least 3 masks and 1 repeat")
    if question is not None:
        card.check_size(question, n_masks, n_repeats)
    return [truth_request(card, question, k, r) for r in range(n_repeats) for k in range(n_masks)]


def planned(
    requests: Sequence[RetrainRequest], n_masks: int, n_train: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Masks (n_masks, n_train) and seeds (n_masks, n_repeats) of requests that go repeat by repeat.

    What has weight 0 is removed.
    """
    first = requests[:n_masks]  # the first repeat has every mask
    masks = as_masks([r.indices if r.weights is None else r.indices[r.weights != 0] for r in first], n_train)
    seeds = np.array([request.seed for request in requests], dtype=np.int64).reshape(-1, n_masks).T
    return masks, seeds


def checkpoint_requests(card: TaskCard) -> list[RetrainRequest]:
    """The models that attributors are given: full-data ones first, then random subsets."""
    epochs = tuple(card.checkpoints.epochs)
    everything = np.arange(card.data.n_train)
    full = [RetrainRequest(everything, seed, epochs) for seed in range(card.checkpoints.full)]
    half = [
        RetrainRequest(mask_indices(card, MAX_MASKS + j), _HALF_SEED + j, epochs) for j in range(card.checkpoints.half)
    ]
    return full + half


def tuning_requests(card: TaskCard, count: int) -> list[RetrainRequest]:
    """Single retrains on random subsets by which hyperparameters are chosen; never a ground truth's.

    The first requests of a larger count are those of a smaller one.
    """
    return [RetrainRequest(mask_indices(card, _TUNING_MASK + j), _TUNING_SEED + j) for j in range(count)]


def untrained_masks(card: TaskCard, count: int) -> NDArray[np.bool_]:
    """Random subsets on which no model is trained, (count, n_train): how scores behave on subsets needs no retrain."""
    return as_masks([mask_indices(card, _UNTRAINED_MASK + j) for j in range(count)], card.data.n_train)


def removal_seed(s: int) -> int:
    """The s-th seed of retrains on what is left after a removal, and of the full-data models beside them."""
    return _REMOVAL_SEED + s


def split_of(card: TaskCard) -> Split:
    """The calibration and scoring points of a task."""
    return split_test_points(card.data.n_test, card.split.calibration, card.split.seed)


def shuffled_rows(card: TaskCard, s: int) -> NDArray[np.int64]:
    """The order in which examples are removed at random, beside the s-th seed."""
    return random_order(card.data.n_train, card.subsets.seed, _REMOVAL_ORDER + s)


def shuffled_points(card: TaskCard) -> NDArray[np.int64]:
    """The order in which test points are looked at where a few have to do."""
    return random_order(card.data.n_test, card.split.seed, _REMOVAL_ORDER + MAX_MASKS)
