"""What a piece of policy code has at hand: names, attributes and features that could stand in an expression."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from .. import code
from ..model import Problem


@dataclass(frozen=True)
class Site:
    """A place in the tree: the node, its ancestors, and the function it is in."""

    node: ast.AST
    above: tuple[ast.AST, ...]

    @property
    def function(self) -> ast.AST | None:
        """The innermost function or lambda around it."""
        return next((each for each in reversed(self.above) if isinstance(each, (ast.FunctionDef, ast.Lambda))), None)

    @property
    def parent(self) -> ast.AST:
        """The node above."""
        return self.above[-1]


def sites(text: code.Text, *kinds: type[ast.AST]) -> list[Site]:
    """Every editable place of some kinds that is inside a function."""
    found = [Site(node, above) for node, above in code.editable(text.tree) if isinstance(node, kinds)]
    return [site for site in found if site.function is not None]


def features(text: code.Text, site: Site, problem: Problem) -> list[str]:
    """Numeric-looking expressions that are in scope at a place, as text: numbers read elsewhere in the function, and fields of messages.

    A guess, made from the source alone: what is not a number there makes the candidate void, and the search goes on.
    """
    functions = [each for each in site.above if isinstance(each, (ast.FunctionDef, ast.Lambda))]
    names = {name for function in functions for name in _bound(function, site.node)} | _loop_names(site)
    found: dict[str, None] = {}
    for function in functions:
        for node in ast.walk(function):
            if (
                isinstance(node, (ast.Attribute, ast.Subscript))
                and isinstance(node.ctx, ast.Load)
                and _is_simple(node)
                and _root(node) in names | {"self"}
            ):
                found[ast.unparse(node)] = None
            elif isinstance(node, ast.BinOp) and _size(node) <= 7 and _roots(node) <= names | {"self"}:
                found[ast.unparse(node)] = None
    fields = {field for each in problem.features.values() for field in each}
    for name in sorted(names):
        if any(text_.startswith(f"{name}.") for text_ in list(found)):
            own = {text_.removeprefix(f"{name}.") for text_ in found if text_.startswith(f"{name}.")}
            for cls_fields in problem.features.values():
                if own & set(cls_fields):
                    for field in cls_fields:
                        found[f"{name}.{field}"] = None
        elif name not in fields:
            found[name] = None
    return [each for each in found if each != ast.unparse(site.node)]


def _bound(function: ast.AST, before: ast.AST) -> set[str]:
    arguments = function.args  # type: ignore[attr-defined]
    names = {arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self", "cls", "rng"}
    line = getattr(before, "lineno", 1 << 30)
    if isinstance(function, ast.FunctionDef):
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.lineno < line:
                names.add(node.id)
    return names


def _loop_names(site: Site) -> set[str]:
    """Names of comprehensions and loops around a place."""
    names: set[str] = set()
    for each in site.above:
        generators = getattr(each, "generators", [])
        targets: Iterable[ast.AST] = [generator.target for generator in generators]
        if isinstance(each, ast.For):
            targets = [each.target]
        names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def _root(node: ast.AST) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _roots(node: ast.AST) -> set[str]:
    called = {each.func.id for each in ast.walk(node) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - called


def _is_simple(node: ast.AST) -> bool:
    return all(isinstance(each, (ast.Attribute, ast.Subscript, ast.Name, ast.Constant, ast.expr_context)) for each in ast.walk(node))


def _size(node: ast.AST) -> int:
    return sum(1 for _ in ast.walk(node))


def is_numeric(site: Site) -> bool:
    """Whether an expression looks like a number: an operand, a compared value, a key, an assigned or returned formula."""
    node, parent = site.node, site.parent
    if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
        return False
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Name)) and not isinstance(node.ctx, ast.Load):
        return False
    if isinstance(parent, (ast.BinOp, ast.UnaryOp)) or isinstance(node, ast.BinOp):
        return not (isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mod) and isinstance(parent.left, ast.Constant))
    if isinstance(parent, ast.Compare):
        return all(isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for op in parent.ops)
    return isinstance(parent, ast.Lambda) and node is parent.body and not isinstance(node, ast.Tuple)
