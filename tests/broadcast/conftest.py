from __future__ import annotations

from dataclasses import replace

import pytest

from cloudchamber.broadcast.data import cloudcast_dataset
from cloudchamber.broadcast.workloads import named_workloads
from cloudchamber.core import datasets


@pytest.fixture(scope="session")
def cloudcast_data():
    """The folder of the real grids and jobs; tests that use it are skipped where it is not on this machine."""
    folder = datasets.find(cloudcast_dataset())
    if folder is None:
        pytest.skip("the dataset 'adrs/cloudcast' is not on this machine")
    return folder


@pytest.fixture(scope="session")
def cloudcast(cloudcast_data):
    return replace(named_workloads()["cloudcast"], folder=str(cloudcast_data))
