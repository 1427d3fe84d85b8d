"""The published cards are frozen, and the fingerprint follows exactly what influences a retrain."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import attriboard.tasks
from attriboard.attribution.plugins import Registry
from attriboard.base.errors import CardError
from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Task
from attriboard.tasks import DATASETS, KINDS, MODELS, TASKS
from attriboard.tasks.catalogue import task_from_card, task_from_file
from attriboard.tasks.fields import resolve

CARDS = Path(attriboard.tasks.__file__).parent

# A published card is never edited: ground truth, checkpoints and records hang on its fingerprint.
# Where this test fails, take the edit back and publish a new task under a new name or version.
PUBLISHED = {
    "cifar2_resnet9_mini": "3bc2c8ee46023a12fe5aa50af8f291a2b6ae4995671a13acc8d0d0dba80987d5",
    "cifar2_resnet9": "6fe7031370bb433b89ab08d532ad0b5a5a767c03cdf3c555ef87c3e34645063a",
    "digits_mlp": "bf3cdc18205ae1ec201da008b3d2fb4620be620ec8b0dc6d53a937e9dba79e8e",
    "digits_mlp_flipped": "db0cca881fa0690357aa2aa04a7d298bad0d43e7ce1fff23b0a5b06d5dfb9771",
    "mnist_lr": "4dc8a05a87a25c545aba4f48df5e38b4864ecb7d7a4968cb903adcbf6e3faf0b",
    "mnist_mlp": "c0d9d52ca53e2638be82f9f332a99a771613e72303c35c127b965fa7c5188e52",
    "wikitext2_gpt2": "66c014357168ea68bfde0f07ea892c1ed9e4219ac639f891b16b20e4992244b2",
    "wikitext2_gpt2_mini": "51b165ed8851b2ffb7529a2429e7d74941eee11d8157b784a88a889ca2977cb0",
    "wikitext2_gpt2_small": "3c0eaaa9976dff3e22f5b9e362abb554afd6824ab1570939de5a7a2e5ea70bb8",
    "mnist_mlp_flipped": "6c3447ec724f558944606ebe2c0f28c2c157f6048a9040f28f4db4f2687c7ff9",
}


def mapping(name: str = "mnist_mlp") -> dict:
    return yaml.safe_load((CARDS / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tasks_are_never_edited(name):
    assert Registry("task", TASKS, "attriboard.tasks").load(name)().card.fingerprint == PUBLISHED[name]


def test_every_task_has_one_card_file_of_its_name_and_a_pinned_fingerprint():
    assert set(TASKS) == {path.stem for path in CARDS.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", TASKS)
def test_a_registered_task_is_a_factory_without_arguments(name):
    task = Registry("task", TASKS, "attriboard.tasks").load(name)()
    assert isinstance(task, Task)
    assert task.card.name == name


@pytest.mark.parametrize("table", [TASKS, KINDS, DATASETS, MODELS])
def test_every_reference_imports(table):
    for name in table:
        assert callable(resolve("field", name, table))


def test_tasks_are_listed_without_torch():
    code = (
        "import sys; from attriboard.tasks.catalogue import digits_mlp, mnist_mlp\n"
        "for task in (digits_mlp(), mnist_mlp()): task.card.fingerprint, task.data_available()\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_tables_import_nothing():
    code = "import sys, attriboard.tasks; assert not {'numpy', 'torch', 'pydantic', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_card_file_of_ones_own_becomes_a_task(tmp_path):
    own = mapping("digits_mlp") | {"name": "my_digits"}
    own["recipe"]["epochs"], own["checkpoints"]["epochs"] = 3, [3]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    task = task_from_file(tmp_path / "card.yaml")
    assert task.card.name == "my_digits"
    assert len(task.load_data().train) == 1_297


def test_an_unknown_architecture_is_refused_when_the_task_is_built():
    raw = mapping()
    raw["model"]["architecture"] = "mlpp"
    with pytest.raises(CardError, match=r"model\.architecture = 'mlpp': no such name; did you mean mlp\?"):
        task_from_card(load_card(raw))


def test_a_name_like_no_other_is_answered_with_the_known_ones():
    with pytest.raises(CardError, match="known: cifar2, digits, huggingface, mnist"):
        resolve("data.dataset", "wikipedia", DATASETS)


# --- the fingerprint ----------------------------------------------------------------------------------------


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key in value:
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def changed(value):
    """A valid value near `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, list):
        return [*value, 7]
    if value is None:
        return 1.0
    if isinstance(value, str) and len(value) == 64:
        return value[::-1]
    return {"margin": "negative_loss", "constant": "linear", "float32": "bfloat16"}.get(value, f"{value}x")


DESCRIBES = {"title", "description", "licence", "ground_truth", "checkpoints", "questions"}
ONE_VALUE_ONLY = {("kind",), ("recipe", "optimizer")}
COMPLETE = load_card(mapping()).model_dump(mode="json")  # with every field that is left at its default
INFLUENCING = [p for p in leaves(COMPLETE) if p[0] not in DESCRIBES and p not in ONE_VALUE_ONLY]


@pytest.mark.parametrize("path", INFLUENCING, ids=".".join)
def test_each_field_that_influences_a_result_changes_the_fingerprint(path):
    raw = copy.deepcopy(COMPLETE)
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = changed(holder[path[-1]])
    if path == ("recipe", "epochs"):
        raw["checkpoints"]["epochs"] = [holder["epochs"]]
    assert load_card(raw).fingerprint != PUBLISHED["mnist_mlp"]


def test_a_default_written_out_does_not_change_the_fingerprint():
    assert load_card(COMPLETE).fingerprint == PUBLISHED["mnist_mlp"]


def test_an_optimiser_changes_the_fingerprint_and_adamw_takes_no_momentum():
    raw = mapping()
    raw["recipe"]["optimizer"] = "adamw"
    with pytest.raises(CardError, match=r"momentum = 0\.9: adamw has moments of its own; leave momentum out"):
        load_card(raw)
    del raw["recipe"]["momentum"]
    assert load_card(raw).fingerprint != PUBLISHED["mnist_mlp"]


@pytest.mark.parametrize(
    ("field", "value"), [("warmup", 1.0), ("warmup", -0.1), ("clip_norm", 0.0), ("schedule", "step")]
)
def test_a_recipe_that_makes_no_sense_is_refused(field, value):
    raw = mapping()
    raw["recipe"][field] = value
    with pytest.raises(CardError, match=rf"recipe\.{field} = "):
        load_card(raw)


def shuffled(value, draw):
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return value


@given(st.data(), st.sampled_from(sorted(PUBLISHED)))
def test_the_order_of_keys_does_not_change_the_fingerprint(data, name):
    assert load_card(shuffled(mapping(name), data.draw)).fingerprint == PUBLISHED[name]


@given(st.fixed_dictionaries({key: st.text() for key in ("title", "description", "licence")}))
def test_words_about_a_task_do_not_change_its_fingerprint(words):
    assert load_card(mapping() | words).fingerprint == PUBLISHED["mnist_mlp"]


@given(
    n_masks=st.integers(3, 10_000),
    n_repeats=st.integers(1, 100),
    full=st.integers(1, 50),
    half=st.integers(0, 50),
    epochs=st.sets(st.integers(1, 49)).map(lambda kept: [*sorted(kept), 50]),
)
def test_the_size_of_what_is_published_does_not_change_the_fingerprint(n_masks, n_repeats, full, half, epochs):
    sizes = {
        "ground_truth": {"n_masks": n_masks, "n_repeats": n_repeats},
        "checkpoints": {"full": full, "half": half, "epochs": epochs},
    }
    assert load_card(mapping() | sizes).fingerprint == PUBLISHED["mnist_mlp"]


@given(st.sampled_from(sorted(PUBLISHED)))
def test_a_card_survives_a_round_trip_through_json(name):
    card = load_card(mapping(name))
    again = TaskCard.model_validate(json.loads(card.model_dump_json()))
    assert again == card
    assert again.fingerprint == PUBLISHED[name]


# --- garbage ------------------------------------------------------------------------------------------------

GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text() | st.integers() | st.sampled_from(sorted(COMPLETE)), GARBAGE))
def test_a_random_mapping_is_a_card_error_and_nothing_else(raw):
    with pytest.raises(CardError):
        load_card(raw)


@given(st.data())
@settings(max_examples=300)
def test_a_card_with_one_random_value_is_valid_or_a_card_error(data):
    raw = copy.deepcopy(COMPLETE)
    path = data.draw(st.sampled_from(sorted(leaves(COMPLETE))))
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(GARBAGE)
    try:
        task = task_from_card(load_card(raw))
    except CardError:
        return
    assert len(task.card.fingerprint) == 64


@given(st.data())
def test_a_card_without_one_of_its_fields_is_valid_or_a_card_error(data):
    raw = copy.deepcopy(COMPLETE)
    path = data.draw(st.sampled_from(sorted(leaves(COMPLETE))))
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    try:
        load_card(raw)
    except CardError as error:
        assert path[-1] in str(error) or path[0] in str(error)  # noqa: PT017 - a valid card is an outcome too


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a list",
        b"just words",
        b"\xff\xfe\x00",
        b"a: [unclosed",
        b"a: *nowhere",
        b"!!python/object:os.system {}",
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_a_card_error(content, tmp_path):
    (tmp_path / "card.yaml").write_bytes(content)
    with pytest.raises(CardError, match=r"card\.yaml"):
        task_from_file(tmp_path / "card.yaml")


def test_a_card_file_that_is_not_there_is_a_card_error(tmp_path):
    with pytest.raises(CardError, match="not a readable YAML card"):
        task_from_file(tmp_path / "none.yaml")
