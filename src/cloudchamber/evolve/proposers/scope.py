"""What a piece of policy code has at hand: names, attributes and features that could stand in an expression."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from .. import code
from ..model import Problem
from .kinds import Kinds


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
    found = [Site(node, above) for node, above in code.editable(text.tree, text.open) if isinstance(node, kinds)]
    return [site for site in found if site.function is not None]


def features(text: code.Text, site: Site, problem: Problem) -> list[str]:
    """Expressions in scope at a place that look like single numbers: names, attributes, items, and formulas read elsewhere in the function.

    A guess, made from the source alone: what is not a number there makes the candidate void, and the search goes on.
    """
    names = in_scope(site)
    function = next(each for each in site.above if isinstance(each, (ast.FunctionDef, ast.Lambda)))
    many, indices = _containers(function), _indices(function)
    numeric = {field for fields in problem.features.values() for field in fields}
    found: dict[str, None] = dict.fromkeys(sorted(names - many - indices - {"self"}))
    for node in ast.walk(function):
        if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load) or not roots(node) <= names | {"self"}:
            continue
        shown = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Subscript, ast.BinOp)) else ""
        if (
            (
                isinstance(node, ast.Attribute)
                and shown not in many
                and _is_plain(node)
                and isinstance(node.value, (ast.Name, ast.Attribute))
            )
            or (isinstance(node, ast.Subscript) and shown not in many and _is_plain(node))
            or (isinstance(node, ast.BinOp) and _size(node) <= 9 and not _holds_list(node))
        ):
            found.setdefault(shown)
    for name in sorted(names):
        own = {shown.removeprefix(f"{name}.") for shown in found if shown.startswith(f"{name}.")}
        for fields in problem.features.values():
            if own & set(fields):
                found |= dict.fromkeys(f"{name}.{field}" for field in fields)
    if _is_key(site) and isinstance(site.function, ast.Lambda):  # what is the same for all does not change their order
        own = {arg.arg for arg in site.function.args.args}
        found = {shown: None for shown in found if roots(ast.parse(shown, mode="eval")) & own}
    known_objects = {shown.split(".")[0] for shown in found if "." in shown and not shown[0].isdigit()}
    known_objects |= {ast.unparse(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    own_text, lists = ast.unparse(site.node), problem.others - numeric
    return [
        each
        for each in found
        if each != own_text and each not in known_objects and "__" not in each and each.rpartition(".")[2] not in lists
    ]


def like(text: code.Text, place: Site | ast.AST, choices: list[str]) -> list[str]:
    """Those expressions that are the same kind of quantity as what stands at a place."""
    kinds = text.tree.__dict__.setdefault("kinds", Kinds(text.tree))
    node = place.node if isinstance(place, Site) else place
    own, shown = kinds.of(node), ast.unparse(node)
    return [each for each in choices if own and each != shown and kinds.of(ast.parse(each, mode="eval").body) == own]


def _is_key(site: Site) -> bool:
    """Whether a place is in a lambda that is a sort key."""
    return any(isinstance(one, ast.keyword) and one.arg == "key" and isinstance(two, ast.Lambda) for one, two in pairwise(site.above))


def in_scope(site: Site) -> set[str]:
    """Names bound at a place: arguments, what was assigned on lines before, and targets of the loops and comprehensions around it."""
    line = getattr(site.node, "lineno", 1 << 30)
    names: set[str] = set()
    for each in site.above:
        if isinstance(each, (ast.FunctionDef, ast.Lambda)):
            arguments = each.args
            names |= {arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self", "cls", "rng"}
        if isinstance(each, ast.FunctionDef):
            names |= {name for node in _own_statements(each) if node.lineno < line for name in _targets(node)}
        for generator in getattr(each, "generators", []):
            names |= {name.id for name in ast.walk(generator.target) if isinstance(name, ast.Name)}
    return names


def _own_statements(function: ast.AST) -> Iterable[ast.stmt]:
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, (ast.stmt, ast.ExceptHandler)) and not isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield from _own_statements(child)


def _targets(node: ast.stmt) -> set[str]:
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For)) else []
    )
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _remembered(rule: Callable[[ast.AST], set[str]]) -> Callable[[ast.AST], set[str]]:
    """Keep what a rule found with the node it was asked about: a proposal asks about the same function for every place in it."""

    def asked(node: ast.AST) -> set[str]:
        known = node.__dict__.get(rule.__name__)
        if known is None:
            known = node.__dict__[rule.__name__] = rule(node)
        return known

    return asked


@_remembered
def _containers(function: ast.AST) -> set[str]:
    """Expressions that are indexed, iterated, unpacked, measured, or made as lists somewhere in a function, as text."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript):
            found.add(ast.unparse(node.value))
        elif isinstance(node, (ast.For, ast.comprehension)):
            found.add(ast.unparse(node.iter))
        elif isinstance(node, ast.Starred):
            found.add(ast.unparse(node.value))
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                found.add(ast.unparse(node.func))
                if node.func.attr in ("append", "pop", "sort", "items", "keys", "values", "get", "add", "remove", "copy", "index"):
                    found.add(ast.unparse(node.func.value))
            elif isinstance(node.func, ast.Name) and node.func.id in (
                "len",
                "sorted",
                "list",
                "tuple",
                "set",
                "enumerate",
                "zip",
                "sum",
                "dict",
                "any",
                "all",
            ):
                found |= {ast.unparse(arg) for arg in node.args}
        elif isinstance(node, ast.Assign):
            if isinstance(node.targets[0], ast.Tuple) and not isinstance(node.value, ast.Tuple):
                found.add(ast.unparse(node.value))
            if isinstance(node.targets[0], ast.Name) and (
                _holds_list(node.value) or isinstance(node.value, (ast.ListComp, ast.DictComp, ast.SetComp))
            ):
                found.add(node.targets[0].id)
    return found


