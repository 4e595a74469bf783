"""A job for the tests: a deterministic walk of STEPS steps that resumes bit-exactly, PAUSE real seconds a step.

Usage: walking_job.py STEPS PAUSE [stubborn|crash:STEP|early:STEP]. Its whole state is one file, replaced in one rename. PAUSE may
be the path of a local cloud's clock: then a step is a tick, so that the job works at the pace it was declared with however
much the clock lags behind real time on a loaded machine.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(os.environ["CHAMBER_CHECKPOINT_DIR"])
steps, pause, quirk = int(sys.argv[1]), sys.argv[2], (sys.argv[3:] or [""])[0]
state = json.loads((folder / "state").read_text()) if (folder / "state").exists() else {"step": 0, "weights": "start", "starts": 0}
state["starts"] += 1
is_stopped = False


def stop(*_: object) -> None:
    global is_stopped  # noqa: PLW0603
    is_stopped = True


def wait_for_step(tick: int) -> int:
    """Return the tick up to which work is done."""
    if "/" not in pause:
        time.sleep(float(pause))
        return tick
    while int(Path(pause).read_text()) <= tick and not is_stopped:
        time.sleep(0.002)
    return tick + 1


def save(name: str, text: str) -> None:
    new = folder / f".{name}.new"
    new.write_text(text)
    new.replace(folder / name)


signal.signal(signal.SIGTERM, signal.SIG_IGN if quirk == "stubborn" else stop)
tick = int(Path(pause).read_text()) if "/" in pause else 0
while state["step"] < steps and not is_stopped:
    if quirk == f"crash:{state['step']}":
        sys.exit("a bug")
    if quirk == f"early:{state['step']}":
        sys.exit(0)
    tick = wait_for_step(tick)
    if is_stopped and "/" in pause:
        break
    state = {**state, "step": state["step"] + 1, "weights": hashlib.sha256(state["weights"].encode()).hexdigest()}
    save("state", json.dumps(state))
    save("progress", str(state["step"] / steps))
