from __future__ import annotations

import pytest

from cloudchamber.evolve import Budget, Search, Settings

from .toy.study import PricingStudy


@pytest.fixture
def search_on(tmp_path):
    """Make searches on the toy study; closed at the end. In process, since the jail has tests of its own."""
    made = []

    def make(evaluations=20, name=None, study=None, **settings):
        settings = {"start": "BySize", "trials": (2, 2, 6), "seed": 7, "jail": "none"} | settings
        search = Search(study or PricingStudy(), Settings(**settings), store=tmp_path / name if name else None, budget=Budget(evaluations))
        made.append(search)
        return search

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _no_warning_about_the_missing_jail(recwarn):
    return recwarn