@_remembered
def _indices(function: ast.AST) -> set[str]:
    """Names that index something."""
    slices = [node.slice for node in ast.walk(function) if isinstance(node, ast.Subscript)]
    return {name.id for each in slices for name in ast.walk(each) if isinstance(name, ast.Name)}


def _holds_list(node: ast.AST) -> bool:
    kinds = (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
    if isinstance(node, ast.Subscript):  # in x[i, j] the tuple is an index
        return _holds_list(node.value)
    is_one = isinstance(node, kinds) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    return is_one or any(map(_holds_list, ast.iter_child_nodes(node)))


def roots(node: ast.AST) -> set[str]:
    """Names an expression reads, but those it calls and those it binds itself."""
    called = {each.func.id for each in ast.walk(node) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
    bound = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - called - bound


def _is_plain(node: ast.AST) -> bool:
    kinds = (ast.Attribute, ast.Subscript, ast.Name, ast.Constant, ast.Tuple, ast.expr_context)
    return all(isinstance(each, kinds) for each in ast.walk(node))


def _size(node: ast.AST) -> int:
    return sum(1 for _ in ast.walk(node))


def is_numeric(site: Site) -> bool:
    """Whether an expression looks like a single number: an operand, a compared value, a key, an assigned or returned formula."""
    node, parent = site.node, site.parent
    if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
        return False
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Name)) and not isinstance(node.ctx, ast.Load):
        return False
    if any(isinstance(above, ast.Subscript) and _is_within(node, above.slice) for above in site.above) or _holds_list(node):
        return False
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range":
        return False
    function = next((each for each in site.above if isinstance(each, (ast.FunctionDef, ast.Lambda))), None)
    if function is not None and ast.unparse(node) in _containers(function) | _indices(function):
        return False
    if isinstance(parent, (ast.BinOp, ast.UnaryOp)):
        return not _holds_list(parent)
    if isinstance(node, ast.BinOp):
        return True
    if isinstance(parent, ast.Compare):
        return all(isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for op in parent.ops)
    if isinstance(parent, ast.AugAssign):
        return node is parent.value
    if isinstance(parent, ast.Tuple):  # a sort key of several parts
        return isinstance(site.above[-2], ast.Lambda) and parent is site.above[-2].body
    return isinstance(parent, ast.Lambda) and node is parent.body


def _is_within(node: ast.AST, tree: ast.AST) -> bool:
    return any(each is node for each in ast.walk(tree))
