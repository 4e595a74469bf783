from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from cloudchamber.core import datasets

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other busily: two tests at once on two cores would stall

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60, derandomize=True)
settings.load_profile("default")


def pytest_runtest_setup(item):
    """Tests of walls need bubblewrap: where it is missing they are skipped by name, or fail where a jail is required."""
    if item.get_closest_marker("jail") is None or shutil.which("bwrap") is not None:
        return
    if os.environ.get("CHAMBER_REQUIRE_JAIL") == "1":
        pytest.fail("bubblewrap is not installed, and CHAMBER_REQUIRE_JAIL=1 allows no jail test to be skipped: apt install bubblewrap")
    pytest.skip("bubblewrap is not installed: apt install bubblewrap")


@pytest.fixture(scope="session")
def spot_data():
    """The folder of the real spot traces; tests that use it are skipped where they are not on this machine."""
    from cloudchamber.spot.data import spot_dataset

    folder = datasets.find(spot_dataset())
    if folder is None:
        pytest.skip("the dataset 'spot' is not on this machine")
    return folder
