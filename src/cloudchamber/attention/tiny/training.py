"""Train a small video model from a recipe; the result stays in the user's cache, under the recipe's hash."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cloudchamber.core.errors import InputError

from .dit import DiTConfig, TinyVideoDiT
from .shapes import MovingShapes

REVISION = 1  # of what a recipe means; raise it when the same recipe would give another model
SAVE_EVERY = 50
Told = Callable[[str], None] | None


@dataclass(frozen=True)
class Stage:
    """Steps at one size of clip."""

    frames: int
    size: int
    batch: int
    steps: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a trained model is.

    Most steps are on short and small clips, where a step costs little; the last stage is at the size that counts. In each stage the rate
    rises over the first 20 steps, stays, and falls to 0 over the last third.

    Parameters
    ----------
    config : DiTConfig
    stages : tuple of Stage
    lr : float
        Of AdamW.
    scene : {"moving", "cross"}
    seed : int
    """

    config: DiTConfig = field(default_factory=DiTConfig)
    stages: tuple[Stage, ...] = (Stage(4, 16, 16, 1350), Stage(8, 32, 4, 500))
    lr: float = 0.004
    scene: Literal["moving", "cross"] = "moving"
    seed: int = 0

    @property
    def hash(self) -> str:
        """Names the recipe."""
        said = json.dumps([REVISION, asdict(self)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def folder(self) -> Path:
        """Where its model lies, once it is made."""
        from platformdirs import user_cache_path

        return user_cache_path("cloudchamber") / "tiny-dit" / self.hash


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips, noise and times, and what follows from them."""

    clips: Tensor
    noise: Tensor
    t: Tensor

    @property
    def mixed(self) -> Tensor:
        """The model's input."""
        t = self.t[:, None, None, None]
        return (1 - t) * self.clips + t * self.noise

    @property
    def velocity(self) -> Tensor:
        """What the model should say."""
        return self.noise - self.clips


def batch_of(shapes: MovingShapes, count: int, *seed: int) -> Batch:
    """The batch that a seed names: the same for every method, whatever was drawn before. Times are spread evenly over [0, 1]."""
    rng = np.random.default_rng(seed)
    clips = shapes.clips(count, rng)
    noise = rng.standard_normal(clips.shape, np.float32)
    t = ((rng.permutation(count) + rng.random(count)) / count).astype(np.float32)
    return Batch(torch.from_numpy(clips), torch.from_numpy(noise), torch.from_numpy(t))


def validation_loss(model: torch.nn.Module, shapes: MovingShapes, count: int = 64, batch: int = 8) -> np.ndarray:
    """Squared error of the velocity of each of ``count`` clips that no training draws, with evenly spread times: (count,)."""
    whole = batch_of(shapes, count, 2**32 - 1)
    order = torch.arange(count).reshape(-1, batch) if count % batch == 0 else torch.arange(count)[None]
    found, was_training = np.empty(count), model.training
    model.eval()
    with torch.no_grad():
        for at in order:
            part = Batch(whole.clips[at], whole.noise[at], whole.t[at])
            found[at.numpy()] = (model(part.mixed, part.t) - part.velocity).square().flatten(1).mean(1).numpy()
    model.train(was_training)
    return found


def rate(step: int, steps: int, warm: int = 20) -> float:
    """Share of the learning rate: up, level, and down to 0 over the last third."""
    return min(1.0, (step + 1) / warm, (steps - step) / max(steps / 3, 1))


class Training:
    """A training that can be stopped anywhere and goes on as if it had not been.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Holds ``state.pt`` while it runs and ``model.pt`` once it is done.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        torch.manual_seed(recipe.seed)
        self.model = TinyVideoDiT(recipe.config)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.step = 0
        self.losses: list[float] = []
        saved = folder / "state.pt"
        if saved.is_file():
            state = torch.load(saved, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.losses = state["step"], state["losses"]

    def run(self, progress: Told = None) -> TinyVideoDiT:
        """Go on to the end, and write the model."""
        at = 0
        for number, stage in enumerate(self.recipe.stages):
            shapes = MovingShapes(stage.frames, stage.size, self.recipe.scene)
            for step in range(max(self.step - at, 0), stage.steps):
                for group in self.optimiser.param_groups:
                    group["lr"] = self.recipe.lr * rate(step, stage.steps)
                batch = batch_of(shapes, stage.batch, self.recipe.seed, number, step)
                self.losses.append(descend(mse_loss(self.model(batch.mixed, batch.t), batch.velocity), self.optimiser))
                self.step = at + step + 1
                if self.step % SAVE_EVERY == 0:
                    self._save()
                    if progress is not None:
                        progress(f"stage {number + 1}, step {step + 1} of {stage.steps}: loss {np.mean(self.losses[-SAVE_EVERY:]):.4f}")
            at += stage.steps
        keep(self.model, self.folder / "model.pt", losses=self.losses)
        (self.folder / "state.pt").unlink(missing_ok=True)
        return self.model.eval()

    def _save(self) -> None:
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step, "losses": self.losses}
        written(state, self.folder / "state.pt")


def descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> float:
    """One step down a loss, along a gradient of length 1 at most; returns the loss.

    Raises
    ------
    InputError
        If the loss is not finite: nothing is changed then.
    """
    if not torch.isfinite(loss):
        raise InputError(f"the loss is {loss.item()}; train with a lower learning rate.")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([each for group in optimiser.param_groups for each in group["params"]], 1.0)
    optimiser.step()
    return float(loss.item())


def train(recipe: Recipe | None = None, progress: Told = None) -> TinyVideoDiT:
    """Return a recipe's model: from the cache, or trained now, for about half an hour on one processor.

    A training that was interrupted goes on where it was last saved, and gives the same model.
    """
    recipe = recipe or Recipe()
    folder = recipe.folder()
    return load(folder / "model.pt") if (folder / "model.pt").is_file() else Training(recipe, folder).run(progress)


def keep(model: TinyVideoDiT, path: Path, **more: Any) -> None:
    """Write a dense model to a file, whole or not at all."""
    written({"made": model.described(), "weights": model.state_dict(), **more}, path)


def load(path: Path) -> TinyVideoDiT:
    """Read what :func:`keep` wrote.

    Raises
    ------
    InputError
        If it is no such file, or holds weights that a dense model has no place for: those of a correction, for example.
    """
    try:
        state = torch.load(path, weights_only=True)
        described, weights = state["made"], state["weights"]
        model = TinyVideoDiT(DiTConfig(**described.pop("config")), **described)
        model.load_state_dict(weights)
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} holds no dense video model: {error}") from None
    return model.eval()


def written(state: dict[str, Any], path: Path) -> None:
    """Save beside the file, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with making.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
