"""Hostile candidates behind canaries: void with the expected kind, or harmless; nothing outside is touched, and the next candidate is not either."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudchamber.core.errors import CandidateError
from cloudchamber.jail.levels import LandlockJail, NamespaceJail

from .conftest import HONEST, play

CORPUS = sorted((Path(__file__).parent / "hostile").glob("*.py"))
KINDS = {"crash", "type", "input", "protocol", "timeout", "memory", "died", "flood"}
pytestmark = pytest.mark.jail


def expected(path):
    kinds = set(path.read_text().splitlines()[0].removeprefix("# expect: ").split("|"))
    assert kinds <= KINDS | {"harmless"}
    return kinds


def attack(path, canaries, jail):
    """What became of it, and everything the world saw of it."""
    first, _, rest = path.read_text().partition('"""\n')
    try:
        seen = play(f'{first}"""\n{canaries.preamble()}{rest}', jail=jail)
    except CandidateError as error:
        assert not any(ord(each) < 32 and each not in "\n\t" for each in f"{error}{error.feedback}") and "\u202e" not in error.feedback
        assert len(error.feedback) <= 4096
        return {error.kind}, f"{error} {error.feedback}"
    assert all(each.text.startswith("stopped") for each in seen), seen[0].text
    return {"harmless"}, str(seen)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_void_or_harmless(path, canaries, normal):
    became, seen = attack(path, canaries, NamespaceJail(libraries=("numpy",)))
    assert became <= expected(path), seen
    canaries.check(seen)
    assert play(HONEST) == normal


SLOW = {"timeout", "flood", "memory"}  # limits are the same at both levels


@pytest.mark.parametrize("path", [path for path in CORPUS if not expected(path) & SLOW], ids=lambda path: path.stem)
def test_void_or_harmless_at_the_landlock_level(path, canaries):
    jail = LandlockJail(libraries=("numpy",))
    became, seen = attack(path, canaries, jail)
    assert became <= expected(path), seen
    canaries.check(seen)


def test_corpus_is_large_and_covers_every_kind():
    assert len(CORPUS) >= 60 and set().union(*map(expected, CORPUS)) == KINDS | {"harmless"}
