"""Tune a video model whose attention was replaced: towards the data, towards its dense teacher, or layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cloudchamber.attention.recipes import parameter_groups, white_box_loss
from cloudchamber.core.errors import InputError

from .dit import TinyVideoDiT
from .shapes import MovingShapes
from .training import Batch, Told, batch_of, descend, rate

Teacher = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tuning:
    """How a model is tuned.

    Parameters
    ----------
    steps, batch : int
    objective : {"teacher", "velocity", "layers"}
        What the dense model says on the same noisy clips, which depends little on the data; the velocity itself; or, in each layer, what
        the dense model's attention gives.
    trains : {"all", "correction"}
        The whole model, or only the parameters of the corrections; the latter was found not to be enough.
    lr : float
        Of AdamW.
    correction_rate : float
        Times the rate for the corrections' parameters, which start at zero.
    seed : int
        Of the data: the same batches in the same order for every method.

    Raises
    ------
    InputError
        If a choice is unknown, or a number is not positive.
    """

    steps: int = 1000
    batch: int = 4
    objective: Literal["teacher", "velocity", "layers"] = "teacher"
    trains: Literal["all", "correction"] = "all"
    lr: float = 3e-4
    correction_rate: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in ("teacher", "velocity", "layers") or self.trains not in ("all", "correction"):
            raise InputError(f"objective is teacher, velocity or layers, and trains all or correction, got {self}.")
        if min(self.steps, self.batch) < 1 or min(self.lr, self.correction_rate) <= 0:
            raise InputError(f"steps, batch and rates must be positive, got {self}.")


def tune(
    model: TinyVideoDiT,
    shapes: MovingShapes,
    tuning: Tuning,
    *,
    teacher: Teacher | None = None,
    before: Callable[[int], None] | None = None,
    progress: Told = None,
) -> list[float]:
    """Train a model in place; returns the loss at each step.

    Parameters
    ----------
    model : TinyVideoDiT
        Usually converted: see :func:`cloudchamber.attention.convert`.
    shapes : MovingShapes
    tuning : Tuning
    teacher : TinyVideoDiT or callable (clips, t), optional
        The dense model; needed by the objectives "teacher" and "layers". For "teacher" a function will do, such as one that remembers.
    before : callable, optional
        Called with the number of each step before it, to raise a sparsity, for example.

    Raises
    ------
    InputError
        If a teacher is missing, there is nothing to train, or the loss is not finite.
    """
    if teacher is None and tuning.objective != "velocity":
        raise InputError(f'the objective "{tuning.objective}" needs a teacher: the dense model.')
    only = tuning.trains == "correction"
    groups = parameter_groups(model, lr=tuning.lr, correction_times=tuning.correction_rate, corrections_only=only)
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=0.01)
    initial = [group["lr"] for group in optimiser.param_groups]
    losses = []
    model.train()
    for step in range(tuning.steps):
        if before is not None:
            before(step)
        for group, lr in zip(optimiser.param_groups, initial, strict=True):
            group["lr"] = lr * rate(step, tuning.steps)
        losses.append(descend(_loss(model, teacher, batch_of(shapes, tuning.batch, 1, tuning.seed, step), tuning.objective), optimiser))
        if progress is not None and (step + 1) % 50 == 0:
            progress(f"step {step + 1} of {tuning.steps}: loss {sum(losses[-50:]) / 50:.5f}")
    model.eval()
    return losses


def _loss(model: TinyVideoDiT, teacher: Teacher | None, batch: Batch, objective: str) -> Tensor:
    if teacher is None or objective == "velocity":
        return mse_loss(model(batch.mixed, batch.t), batch.velocity)
    if objective == "teacher":
        return white_box_loss(model, teacher, batch.mixed, batch.t)
    if not isinstance(teacher, TinyVideoDiT):
        raise InputError('the objective "layers" needs the dense model itself as the teacher: it looks into its layers.')
    with torch.no_grad(), _attended(teacher) as wanted:
        teacher(batch.mixed, batch.t)
    with _attended(model) as given:
        model(batch.mixed, batch.t)
    return torch.stack([mse_loss(a, b) for a, b in zip(given, wanted, strict=True)]).sum()


@contextmanager
def _attended(model: TinyVideoDiT) -> Iterator[list[Tensor]]:
    """What each attention module gives while the model runs, first layer first."""
    found: list[Tensor] = []
    hooks = [each.register_forward_hook(lambda _module, _args, out: found.append(out)) for each in model.attentions()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
