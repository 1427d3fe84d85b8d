"""The text that the published start of `wikitext2_gpt2_small` was trained on."""

from bench.pretraining import as_prose

RELEASED = """
 = Valkyria Chronicles III =

 The <unk> is 1 @.@ 5 m long . It weighs 3 @,@ 000 kg , at a 12 @-@ year age ; the ship 's crew ( 20 ) said " yes " .
 = = Plot = =
 <unk> went home .
 It didn 't sink ! Was it so ?
"""


def test_prose_has_no_headings_no_unknown_words_and_the_spaces_of_print():
    assert as_prose(RELEASED) == (
        "It weighs 3,000 kg, at a 12-year age; the ship's crew (20) said \"yes\".\nIt didn't sink! Was it so?\n"
    )
