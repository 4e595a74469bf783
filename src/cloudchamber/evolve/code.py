"""Policy source as text and tree: what may be in it, when two are the same, where its numbers are, how to edit it in place.

Edits replace spans of the text, so comments and layout stay.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cloudchamber.core.errors import InputError

MAX_SOURCE = 64 << 10
CORE = ("candidate", "errors", "jit", "messages", "policy")  # rooms of core a policy may import
FORBIDDEN = frozenset(
    [
        "ctypes",
        "subprocess",
        "socket",
        "multiprocessing",
        "threading",
        "asyncio",
        "signal",
        "importlib",
        "os",
        "sys",
        "io",
        "pathlib",
        "shutil",
        "tempfile",
        "pickle",
        "marshal",
        "gc",
        "inspect",
        "builtins",
        "time",
        "datetime",
        "code",
        "codeop",
        "pty",
        "fcntl",
        "mmap",
        "resource",
        "select",
        "ssl",
        "http",
        "urllib",
        "ftplib",
        "webbrowser",
        "secrets",
        "uuid",
    ]
)


def parsed(source: str) -> ast.Module:
    """Parse policy source.

    Raises
    ------
    InputError
        With the line, if it is no Python.
    """
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise InputError(f"the source is not valid Python: line {error.lineno}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"the source cannot be parsed: {type(error).__name__}: {error}.") from None


@lru_cache(maxsize=256)
def check(source: str, verbs: tuple[str, ...], libraries: tuple[str, ...], module: str) -> None:
    """Stage 0: size, syntax, imports, and one class that has the verbs. It saves time; the jail is what keeps us safe.

    Raises
    ------
    InputError
        Saying what to change.
    """
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE:
        raise InputError(f"the source has {len(source)} characters; at most {MAX_SOURCE} bytes are taken.")
    tree = parsed(source)
    for name in _imported(tree):
        if not _may_import(name, libraries, module):
            raise InputError(
                f"a policy may not import {name!r}; allowed: {', '.join(libraries)}, {module}.model and policies, cloudchamber.core, "
                "and computing parts of the standard library."
            )
    classes = policy_classes(tree, verbs)
    if len(classes) != 1:
        found = ", ".join(classes) or "none"
        raise InputError(f"expected one class with {', '.join(f'{verb}()' for verb in verbs)}, found {found}.")


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def _may_import(name: str, libraries: tuple[str, ...], module: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    if name.startswith("cloudchamber.core"):
        return name.partition("cloudchamber.core.")[2].split(".")[0] in CORE
    if name.endswith(".model") and module.startswith(name.removesuffix("model")):  # of the package around it
        return True
    if name.startswith(module + ".") or name == module:
        return name.removeprefix(module).split(".")[1:2] in ([], ["model"], ["policies"])
    return top in libraries or (top in sys.stdlib_module_names and top not in FORBIDDEN)


def policy_classes(tree: ast.Module, verbs: tuple[str, ...]) -> list[str]:
    """Names of the classes that have (or inherit) every verb but ``reset``, which a base class may bring.

    What comes from a ``model`` may be a Protocol with defaults, and from ``policies`` a sibling: a class derived from it has them all.
    """
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = [(node.module or "", node) for node in tree.body if isinstance(node, ast.ImportFrom)]
    homes = [node for module, node in imports if module.endswith("model") or ".policies" in module]
    protocols = {alias.asname or alias.name for node in homes for alias in node.names}

    def methods(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        node = classes.get(name)
        if node is None or name in seen:
            return set()
        own = {each.name for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
        for base in node.bases:
            if isinstance(base, ast.Name):
                own |= set(verbs) if base.id in protocols else methods(base.id, seen | {name})
        return own

    needed = {verb for verb in verbs if verb != "reset"}
    bases = {base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name)}
    return [name for name in classes if needed <= methods(name) and name not in bases]


def normal_form(source: str) -> str:
    """The source without comments, docstrings and layout."""
    tree = parsed(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _docstring(node: ast.AST) -> ast.Expr | None:
    body = getattr(node, "body", [])
    first = body[0] if isinstance(body, list) and body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return first if is_text else None


@lru_cache(maxsize=256)
def identity(source: str) -> str:
    """Hash of the normal form: equal for sources that differ in comments, docstrings and layout only."""
    return hashlib.sha256(normal_form(source).encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(frozen=True)
class Span:
    """A piece of the source text, as positions in it."""

    start: int
    end: int


class Text:
    """Source text with the positions of its tree's nodes.

    Parameters
    ----------
    source : str

    Raises
    ------
    InputError
        If it is no Python.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = parsed(source)
        self.open = open_lines(source)
        self._lines = [line.encode("utf-8", "replace") for line in lines_of(source)]
        self._starts = [0]
        for line in lines_of(source):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> Span:
        """Where a node stands."""
        return Span(
            self._position(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self._position(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def _position(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode(errors="replace"))

    def lines(self, node: ast.stmt) -> Span:
        """The whole lines of a statement."""
        return Span(self._starts[node.lineno - 1], self._starts[min(node.end_lineno or node.lineno, len(self._starts) - 1)])

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        where = self.span(node)
        return self.source[where.start : where.end]

    def replaced(self, edits: list[tuple[Span, str]]) -> str:
        """The source with spans replaced; they must not overlap."""
        out = self.source
        for where, new in sorted(edits, key=lambda edit: edit[0].start, reverse=True):
            out = out[: where.start] + new + out[where.end :]
        return out


def lines_of(source: str) -> list[str]:
    """The lines as Python counts them: a form feed or a Unicode separator, which end one for ``str.splitlines``, do not."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", source)


def open_lines(source: str) -> frozenset[int] | None:
    """Numbers of the lines between ``EVOLVE-BLOCK`` markers; None where a source has none and all of it is open."""
    if "EVOLVE-BLOCK-START" not in source:
        return None
    found, is_open = set(), False
    for number, line in enumerate(lines_of(source), 1):
        if line.strip().startswith("#") and ("EVOLVE-BLOCK-START" in line or "EVOLVE-BLOCK-END" in line):
            is_open = "EVOLVE-BLOCK-START" in line
        elif is_open:
            found.add(number)
    return frozenset(found)


def editable(tree: ast.Module, lines: frozenset[int] | None = None) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """Every node a search may change (on the given lines), with its ancestors.

    Left out are imports, docstrings, annotations, decorators and constraint tables.
    """

    def is_open(node: ast.AST) -> bool:
        return lines is None or (getattr(node, "lineno", 0) in lines and getattr(node, "end_lineno", 0) in lines)

    def walk(node: ast.AST, above: tuple[ast.AST, ...]) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or isinstance(child, (ast.Import, ast.ImportFrom, ast.expr_context, ast.operator)):
                    continue
                if child is _docstring(node) or _is_table(child) or isinstance(child, (ast.JoinedStr, ast.Raise, ast.Assert)):
                    continue
                if is_open(child):
                    yield child, (*above, node)
                yield from walk(child, (*above, node))

    yield from walk(tree, ())


def _is_table(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id.startswith("_constraints") for target in targets)


def literals(text: Text) -> list[ast.Constant]:
    """The numbers of a source that a search may change, in order of their place."""
    found = [node for node, _ in editable(text.tree, text.open) if isinstance(node, ast.Constant) and _is_tunable(node.value)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _is_tunable(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


@lru_cache(maxsize=256)
def skeleton(source: str) -> str:
    """Hash of the source with its tunable numbers left out; whole ones are told from others, as they stay whole."""
    text = Text(source)
    bare = text.replaced([(text.span(node), "0" if isinstance(node.value, int) else "0.0") for node in literals(text)])
    return identity(bare)


def isolated(source: str, class_name: str, values: dict[str, object]) -> str:
    """Return the source with only what one class needs, and given values as its constructor's defaults.

    Parameters
    ----------
    source : str
    class_name : str
    values : dict of str to object
        Plain parameter values that differ from the defaults.

    Raises
    ------
    InputError
        If there is no such class, or a value has no default in its own constructor to take its place.
    """
    text = Text(source)
    nodes = {name: node for node in text.tree.body for name in _defined(node)}
    if not isinstance(nodes.get(class_name), ast.ClassDef):
        there = ", ".join(name for name, node in nodes.items() if isinstance(node, ast.ClassDef)) or "none"
        raise InputError(f"the source defines no class {class_name!r} at its top level; there is: {there}.")
    needed, queue = set(), [class_name]
    while queue:
        name = queue.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            queue += [each.id for each in ast.walk(nodes[name]) if isinstance(each, ast.Name)]
    drop = [
        node for node in text.tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not needed & set(_defined(node))
    ]  # fmt: skip
    edits = [(_with_decorators(text, node), "") for node in drop]
    edits += _defaults(text, nodes[class_name], values)
    return text.replaced(edits).strip() + "\n"


def _with_decorators(text: Text, node: ast.ClassDef | ast.FunctionDef) -> Span:
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return Span(text._starts[first - 1], text.lines(node).end)


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _defaults(text: Text, cls: ast.AST, values: dict[str, object]) -> list[tuple[Span, str]]:
    edits: list[tuple[Span, str]] = []
    for function in getattr(cls, "body", []):
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            arguments = function.args
            named = [*arguments.posonlyargs, *arguments.args]
            pairs = list(zip(named[len(named) - len(arguments.defaults) :], arguments.defaults, strict=True))
            pairs += [
                (arg, default) for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is not None
            ]
            edits = [(text.span(default), repr(values[arg.arg])) for arg, default in pairs if arg.arg in values]
    if len(edits) != len(values):
        raise InputError(f"cannot write {values} as defaults of its constructor; start from the class itself.")
    return edits
