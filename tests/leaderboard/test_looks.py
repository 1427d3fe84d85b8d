"""A method has one color over the whole site, and no two lines of a figure are alike."""

from leaderboard_records import make_cost

from attriboard.leaderboard.methods import catalogue
from attriboard.leaderboard.plots.looks import colors, looks
from attriboard.leaderboard.plots.selection_cost import draw_selection_cost


def test_every_built_in_method_has_a_look_of_its_own_whatever_else_is_drawn() -> None:
    every = looks(catalogue())
    assert len({(look.color, tuple(look.dashes)) for look in every.values()}) == len(every) > 30
    assert all(looks([name]) == {name: look} for name, look in every.items())


def test_the_eleven_methods_of_the_digits_have_ten_colors_and_one_more_dash() -> None:
    names = [
        "dual_svm",
        "ekfac",
        "factgrass",
        "if_arnoldi",
        "iffim",
        "kfac",
        "logra",
        "rps",
        "shampoo",
        "trackstar",
        "trak",
    ]
    assert len({look.color for look in looks(names).values()}) == 10


def test_your_own_methods_get_looks_that_no_other_in_the_figure_has() -> None:
    names = ["iffim", *(f"mine_{i}" for i in range(30))]
    found = looks(names)
    assert list(found) == names
    assert len({(look.color, tuple(look.dashes)) for look in found.values()}) == len(names)
    assert looks(["mine_3"]) == looks(["mine_3"])


def test_where_dashes_say_something_else_colors_differ_as_long_as_there_are_any() -> None:
    assert len(set(colors(["logra", "dual_svm", "trak"]).values())) == 3
    assert colors(["logra", "dual_svm"])["logra"] == looks(["logra"])["logra"].color
    assert len(colors(f"mine_{i}" for i in range(30))) == 30


def test_a_figure_draws_a_method_in_its_color_with_its_dashes() -> None:
    line = draw_selection_cost([make_cost("dual_svm"), make_cost("iffim")], "digits_mlp")["layer"][2]["encoding"]
    look = looks(["dual_svm"])["dual_svm"]
    assert line["color"]["scale"]["range"][0] == look.color
    assert line["strokeDash"]["scale"]["range"][0] == look.dashes
