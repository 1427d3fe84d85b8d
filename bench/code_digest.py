"""A digest of the code that a method's scores and grades come from, whatever comments and messages say.

It covers the method's module and what that imports, directly or not, of the packages that compute (`COUNTED`). Of each
module, the syntax tree counts: comments, docstrings, formatting and the texts of exceptions do not. The engine around
it (processes, retraining, data sets) is left out: its bits have tests of their own, and a sample of records that is
run again sees it.
"""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from attriboard.base.digests import digest, digest_bytes

COUNTED = ("attributors", "contracts", "scoring", "toolkit")
GRADING = tuple(f"attriboard.scoring.{name}" for name in ("bootstrap", "ceiling", "influence", "lds", "split"))


def code_digest(modules: Iterable[str], find: Callable[[str], Path | None] | None = None) -> str:
    """SHA-256 of some modules and all that they import of `COUNTED`.

    Args:
        modules: dotted names.
        find: name → file; by default where this installation has it.
    """
    find = find or module_file
    parts: dict[str, str] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name in parts or (path := find(name)) is None:
            continue
        parts[name], imported = _essence(path)
        left += [whole if find(whole) else module for module, whole in imported]
    return digest(parts)


@cache
def module_file(name: str) -> Path | None:
    """The file of a module of the counted packages, none for other names; nothing heavy is imported."""
    parts = name.split(".")
    if len(parts) < 2 or parts[0] != "attriboard" or parts[1] not in COUNTED:
        return None
    spec = find_spec(".".join(parts[:2]))
    folder = Path(*(spec.submodule_search_locations or [""])[:1], *parts[2:]) if spec else Path()
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if len(parts) > 2 and path.is_file():
            return path
    return None


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
def _essence(path: Path) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Digest of a file's code, and of each name that it imports the module and the name in full."""
    tree = _Essence().visit(ast.parse(path.read_text(encoding="utf-8")))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
    return digest_bytes(ast.unparse(tree).encode()), tuple(imported)
