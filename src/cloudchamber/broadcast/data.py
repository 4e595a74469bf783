"""Skyplane's grids of prices and speeds, and Cloudcast's five jobs: where they come from, and how they are read."""

from __future__ import annotations

import csv
import json
import shutil
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import InputError

from .model import BroadcastSpec, Job

JOBS = ("intra_aws", "intra_azure", "intra_gcp", "inter_agz", "inter_gaz2")
_COMMIT = "b265bf9ca77fd8e8d82039d9f74911b8780fe1ce"
_COLUMNS = (
    ("src_region", "src_region"),
    ("src_tier", "src_tier"),
    ("src_instance_class", "src_instance_class"),
    ("dst_region", "dst_region"),
    ("dst_tier", "dst_tier"),
    ("dst_instance_class", "dst_instance_class"),
    ("iperf3_connections", "iperf3_connections"),
    ("iperf3_runtime", "iperf3_runtime"),
    ("throughput_sent", "throughput_sent"),
    ("throughput_recieved", "throughput_received"),
)


def _convert(folders: list[Path], target: Path) -> None:
    """Take the grids and the jobs; columns of the speed grid that hold paths of logs are left out."""
    origin = next(folders[0].iterdir()) / "examples/adrs/cloudcast/utils/cloudcast"
    shutil.copyfile(origin / "profiles/cost.csv", target / "cost.csv")
    for job in JOBS:
        shutil.copyfile(origin / f"config/{job}.json", target / f"{job}.json")
    with (origin / "profiles/throughput.csv").open(newline="") as raw, (target / "throughput.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([name for _, name in _COLUMNS])
        writer.writerows([row[old] for old, _ in _COLUMNS] for row in csv.DictReader(raw))


@cache
def cloudcast_dataset() -> Dataset:
    """The declared dataset ``adrs/cloudcast``."""
    return Dataset(
        name="adrs/cloudcast",
        title="Egress prices and speeds between 71 regions of AWS, Azure and GCP, 2022, and five broadcast jobs",
        sources=(
            Source(f"https://github.com/gepa-ai/gepa/archive/{_COMMIT}.tar.gz", _COMMIT, "Apache-2.0 (Skyplane's grids), MIT (GEPA)"),
        ),
        convert=_convert,
        sha256={
            "cost.csv": "b0f97b744b8f0ba464f1098975a25232f168ff8a2c12bfc09efb1c35e4453eac",
            "throughput.csv": "1ffbcb700815e16d1045bc97b5479af57b5600cd3b926960ea3dd398be89290f",
            "inter_agz.json": "e6f7de15894c79bca94907d0776c17414785e7395e0d369743022146bbc42df4",
            "inter_gaz2.json": "b40631902a840d17c8089ff93356e7b2542ca1c34e32d11c227eb8176e9bd0f9",
            "intra_aws.json": "986e7d1f1b7d7186398ac13c1c4fe499a48a164d84a4a7ca8ff17cde3198be42",
            "intra_azure.json": "ac1d872c8f90b2496bf750b1c8a2b8500b2c74b3b1d2675dc9cc25413541a49f",
            "intra_gcp.json": "a4f3293f3e973b5c682f270dca8c008a485cecd9bc440d41e4364c196211cfae",
        },
        size_bytes=807_028,
    )


@lru_cache(maxsize=4)
def read_grids(folder: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return regions, prices (USD/GB) and speeds of one VM (Gbit/s); a pair without a price or a speed has no link."""
    speeds = _pairs(Path(folder) / "throughput.csv", "src_region", "dst_region", "throughput_sent")
    prices = _pairs(Path(folder) / "cost.csv", "src", "dest", "cost")
    regions = tuple(dict.fromkeys(region for pair in speeds for region in pair))
    at = {region: i for i, region in enumerate(regions)}
    price, speed = np.full((len(regions), len(regions)), np.inf), np.zeros((len(regions), len(regions)))
    for (a, b), bits in speeds.items():
        if a != b and (a, b) in prices:
            price[at[a], at[b]], speed[at[a], at[b]] = prices[a, b], bits / 1e9
    return regions, price, speed


def _pairs(path: Path, source: str, target: str, value: str) -> dict[tuple[str, str], float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = {(row[source], row[target]): float(row[value]) for row in csv.DictReader(file)}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} needs the columns {source}, {target} and {value} with numbers in the last ({error!r}).") from None
    if not found or not all(np.isfinite(each) and each >= 0 for each in found.values()):
        raise InputError(f"{path}: every {value} must be a finite number of at least 0, and there must be one.")
    return found


def network(
    regions: tuple[str, ...],
    price: np.ndarray,
    speed: np.ndarray,
    limits: dict[str, dict[str, float]],
    *,
    vms: int,
    shared: bool,
    vm_usd_h: float,
) -> BroadcastSpec:
    """Return the network of ``vms`` VMs per region under limits per VM and provider.

    Raises
    ------
    InputError
        If a region's provider has no limits.
    """
    providers = [region.split(":")[0] for region in regions]
    for key in ("egress_limit", "ingress_limit"):
        missing = sorted(set(providers) - set(limits[key]))
        if missing:
            raise InputError(f"{key} names no provider {missing[0]!r}; it needs {', '.join(sorted(set(providers)))}.")
    out, into = (np.array([vms * float(limits[key][each]) for each in providers]) for key in ("egress_limit", "ingress_limit"))
    return BroadcastSpec(regions, price, vms * speed, out, into, vms, vm_usd_h, shared)


def read_job(path: Path, regions: tuple[str, ...]) -> tuple[Job, dict[str, dict[str, float]]]:
    """Return a job and the limits per VM it states (Gbit/s by provider).

    The file is JSON with ``source_node``, ``dest_nodes``, ``data_vol`` (GB), ``num_partitions``, ``ingress_limit`` and ``egress_limit``.

    Raises
    ------
    InputError
        Saying what is wrong with the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        source, destinations = content["source_node"], list(content["dest_nodes"])
        volume_gb, partitions = float(content["data_vol"]), int(content["num_partitions"])
        limits = {key: {str(name): float(value) for name, value in content[key].items()} for key in ("egress_limit", "ingress_limit")}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path.name} is not a job: {error}.") from None
    except KeyError as error:
        raise InputError(
            f"{path.name} has no {error}; a job needs source_node, dest_nodes, data_vol, num_partitions and the limits."
        ) from None
    for name in (source, *destinations):
        if name not in regions:
            raise InputError(f"{path.name}: no region {name!r} in the grids; they are like {regions[0]}.")
    if not all(value > 0 and np.isfinite(value) for each in limits.values() for value in each.values()):
        raise InputError(f"{path.name}: every limit must be a number above 0.")
    return Job(regions.index(source), tuple(regions.index(each) for each in destinations), volume_gb, partitions), limits


def jobs_of(folder: Path) -> tuple[Path, ...]:
    """Return the folder's job files, the published ones in their order, others by name."""
    found: list[Any] = sorted(
        folder.glob("*.json"), key=lambda path: (JOBS.index(path.stem) if path.stem in JOBS else len(JOBS), path.name)
    )
    return tuple(found)
