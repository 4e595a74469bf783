"""A winner as a policy file that ``chamber study`` and ``chamber run`` take as it is, with where it comes from in its docstring."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from cloudchamber.core.errors import InputError

from . import code
from .model import Scored

if TYPE_CHECKING:
    from .store import Store


def export(store: Store, target: str | Path | None = None, number: int | None = None) -> str:
    """Return the source of a candidate with its lineage as the module's docstring, and write it to ``target`` if one is given.

    Parameters
    ----------
    store : Store
    target : path-like, optional
        Must not exist.
    number : int, optional
        Default: the winner of the run.

    Raises
    ------
    InputError
        If there is no such candidate, it is void, or the file exists.
    """
    if number is None:
        number = best_number(store)
    candidate = store.candidate(number)
    if candidate is None:
        raise InputError(f"the run has no candidate {number}.")
    if candidate.status not in ("scored", "archived"):
        raise InputError(f"candidate {number} is {candidate.status} ({candidate.reason}); only a valid one can be exported.")
    source = described(candidate, store)
    if target is not None:
        try:
            with Path(target).open("x", encoding="utf-8") as file:
                file.write(source)
        except FileExistsError:
            raise InputError(f"{target} exists already; give another name.") from None
    return source


def best_number(store: Store) -> int:
    """The winner as the run last saw it.

    Raises
    ------
    InputError
        If nothing was scored yet.
    """
    found = store["best"]
    if found is None:
        raise InputError("nothing was scored yet, so there is no winner.")
    return int(found)


def lineage(candidate: Scored, store: Store) -> list[Scored]:
    """The candidate and its main ancestors, the oldest first."""
    line = [candidate]
    while line[0].parents:
        parent = store.candidate(line[0].parents[0])
        if parent is None or parent.number >= line[0].number:
            break
        line.insert(0, parent)
    return line


def described(candidate: Scored, store: Store) -> str:
    """The source with its lineage as docstring, in place of the starting policy's, which no longer tells the truth."""
    settings = store["settings"] or {}
    verdict = next((each for each in store["verdict"] or [] if each["candidate"] == candidate.number), None)
    lines = [
        f"Found by ``chamber evolve {settings.get('study', '')}``: candidate {candidate.number} of the run.",
        "",
        f"Quality on its training trials {_figure(candidate.score)}, on hidden ones {_figure(candidate.validation)} (1 is the bound).",
        f"Held out: {_inert(verdict['text'], 400)}." if verdict else "Not judged on held-out trials yet.",
        "",
        "Lineage:",
    ]
    lines += [f"- {each.number}, {each.proposer}: {_inert(each.note)} ({_figure(each.score)})" for each in lineage(candidate, store)]
    text = code.Text(candidate.source)
    first = code._docstring(text.tree)
    body = candidate.source
    if first is not None:
        where = text.span(first)
        body = body[: where.start] + body[where.end :].lstrip(" \t;")  # a statement may follow on its line
    made = '"""' + "\n".join(lines).rstrip() + '\n"""\n\n' + body.lstrip("\n ")
    ast.parse(made)
    return made


def _inert(note: str, most: int = 160) -> str:
    """A note that cannot end the docstring it stands in."""
    return "".join(character for character in note if character.isprintable()).replace("\\", "/").replace('"', "'")[:most]


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
