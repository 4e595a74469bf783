from __future__ import annotations

import hashlib
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloudchamber.core import datasets
from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import DatasetUnavailable, InputError

CONTENT = b"zone,price\na,1\n"


@pytest.fixture
def server(tmp_path):
    """A local origin that serves one archive."""
    root = tmp_path / "origin"
    (root / "repo-abc").mkdir(parents=True)
    (root / "repo-abc" / "raw.csv").write_bytes(CONTENT)
    with tarfile.open(root / "abc.tar.gz", "w:gz") as tar:
        tar.add(root / "repo-abc", "repo-abc")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.fixture
def dataset(server, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.delenv(datasets.ENVIRONMENT, raising=False)
    datasets._failed.clear()

    def convert(folders, target):
        shutil.copyfile(folders[0] / "repo-abc" / "raw.csv", target / "made.csv")

    url = f"http://127.0.0.1:{server.server_address[1]}/abc.tar.gz"
    return Dataset(
        "toy/data", "A toy", (Source(url, "abc", "CC0-1.0"),), convert, {"made.csv": hashlib.sha256(CONTENT).hexdigest()}, len(CONTENT)
    )


def test_fetches_converts_and_checks_once(dataset, server):
    assert datasets.find(dataset) is None
    folder = datasets.locate(dataset)
    assert (folder / "made.csv").read_bytes() == CONTENT
    server.shutdown()
    assert datasets.locate(dataset) == folder
    assert datasets.fingerprint(dataset)["sha256"] is not None


def test_changed_origin_is_refused_and_leaves_nothing(dataset, tmp_path):
    wrong = Dataset(dataset.name, dataset.title, dataset.sources, dataset.convert, {"made.csv": "0" * 64}, 1)
    with pytest.raises(DatasetUnavailable, match=r"made.csv is not the expected file"):
        datasets.fetch(wrong)
    assert not (tmp_path / "cache" / "toy" / "data").exists()


def test_unreachable_origin_says_where_to_put_the_data(dataset, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetUnavailable, match=r"\$CLOUDCHAMBER_DATA to a folder that holds toy/data/"):
        datasets.locate(dataset)


def test_environment_comes_before_the_cache(dataset, tmp_path, monkeypatch):
    datasets.locate(dataset)
    (tmp_path / "own" / "toy" / "data").mkdir(parents=True)
    monkeypatch.setenv(datasets.ENVIRONMENT, str(tmp_path / "own"))
    assert datasets.find(dataset) == tmp_path / "cache" / "toy" / "data"  # an empty folder is not the data
    (tmp_path / "own" / "toy" / "data" / "made.csv").write_bytes(CONTENT)
    assert datasets.find(dataset) == tmp_path / "own" / "toy" / "data"
    monkeypatch.setenv(datasets.ENVIRONMENT, str(tmp_path / "typo"))
    with pytest.raises(InputError, match="not a folder"):
        datasets.find(dataset)


def test_fingerprint_changes_with_any_byte(dataset):
    datasets.locate(dataset)
    before = datasets.fingerprint(dataset)
    (datasets.find(dataset) / "made.csv").write_bytes(CONTENT + b"x")
    assert datasets.fingerprint(dataset)["sha256"] != before["sha256"]
    assert datasets.check(dataset, datasets.find(dataset)) == ["made.csv"]
