"""A digest of the code that a method's scores and grades come from, whatever comments and messages say.

It covers the method's module and what that imports, directly or not, of what computes (`COUNTED`). Of each module, the
syntax tree counts: comments, docstrings, formatting and the texts of exceptions do not. The engine around it
(processes, retraining, data sets, cards) is left out: its bits have tests of their own, and a sample of records that is
run again sees it.
"""

import ast
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import attriboard
from attriboard.base.digests import digest, digest_bytes

COUNTED = ("attributors", "contracts.schedule", "contracts.spectrum", "scoring", "toolkit")
FOLDERS = ("attributors", "benchmark/contracts", "benchmark/scoring", "benchmark/toolkit")
"""Where a checkout has them."""
Find = Callable[[str], str | None]
"""Dotted name of a module → its text; `None` for one that does not count."""
GRADING = tuple(f"attriboard.scoring.{name}" for name in ("bootstrap", "ceiling", "influence", "lds", "split"))


def code_digest(modules: Iterable[str], find: Find | None = None) -> str:
    """SHA-256 of some modules and all that they import of `COUNTED`.

    Args:
        modules: dotted names.
        find: see `Find`; by default as this installation has them.
    """
    find = find or installed
    parts: dict[str, str] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name in parts or (text := find(name)) is None:
            continue
        parts[name], imported = _essence(text)
        left += [module if find(whole) is None else whole for module, whole in imported]
    return digest(parts)


@cache
def installed(name: str) -> str | None:
    """See `Find`: as this installation has it; nothing heavy is imported."""
    root = Path(attriboard.__file__).parent
    return next((path.read_text(encoding="utf-8") for at in _places(name) if (path := root / at).is_file()), None)


class History:
    """The modules that count, as commits of a repository have them.

    Args:
        root: a checkout, or a folder in one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs: dict[str, dict[str, str] | None] = {}
        self._texts: dict[str, str] = {}

    def at(self, commit: str) -> Find | None:
        """See `Find`: as a commit has it; `None` where the repository does not have the commit."""
        if commit not in self._blobs:
            listed = self._git("ls-tree", "-r", "--full-tree", "--format=%(objectname) %(path)", commit, "--", *FOLDERS)
            lines = None if listed is None else [line.split(" ", 1) for line in listed.splitlines()]
            self._blobs[commit] = None if lines is None else {path: blob for blob, path in lines}
        blobs = self._blobs[commit]
        return None if blobs is None else lambda name: self._text(blobs, name)

    def _text(self, blobs: dict[str, str], name: str) -> str | None:
        for at in _places(name):
            blob = blobs.get(at) or blobs.get(f"benchmark/{at}")
            if blob:
                if blob not in self._texts:
                    self._texts[blob] = self._git("cat-file", "blob", blob) or ""
                return self._texts[blob]
        return None

    def _git(self, *arguments: str) -> str | None:
        git = subprocess.run(["git", *arguments], cwd=self._root, capture_output=True, text=True, check=False)
        return git.stdout if git.returncode == 0 else None


def _places(name: str) -> tuple[str, ...]:
    """Where a module may be below the package's folder; nowhere if it does not count."""
    inside = name.removeprefix("attriboard.")
    if inside == name or "." not in inside or not f"{inside}.".startswith(_PREFIXES):
        return ()
    path = inside.replace(".", "/")
    return (f"{path}.py", f"{path}/__init__.py")


_PREFIXES = tuple(f"{part}." for part in COUNTED)


class _Essence(ast.NodeTransformer):
    """A tree without what no score can depend on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)


@cache
def _essence(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Digest of a module's code, and of each name that it imports the module and the name in full."""
    tree = _Essence().visit(ast.parse(text))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
    return digest_bytes(ast.unparse(tree).encode()), tuple(imported)
