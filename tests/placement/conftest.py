from __future__ import annotations

import pytest

from cloudchamber.core import datasets
from cloudchamber.placement.data import FILE, prism_dataset, read_instances


@pytest.fixture(scope="session")
def prism_file():
    """The published instances; tests that use them are skipped where they are not on this machine."""
    folder = datasets.find(prism_dataset())
    if folder is None:
        pytest.skip("the dataset 'adrs/prism' is not on this machine")
    return folder / FILE


@pytest.fixture(scope="session")
def prism(prism_file):
    return read_instances(prism_file)
