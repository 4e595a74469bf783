"""SpliceAST: parts of other policies."""

from __future__ import annotations

import ast
import builtins
import re

import numpy as np

from cloudchamber.core.errors import InputError

from .. import code
from ..model import Context, Problem, Proposal
from .mutate import mutated
from .scope import Site, features, in_scope, is_numeric, roots, sites


class SpliceAST:
    """Put a part of another policy (an archive member, or one of the study's own) in the place of a like part of the parent.

    A like part is a method of the same name, a numeric expression for another, or a loop or branch for another. What a method needs from
    its module (imports, functions, constants) comes with it.
    """

    name = "splice"

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal | None:
        """See :class:`Proposer`."""
        parent = context.parents[0]
        donors = [each for each in (*context.parents[1:], *context.starts) if each.source != parent.source]
        if not donors:
            return None
        donor = donors[int(rng.integers(len(donors)))]
        try:
            made = (_method if rng.random() < 0.35 else _part)(code.Text(parent.source), code.Text(donor.source), context.problem, rng)
            if made is None:
                return None
            code.parsed(made[0])
        except InputError:
            return None
        source, note = made
        if rng.random() < 0.3:
            again = mutated(source, context.problem, rng, 1)
            source, note = (again[0], f"{note}; {again[1]}") if again is not None else (source, note)
        parents = (parent.number, donor.number) if donor.number else (parent.number,)
        return Proposal(source, parents, f"from {donor.note[:30] if not donor.number else donor.number}: {note}"[:200])


def _part(text: code.Text, other: code.Text, problem: Problem, rng: np.random.Generator) -> tuple[str, str] | None:
    """An expression or a block for another."""
    if rng.random() < 0.85:
        ours = [each for each in sites(text, ast.BinOp, ast.Attribute, ast.Call, ast.Name) if is_numeric(each)]
        theirs = [each for each in sites(other, ast.BinOp, ast.Call, ast.Attribute) if is_numeric(each)]
    else:
        ours, theirs = sites(text, ast.For, ast.If, ast.While), sites(other, ast.For, ast.If, ast.While)
    if not ours or not theirs:
        return None
    here, there = ours[int(rng.integers(len(ours)))], theirs[int(rng.integers(len(theirs)))]
    if isinstance(there.node, ast.stmt) and isinstance(here.node, ast.stmt):
        return _block(text, other, here, there)
    new = _fitted(text, other, here, there, problem, rng)
    return text.replaced([(text.span(here.node), f"({new})")]), f"{text.of(here.node)[:30]} became {new[:40]}"


def _fitted(text: code.Text, other: code.Text, here: Site, there: Site, problem: Problem, rng: np.random.Generator) -> str:
    """A donor's expression with its parameters written out, and what is not in scope here replaced by something that is."""
    have = in_scope(here) | {name for node in text.tree.body for name in _names(node)} | set(dir(builtins)) | {"self"}
    spare = features(text, here, problem) or [text.of(here.node)]
    given: dict[str, str] = {}
    defaults = _parameters(other)

    class Fit(ast.NodeTransformer):
        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            shown = ast.unparse(node)
            if shown in defaults:
                return ast.parse(defaults[shown], mode="eval").body
            return node if roots(node) <= have and not shown.startswith("self.") else self._spare(shown)

        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            return node if roots(node) <= have else self._spare(ast.unparse(node))

        def visit_Name(self, node: ast.Name) -> ast.AST:
            return node if node.id in have or isinstance(node.ctx, ast.Store) else self._spare(node.id)

        def _spare(self, shown: str) -> ast.AST:
            given.setdefault(shown, spare[int(rng.integers(len(spare)))])
            return ast.parse(given[shown], mode="eval").body

    return ast.unparse(Fit().visit(ast.parse(f"({other.of(there.node)})", mode="eval").body))


def _parameters(text: code.Text) -> dict[str, str]:
    """``self.name`` of a policy's parameters, and the defaults they have."""
    found: dict[str, str] = {}
    for function in _methods(text).values():
        if function.name == "__init__":
            arguments = function.args
            named = [*arguments.posonlyargs, *arguments.args]
            pairs = [*zip(named[len(named) - len(arguments.defaults) :], arguments.defaults, strict=True)]
            pairs += [
                (arg, default) for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is not None
            ]
            found |= {f"self.{arg.arg}": text.of(default) for arg, default in pairs}
    return found


def _block(text: code.Text, other: code.Text, here: Site, there: Site) -> tuple[str, str]:
    assert isinstance(here.node, ast.stmt) and isinstance(there.node, ast.stmt)
    where = other.lines(there.node)
    shift = here.node.col_offset - there.node.col_offset
    lines = code.lines_of(other.source[where.start : where.end])
    moved = "".join(" " * shift + line if shift > 0 else line[min(-shift, len(line) - len(line.lstrip())) :] for line in lines)
    return text.replaced([(text.lines(here.node), moved)]), f"a block of {len(lines)} lines"


def _method(text: code.Text, other: code.Text, problem: Problem, rng: np.random.Generator) -> tuple[str, str] | None:
    """A method, with what it needs from its module."""
    ours, theirs = _methods(text), _methods(other)
    shared = sorted(set(ours) & set(theirs) - {"__init__"})
    if not shared:
        return None
    name = shared[int(rng.integers(len(shared)))]
    mine, yours = ours[name], theirs[name]
    shift = mine.col_offset - yours.col_offset
    where = other.lines(yours)
    body = other.source[where.start : where.end]
    if shift:
        body = "".join((" " * shift + line) if shift > 0 else line[-shift:] for line in code.lines_of(body))
    extra_methods = "".join(
        other.source[other.lines(theirs[each]).start : other.lines(theirs[each]).end]
        for each in theirs
        if each not in ours and any(isinstance(node, ast.Attribute) and node.attr == each for node in ast.walk(yours))
    )
    for shown, default in _parameters(other).items():  # the donor's own parameters become numbers
        if shown not in _parameters(text):
            body = re.sub(rf"\b{re.escape(shown)}\b", f"({default})", body)
            extra_methods = re.sub(rf"\b{re.escape(shown)}\b", f"({default})", extra_methods)
    needed = _needed(text, other, yours)
    edits = [(text.lines(mine), body + ("\n" + extra_methods if extra_methods else ""))]
    first = next((node for node in text.tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))), None)
    if needed and first is not None:
        line = min([first.lineno, *(each.lineno for each in first.decorator_list)])
        start = sum(len(each) for each in code.lines_of(text.source)[: line - 1])
        edits.append((code.Span(start, start), needed + "\n\n"))
    return text.replaced(edits), f"{name}()"


def _methods(text: code.Text) -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for node in text.tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def _needed(text: code.Text, other: code.Text, function: ast.FunctionDef) -> str:
    """Imports, functions and constants of the donor's module that a method uses and the parent does not have."""
    have = {name for node in text.tree.body for name in _names(node)}
    wanted, queue, parts = set[str](), [function], list[str]()
    nodes = {name: node for node in other.tree.body if not isinstance(node, ast.ClassDef) for name in _names(node)}
    taken: set[int] = set()
    while queue:
        each = queue.pop()
        for name in sorted({node.id for node in ast.walk(each) if isinstance(node, ast.Name)} - wanted - have):
            wanted.add(name)
            node = nodes.get(name)
            if node is not None and id(node) not in taken:
                taken.add(id(node))
                queue.append(node)  # type: ignore[arg-type]
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                parts.append("".join(code.lines_of(other.source)[first - 1 : node.end_lineno]).rstrip("\r\n"))
    return "\n\n".join(reversed(parts))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
