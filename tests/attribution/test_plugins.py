"""Names: built-ins and third-party plugins enter by the same door."""

import sys
from importlib.metadata import EntryPoint

import pytest

from attriboard.attribution import plugins as registry
from attriboard.attribution.plugins import PluginSpec, Registry, load_plugin_file
from attriboard.attributors import ATTRIBUTORS
from attriboard.attributors.selectors import SELECTORS
from attriboard.base.errors import InputError, UnknownNameError
from attriboard.contracts.attributor import Attributor
from attriboard.evaluation import catalog
from attriboard.tasks import TASKS

GROUP = "attriboard.attributors"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages with these entry points are installed."""

    def install(*entries: tuple[str, str]):
        found = [EntryPoint(name, value, GROUP) for name, value in entries]
        monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: found if group == GROUP else [])
        return Registry("attributor", ATTRIBUTORS, GROUP)

    return install


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("grad_dott", "did you mean grad_dot"),
        ("TRAK", "known: random, input_similarity"),
        ("trk", "did you mean trak"),
        ("zzz", "known: random, input_similarity"),
        ("", "known: random"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_ones(typed, hint):
    with pytest.raises(UnknownNameError, match=f"no attributor named '{typed}'; {hint}") as caught:
        catalog.attributor_spec(typed)
    assert caught.value.exit_code == 2


def test_every_table_resolves_and_each_kind_has_its_own_door():
    for table, group, kind in (
        (TASKS, "attriboard.tasks", "task"),
        (ATTRIBUTORS, "attriboard.attributors", "attributor"),
        (SELECTORS, "attriboard.attributors.selectors", "selector"),
    ):
        doors = Registry(kind, table, group)
        assert doors.names()[: len(table)] == list(table)
        # `library:method` needs its library.
        assert all(callable(doors.load(name)) for name in table if ":" not in name)


def test_entry_points_follow_the_built_ins_by_name_and_load_like_them(installed):
    doors = installed(("zeta", "attriboard.attributors.random:Random"), ("alpha", "attriboard.attributors.trak:TRAK"))
    assert doors.names() == [*ATTRIBUTORS, "alpha", "zeta"]
    assert doors.load("zeta").name == "random"
    spec = catalog.attributor_spec("alpha")
    assert (spec.origin, spec.location) == ("entry_point", "attriboard.attributors.trak:TRAK")
    assert catalog.attributor_spec("trak").origin == "builtin"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("random", "evil:Random")], "attributor 'random': evil:Random claims the name of a built-in; rename"),
        ([("new", "one:A"), ("new", "two:B")], "attributor 'new': two:B claims the name of one:A; rename"),
    ],
)
def test_a_name_that_is_taken_is_refused(installed, entries, message):
    doors = installed(*entries)
    with pytest.raises(InputError, match=message):
        doors.names()


def test_one_package_that_is_found_twice_is_no_clash(installed):
    assert installed(("new", "one:A"), ("new", "one:A")).names() == [*ATTRIBUTORS, "new"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_package:Method", "ModuleNotFoundError: No module named 'no_such_package'"),
        (
            "attriboard.contracts.attributor:Missing",
            "AttributeError: module 'attriboard.contracts.attributor' has no attribute 'Missing'",
        ),
        ("broken_on_import:Method", "RuntimeError: needs a license"),
    ],
)
def test_a_broken_reference_is_an_input_error_that_names_it(installed, tmp_path, monkeypatch, value, problem):
    (tmp_path / "broken_on_import.py").write_text("raise RuntimeError('needs a license')")
    monkeypatch.syspath_prepend(tmp_path)
    doors = installed(("broken", value))
    with pytest.raises(InputError, match=f"attributor 'broken': cannot import {value}: {problem}"):
        doors.load("broken")
    with pytest.raises(InputError, match=f"attributor 'broken': cannot import {value}: {problem}"):
        catalog.attributor_spec("broken").load_attributor()
    assert "broken" in doors.names(), "it harms nobody who does not ask for it"


@pytest.mark.parametrize(
    "value", ["attriboard.contracts.attributor:Context", "attriboard.attribution.plugins:resolve_reference"]
)
def test_a_reference_to_something_else_is_refused(value):
    spec = PluginSpec(name="other", origin="entry_point", location=value)
    with pytest.raises(InputError, match=f"{value} is no subclass of attriboard's Attributor"):
        spec.load_attributor()


@pytest.mark.parametrize("name", ["missing.py", "folder.py", "method.txt"])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "method.txt").write_text("")
    with pytest.raises(InputError, match=f"attributor file .*{name}: not a readable .py file"):
        load_plugin_file(tmp_path / name, Attributor, "attributor")


def test_a_subclass_that_the_file_only_imports_or_names_twice_does_not_count(tmp_path):
    path = tmp_path / "mine method ü.py"
    path.write_text(
        "from attriboard.attributors.random import Random\nclass Mine(Random):\n    name = 'mine'\nalso_mine = Mine\n"
    )
    assert load_plugin_file(path, Attributor, "attributor").name == "mine"


def test_a_spec_of_a_file_is_absolute_and_needs_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    assert catalog.attributor_spec("./mine.py").location == str(tmp_path / "mine.py")
    assert catalog.attributor_spec("mine.py").name == "mine"
    with pytest.raises(InputError, match=r"other\.py: no such file"):
        catalog.attributor_spec("other.py")


def test_a_plugin_file_imports_modules_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_the_plugin.py").write_text("NAME = 'from_beside'\n")
    path = tmp_path / "importing.py"
    path.write_text(
        "from beside_the_plugin import NAME\n"
        "from attriboard.contracts import Attributor\n"
        "class Importing(Attributor):\n"
        "    name, paper, family = NAME, '', 'control'\n"
        "    def fit(self, context): return context\n"
        "    def score(self, state): return None\n"
    )
    assert load_plugin_file(path, Attributor, "attributor").name == "from_beside"
