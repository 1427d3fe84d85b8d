"""A digest of the code that a method's scores and grades come from, whatever comments and messages say.

It covers the method's module and whatever that reaches, definition by definition, in what computes (`COUNTED`): a
function that the method does not use may change. Of each definition, the syntax tree counts: comments, docstrings,
formatting and the texts of exceptions do not, nor does what a method only says (`SAID`). The engine around it
(processes, retraining, data sets, cards) is left out: its bits have tests of their own, and a sample of records that is
run again sees it.
"""

import ast
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import attriboard
from attriboard.base.digests import digest, digest_bytes

COUNTED = ("attributors", "contracts.schedule", "contracts.spectrum", "scoring", "toolkit")
FOLDERS = ("attributors", "benchmark/contracts", "benchmark/scoring", "benchmark/toolkit")
"""Where a checkout has them."""
SAID = ("memory_need", "work_need", "notes")
"""Of a method: what it takes, and what it leaves out. No score depends on them."""
WHOLE = "*"
Target = tuple[str, str]
"""A module and a name in it, or `WHOLE`."""
Find = Callable[[str], str | None]
"""Dotted name of a module → its text; `None` for one that does not count."""
GRADING = tuple(f"attriboard.scoring.{name}" for name in ("bootstrap", "ceiling", "influence", "lds", "split"))


def code_digest(modules: Iterable[str], find: Find | None = None) -> str:
    """SHA-256 of some modules and of all definitions of `COUNTED` that they reach.

    Args:
        modules: dotted names.
        find: see `Find`; by default as this installation has them.
    """
    find = find or installed
    parts: dict[str, list[str]] = {}
    left: list[Target] = [(name, WHOLE) for name in modules]
    while left:
        module, name = left.pop()
        if f"{module}:{name}" in parts or (text := find(module)) is None:
            continue
        found, imports = _statements(text)
        if name in imports:  # it is passed on
            left.append(_reached(imports[name], "", find))
            continue
        used = [one for one in found if name in (WHOLE, *one.binds) or not one.binds]
        parts[f"{module}:{name}"] = [one.digest for one in used]
        bound = {bound for one in found for bound in one.binds}
        for one in used:
            inside = imports | dict(one.imports)
            for reference in one.names:
                alias, _, attribute = reference.partition(".")
                if alias in inside:
                    left.append(_reached(inside[alias], attribute, find))
                elif alias in bound:
                    left.append((module, alias))
    return digest(parts)


def _reached(target: Target, attribute: str, find: Find) -> Target:
    """What an imported name leads to: a definition, a module's attribute, or a whole module."""
    module, name = target
    if name == WHOLE or find(f"{module}.{name}") is None:
        return target
    return f"{module}.{name}", attribute or WHOLE


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
    if inside == name or "." not in inside or not f"{inside}.".startswith(tuple(f"{part}." for part in COUNTED)):
        return ()
    path = inside.replace(".", "/")
    return (f"{path}.py", f"{path}/__init__.py")


class _Essence(ast.NodeTransformer):
    """A tree without what no score can depend on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return ast.Pass() if node.name in SAID else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)


@dataclass(frozen=True)
class _Statement:
    """One statement of a module.

    Attributes:
        digest: of its code.
        binds: top-level names that it defines; none for one that acts: it counts for all.
        names: those that it refers to, with their first attribute: "knobs.GRID".
        imports: name → what it stands for, of the imports in it.
    """

    digest: str
    binds: tuple[str, ...]
    names: tuple[str, ...]
    imports: tuple[tuple[str, Target], ...]


@cache
def _statements(text: str) -> tuple[tuple[_Statement, ...], dict[str, Target]]:
    """A module's statements, and what its imports stand for."""
    tree = _Essence().visit(ast.parse(text))
    own = [node for node in tree.body if not isinstance(node, ast.Pass | ast.Import | ast.ImportFrom)]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return tuple(map(_statement, own)), dict(found for node in imports for found in _imported(node))


def _imported(node: ast.AST) -> list[tuple[str, Target]]:
    if isinstance(node, ast.Import):
        return [(alias.asname or alias.name.partition(".")[0], (alias.name, WHOLE)) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [(alias.asname or alias.name, (node.module, alias.name)) for alias in node.names]
    return []


def _statement(node: ast.stmt) -> _Statement:
    parts = list(ast.walk(node))
    # A name before a dot reaches what is looked up in it, not all of it.
    dotted = {id(part.value): part for part in parts if isinstance(part, ast.Attribute)}
    names = {
        f"{part.id}.{dotted[id(part)].attr}" if id(part) in dotted else part.id
        for part in parts
        if isinstance(part, ast.Name)
    }
    return _Statement(
        digest_bytes(ast.unparse(node).encode()),
        _bound(node),
        tuple(sorted(names)),
        tuple(found for part in parts for found in _imported(part)),
    )


def _bound(node: ast.stmt) -> tuple[str, ...]:
    """Top-level names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return tuple(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
