"""Figures in documents: each comes from a record, and says which.

A figure is followed by a marker that Markdown does not show::

    SkyNomad costs 1.05x <!-- claim:spot-near-optimal --> the optimum.
    The paper says within 12 % <!-- claim:spot-near-optimal.published --> of it.

:func:`update` rewrites the number in front of a marker, keeping its decimals; :func:`problems` finds numbers with %, ×, x or X
outside fenced code that no marker stands behind, or that differ from their record. A block from ``<!-- claims-table:STUDY -->`` to
``<!-- /claims-table -->`` holds the study's table of claims.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cloudchamber.core.errors import InputError, unknown

from .standing import Standing, table

_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_MARKER = r"<!--\s*claim:(?P<claim>[a-z0-9-]+)(?:\.(?P<field>[a-z_]+))?\s*-->"
# between a number and its marker only a unit may stand: no digits, no other marker, no end of a sentence
_MARKED = re.compile(rf"(?P<number>(?<![\w.]){_NUMBER})(?P<unit>[^\d<>.;:\n]{{0,24}}){_MARKER}")
_FIGURE = re.compile(rf"(?<![\w.]){_NUMBER}[-\s\u00a0\u202f]?(?:%|(?:×|[xX])(?!\w|\s?\d))")
_BLOCK = re.compile(r"(<!--\s*claims-table:(?P<study>[\w.]+)\s*-->)(?P<body>.*?)(<!--\s*/claims-table\s*-->)", re.DOTALL)
_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*\2[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)

_FIELDS: dict[str, Callable[[float], float]] = {
    "estimate": lambda x: x,
    "excess": lambda x: (x - 1) * 100,
    "saving": lambda x: (1 - x) * 100,
    "percent": lambda x: x * 100,
}


def update(text: str, standings: Sequence[Standing]) -> str:
    """Return the document with every marked number and table as the records have them.

    Raises
    ------
    InputError
        If a marker names no claim or field, or its claim has no record yet.
    """
    claims = {each.claim.id: each for each in standings}
    text = _outside_code(text, lambda part: _MARKED.sub(lambda match: _rewritten(match, claims), part))
    return _outside_code(text, lambda part: _BLOCK.sub(lambda match: f"{match[1]}\n{_block(match['study'], standings)}\n{match[4]}", part))


def problems(text: str, standings: Sequence[Standing]) -> list[str]:
    """Return what is wrong with a document's figures, each with its line; empty when all come from records."""
    claims = {each.claim.id: each for each in standings}
    prose = _outside_code(text, lambda part: part, blank_code=True)
    found: list[tuple[int, str]] = []
    for match in _BLOCK.finditer(prose):
        if match["body"].strip() != _block(match["study"], standings):
            found.append((match.start(), f"the table of claims of {match['study']} is not the one on record"))
    prose = _BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), prose)
    covered: set[int] = set()
    for match in _MARKED.finditer(prose):
        covered.update(range(match.start(), match.end()))
        try:
            right = _rewritten(match, claims)
        except InputError as error:
            found.append((match.start(), str(error)))
        else:
            if right != match[0]:
                given = right.partition("<!--")[0].strip()
                found.append((match.start(), f"{match['number']} is not what the record of {match['claim']} gives: {given}"))
    found += [
        (match.start(), f"{match[0].strip()!r} has no <!-- claim:ID --> behind it")
        for match in _FIGURE.finditer(prose)
        if match.start() not in covered
    ]
    stray = (match for match in re.finditer(_MARKER, prose) if match.start() not in covered)
    found += [(match.start(), f"the marker of {match['claim']} has no number in front of it") for match in stray]
    return [f"line {prose.count(chr(10), 0, start) + 1}: {message}" for start, message in sorted(found)]


def _rewritten(match: re.Match[str], claims: dict[str, Standing]) -> str:
    if match["claim"] not in claims:
        raise unknown("claim", match["claim"], claims)
    right = _figure(claims[match["claim"]], match["field"] or "estimate", match["number"])
    return right + match[0][len(match["number"]) :]


def _figure(standing: Standing, field: str, shown: str) -> str:
    """Return the number a document should show, with as many decimals as it shows now."""
    if field == "published":
        numbers = re.findall(_NUMBER, standing.claim.published.text)
        if shown not in numbers:
            raise InputError(f"{shown} is not in the published figure of {standing.claim.id!r}: {standing.claim.published.text!r}.")
        return shown
    record = standing.record
    if record is None or record.result.estimate is None:
        raise InputError(f"claim {standing.claim.id!r} has no figure on record; run chamber claims --run.")
    result = record.result
    estimate, interval = record.result.estimate, result.interval or ()
    plain = {
        "n": float(result.n),
        "void": float(result.void),
        **dict(zip(("low", "high"), interval, strict=False)),
        **{name: rule(estimate) for name, rule in _FIELDS.items()},
    }
    if field not in plain:
        raise unknown(f"field of claim {standing.claim.id!r}", field, (*plain, "published"))
    if plain[field] < 0:  # a sign in the sentence is not ours to write: "5 % cheaper" cannot become "-3 % cheaper"
        raise InputError(f"{field} of claim {standing.claim.id!r} is {plain[field]:.4g}, below zero; reword the sentence.")
    decimals = len(shown.partition(".")[2])
    return f"{plain[field]:,.{decimals}f}" if "," in shown or abs(plain[field]) >= 10_000 else f"{plain[field]:.{decimals}f}"


def _block(study: str, standings: Sequence[Standing]) -> str:
    own = [each for each in standings if each.study == study]
    if not own:
        raise unknown("study with claims", study, {each.study for each in standings})
    return table(own).to_markdown()


def _outside_code(text: str, change: Callable[[str], str], *, blank_code: bool = False) -> str:
    """Apply ``change`` between the fenced code blocks, which stay as they are or become blank lines of equal length."""
    parts, end = [], 0
    for match in _FENCE.finditer(text):
        code = re.sub(r"[^\n]", " ", match[0]) if blank_code else match[0]
        parts += [change(text[end : match.start()]), code]
        end = match.end()
    return "".join([*parts, change(text[end:])])
