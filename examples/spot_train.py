"""A training job for spot instances: a small network, trained deterministically, that resumes bit-exactly wherever it was stopped.

It keeps model, momentum, random state and step in one file of ``$CHAMBER_CHECKPOINT_DIR``, replaced in one rename, so that the
directory is valid at any moment; ``progress`` there holds the finished share. Run it alone::

    CHAMBER_CHECKPOINT_DIR=/tmp/alone python examples/spot_train.py

or on the market of your trace::

    chamber run spot --policy SkyNomad -- python examples/spot_train.py
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import time
from pathlib import Path


class Stop:
    """Set by SIGTERM: the machine goes, so save and leave. Installed before the slow import, which it cuts short."""

    def __init__(self) -> None:
        self.is_asked = self.is_training = False
        signal.signal(signal.SIGTERM, self)

    def __call__(self, *_: object) -> None:
        """Note that the job is to stop."""
        self.is_asked = True
        if not self.is_training:
            os._exit(0)  # nothing is lost yet, and an import cannot be unwound cleanly


def replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network that can be stopped at any moment.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to add to each step, to stand for a larger model")
    options = parser.parse_args()
    stop = Stop()
    train(options.steps, options.save_every, options.pause, Path(os.environ["CHAMBER_CHECKPOINT_DIR"]), stop)


def train(steps: int, save_every: int, pause_s: float, folder: Path, stop: Stop) -> None:
    import io

    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # the sum of many threads depends on how the work fell to them
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1))
    weights = list(model.parameters())
    momentum = [torch.zeros_like(each) for each in weights]  # by hand, as torch.optim imports the compiler, which takes as long as torch
    step = 0
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        momentum = state["momentum"]
        torch.set_rng_state(state["rng"])
        step = state["step"]

    def save() -> None:
        buffer = io.BytesIO()
        torch.save({"model": model.state_dict(), "momentum": momentum, "rng": torch.get_rng_state(), "step": step}, buffer)
        replace(folder / "state.pt", buffer.getvalue())
        replace(folder / "progress", str(step / steps).encode())

    stop.is_training = True
    while step < steps and not stop.is_asked:
        inputs = torch.randn(64, 16)
        loss = ((model(inputs).squeeze(1) - inputs.sum(1).sin()) ** 2).mean()
        with torch.no_grad():
            for weight, velocity, gradient in zip(weights, momentum, torch.autograd.grad(loss, weights), strict=True):
                velocity.mul_(0.9).add_(gradient)
                weight.sub_(velocity, alpha=0.01)
        step += 1
        time.sleep(pause_s)
        if step % save_every == 0 and step < steps:
            save()
    if step == steps:
        digest = hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in weights)).hexdigest()
        replace(folder / "weights.sha256", digest.encode())
        print(f"{steps} steps, weights {digest}")
    save()


if __name__ == "__main__":
    main()
