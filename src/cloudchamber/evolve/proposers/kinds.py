"""Which expressions of a program are one kind of quantity, read off how it uses them.

What is added, subtracted, compared or assigned to one another has one unit, and so have names that end in the same one (``free_gb``,
``size_gb``). A change that respects this is much more often one that means something.
"""

from __future__ import annotations

import ast
import re

UNIT = re.compile(r"(?:^|_)((?:(?:s|ms|us|h|b|kb|mb|gb|bytes|tokens|usd|w|kw|kwh)(?:_|$))+)$")
SAME = ("min", "max", "abs", "float", "minimum", "maximum", "round", "sum", "mean")  # of the kind of what they are given


class Kinds:
    """The kinds of quantity in a program, as classes of expressions.

    Parameters
    ----------
    tree : ast.AST

    Examples
    --------
    >>> kinds = Kinds(ast.parse("left = room_gb - size_gb; load[i] += demand"))
    >>> kinds.are_alike("left", "size_gb"), kinds.are_alike("demand", "load[j]"), kinds.are_alike("left", "demand")
    (True, True, False)
    """

    def __init__(self, tree: ast.AST) -> None:
        self._above: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
                self._join(node.left, node.right)
            elif isinstance(node, ast.Compare):
                self._join(node.left, *node.comparators)
            elif isinstance(node, ast.IfExp):
                self._join(node.body, node.orelse)
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub)):
                self._join(node.target, node.value)
            elif isinstance(node, ast.Assign) and not isinstance(node.value, (ast.List, ast.Dict, ast.Set)):
                for target in node.targets:
                    pairs = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    for each, value in zip(target.elts, node.value.elts, strict=False) if pairs else [(target, node.value)]:  # type: ignore[attr-defined]
                        self._join(each, value)
            elif isinstance(node, ast.Call) and _called(node) in SAME:
                self._join(*node.args)

    def are_alike(self, one: str, other: str) -> bool:
        """Whether two expressions are one kind of quantity, as far as the program tells."""
        first, second = (self.of(ast.parse(each, mode="eval").body) for each in (one, other))
        return first == second != ""

    def of(self, node: ast.AST) -> str:
        """The kind of an expression; empty where it could be any."""
        return self._found(self._key(node))

    def _join(self, *nodes: ast.expr) -> None:
        keys = [key for key in map(self._key, nodes) if key]
        for key in keys[1:]:
            self._above[self._found(key)] = self._found(keys[0])

    def _found(self, key: str) -> str:
        while key in self._above and self._above[key] != key:
            key = self._above[key]
        return key

    def _key(self, node: ast.AST) -> str:
        """The text of an expression, less what does not change its kind."""
        if isinstance(node, ast.Constant):
            return ""
        if isinstance(node, (ast.Name, ast.Attribute)):
            unit = UNIT.search(node.id if isinstance(node, ast.Name) else node.attr)
            return f"*{unit[1]}" if unit else ast.unparse(node)
        if isinstance(node, ast.Subscript):
            key = self._key(node.value)
            return key if key.startswith("*") else f"{key}[]"
        if isinstance(node, ast.UnaryOp):
            return self._key(node.operand)
        if isinstance(node, ast.IfExp):
            return self._key(node.body) or self._key(node.orelse)
        if isinstance(node, ast.Call) and _called(node) in SAME and node.args:
            return next(filter(None, map(self._key, node.args)), "")
        if isinstance(node, ast.BinOp):
            left, right = self._key(node.left), self._key(node.right)
            if isinstance(node.op, (ast.Add, ast.Sub)) or not right:
                return left or right
            if isinstance(node.op, ast.Mult) and not left:
                return right
        return ast.unparse(node)


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
