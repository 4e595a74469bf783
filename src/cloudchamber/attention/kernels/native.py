"""The C++ kernel: compiled for this machine's processor when it is first needed, and kept in the user's cache.

Without a compiler, or where the build fails, :func:`available` is false (with one warning) and the pure torch kernel does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.core.errors import ChamberError

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno")
BUILD_LIMIT_S = 120.0


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("heads", "group", "queries", "keys", "dim", "value", "threads")] + [
        ("scale", ctypes.c_float)
    ]


class _Runs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("heads", "blocks", "start_heads")] + [
        (name, ctypes.c_void_p) for name in ("starts", "indptr", "start", "stop", "weight")
    ]


def _processor() -> str:
    """What ``-march=native`` depends on: a cache on a shared disk serves machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.lower().startswith(("flags", "features", "model name", "cpu part"))}))


def library_path(compiler: str) -> Path:
    """Where the library of this source, compiler and processor lies, built or not."""
    kind = "\0".join((compiler, *FLAGS, platform.machine(), _processor()))
    name = hashlib.sha256(SOURCE.read_bytes() + kind.encode()).hexdigest()[:24]
    return Path(platformdirs.user_cache_dir("cloudchamber")) / "kernels" / f"attention-{name}.so"


def build() -> Path:
    """Compile the kernel unless the cache has it.

    Two processes may do so at once: each writes a file of its own and renames it, so nobody loads half a library.

    Raises
    ------
    OSError, subprocess.SubprocessError
        If there is no compiler, it fails, or the cache cannot be written.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++) on the path")
    target = library_path(compiler)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
        made.replace(target)
    return target


@lru_cache(maxsize=1)
def _library() -> Any:
    """The loaded library; None, after a warning, where it cannot be had."""
    try:
        library = ctypes.CDLL(str(build()))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warnings.warn(
            f"the native attention kernel could not be built, the slower pure torch kernel is used: {said[0] if said else error!r}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    for function, pointers in ((library.attention_forward, 7), (library.attention_backward, 12)):
        function.argtypes, function.restype = [ctypes.c_void_p] * pointers, ctypes.c_int
    return library


def available() -> bool:
    """Whether the kernel is built or can be; the first call builds it, in a few seconds."""
    return _library() is not None


def _shape(q: Tensor, k: Tensor, v: Tensor, scale: float) -> _Shape:
    threads = torch.get_num_threads()
    return _Shape(len(q), len(q) // max(len(k), 1), q.shape[1], k.shape[1], q.shape[2], v.shape[2], threads, scale)


def _runs(plan: Plan) -> _Runs:
    arrays = (plan.q_starts, plan.indptr, plan.start, plan.stop)
    made = _Runs(plan.index.heads, plan.index.q_blocks, len(plan.q_starts), *(each.ctypes.data for each in arrays))
    made.weight = None if plan.weight is None else plan.weight.ctypes.data
    return made


def _checked(status: int, q: Tensor) -> None:
    if status:
        raise NativeMemoryError(f"no memory for the native attention kernel's packed tensors, queries of shape {tuple(q.shape)}.")


class NativeMemoryError(ChamberError, MemoryError):
    """The kernel could not allocate its working memory."""


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of contiguous float32 tensors; 0 and -inf for a query that reads nothing."""
    out, lse = q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(q.shape[:2])
    shape, runs = _shape(q, k, v, scale), _runs(plan)
    pointers = [each.data_ptr() for each in (q, k, v, out, lse)]
    _checked(_library().attention_forward(ctypes.byref(shape), ctypes.byref(runs), *pointers), q)
    return out, lse


def backward(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, d_out: Tensor, delta: Tensor, plan: Plan, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients: dq by query blocks, then dk and dv by key blocks over the transposed index."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    shape, runs, swapped = _shape(q, k, v, scale), _runs(plan), _runs(plan.transposed)
    delta = delta.contiguous()  # by name, so that it outlives the call
    pointers = [each.data_ptr() for each in (q, k, v, lse, delta, d_out, dq, dk, dv)]
    status = _library().attention_backward(ctypes.byref(shape), ctypes.byref(runs), ctypes.byref(swapped), *pointers)
    _checked(status, q)
    return dq, dk, dv
