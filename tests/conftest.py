from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from cloudchamber.core import datasets

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60, derandomize=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def spot_data():
    """The folder of the real spot traces; tests that use it are skipped where they are not on this machine."""
    from cloudchamber.spot.data import spot_dataset

    folder = datasets.find(spot_dataset())
    if folder is None:
        pytest.skip("the dataset 'spot' is not on this machine")
    return folder
