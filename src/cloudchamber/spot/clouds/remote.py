"""The agent as a program: what a scheduler starts on a machine that it reaches only through object storage.

``python -m cloudchamber.spot.clouds.remote PLAN COMMAND...`` with the plan as JSON. Ends with the job's exit status, or with 0 after
it was asked to stop: by SIGTERM, or by word left in the bucket, since a cloud tool's own cancelling may not reach the job.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import msgspec

from cloudchamber.core.errors import InputError

from .agent import Agent
from .checkpoint import Checkpoint, CheckpointError
from .checkpoints import CheckpointStore


class Plan(msgspec.Struct, frozen=True):
    """What an agent must know.

    Parameters
    ----------
    prefix : str
        Start of the buckets' names.
    regions : tuple of str
        Region of every zone.
    zone, instance : int
    upload_every_s, grace_s, look_every_s : float
        Seconds between uploads, from SIGTERM to SIGKILL, and between looks for a word to stop.
    folder : str
        Where on the machine to keep the job's directory.
    endpoint_url : str or None
    """

    prefix: str
    regions: tuple[str, ...]
    zone: int
    instance: int
    upload_every_s: float = 600.0
    grace_s: float = 60.0
    look_every_s: float = 5.0
    folder: str = "chamber"
    endpoint_url: str | None = None


def run(plan: Plan, command: tuple[str, ...]) -> int:
    """Run the job from the newest checkpoint until it ends or is to stop; return the exit status.

    Raises
    ------
    InputError
        If the newest checkpoint lies in another region.
    CheckpointError
        If it cannot be fetched.
    """
    store = CheckpointStore(plan.regions, plan.prefix, plan.endpoint_url)
    newest = store.newest()
    if newest is not None and plan.regions[newest.zone] != plan.regions[plan.zone]:
        raise InputError(f"the newest checkpoint lies in {plan.regions[newest.zone]}; copy it to {plan.regions[plan.zone]} first.")
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    agent = Agent(store, plan.zone, plan.instance, command, folder, upload_every_s=plan.upload_every_s, grace_s=plan.grace_s, saw=_say)
    signal.signal(signal.SIGTERM, lambda *_: agent.stop.set())
    if not agent.prepare(newest):
        raise CheckpointError(f"checkpoint {newest.version if newest else ''} could not be fetched; see above.")
    agent.spawn({"CHAMBER_ZONE": str(plan.zone)})
    threading.Thread(target=_look, args=(store, plan, agent), daemon=True).start()
    status = agent.work()
    if status is None:
        agent.shut_down()
    return status or 0


def _look(store: CheckpointStore, plan: Plan, agent: Agent) -> None:
    while not agent.stop.wait(plan.look_every_s):
        try:
            if store.is_asked_to_stop(plan.zone, plan.instance):
                agent.stop.set()
        except CheckpointError as error:
            _say(error)


def _say(what: Checkpoint | Exception) -> None:
    text = f"fault: {what}" if isinstance(what, Exception) else f"checkpoint {what.version}: {what.progress:.1%}, {what.size_bytes} bytes"
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run(msgspec.json.decode(sys.argv[1], type=Plan), tuple(sys.argv[2:])))
