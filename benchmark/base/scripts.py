"""Functions and classes of a script, for processes that need them and must not do the script's work again.

Only those statements at the top level of the script are run that define what is wanted, and what that refers to in
turn: imports, functions, classes, constants. What calls them, reads data or trains is not.
"""

import ast
import contextlib
import io
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from attriboard.base.errors import InputError
from attriboard.base.modules import make_importable

PREFIX = "attriboard_script_"
"""Begins the names of the modules that scripts become."""

_IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class _Statement:
    """A statement with the names that it defines or changes, and those that it needs."""

    node: ast.stmt
    binds: frozenset[str]
    needs: frozenset[str]


@dataclass
class _Script:
    """A script, of which some statements were run."""

    module: ModuleType
    statements: tuple[_Statement, ...]
    done: set[int] = field(default_factory=set)


def definitions(path: Path, *names: str, package: str | None = None) -> ModuleType:
    """A module with some names of a script.

    Args:
        path: the script.
        names: of functions and classes, or dotted names of what lies in them.
        package: that relative imports of the script are relative to.

    Raises:
        InputError: the script cannot be read, does not define a name at its top level, or a definition raises an error.
    """
    try:
        script = _opened(path, path.stat().st_mtime_ns, package)
        chosen = _needed(script.statements, {name.partition(".")[0] for name in names})
        future = [
            s.node for s in script.statements if isinstance(s.node, ast.ImportFrom) and s.node.module == "__future__"
        ]
        wanted = [*future, *(script.statements[at].node for at in chosen if at not in script.done)]
        script.done |= set(chosen)
        code = compile(ast.Module(wanted, []), str(path), "exec", dont_inherit=True)
        make_importable(path.parent)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, vars(script.module))
    except (Exception, SystemExit) as error:
        _opened.cache_clear()
        raise InputError(
            f"script {path}: defining {', '.join(names)} raised {type(error).__name__}: {error}"
        ) from error
    for name in names:
        if name.partition(".")[0] not in vars(script.module):
            raise InputError(f"script {path}: does not define {name} at its top level")
    return script.module


@lru_cache(maxsize=4)
def _opened(path: Path, changed: int, package: str | None) -> _Script:
    nodes = ast.parse(path.read_bytes(), str(path)).body
    modules = {alias.asname or alias.name for node in nodes if isinstance(node, _IMPORTS) for alias in node.names}
    statements = tuple(_Statement(node, *_names(node, modules)) for node in nodes)
    module = ModuleType(PREFIX + path.stem)
    module.__file__, module.__package__ = str(path), package
    sys.modules[module.__name__] = module  # dataclasses look their module up here
    return _Script(module, statements)


def _needed(statements: tuple[_Statement, ...], names: set[str]) -> list[int]:
    """Positions of the statements that define names, and what these need in turn; ascending."""
    chosen: set[int] = set()
    while True:
        found = {at for at, one in enumerate(statements) if one.binds & names} - chosen
        if not found:
            return sorted(chosen)
        chosen |= found
        names = names.union(*(statements[at].needs for at in found))


def _names(node: ast.stmt, imported: set[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a statement defines or changes, and names that it needs, also in the bodies of functions.

    Calls of what is imported, such as `torch.manual_seed(0)`, change nothing that a definition needs.
    """
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return frozenset(), frozenset()
    table = symtable.symtable(ast.unparse(node), "statement", "exec")
    own = table.get_symbols()
    binds = {s.get_name() for s in own if s.is_assigned() or s.is_imported()}
    needs = {s.get_name() for s in own if s.is_referenced()}
    for inner in _inner(table):
        needs |= {s.get_name() for s in inner.get_symbols() if s.is_global()}
    return frozenset(binds | (_changed(node) - imported)), frozenset(needs)


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)


def _changed(node: ast.AST) -> set[str]:
    """Names whose values a statement changes: `x[0] = …`, `x.a = …`, `x.append(…)`, outside of functions."""
    found: set[str] = set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return found
    place = node.func if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else node
    if isinstance(place, ast.Attribute | ast.Subscript) and (place is not node or isinstance(place.ctx, ast.Store)):
        root: ast.AST = place
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name):
            found.add(root.id)
    return found.union(*(_changed(child) for child in ast.iter_child_nodes(node)))
