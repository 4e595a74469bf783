"""The real thing in small: the same policy's trees, relayed byte by byte over TCP between processes, one for each region.

Every link has a token bucket at the flow that the simulator gives it, scaled so that the broadcast should take a few seconds. What
is measured is when the last byte arrives at the last destination, and that every partition arrived whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

from cloudchamber.core.candidate import Candidate
from cloudchamber.core.errors import ChamberError, InputError
from cloudchamber.core.messages import decode, encode

from .model import Broadcast, BroadcastSpec, Job
from .node import digests
from .simulator import Transfer, measured

PATIENCE_S = 60.0  # beyond the predicted time, before a run is given up


class BroadcastFailed(ChamberError, RuntimeError):
    """A region's process ended early, took too long, or received something else than was sent."""


@dataclass(frozen=True)
class Relayed:
    """What a real broadcast took.

    Parameters
    ----------
    predicted_s, measured_s : float
        Until the last destination has all: by the simulator's flows, and by the clock.
    regions, links : int
    bytes_sent : int
        Over all links.
    cost_usd : float
        The simulator's bill for the job in full size.
    """

    predicted_s: float
    measured_s: float
    regions: int
    links: int
    bytes_sent: int
    cost_usd: float

    @property
    def ratio(self) -> float:
        """Measured over predicted time."""
        return self.measured_s / self.predicted_s

    def to_dict(self) -> dict[str, Any]:
        """Return all facts, ratio included."""
        return {**asdict(self), "ratio": self.ratio}


def relay(policy: Any, spec: BroadcastSpec, job: Job, *, seconds: float = 3.0, megabytes: float = 16.0, seed: int = 0) -> Relayed:
    """Plan a job with a policy and carry the plan out between processes on this machine.

    Parameters
    ----------
    policy : BroadcastPolicy
    spec : BroadcastSpec
        Must have ``shared`` links: bytes cannot be in two places at once.
    job : Job
    seconds : float, default 3
        How long it should take; sets the scale of all rates.
    megabytes : float, default 16
        What is really sent instead of the job's volume.
    seed : int, default 0
        Of the policy and of the bytes.

    Raises
    ------
    InputError
        If the plan is not valid, or the network's links are not shared.
    CandidateError
        For anything the policy raises.
    BroadcastFailed
        If a process ends early or something else arrives than was sent.
    """
    if not spec.shared:
        raise InputError("a real link carries one byte at a time: set shared=true, or take a workload whose links are shared.")
    if not (0 < seconds < 3600 and 0 < megabytes <= 4096):
        raise InputError(f"seconds must be above 0 and below 3600, megabytes above 0 and at most 4096; got {seconds:g} and {megabytes:g}.")
    asked = Candidate(policy)
    asked.reset(decode(encode(spec), BroadcastSpec), np.random.default_rng(seed))
    answer = asked.plan(decode(encode(job), Job))
    bill = measured(answer, spec, job)
    if not isinstance(bill, Transfer):
        raise InputError(f"the plan is not valid: {'; '.join(bill)}.")
    plan = decode(encode(answer), Broadcast)
    part_bytes = max(1, round(megabytes * 1e6 / job.partitions))
    bytes_s = {link: flow * part_bytes * _slowest(bill) / seconds for link, flow in bill.flow_gbps.items()}
    tasks = _tasks(plan, spec, job, bytes_s, part_bytes, seed)
    measured_s = _carried_out(tasks, {spec.regions[each] for each in job.destinations}, digests(seed, job.partitions, part_bytes), seconds)
    sent = sum(bill.partitions_on.values()) * part_bytes
    return Relayed(seconds, measured_s, len(tasks), len(bill.flow_gbps), sent, bill.cost_usd)


def _slowest(bill: Transfer) -> float:
    """Partitions over flow, of the link that decides."""
    return bill.partitions_on[bill.slowest] / bill.flow_gbps[bill.slowest]


def _tasks(
    plan: Broadcast, spec: BroadcastSpec, job: Job, bytes_s: dict[tuple[int, int], float], part_bytes: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return what every region that takes part must do."""
    carried = {link: [i for i, tree in enumerate(plan.trees) if link in tree] for link in bytes_s}
    tasks = {}
    for region in sorted({job.source, *(end for link in bytes_s for end in link)}):
        out = [{"to": spec.regions[b], "partitions": carried[a, b], "bytes_s": bytes_s[a, b]} for a, b in sorted(bytes_s) if a == region]
        tasks[spec.regions[region]] = {
            "is_source": region == job.source,
            "partitions": job.partitions,
            "part_bytes": part_bytes,
            "seed": seed,
            "links_in": sum(b == region for _, b in bytes_s),
            "out": out,
        }
    return tasks


def _carried_out(tasks: dict[str, dict[str, Any]], destinations: set[str], expected: list[str], seconds: float) -> float:
    """Run the processes; return seconds until the last destination had everything."""
    with ExitStack() as stack:
        errors = {name: stack.enter_context(tempfile.TemporaryFile()) for name in tasks}
        nodes = {name: stack.enter_context(_started(errors[name])) for name in tasks}
        timer = threading.Timer(seconds + PATIENCE_S, _end, (nodes,))
        stack.callback(_end, nodes)
        stack.callback(timer.cancel)
        timer.start()

        def heard() -> dict[str, Any]:
            return {name: _heard(name, node, errors[name]) for name, node in nodes.items()}

        for name, node in nodes.items():
            _tell(node, tasks[name])
        ports = {name: said["port"] for name, said in heard().items()}
        for node in nodes.values():
            _tell(node, {"ports": ports})
        heard()
        start = time.monotonic()
        for node in nodes.values():
            _tell(node, "go")
        results = heard()
    for name in sorted(destinations):
        if results[name]["sha256"] != expected:
            raise BroadcastFailed(f"{name} received other bytes than were sent.")
    return float(max(results[name]["finished_s"] for name in destinations) - start)


def _started(errors: IO[bytes]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cloudchamber.broadcast.node"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)


def _end(nodes: dict[str, subprocess.Popen[str]]) -> None:
    """End the processes that still run; after the last destination has everything, nothing of them is needed."""
    for node in nodes.values():
        if node.poll() is None:
            node.kill()


def _tell(node: subprocess.Popen[str], message: Any) -> None:
    assert node.stdin is not None
    try:
        node.stdin.write(json.dumps(message) + "\n")
        node.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended; what it says next is why


def _heard(name: str, node: subprocess.Popen[str], errors: IO[bytes]) -> dict[str, Any]:
    assert node.stdout is not None
    line = node.stdout.readline()
    if not line:
        node.wait()
        errors.seek(0)
        last = (errors.read().decode(errors="replace").strip().splitlines() or [f"exit code {node.returncode}"])[-1]
        raise BroadcastFailed(f"the process of {name} ended early: {last}")
    found: dict[str, Any] = json.loads(line)
    return found
