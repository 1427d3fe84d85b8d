"""`bench.code_digest`: what changes the digest of a method's code, and what does not."""

from pathlib import Path

from bench.code_digest import GRADING, Find, code_digest, installed


def test_words_do_not_change_the_digest_of_code_and_numbers_of_what_is_imported_do(tmp_path: Path) -> None:
    method = """from tool import RATE
def f(x):
    'Words.'
    if x < 0:
        raise ValueError('x')
    return RATE * x
"""

    def digest(method: str, tool: str) -> str:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        (place / "method.py").write_text(method)
        (place / "tool.py").write_text(tool)
        return code_digest(["method"], {path.stem: path.read_text() for path in place.iterdir()}.get)

    here = digest(method, "RATE = 2")
    other_words = method.replace("Words", "Other words").replace("'x'", "'x is negative'") + "# the end"
    assert digest(other_words, "RATE = 2  # per step") == here
    assert digest(method, "RATE = 3") != here
    assert digest(method.replace("x < 0", "x < 1"), "RATE = 2") != here


def test_only_what_is_reached_changes_the_digest_of_code() -> None:
    texts = {
        "method": "from tool import used\nimport helpers as h\ndef f(x):\n    return used(x) + h.of(x)\n",
        "tool": "from passed import on as passed\nLIMIT = 2\ndef used(x):\n    return passed(x, LIMIT)\n"
        "def unused(x):\n    return 1\n",
        "helpers": "def of(x):\n    return 3\n",
        "passed": "def on(x, y):\n    return 4\n",
    }

    def digest(**changes: tuple[str, str]) -> str:
        changed = {name: texts[name].replace(*pair) for name, pair in changes.items()}
        assert all(changed[name] != texts[name] for name in changes)
        return code_digest(["method"], (texts | changed).get)

    here = digest()
    assert digest(tool=("return 1", "return 2")) == here
    for change in (
        {"tool": ("LIMIT = 2", "LIMIT = 3")},
        {"tool": ("LIMIT = 2", "print(1)\nLIMIT = 2")},  # it acts when it is imported
        {"passed": ("return 4", "return 5")},
        {"helpers": ("return 3", "return 5")},
        {"method": ("+ h", "- h")},
    ):
        assert digest(**change) != here, change


def test_what_a_method_takes_and_leaves_out_does_not_count() -> None:
    text = """import sizes
class Method:
    def score(self, state):
        return state
    def memory_need(self, context):
        return sizes.of(context)
    def notes(self, state):
        return ("embeddings are left out",)
"""
    texts = {"method": text, "sizes": "def of(context):\n    return 8\n"}

    def digest(**changed: str) -> str:
        return code_digest(["method"], (texts | changed).get)

    here = digest()
    assert digest(sizes="def of(context):\n    return 9\n") == here
    assert digest(method=text.replace("embeddings", "norms").replace("sizes.of", "2 * sizes.of")) == here
    assert digest(method=text.replace("return state", "return -state")) != here


def test_the_digest_of_every_method_reaches_what_grades_and_what_it_computes_with() -> None:
    def without(name: str, text: str) -> Find:
        return lambda module: (
            (installed(module) or "").replace(text, f"{text} + 0") if module == name else installed(module)
        )

    trak = ["attriboard.attributors.trak", *GRADING]
    assert code_digest(trak) == code_digest(trak, installed)
    rotated = without("attriboard.toolkit.projection", "return coordinates * self._scale.to(gradients.dtype)")
    assert code_digest(trak, rotated) != code_digest(trak)
    assert code_digest(["attriboard.attributors.random", *GRADING], rotated) == code_digest(
        ["attriboard.attributors.random", *GRADING]
    )


def test_modules_outside_what_computes_do_not_count() -> None:
    assert installed("attriboard.toolkit.averaging") is not None
    assert installed("attriboard.contracts.spectrum") is not None
    for name in ("attriboard.contracts.card", "attriboard.base.errors", "attriboard.toolkit", "torch.nn", "attriboard"):
        assert installed(name) is None
