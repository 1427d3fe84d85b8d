"""Method cards: what is missing is said in plain words, all at once."""

import pytest
from checking.conftest import CARD, write_card

from attriboard.base.errors import CardError
from attriboard.records.method_card import TEMPLATE, load_method_card


def test_a_card_is_read_and_its_digest_leaves_comments_and_order_out(tmp_path):
    card = load_method_card(write_card(tmp_path / "a.yaml"))
    assert card.model_dump(exclude_defaults=True) == CARD
    text = "# a comment\n" + "".join(reversed((tmp_path / "a.yaml").read_text().splitlines(keepends=True)))
    (tmp_path / "b.yaml").write_text(text.replace("- Ada Lovelace\n", "").replace("authors:\n", ""))
    (tmp_path / "b.yaml").write_text("authors: [Ada Lovelace, Charles Babbage]\n" + "\n".join(
        line for line in text.splitlines() if "authors" not in line and not line.startswith("-")
    ))  # fmt: skip
    assert load_method_card(tmp_path / "b.yaml").sha256 == card.sha256
    assert load_method_card(write_card(tmp_path / "c.yaml", commit="0123abd")).sha256 != card.sha256


def test_the_template_as_it_is_names_all_that_is_missing(tmp_path):
    (tmp_path / "method.yaml").write_text(TEMPLATE)
    with pytest.raises(CardError) as caught:
        load_method_card(tmp_path / "method.yaml")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["paper", "authors", "protocol", "code", "commit"]
    assert all("is missing: " in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My Method"}, "name = 'My Method': .*lower-case letters"),
        ({"paper": "http://plain.example"}, "paper = 'http://plain.example'"),
        ({"paper": "javascript:alert(1)"}, "paper = 'javascript"),
        ({"code": "https://user@host/x"}, "code = "),
        ({"code": "https://host/a b"}, "code = "),
        ({"authors": ["Ada\u202eecalevoL"]}, "authors.0 = .*cannot be seen"),
        ({"authors": ["Ada\x00"]}, "not readable YAML|cannot be seen"),
        ({"authors": [""]}, "authors.0 = ''"),
        ({"authors": "Ada"}, "authors = 'Ada': .*a list of names"),
        ({"commit": 1234567}, "commit = 1234567: .*in quotes"),
        ({"commit": "main"}, "commit = 'main'"),
        ({"protocol": "best"}, "protocol = 'best': .*default, selected or tuned"),
        ({"protocol": "tuned"}, "protocol = tuned: say in tuned_on what chose the values"),
        ({"license": "MIT"}, "license: no such field; there are name, paper"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named_with_the_rule(tmp_path, changes, message):
    with pytest.raises(CardError, match=message):
        load_method_card(write_card(tmp_path / "method.yaml", **changes))


def test_what_is_no_card_at_all_says_where_to_get_one(tmp_path):
    with pytest.raises(CardError, match="attriboard submit --template prints one to fill in"):
        load_method_card(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(CardError, match="must be a YAML mapping, this is list"):
        load_method_card(tmp_path / "list.yaml")
