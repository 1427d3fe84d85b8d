"""Method cards: who made a method, where it is described, and how its hyperparameters came about.

A card is one YAML file that its authors write. Records of score matrices carry its digest, so that neither can be
exchanged without the other.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from attriboard.base.digests import digest
from attriboard.base.documents import parse_yaml, read_bounded
from attriboard.base.errors import CardError, FormatError
from attriboard.base.schema import rule
from attriboard.records.model import Name

MAX_BYTES = 64 << 10
Protocol = Literal["default", "selected", "tuned"]

TEMPLATE = """\
# Method card: who made the method, where it is described, how its hyperparameters came about.
name: my_method           # lower-case letters, digits, - and _; what the board calls it
paper:                    # a link, or "unpublished"
authors: []               # as in [Ada Lovelace, Charles Babbage]
protocol:                 # default: of the paper or library; selected: without retraining; tuned: anything else
tuned_on: ""              # for selected and tuned: what chose the values, and on which data
code:                     # link of the repository
commit:                   # its commit, 7 to 64 hexadecimal digits
family: ""                # such as gradient, influence function, similarity
"""

# Control characters, and those that turn the direction of text or have no width: they make two texts look alike.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def _readable(text: str) -> str:
    if _INVISIBLE.search(text):
        raise ValueError("has characters that cannot be seen; write it in plain text on one line")
    if text != text.strip():
        raise ValueError("begins or ends with spaces")
    return text


Line = Annotated[str, Field(max_length=300), AfterValidator(_readable)]
Link = Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:\d+)?/[!-~]*$", max_length=300)]


class MethodCard(BaseModel):
    """What the authors of a method say of it.

    Attributes:
        name: what the board calls it.
        paper: a link, or "unpublished".
        authors: their names.
        protocol: where the hyperparameters come from: *default*: the paper or library; *selected*: without retraining;
            *tuned*: anything else, ground truth included.
        tuned_on: what chose the values, and on which data.
        code: link of the repository.
        commit: of the repository.
        family: the kind of method.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    paper: Link | Literal["unpublished"]
    authors: Annotated[list[Annotated[Line, Field(min_length=1)]], Field(min_length=1, max_length=100)]
    protocol: Protocol
    tuned_on: Line = ""
    code: Link
    commit: str = Field(pattern=r"^[0-9a-f]{7,64}$")
    family: Line = ""

    @model_validator(mode="after")
    def _choice_is_explained(self) -> Self:
        if self.protocol != "default" and not self.tuned_on:
            raise ValueError(
                f"protocol = {self.protocol}: say in tuned_on what chose the values and on which data, as in "
                "'surrogate, calibration points'"
            )
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of the card's canonical JSON: comments and order of the file do not matter."""
        return digest(self.model_dump(mode="json"))


def load_method_card(path: Path) -> MethodCard:
    """Read and validate a method card.

    Raises:
        CardError: everything that is missing or wrong, a line each.
    """
    try:
        raw = parse_yaml(read_bounded(path, MAX_BYTES, "a method card"))
    except (FormatError, ValueError) as error:
        remedy = "" if path.exists() else "; attriboard submit --template prints one to fill in"
        raise CardError(f"method card {path}: {str(error).removeprefix(f'{path}: ')}{remedy}") from error
    if not isinstance(raw, dict):
        raise CardError(f"method card {path}: must be a YAML mapping, this is {type(raw).__name__}")
    # A field of the template without a value has not been filled in.
    given = {key: value for key, value in raw.items() if key not in HINTS or value not in (None, [])}
    try:
        return MethodCard.model_validate(given)
    except ValidationError as error:
        problems = "\n".join(f"  {problem}" for problem in map(_problem, error.errors(include_url=False)))
        raise CardError(f"method card {path}:\n{problems}") from error


def _problem(error: Any) -> str:
    where = ".".join(str(part)[:80] for part in error["loc"] if not str(part).startswith(("constrained-", "literal[")))
    if error["type"] == "missing":
        return f"{where}: is missing: {HINTS[where]}"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such field; there are {', '.join(MethodCard.model_fields)}"
    if not where:
        return rule(error)
    shown = repr(error["input"])
    said = f"must be {HINTS[where]}" if where in HINTS else rule(error)
    return f"{where} = {shown if len(shown) < 80 else shown[:77] + '…'}: {said}"


HINTS = {
    "name": "lower-case letters, digits, - and _, a letter first, as in my_method",
    "paper": "a link that begins with https://, or unpublished",
    "authors": "a list of names, as in [Ada Lovelace]",
    "protocol": "default, selected or tuned",
    "code": "the repository's link, as in https://github.com/ada/my_method",
    "commit": "the repository's commit, 7 to 64 hexadecimal digits in quotes",
}
