"""MutateAST: small random changes of a policy's code."""

from __future__ import annotations

import ast
from collections.abc import Callable

import numpy as np

from cloudchamber.core.errors import InputError

from .. import code
from ..model import Context, Problem, Proposal
from .scope import Site, features, is_numeric, like, sites

Edit = tuple[code.Span, str, str]  # where, the new text, and what it is
BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
NAMES = {
    "min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor",
    "sum": "max", "minimum": "maximum", "maximum": "minimum", "mean": "max", "median": "mean",
}  # fmt: skip


class MutateAST:
    """One to three small changes: an operator, a comparison, min or max, an operand, a number, a statement, a new term, a guard.

    Operands come from what is in scope at the place, fields of the messages among them. Edits replace spans of the text, so comments stay.

    Parameters
    ----------
    most : int
        Changes of one proposal at most.
    """

    name = "mutate"
    share = 6.0

    def __init__(self, most: int = 3) -> None:
        self._most = most

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal | None:
        """See :class:`Proposer`."""
        parent = context.parents[0]
        times = 1 + min(self._most - 1, int(rng.geometric(0.6)) - 1)
        made = mutated(parent.source, context.problem, rng, times)
        return None if made is None else Proposal(made[0], (parent.number,), made[1])


def mutated(source: str, problem: Problem, rng: np.random.Generator, times: int) -> tuple[str, str] | None:
    """Return the source after some random changes, and what they were; None if none was possible."""
    notes = []
    for _ in range(times):
        for _ in range(8):
            text = code.Text(source)
            edit = KINDS[int(rng.choice(len(KINDS), p=WEIGHTS))](text, problem, rng)
            if edit is None:
                continue
            where = everywhere(text, edit[0]) if rng.random() < 0.35 else [edit[0]]
            changed = text.replaced([(each, edit[1]) for each in where])
            try:
                code.parsed(changed)
            except InputError:
                continue
            source = changed
            notes.append(edit[2])
            break
    return (source, "; ".join(notes)[:200]) if notes else None


def everywhere(text: code.Text, where: code.Span) -> list[code.Span]:
    """Every place of a function where the same number stands: a rule is often written down twice, as a test and as what follows."""
    alike = [each for each in sites(text, ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Call) if is_numeric(each)]
    first = next((i for i, each in enumerate(alike) if text.span(each.node) == where), None)
    if first is None:
        return [where]
    here, shown = alike[first].function, ast.dump(alike[first].node)  # not before: what is new there may not be in scope yet
    return [text.span(each.node) for each in alike[first:] if each.function is here and ast.dump(each.node) == shown]


def _pick(items: list[Site], rng: np.random.Generator) -> Site | None:
    """A function first, then a place in it: what a policy prefers is often said in few words, as in a sort key."""
    if not items:
        return None
    functions = list({id(each.function): each.function for each in items})
    chosen = functions[int(rng.integers(len(functions)))]
    own = [each for each in items if id(each.function) == chosen]
    return own[int(rng.integers(len(own)))]


def _number(rng: np.random.Generator) -> str:
    return f"{10 ** rng.uniform(-3, 1):.3g}"


