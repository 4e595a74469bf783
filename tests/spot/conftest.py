"""Fixtures of the tests of the real runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .running import FaultyS3, faulty_s3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyS3]:
    """One S3 service, and compiled imports, for the module: most of the tests' time would go into starting processes."""
    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch, faulty_s3() as proxy:
        for name, value in names.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.getbasetemp().parent / "pyc"))
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield proxy


@pytest.fixture
def healthy(s3: FaultyS3) -> Iterator[FaultyS3]:
    yield s3
    s3.fail, s3.slow, s3.delay_s = (), "", 0.0
    s3.delayed.clear()
