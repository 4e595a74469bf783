"""Matrix products of a decoder, each by whichever kernel is fastest on this machine for so many rows.

Which that is depends on the processor more than on the library: it is timed when a model is loaded, within the numerics that were
asked for, and never changes them.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from cloudchamber.core.errors import InputError

ROWS = (1, 4, 16, 64, 256)  # each choice holds up to so many rows; the last for more
SHAPES = 5  # of a decoder's products: qkv, output, gate and up, down, head
LAYOUTS = 2  # of one weight in memory at once
NEAR = 1.1  # a layout less is worth so much time
FASTER = 1.3  # what more threads must bring

Product = Callable[[Tensor], Tensor]
Maker = Callable[[Tensor, Tensor | None], Product]


def _linear(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda x: functional.linear(x, weight, bias)


def _transposed(weight: Tensor, bias: Tensor | None) -> Product:
    turned = weight.t().contiguous()
    return (lambda x: torch.mm(x, turned)) if bias is None else lambda x: torch.addmm(bias, x, turned)


def _onednn(weight: Tensor, bias: Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS[2])
    run = torch.ops.mkldnn._linear_pointwise.default._op  # the bare operator: its wrapper costs as much as a small product
    return lambda x: run(x, packed, bias, "none", [], "")


def _fbgemm(weight: Tensor, bias: Tensor | None) -> Product:
    """Weights per channel, activations per row, in int8.

    The library takes one scale for all rows; rows scaled to a largest value of 1 each get their own.
    """
    scales = weight.abs().amax(1).clamp_min(1e-12).double() / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated; nothing else in torch is as fast
        quantised = torch.quantize_per_channel(weight.float(), scales, torch.zeros_like(scales, dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantised, None)
    run = torch.ops.quantized.linear_dynamic.default._op

    def product(x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            found = run(x, packed, True)
        else:
            size = x.abs().amax(1, True).clamp_min_(1e-12)
            found = run(x / size, packed, True).mul_(size)
        return found if bias is None else found.add_(bias)  # type: ignore[no-any-return]

    return product


def candidates(dtype: str, device: str) -> Mapping[str, Maker]:
    """Kernels of these numerics that this build of torch has.

    Raises
    ------
    InputError
        If there is none.
    """
    if dtype == "int8":
        if device != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
            raise InputError(f"this build of torch has no int8 kernel for {device}; use dtype='float32' or 'bfloat16'.")
        torch.backends.quantized.engine = "fbgemm"
        return {"fbgemm int8": _fbgemm}
    found: dict[str, Maker] = {"linear": _linear}
    if device == "cpu":
        found["transposed"] = _transposed
        if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            found["oneDNN"] = _onednn
    return found


class Linear:
    """y = x · weightᵀ + bias, by the kernel chosen for the number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, choice: tuple[Maker, ...] = (_linear,) * len(ROWS)) -> None:
        made = {make: make(weight, bias) for make in set(choice)}
        self._most = made[choice[-1]]
        self._by_rows = [made[choice[bisect.bisect_left(ROWS, rows)]] for rows in range(ROWS[-1] + 1)]

    def __call__(self, x: Tensor) -> Tensor:
        """Rows of ``x``, (rows, columns of the weight)."""
        rows = x.shape[0]
        return self._by_rows[rows](x) if rows <= ROWS[-1] else self._most(x)


