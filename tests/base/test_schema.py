"""What a broken schema says: the field, its value and the rule, in words that do not need the pattern."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from attriboard.base.schema import MAX_PROBLEMS, Sha256, TaskName, Timestamp, in_words, matching, problems


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: TaskName = "my_task"
    digest: Sha256 = "0" * 64
    at: Timestamp = "2026-01-31T12:00:00Z"
    even: Annotated[str, matching(r"^([0-9]{2})*$", "an even number of digits", max_length=4)] = ""
    counts: dict[str, int] = {}

    @model_validator(mode="after")
    def _together(self) -> "Example":
        if self.even == "00":
            raise ValueError("even and name do not fit")
        return self


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "My Task"},
            "name = 'My Task': must be 2 to 64 lower-case letters, digits or _, beginning with a letter, as in my_task",
        ),
        ({"digest": "0" * 63 + "G"}, "must be 64 lower-case hexadecimal digits"),
        ({"at": "yesterday"}, "at = 'yesterday': must be a time in UTC, as in 2026-01-31T12:00:00Z"),
        ({"even": "123"}, "even = '123': must be an even number of digits"),
        ({"even": "123456"}, "even = '123456': must have at most 4 characters"),
        ({"name": 7}, "name = 7: must be text"),
        ({"nmae": "x"}, "nmae = 'x': there is no such field"),
        ({"counts": {"a": "b"}}, "counts.a = 'b': must be a valid integer"),
        ({"even": "00"}, "even and name do not fit"),
    ],
)
def test_a_broken_field_is_named_with_its_value_and_its_rule(fields, message):
    with pytest.raises(ValidationError) as caught:
        Example(**fields)
    assert message in in_words(caught.value)
    assert "pattern" not in in_words(caught.value)


def test_fields_can_be_named_by_where_they_are_in_the_file():
    with pytest.raises(ValidationError) as caught:
        Example(name="X", nmae="y")
    first, second = problems(caught.value, "data.options")
    assert first.startswith("data.options.name = 'X': must be")
    assert second == "data.options.nmae = 'y': there is no such field"


def test_of_many_problems_the_first_are_named_and_the_others_counted():
    with pytest.raises(ValidationError) as caught:
        Example(counts={f"c{i}": "no" for i in range(MAX_PROBLEMS + 3)})
    assert in_words(caught.value).endswith("; and 3 more")
    assert in_words(caught.value).count("must be") == MAX_PROBLEMS


def test_which_of_several_schemas_it_is_is_said_in_words():
    class Other(BaseModel):
        kind: Literal["other"] = "other"

    class Third(BaseModel):
        kind: Literal["third"] = "third"

    adapter = TypeAdapter(Annotated[Other | Third, Field(discriminator="kind")])
    for value, message in (({}, "kind is missing"), ({"kind": "x"}, "kind = 'x': must be other or third")):
        with pytest.raises(ValidationError) as caught:
            adapter.validate_python(value)
        assert in_words(caught.value) == message


def test_another_exception_keeps_its_message():
    assert in_words(ValueError("not JSON")) == "not JSON"