def swap_operator(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """Another arithmetic operator."""
    site = _pick([each for each in sites(text, ast.BinOp) if type(each.node.op) in BINARY and is_numeric(each)], rng)  # type: ignore[attr-defined]
    if site is None or not isinstance(site.node, ast.BinOp):
        return None
    others = [sign for kind, sign in BINARY.items() if kind is not type(site.node.op)]
    sign = others[int(rng.integers(len(others)))]
    new = f"({text.of(site.node.left)} {sign} ({text.of(site.node.right)}))"
    return text.span(site.node), new, f"{BINARY[type(site.node.op)]} became {sign}"


def swap_comparison(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """Another comparison."""
    fits = [each for each in sites(text, ast.Compare) if len(each.node.ops) == 1 and type(each.node.ops[0]) in COMPARISONS]  # type: ignore[attr-defined]
    site = _pick(fits, rng)
    if site is None or not isinstance(site.node, ast.Compare):
        return None
    others = [sign for kind, sign in COMPARISONS.items() if kind is not type(site.node.ops[0])]
    sign = others[int(rng.integers(len(others)))]
    return (
        text.span(site.node),
        f"({text.of(site.node.left)} {sign} {text.of(site.node.comparators[0])})",
        f"comparison became {sign}",
    )


def swap_name(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """``min`` for ``max`` and the like; the order of a sort."""
    fits = []
    for each in sites(text, ast.Call):
        function = each.node.func  # type: ignore[attr-defined]
        name = function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
        if name in NAMES or name in ("sorted", "sort"):
            fits.append(each)
    site = _pick(fits, rng)
    if site is None or not isinstance(site.node, ast.Call):
        return None
    function = site.node.func
    if isinstance(function, ast.Name) and function.id in NAMES:
        return text.span(function), NAMES[function.id], f"{function.id} became {NAMES[function.id]}"
    if isinstance(function, ast.Attribute) and function.attr in NAMES:
        return (
            text.span(function),
            f"{text.of(function.value)}.{NAMES[function.attr]}",
            f"{function.attr} became {NAMES[function.attr]}",
        )
    for keyword in site.node.keywords:
        if keyword.arg == "reverse" and isinstance(keyword.value, ast.Constant):
            return text.span(keyword.value), str(not keyword.value.value), "the order of a sort reversed"
    where = text.span(site.node)
    inner = text.of(site.node)
    comma = ", " if site.node.args or site.node.keywords else ""
    return where, f"{inner[:-1].rstrip().rstrip(',')}{comma}reverse=True)", "the order of a sort reversed"


def replace_operand(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """Another thing in scope."""
    kinds = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Call)
    site = _pick([each for each in sites(text, *kinds) if is_numeric(each)], rng)
    if site is None:
        return None
    choices = features(text, site, problem)
    if rng.random() < 0.5:
        choices = like(text, site, choices) or choices
    if not choices:
        return None
    new = choices[int(rng.integers(len(choices)))]
    if rng.random() < 0.15:
        new = _number(rng)
    return (
        text.span(site.node),
        f"({new})" if " " in new else new,
        f"{text.of(site.node)[:30]} became {new[:30]}",
    )


def change_number(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A number, by a factor or a step."""
    nodes = code.literals(text)
    if not nodes:
        return None
    node = nodes[int(rng.integers(len(nodes)))]
    value = node.value
    if isinstance(value, int):
        new: int | float = (
            value + int(rng.choice([-2, -1, 1, 2])) if abs(value) < 10 else round(value * float(np.exp(0.7 * rng.standard_normal())))
        )
    else:
        assert isinstance(value, float)
        new = float(f"{value * float(np.exp(0.7 * rng.standard_normal())) if value else rng.standard_normal():.4g}")
    return text.span(node), f"({new})" if new < 0 else repr(new), f"{value} became {new}"


def add_term(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A term ``+ c * feature``, or a factor ``* (1 + c * feature)``, on a number."""
    kinds = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Call)
    fits = [each for each in sites(text, *kinds) if is_numeric(each)]
    site = _pick(fits, rng)
    if site is None:
        return None
    choices = features(text, site, problem)
    if not choices:
        return None
    feature = choices[int(rng.integers(len(choices)))]
    sign, size, inner = ("-" if rng.random() < 0.3 else "+"), _number(rng), text.of(site.node)
    shape = rng.random()
    if shape < 0.4:
        new = f"({inner} {sign} {size} * ({feature}))"
    elif shape < 0.5:
        new = f"({inner} * (1 {sign} {size} * ({feature})))"
    elif shape < 0.85:
        new = f"({inner} {rng.choice(['*', '/'])} ({feature}))"
    else:
        new = f"(abs({inner}) ** {rng.choice(['0.5', '2', '1.5'])})"
    return text.span(site.node), new, f"{inner[:24]} became {new[:60]}"


def add_like(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A thing of the same unit, added or taken off as it is; or the larger or smaller of both."""
    kinds = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)
    fits = [each for each in sites(text, *kinds) if is_numeric(each)]
    for _ in range(4):
        site = _pick(fits, rng)
        choices = like(text, site, features(text, site, problem)) if site is not None else []
        if site is None or not choices:
            continue
        other, inner = choices[int(rng.integers(len(choices)))], text.of(site.node)
        shape = ("{} + {}", "{} - {}", "{} + {}", "{} - {}", "{} - {}", "min({}, {})", "max({}, {})")[int(rng.integers(7))]
        new = "(" + shape.format(inner, f"({other})" if " " in other else other) + ")"
        return text.span(site.node), new, f"{inner[:24]} became {new[:60]}"
    return None


def choose_between(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A guard: the expression where a feature is on one side of a number, another one elsewhere."""
    site = _pick([each for each in sites(text, ast.Name, ast.Attribute, ast.BinOp, ast.Call) if is_numeric(each)], rng)
    if site is None:
        return None
    choices = features(text, site, problem)
    if not choices:
        return None
    feature, other = (choices[int(rng.integers(len(choices)))] for _ in range(2))
    sign = "<" if rng.random() < 0.5 else ">"
    limits = like(text, ast.parse(feature, mode="eval").body, choices)
    limit = limits[int(rng.integers(len(limits)))] if limits and rng.random() < 0.6 else _number(rng)
    new = f"({text.of(site.node)} if {feature} {sign} {limit} else {other})"
    return text.span(site.node), new, f"a guard on {feature[:30]}"


def negate(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A number's sign, in a sort key or a comparison."""
    site = _pick([each for each in sites(text, ast.Name, ast.Attribute, ast.BinOp, ast.Call) if is_numeric(each)], rng)
    if site is None:
        return None
    return text.span(site.node), f"(-({text.of(site.node)}))", f"-{text.of(site.node)[:30]}"


def delete_statement(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A statement less."""
    site = _pick([each for each in _statements(text) if not isinstance(each.node, ast.Return)], rng)
    if site is None or not isinstance(site.node, ast.stmt):
        return None
    indent = " " * site.node.col_offset
    return text.lines(site.node), f"{indent}pass\n", f"deleted: {text.of(site.node)[:40]}"


def move_statement(text: code.Text, problem: Problem, rng: np.random.Generator) -> Edit | None:
    """A statement once more, or in the place of the next."""
    fits = _statements(text)
    site = _pick(fits, rng)
    if site is None or not isinstance(site.node, ast.stmt):
        return None
    where = text.lines(site.node)
    own = text.source[where.start : where.end]
    body = next((value for _, value in ast.iter_fields(site.parent) if isinstance(value, list) and site.node in value), [])
    after = body[body.index(site.node) + 1] if site.node in body and body.index(site.node) + 1 < len(body) else None
    if isinstance(after, ast.stmt) and rng.random() < 0.6:
        both = text.lines(after)
        return (
            code.Span(where.start, both.end),
            text.source[both.start : both.end] + text.source[where.end : both.start] + own,
            "swapped two statements",
        )
    if isinstance(site.node, (ast.Assign, ast.Return)):
        return None
    return where, own + own, f"twice: {text.of(site.node)[:40]}"


def _statements(text: code.Text) -> list[Site]:
    kinds = (ast.Assign, ast.AugAssign, ast.Expr, ast.If, ast.Return, ast.For)
    return [each for each in sites(text, *kinds) if getattr(each.node, "lineno", 0) != getattr(each.parent, "lineno", -1)]


KINDS: tuple[Callable[[code.Text, Problem, np.random.Generator], Edit | None], ...] = (
    swap_operator, swap_comparison, swap_name, replace_operand, change_number, add_term, add_like, choose_between, negate,
    delete_statement, move_statement,
)  # fmt: skip
_ODDS = np.array([1.5, 0.7, 1.5, 4, 1, 10, 7, 1.5, 0.7, 0.6, 0.6])
WEIGHTS = _ODDS / _ODDS.sum()