class Kernels:
    """Chooses kernels, shape by shape, as a model is built.

    Parameters
    ----------
    dtype : {"float32", "bfloat16", "int8"}
    device : str
    budget_s : float, default 1.5
        Time for all choices.
    """

    def __init__(self, dtype: str = "float32", device: str = "cpu", budget_s: float = 1.5) -> None:
        self.dtype, self.device, self.budget_s = dtype, device, budget_s
        self._candidates = candidates(dtype, device)
        self._chosen: dict[tuple[int, ...], list[tuple[float, str]]] = {}  # for each number of rows: milliseconds, name
        self._plain: list[Tensor] = []  # weights that are also held as they came
        self._packed_bytes = 0

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A product with this weight."""
        shape = tuple(weight.shape)
        if shape not in self._chosen:
            self._chosen[shape] = self._choose(weight)
        names = [name for _, name in self._chosen[shape]]
        if "linear" in names:
            self._plain.append(weight)
        self._packed_bytes += len({*names} - {"linear"}) * weight.numel() * (1 if self.dtype == "int8" else weight.element_size())
        return Linear(weight, bias, tuple(self._candidates[name] for name in names))

    def held_bytes(self, *others: Tensor) -> int:
        """Bytes of all weights in all layouts that are in memory, and of others that may be among them."""
        return self._packed_bytes + sum({each.data_ptr(): each.nbytes for each in (*self._plain, *others)}.values())

    def _choose(self, weight: Tensor) -> list[tuple[float, str]]:
        """Time every kernel on every number of rows, in turn, within this shape's share of the budget."""
        if len(self._candidates) == 1 or self.device != "cpu":
            return [(math.nan, next(iter(self._candidates)))] * len(ROWS)
        products = {}
        for name, make in self._candidates.items():
            with contextlib.suppress(RuntimeError):  # oneDNN has no bfloat16 on processors without the instructions
                products[name] = make(weight, None)
        share = self.budget_s / SHAPES / len(ROWS)
        times: list[dict[str, float]] = []
        with torch.inference_mode():
            for rows in ROWS:
                if times and min(times[-1].values()) * 8 * len(products) > share * 4:  # would take too long: as for fewer rows
                    break
                times.append(_times(products, torch.randn(rows, weight.shape[1], dtype=weight.dtype), share))
        kept = layouts(times)
        chosen = [min((each[name] * 1e3, name) for name in kept) for each in times]
        return chosen + [(math.nan, chosen[-1][1])] * (len(ROWS) - len(times))

    def table(self) -> str:
        """What was chosen: a line for each shape, a column for each number of rows, with milliseconds."""
        width = 22
        lines = [f"{self.dtype} on {self.device}, {torch.get_num_threads()} threads"]
        lines += ["shape".ljust(14) + "".join(f"<= {rows} rows".ljust(width) for rows in ROWS[:-1]) + "more rows"]
        for shape, choice in self._chosen.items():
            cells = [name if math.isnan(ms) else f"{name} {ms:.3f} ms" for ms, name in choice]
            lines.append("x".join(map(str, shape)).ljust(14) + "".join(cell.ljust(width) for cell in cells).rstrip())
        return "\n".join(lines)


def _times(products: Mapping[str, Product], x: Tensor, share_s: float) -> dict[str, float]:
    """Least seconds of each product, taken in turn."""
    least = dict.fromkeys(products, float("inf"))
    end = time.perf_counter() + share_s
    for turn in range(50):
        for name, product in products.items():
            began = time.perf_counter()
            product(x)
            least[name] = min(least[name], time.perf_counter() - began)
        if turn and time.perf_counter() > end:
            break
    return least


def layouts(times: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The fewest kernels, each with its copy of the weight, that are nearly as fast as all; ``times``: seconds for each number of rows."""

    def slowest(names: tuple[str, ...]) -> float:
        return max(min(each[name] for name in names) / min(each.values()) for each in times)

    found: tuple[str, ...] = ()
    for count in range(1, LAYOUTS + 1):
        found = min(combinations(times[0], min(count, len(times[0]))), key=slowest)
        if slowest(found) <= NEAR:
            break
    return found


def set_threads(threads: int | None) -> int:
    """Set torch's threads; None: all cores if they make a product much faster (on busy cores they wait for each other), else one.

    Raises
    ------
    InputError
        If it is less than one.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)
        return threads
    import os

    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    weight, x = torch.randn(1024, 1024), torch.randn(16, 1024)
    took = {}
    with torch.inference_mode():
        for count in (1, most):
            torch.set_num_threads(count)
            functional.linear(x, weight)
            began = time.perf_counter()
            for _ in range(20):
                functional.linear(x, weight)
            took[count] = time.perf_counter() - began
    chosen = most if took[1] > FASTER * took[most] else 1
    torch.set_num_threads(chosen)
    return chosen
