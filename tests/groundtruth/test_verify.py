"""What verification accepts and what it does not."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tiny import small_digits_yaml

from attriboard.base.errors import FormatError, InputError
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Task
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth, write_ground_truth
from attriboard.groundtruth.plan import mask_indices
from attriboard.groundtruth.verify import RowCheck, check_plan, choose_rows, verify_rows
from attriboard.retraining.engine import retrain
from attriboard.retraining.request import RetrainRequest
from attriboard.tasks.catalogue import task_from_card, task_from_file

N_MASKS, N_REPEATS = 8, 4
FIRST_REPEATS = [(k, 0) for k in range(N_MASKS)]


@dataclass(frozen=True)
class Case:
    task: Task
    truth: GroundTruth
    folder: Path

    def altered(self, path: Path, card: TaskCard | None = None, **arrays: np.ndarray) -> GroundTruth:
        """The bundle with some arrays replaced and its digests made right again, as a forger would."""
        outputs = {name: arrays.get(name, array) for name, array in self.truth.outputs.items()}
        old, task = self.truth.card, card or self.truth.card.task
        write_ground_truth(
            path,
            arrays.get("masks", self.truth.masks),
            arrays.get("seeds", self.truth.seeds),
            outputs,
            fingerprint=task.fingerprint,
            task=task,
            created=old.created,
            retrain_seconds=old.retrain_seconds,
            provenance=old.provenance,
        )
        return read_ground_truth(path)

    def verify(self, truth: GroundTruth, rows: list[tuple[int, int]] = FIRST_REPEATS) -> list[RowCheck]:
        """Against retrains that are done once for all tests: what they are does not hang on the bundle."""
        return verify_rows(truth, self.task, open_store(self.task, self.folder / "verify"), rows)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("verify")
    task = task_from_file(small_digits_yaml(folder, epochs=20, masks=N_MASKS, repeats=N_REPEATS))
    path = folder / "true.safetensors"
    build_ground_truth(task, path, open_store(task, folder / "build"))
    return Case(task, read_ground_truth(path), folder)


def test_a_true_bundle_passes_bit_for_bit(case: Case) -> None:
    check_plan(case.truth, case.task)
    for check in case.verify(case.truth, [*FIRST_REPEATS, (3, 2)]):
        assert check.exact
        assert check.ok
        assert check.distance == check.max_abs_z == 0
        assert check.rank_correlation == pytest.approx(1)


def test_rows_moved_by_one_mask_fail(case: Case, tmp_path: Path) -> None:
    rolled = {name: np.roll(array, 1, axis=0) for name, array in case.truth.outputs.items()}
    truth = case.altered(tmp_path / "rolled.safetensors", **rolled)
    check_plan(truth, case.task)  # masks and seeds are right: only retraining shows it
    assert not any(check.ok or check.exact for check in case.verify(truth))


def test_two_swapped_rows_fail(case: Case, tmp_path: Path) -> None:
    order = np.arange(N_MASKS)
    order[[2, 5]] = [5, 2]
    swapped = {name: array[order] for name, array in case.truth.outputs.items()}
    checks = case.verify(case.altered(tmp_path / "swapped.safetensors", **swapped))
    assert [check.mask for check in checks if not check.ok] == [2, 5]


def test_rows_of_another_seed_of_the_same_mask_are_root_two_apart_and_pass(case: Case) -> None:
    card = case.task.card
    fresh = [RetrainRequest(mask_indices(card, k), 7 + k) for k in range(N_MASKS)]
    store = open_store(case.task, case.folder / "verify")
    retrain(case.task, fresh, store)
    outputs = {name: array.copy() for name, array in case.truth.outputs.items()}
    for name, array in outputs.items():
        array[:, 0] = store.read(f"outputs/{name}", [r.digest(card.fingerprint) for r in fresh])
    checks = case.verify(replace(case.truth, outputs=outputs))
    assert not any(check.exact for check in checks)
    assert np.mean([check.distance for check in checks]) == pytest.approx(np.sqrt(2), abs=0.25)
    assert sum(check.ok for check in checks) >= 6


def test_outputs_of_another_recipe_under_a_forged_fingerprint_fail(case: Case, tmp_path: Path) -> None:
    card = case.task.card
    recipe = card.recipe.model_copy(update={"learning_rate": card.recipe.learning_rate / 10})
    other = task_from_card(card.model_copy(update={"recipe": recipe}))
    truth = case.altered(tmp_path / "forged.safetensors", card=other.card)
    check_plan(truth, other)
    checks = verify_rows(truth, other, open_store(other, tmp_path / "store"), FIRST_REPEATS[:3])
    assert not any(check.ok for check in checks)


def test_permuted_masks_are_not_the_cards(case: Case, tmp_path: Path) -> None:
    truth = case.altered(tmp_path / "masks.safetensors", masks=case.truth.masks[::-1])
    with pytest.raises(InputError, match=r"masks\.safetensors: mask 0 is not the one .* rows were moved"):
        check_plan(truth, case.task)


def test_wrong_seeds_are_named(case: Case, tmp_path: Path) -> None:
    seeds = case.truth.seeds.copy()
    seeds[5, 1] += 1
    truth = case.altered(tmp_path / "seeds.safetensors", seeds=seeds)
    with pytest.raises(InputError, match=r"seeds of mask 5 are .*2000006.*expected .*2000005"):
        check_plan(truth, case.task)


def test_a_bundle_of_another_task_is_refused(case: Case) -> None:
    other = case.task.card.model_copy(update={"version": 2})
    with pytest.raises(InputError, match="do not belong together"):
        check_plan(case.truth, task_from_card(other))


def test_a_flipped_bit_is_found_before_anything_is_retrained(case: Case, tmp_path: Path) -> None:
    content = bytearray(case.truth.path.read_bytes())
    content[-11] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"flipped\.safetensors: .*damaged"):
        read_ground_truth(path)


def test_rows_are_chosen_once_each_and_repeatably_with_a_seed(case: Case) -> None:
    chosen = choose_rows(case.truth, 10, 0)
    assert len(set(chosen)) == 10
    assert chosen == choose_rows(case.truth, 10, 0)
    assert chosen != choose_rows(case.truth, 10, 1)
    assert set(choose_rows(case.truth, 999, None)) == {(k, r) for k in range(8) for r in range(4)}


def test_a_row_that_repeats_to_the_last_bit_passes_also_where_noise_hides_its_mask(tmp_path: Path) -> None:
    # One epoch and two repeats: seeds differ by more than masks do.
    task = task_from_file(small_digits_yaml(tmp_path, epochs=1, masks=12, repeats=2))
    path = tmp_path / "noisy.safetensors"
    build_ground_truth(task, path, open_store(task, tmp_path / "build"))
    truth = read_ground_truth(path)
    checks = verify_rows(truth, task, open_store(task, tmp_path / "verify"), [(k, 0) for k in range(12)])
    assert all(check.ok and check.exact for check in checks)
    moved = {name: array.copy() for name, array in truth.outputs.items()}
    for array in moved.values():
        array[[0, 1]] = array[[1, 0]]
    again = verify_rows(replace(truth, outputs=moved), task, open_store(task, tmp_path / "again"), [(0, 0), (1, 0)])
    assert not any(check.exact for check in again)
