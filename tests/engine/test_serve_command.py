"""``chamber serve engine`` as a process, and the real model behind the server."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cloudchamber.cli import build, main
from cloudchamber.engine.checkpoints import Shape, tiny

from .toy import ToyLLM

SMALL = Shape(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512
)
POLICY = '''
from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import SchedulerPolicy


class Longest(Policy, SchedulerPolicy):
    """The longest prompt first; cannot bear one of 13 tokens."""

    def order(self, view, waiting):
        if any(r.n_input == 13 for r in waiting):
            raise ValueError("thirteen")
        return [r.id for r in sorted(waiting, key=lambda r: -r.n_input)]
'''


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("checkpoints") / "small", shape=SMALL)


@contextmanager
def process(*arguments, **kwargs):
    """The command, started: its process and its URL."""
    command = [sys.executable, "-m", "cloudchamber", "serve", "engine", *map(str, arguments), "--port", "0", "--threads", "1"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)
    lines = []
    try:
        for line in running.stderr:
            lines.append(line)
            found = re.search(r"serving (http://\S+)/v1;", line)
            if found:
                threading.Thread(target=lambda: lines.extend(running.stderr), daemon=True).start()
                yield running, found[1], lines
                return
        raise AssertionError("".join(lines))
    finally:
        running.kill()
        running.wait(20)


def test_concurrent_answers_of_a_real_model_are_those_of_one_at_a_time(checkpoint):
    from cloudchamber.engine.llm import LLM, EngineOptions
    from cloudchamber.engine.sampling import SamplingParams
    from cloudchamber.engine.serving.aio import AsyncEngine

    llm = LLM(checkpoint, threads=1, options=EngineOptions(blocks=24, block_tokens=8, token_budget=32, max_model_len=96))
    rng = random.Random(0)
    prompts = [[rng.randrange(512) for _ in range(rng.randint(1, 60))] for _ in range(16)]
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    expected = [llm.generate([prompt], params)[0].token_ids for prompt in prompts]

    async def test():
        engine = AsyncEngine(llm)
        try:
            return await asyncio.gather(*(engine.generate(prompt, params, salt="fresh") for prompt in prompts))
        finally:
            await asyncio.to_thread(engine.close)

    got = asyncio.run(test())
    assert [each.token_ids for each in got] == expected
    assert [each.text for each in got] == [llm.text.decode(each) for each in expected]
    assert llm.core.kv.counts().used == 0


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(checkpoint):
    with process(checkpoint, "--max-model-len", "2000") as (running, url, lines):
        assert any(line.startswith("chamber: kernels: ") for line in lines)
        assert re.search(r" MiB of weights, \d+ KV blocks .* MiB when full\), at most 2000 tokens a request, the last", "".join(lines))
        body = {"prompt": "def double(x):", "max_tokens": 300, "stream": True, "ignore_eos": True, "logprobs": 0, "temperature": 0}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
            events = response.iter_lines()
            tokens, finish = [], None
            for line in events:
                if not line.startswith("data: {"):
                    continue
                choice = json.loads(line[6:])["choices"][0]
                tokens += choice["logprobs"]["tokens"]
                finish = choice["finish_reason"] or finish
                if len(tokens) == 3:
                    running.send_signal(signal.SIGTERM)
                    refused = httpx.get(f"{url}/health", timeout=20)
                    while refused.status_code == 200:
                        refused = httpx.get(f"{url}/health", timeout=20)
                    assert refused.status_code == 503
                    refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=20)
                    assert refused.status_code == 503
                    assert "shutting down" in refused.json()["error"]["message"]
        assert (len(tokens), finish) == (300, "length")
        assert running.wait(30) == 0
        said = "".join(lines)
        assert "chamber: stopping: no new requests are taken, 1 in flight will be finished; a second" in said
        assert said.endswith("chamber: stopped.\n")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")


def test_a_policy_from_a_file_schedules_and_is_started_again_after_a_fault(tmp_path, monkeypatch, capsys):
    from cloudchamber.engine.commands import _policy
    from cloudchamber.engine.sampling import SamplingParams
    from cloudchamber.engine.serving.aio import AsyncEngine, RequestFailed

    monkeypatch.chdir(tmp_path)
    Path("longest.py").write_text(POLICY)
    make = _policy("engine", "longest.py:Longest", "subprocess")
    assert "without a jail" in capsys.readouterr().err

    async def test():
        toy = ToyLLM(policy=make(), max_running=1)
        engine = AsyncEngine(toy, make)
        try:
            first = [await engine.submit([7] * length, SamplingParams(max_tokens=20, ignore_eos=True)) for length in (2, 5, 9)]
            for answer in first:
                async for _ in answer:
                    pass
            assert first[2].request.admitted_s < first[1].request.admitted_s
            with pytest.raises(RequestFailed, match="thirteen"):
                await engine.generate([7] * 13, SamplingParams())
            assert (await engine.generate([7] * 6, SamplingParams(max_tokens=3))).token_ids == toy.greedy([7] * 6, 3)
            assert engine.metrics.counts["policy_errors_total"] == 1
        finally:
            await asyncio.to_thread(engine.close)

    asyncio.run(test())


def test_the_demo_is_the_cached_model(tmp_path, checkpoint, monkeypatch):
    from cloudchamber.engine import checkpoints, commands

    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path)
    trained = []

    def make(folder, train_steps, progress):
        trained.append(train_steps)
        for step in (1, 20):
            progress(step, 3.0)
        folder.parent.mkdir(parents=True)
        folder.symlink_to(checkpoint)

    monkeypatch.setattr(checkpoints, "tiny", make)
    assert commands._demo().is_dir()
    assert commands._demo().is_dir()
    assert trained == [checkpoints.STEPS]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "or --demo"),
        (["{here}", "--demo"], "or --demo"),
        (["{here}/nothing"], "nothing"),
        (["{here}", "--policy", "Nobody"], "no engine policy named 'Nobody'"),
        (["{here}", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
        (["{here}", "--batch-below", "100"], "--batch-below is of a prefill-only server"),
        (["{here}", "--max-model-len", "4097"], "max_model_len must be at most 4096, the model's context, got 4097"),
        (["{here}", "--blocks", "1", "--max-model-len", "2000"], "needs"),
    ],
)
def test_bad_arguments_are_refused_in_words(checkpoint, arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "engine", "--port", "0", *(each.format(here=checkpoint) for each in arguments)])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_taken_port_and_a_checkpoint_without_tokenizer_are_refused(checkpoint, tmp_path, capsys):
    from cloudchamber.engine.serving.server import listen

    with listen("127.0.0.1", 0) as taken, pytest.raises(SystemExit):
        main(["serve", "engine", str(checkpoint), "--port", str(taken.getsockname()[1])])
    assert "give another --port" in capsys.readouterr().err
    bare = tmp_path / "bare"
    bare.mkdir()
    for each in Path(checkpoint).iterdir():
        if each.name != "tokenizer.json":
            (bare / each.name).symlink_to(each)
    with pytest.raises(SystemExit):
        main(["serve", "engine", str(bare), "--port", "0"])
    assert "tokenizer.json" in capsys.readouterr().err


def test_a_prefill_only_server_computes_each_prompt_in_one_step(checkpoint, monkeypatch):
    from cloudchamber.engine.prefillonly.executor import HybridExecutor
    from cloudchamber.engine.sampling import SamplingParams

    served = []
    monkeypatch.setattr("cloudchamber.engine.serving.server.serve", lambda engine, *_, **__: served.append(engine))
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "engine", str(checkpoint), "--prefill-only", "--threads", "1", "--port", "0"])
    engine = served[0]
    engine.close()
    core, records = engine.core, []
    assert isinstance(core.executor, HybridExecutor)
    assert core.spec.token_budget == core.max_scored_len == engine.llm.model.config.max_len
    assert core.kv.blocks * core.kv.block_tokens > 4 * core.max_scored_len  # room for the prefixes of many
    core.on_step = records.append
    assert engine.llm.generate([[7] * 1500], SamplingParams(1))[0].finish_reason == "length"
    assert len(records) == 1


def test_a_prefill_only_server_may_pack_short_prompts(checkpoint, monkeypatch):
    served = []
    monkeypatch.setattr("cloudchamber.engine.serving.server.serve", lambda engine, *_, **__: served.append(engine))
    for more in ([], ["--batch-below", "256"]):
        with pytest.raises(SystemExit, match="0"):
            main(["serve", "engine", str(checkpoint), "--prefill-only", "--threads", "1", "--port", "0", *more])
        served[-1].close()
    assert [(each.core.spec.batch_below, each.core.spec.max_running) for each in served] == [(0, 1), (256, 64)]


def test_help_names_the_options():
    said = CliRunner().invoke(build(["serve"]), ["serve", "engine", "--help"]).output
    for option in ("--demo", "--prefill-only", "--policy", "--api-key"):
        assert option in said
