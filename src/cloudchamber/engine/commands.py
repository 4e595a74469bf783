"""``chamber serve engine``: a checkpoint behind OpenAI's API, scheduled by the policy that was studied."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Dtype(StrEnum):
    """Numerics of the matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


def serve(
    path: Annotated[
        Path | None, typer.Argument(help="Folder of a checkpoint: config.json, safetensors, tokenizer.json.", show_default=False)
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve a small model trained here, once, on Python's own sources.")] = False,
    policy: Annotated[
        str | None, typer.Option(help="NAME, 'NAME(key=value)' or file.py:Class. Default: FCFS; of a prefill-only server CalibratedSJF.")
    ] = None,
    prefill_only: Annotated[bool, typer.Option("--prefill-only", help="Take max_tokens = 1 only: scoring and ranking.")] = False,
    dtype: Annotated[
        Dtype, typer.Option(help="Numerics of the matrix products; int8: answers may differ with who else is served.")
    ] = Dtype.float32,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a matrix product. Default: probed.")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a request, the last of the answer not counted. Default: the model's.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Most requests in one step. Default: 64; prefill-only without --batch-below: 1.")
    ] = None,
    batch_below: Annotated[
        int, typer.Option(min=0, help="Of a prefill-only server: prompts of fewer tokens share a step. 0: none does.")
    ] = 0,
    token_budget: Annotated[int | None, typer.Option(min=1, help="Most tokens computed in one step.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="KV blocks. Default: as memory allows.")] = None,
    prefix_cache: Annotated[bool, typer.Option(help="Find the KV of equal prefixes again.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on; anything but the loopback is open to your network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    api_key: Annotated[str | None, typer.Option(envvar="CHAMBER_API_KEY", help="Key that every call must bring. Default: none.")] = None,
    jail: Annotated[str, typer.Option(help="Walls around a policy file: auto, namespace, landlock, subprocess, none.")] = "auto",
) -> None:
    """Serve a checkpoint as OpenAI's API does: completions, chat, scores, streams and metrics, until Ctrl-C or SIGTERM."""
    from cloudchamber.core.errors import InputError

    from .serving.server import LOOPBACK, ServerOptions, listen
    from .serving.server import serve as run

    if (path is None) != demo:
        raise InputError("name the folder of a checkpoint, or --demo, and not both.")
    if batch_below and not prefill_only:
        raise InputError("--batch-below is of a prefill-only server; give --prefill-only too, or leave it out.")
    policy = policy or ("CalibratedSJF" if prefill_only else "FCFS")
    make = _policy("engine.prefillonly" if prefill_only else "engine", policy, jail)
    listener = listen(host, port)
    try:
        from .executor import TorchExecutor
        from .llm import LLM, EngineOptions
        from .prefillonly.executor import HybridExecutor
        from .serving.aio import AsyncEngine

        max_running = max_running or (1 if prefill_only and not batch_below else 64)
        options = EngineOptions(
            blocks=blocks,
            token_budget=token_budget,
            max_running=max_running,
            batch_below=batch_below,
            max_model_len=max_model_len,
            prefix_cache=prefix_cache,
            prefill_only=prefill_only,
        )
        llm = LLM(
            _demo() if path is None else path,
            dtype=dtype.value,
            threads=threads,
            policy=make(),
            executor=HybridExecutor if prefill_only else TorchExecutor,
            options=options,
        )
        llm.name = "demo" if demo else llm.name
        engine = AsyncEngine(llm, make)
        _announce(llm, host, listener.getsockname()[1], policy, api_key, prefill_only)
        is_local = host in ("127.0.0.1", "::1", "localhost")
        run(engine, listener, ServerOptions(api_key, prefill_only, hosts=LOOPBACK if is_local else None), tell=_tell)
    finally:
        listener.close()


def _policy(study: str, name: str, jail: str) -> Callable[[], Any]:
    from cloudchamber.core.registry import load_policy, load_study
    from cloudchamber.jail.limits import Limits

    forever_s = 365 * 86400.0  # a server lives long; each answer has its usual time
    make = load_policy(load_study(study), name, jail, Limits(cpu_s=forever_s, wall_s=forever_s))
    if note := getattr(make, "note", ""):
        _tell(f"note: {note}")
    return make


def _demo() -> Path:
    from .checkpoints import STEPS, demo, demo_folder

    if not demo_folder().is_dir():
        _tell("training the demo model, once, for a few minutes; it stays in your cache.")

    def show(step: int, loss: float) -> None:
        if step % 20 == 1 or step == STEPS:
            _tell(f"step {step} of {STEPS}, loss {loss:.2f}")

    return demo(show)


def _tell(words: str) -> None:
    typer.echo(f"chamber: {words}", err=True)


def _announce(llm: Any, host: str, port: int, policy: str, api_key: str | None, prefill_only: bool) -> None:
    """What is served, how it computes, and how to call it."""
    from .core import limit

    pool, longest = llm.core.kv, llm.core.max_scored_len if prefill_only else llm.core.max_model_len
    _tell(f"kernels: {llm.kernels}")
    _tell(
        f"{llm.name}: policy {policy}, {llm.weight_bytes / 2**20:.0f} MiB of weights, {pool.blocks} KV blocks of "
        f"{pool.block_tokens} tokens ({pool.layout.pool_bytes / 2**20:.0f} MiB when full), {limit(longest)}"
    )
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    key = '-H "authorization: Bearer $CHAMBER_API_KEY" ' if api_key else ""
    body = json.dumps({"model": llm.name, "prompt": "def double(x):", "max_tokens": 32, "temperature": 0})
    _tell(f"serving {url}; try: curl {url}/completions {key}-H 'content-type: application/json' -d '{body}'")
