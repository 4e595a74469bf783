"""The server as OpenAI's own client, and clients that behave badly, see it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import openai
import pytest

from cloudchamber.engine.serving.aio import AsyncEngine
from cloudchamber.engine.serving.server import ServerOptions, app_of, listen

from .toy import ToyLLM


class Served:
    """A server on the loopback, with the engine behind it."""

    def __init__(self, llm, engine, url):
        self.llm, self.engine, self.url = llm, engine, url
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)

    def post(self, path, body, **kwargs):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers={"content-type": "application/json"}, timeout=20, **kwargs)

    def metric(self, name):
        found = re.search(rf"^chamber_{re.escape(name)} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.M)
        return float(found[1])

    def is_idle(self):
        return self.metric("requests_in_flight") == 0 and self.metric('kv_blocks{state="used"}') == 0


@contextmanager
def served(options=None, **kwargs):
    import uvicorn

    llm = ToyLLM(**kwargs)
    engine = AsyncEngine(llm)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app_of(engine, options or ServerOptions()), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(llm, engine, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        llm.executor.gate.set()
        engine.close(drain=False)
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="module")
def server():
    with served(blocks=256) as found:
        yield found


def wait(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def told(llm, tokens):
    """The text of an answer that ends with these tokens."""
    return llm.text.decode(tokens[:-1] if tokens[-1] in llm.text.eos_ids else tokens)


# ---------------------------------------------------------------------- completions
def test_completion_is_what_the_engine_generates(server):
    prompt = server.llm.text.encode("the answer is")
    expected = server.llm.greedy(prompt, 12)
    got = server.client.completions.create(model="toy", prompt="the answer is", max_tokens=12, temperature=0)
    assert got.choices[0].text == told(server.llm, expected)
    assert got.choices[0].finish_reason == ("stop" if expected[-1] in server.llm.text.eos_ids else "length")
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (len(prompt), len(expected))
    assert got.usage.total_tokens == len(prompt) + len(expected)
    assert got.model == "toy"


def test_prompts_may_be_tokens_and_many(server):
    prompts = [[5, 6, 7], [8], [9, 10]]
    got = server.client.completions.create(model="toy", prompt=prompts, max_tokens=6, temperature=0)
    assert [each.index for each in got.choices] == [0, 1, 2]
    assert [each.text for each in got.choices] == [told(server.llm, server.llm.greedy(prompt, 6)) for prompt in prompts]
    alone = server.client.completions.create(model="toy", prompt=[5, 6, 7], max_tokens=6, temperature=0)
    assert alone.choices[0].text == got.choices[0].text
    texts = server.client.completions.create(model="toy", prompt=["one", "two"], max_tokens=1, temperature=0)
    assert texts.usage.prompt_tokens == sum(len(server.llm.text.encode(each)) for each in ("one", "two"))


def test_echo_puts_the_prompt_first(server):
    got = server.client.completions.create(model="toy", prompt=["one", "two"], max_tokens=3, temperature=0, n=2, echo=True)
    assert [each.text[:3] for each in got.choices] == ["one", "one", "two", "two"]
    chunks = list(server.client.completions.create(model="toy", prompt="one", max_tokens=3, temperature=0, echo=True, stream=True))
    assert "".join(each.choices[0].text for each in chunks) == got.choices[0].text


def test_each_of_n_answers_is_drawn_for_itself_and_a_seed_repeats_them(server):
    def ask(**more):
        got = server.client.completions.create(model="toy", prompt="the", max_tokens=8, n=3, temperature=1.0, **more)
        return [each.text for each in got.choices]

    first = ask(seed=7)
    assert len(set(first)) == 3
    assert ask(seed=7) == first
    assert ask(seed=99) != first
    assert ask() != ask()


def test_logprobs_in_both_shapes(server):
    got = server.client.completions.create(model="toy", prompt="the", max_tokens=4, temperature=0, logprobs=3)
    found = got.choices[0].logprobs
    expected = server.llm.greedy(server.llm.text.encode("the"), 4)
    assert len(found.tokens) == len(expected) == len(found.token_logprobs) == len(found.text_offset)
    assert found.token_logprobs == [math.log(0.5)] * len(expected)
    assert [len(each) for each in found.top_logprobs] == [3] * len(expected)
    assert found.text_offset[0] == 0
    got = server.client.chat.completions.create(
        model="toy", messages=[{"role": "user", "content": "the"}], max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    content = got.choices[0].logprobs.content
    assert len(content) == got.usage.completion_tokens
    assert [len(each.top_logprobs) for each in content] == [2] * len(content)
    assert content[0].bytes == list(content[0].token.encode())
    assert server.client.completions.create(model="toy", prompt="the", max_tokens=1).choices[0].logprobs is None


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_tells_of_the_prompts_tokens_too(server, max_tokens, stream):
    prompts = [server.llm.text.encode(each) for each in ("the answer is", "one")]
    asked = {"model": "toy", "prompt": prompts, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2, "echo": True}
    for i, prompt in enumerate(prompts):
        if stream:
            asked["prompt"] = prompt
            pieces = [each.choices[0] for each in server.client.completions.create(**asked, stream=True)]
            text = "".join(each.text for each in pieces)
            found = {name: [v for each in pieces for v in getattr(each.logprobs, name)] for name in ("tokens", "token_logprobs")}
            found |= {name: [v for each in pieces for v in getattr(each.logprobs, name)] for name in ("top_logprobs", "text_offset")}
        else:
            got = server.client.completions.create(**asked)
            text, found = got.choices[i].text, vars(got.choices[i].logprobs)
            made = sum(len(server.llm.greedy(each, max_tokens)) for each in prompts)
            assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (sum(map(len, prompts)), made)
        answer = server.llm.greedy(prompt, max_tokens)
        assert text == server.llm.text.decode(prompt) + (told(server.llm, answer) if answer else "")
        assert found["tokens"] == [server.llm.text.names[token] for token in prompt + answer]
        assert found["token_logprobs"] == [None, *[math.log(0.5)] * (len(prompt + answer) - 1)]
        assert found["top_logprobs"][0] is None
        assert [len(each) for each in found["top_logprobs"][1:]] == [2] * (len(prompt + answer) - 1)
        assert found["text_offset"][: len(prompt)] == [len(server.llm.text.decode(prompt[:n])) for n in range(len(prompt))]


def test_a_stop_text_is_cut_and_its_tokens_are_counted(server):
    made = server.llm.greedy([5, 6], 30)
    whole = server.llm.text.decode(made)
    stop = next(whole[i : i + 3] for i in range(6, len(whole)) if "\ufffd" not in whole[i : i + 3])
    got = server.client.completions.create(model="toy", prompt=[5, 6], max_tokens=30, temperature=0, stop=["never this", stop])
    assert got.choices[0].text == whole[: whole.index(stop)]
    assert got.choices[0].finish_reason == "stop"
    needed = next(n for n in range(1, len(made) + 1) if stop in server.llm.text.decode(made[:n]))
    assert needed <= got.usage.completion_tokens <= needed + 3
    chunks = list(server.client.completions.create(model="toy", prompt=[5, 6], max_tokens=30, temperature=0, stop=stop, stream=True))
    assert "".join(each.choices[0].text for each in chunks) == got.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"
    wait(server.is_idle)


# ---------------------------------------------------------------------- chat and streams
def test_chat_goes_through_the_template(server):
    messages = [{"role": "system", "content": "one"}, {"role": "user", "content": [{"type": "text", "text": "two"}]}]
    prompt = server.llm.text.chat([messages[0], {"role": "user", "content": "two"}])
    expected = server.llm.greedy(prompt, 9)
    got = server.client.chat.completions.create(model="toy", messages=messages, max_completion_tokens=9, temperature=0)
    assert got.choices[0].message.content == told(server.llm, expected)
    assert got.choices[0].message.role == "assistant"
    assert got.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("n", [1, 3])
def test_streams_say_what_one_body_says(server, n):
    ask = {"model": "toy", "prompt": ["the answer", "你好"], "max_tokens": 15, "temperature": 1.0, "seed": 3, "n": n, "logprobs": 1}
    whole = server.client.completions.create(**ask)
    parts = {i: {"text": "", "tokens": [], "finish": None} for i in range(2 * n)}
    for chunk in server.client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for each in chunk.choices:
            part = parts[each.index]
            assert part["finish"] is None
            part["text"] += each.text
            part["tokens"] += each.logprobs.tokens
            part["finish"] = each.finish_reason
    assert [part["text"] for part in parts.values()] == [each.text for each in whole.choices]
    assert [part["tokens"] for part in parts.values()] == [each.logprobs.tokens for each in whole.choices]
    assert [part["finish"] for part in parts.values()] == [each.finish_reason for each in whole.choices]
    assert chunk.choices == []
    assert chunk.usage.completion_tokens == whole.usage.completion_tokens
    assert chunk.usage.prompt_tokens == whole.usage.prompt_tokens


def test_chat_streams_say_what_one_body_says(server):
    ask = {"model": "toy", "messages": [{"role": "user", "content": "naïve 🙂"}], "max_tokens": 40, "temperature": 0}
    whole = server.client.chat.completions.create(**ask)
    chunks = list(server.client.chat.completions.create(**ask, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(each.usage is None for each in chunks)


def test_many_clients_at_once_get_what_each_gets_alone(server):
    rng = random.Random(0)
    prompts = [[rng.randrange(300) for _ in range(rng.randint(1, 30))] for _ in range(48)]

    async def ask(client, i, prompt):
        if i % 2:
            got = await client.completions.create(model="toy", prompt=prompt, max_tokens=12, temperature=0)
            return got.choices[0].text
        stream = await client.completions.create(model="toy", prompt=prompt, max_tokens=12, temperature=0, stream=True)
        return "".join([each.choices[0].text async for each in stream])

    async def test():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, i, prompt) for i, prompt in enumerate(prompts)))

    assert asyncio.run(test()) == [told(server.llm, server.llm.greedy(prompt, 12)) for prompt in prompts]
    assert server.is_idle()


# ---------------------------------------------------------------------- extras
def test_extras_reach_the_request(server, monkeypatch):
    seen = []
    made = ToyLLM.request
    monkeypatch.setattr(ToyLLM, "request", lambda *args, **kwargs: seen.append(made(*args, **kwargs)) or seen[-1])
    extras = {"program_id": "p", "is_last": True, "tool": "search", "deadline_ms": 1500, "priority": 3, "cache_salt": "mine"}
    server.client.completions.create(model="toy", prompt=[5], max_tokens=2, extra_body=extras)
    r = seen[0]
    assert (r.program, r.is_last, r.tool, r.priority, r.salt) == ("p", True, "search", 3, "mine")
    assert r.deadline - r.arrival == pytest.approx(1.5)


def test_prefixes_are_shared_among_equal_salts_only(server):
    def cached(salt):
        got = server.client.completions.create(model="toy", prompt=list(range(40, 60)), max_tokens=1, extra_body={"cache_salt": salt})
        return got.usage.prompt_tokens_details.cached_tokens

    assert [cached("a"), cached("b"), cached("a"), cached("b")] == [0, 0, 16, 16]


def test_only_allowed_tokens_are_drawn(server):
    got = server.client.completions.create(model="toy", prompt="the", max_tokens=20, extra_body={"allowed_token_ids": [70, 71]})
    assert set(got.choices[0].text) <= set(server.llm.text.decode([70, 71]))


def test_score_gives_probabilities_over_the_choices(server):
    body = {"query": "the answer is ", "documents": ["one", "two"], "choices": ["Y", "N", "a"]}
    got = server.post("/v1/score", body).json()
    assert [each["index"] for each in got["data"]] == [0, 1]
    for each in got["data"]:
        assert list(each["probabilities"]) == ["Y", "N", "a"]
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert each["score"] == each["probabilities"]["Y"]
    assert got["usage"]["prompt_tokens"] == sum(len(server.llm.text.encode("the answer is " + each)) for each in ("one", "two"))
    turned = server.post("/v1/score", {"query": "the", "items": ["one "], "choices": ["Y", "N"], "item_first": True}).json()
    assert turned["usage"]["prompt_tokens"] == len(server.llm.text.encode("one the"))


# ---------------------------------------------------------------------- what is refused
BAD = [
    ("/v1/completions", {"prompt": ""}, 400, "empty"),
    ("/v1/completions", {"prompt": []}, 400, "empty"),
    ("/v1/completions", {"prompt": [[]]}, 400, "empty"),
    ("/v1/completions", {"prompt": [5, "x"]}, 400, "mixes"),
    ("/v1/completions", {"prompt": [5, -1]}, 400, "no token -1"),
    ("/v1/completions", {"prompt": [10**6]}, 400, "no token 1000000"),
    ("/v1/completions", {"prompt": [10**30]}, 400, ""),
    ("/v1/completions", {"prompt": [5.5]}, 400, "prompt"),
    ("/v1/completions", {"prompt": [True]}, 400, "prompt"),
    ("/v1/completions", {"prompt": {"text": "x"}}, 400, "prompt"),
    ("/v1/completions", {}, 400, "prompt"),
    ("/v1/completions", {"prompt": [5] * 1100}, 400, "takes at most"),
    ("/v1/completions", {"prompt": [5], "max_tokens": 1100}, 400, "takes at most"),
    ("/v1/completions", {"prompt": [[5]] * 300}, 400, "more than 256"),
    ("/v1/completions", {"prompt": [[5]] * 5, "n": 200}, 400, "more than 256"),
    ("/v1/completions", {"prompt": "x", "n": 0}, 400, "^n must be int >= 1"),
    ("/v1/completions", {"prompt": "x", "max_tokens": 0}, 400, "max_tokens must be at least 1"),
    ("/v1/completions", {"prompt": "x", "max_tokens": "many"}, 400, "^max_tokens must be int"),
    ("/v1/completions", {"prompt": "x", "temperature": math.nan}, 400, "JSON|invalid|malformed"),
    ("/v1/completions", {"prompt": "x", "temperature": -1}, 400, "temperature"),
    ("/v1/completions", b'{"prompt": "x", "temperature": 1e999}', 400, "range|temperature"),
    ("/v1/completions", {"prompt": "x", "top_p": 0}, 400, "top_p"),
    ("/v1/completions", {"prompt": "x", "logprobs": 21}, 400, "logprobs"),
    ("/v1/completions", {"prompt": "x", "logprobs": 21, "allowed_token_ids": [*range(30)]}, 400, "logprobs"),
    ("/v1/completions", {"prompt": "x", "logprobs": 21, "echo": True}, 400, "logprobs"),
    ("/v1/completions", {"prompt": "x", "stop": [""]}, 400, "stop"),
    ("/v1/completions", {"prompt": "x", "allowed_token_ids": []}, 400, "allowed_token_ids must be array of length >= 1"),
    ("/v1/chat/completions", {"messages": []}, 400, "messages must be array of length >= 1"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}, 400, "content"),
    ("/v1/chat/completions", {"messages": [{"role": "bozo", "content": "x"}]}, 400, "role|bozo"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "images"),
    ("/v1/completions", {"prompt": "x", "stop": ["y"] * 17}, 400, "stop"),
    ("/v1/completions", {"prompt": "x", "stop": "y" * 300}, 400, "stop"),
    ("/v1/completions", {"prompt": "x", "top_k": 2**40}, 400, "top_k"),
    ("/v1/completions", {"prompt": "x", "program_id": "p" * 300}, 400, "program_id"),
    ("/v1/completions", {"prompt": "x", "seed": 2**70}, 400, "seed"),
    ("/v1/completions", {"prompt": "x", "stream": "yes"}, 400, "stream"),
    ("/v1/completions", {"prompt": "x", "best_of": 2}, 400, "best_of is not served"),
    ("/v1/completions", {"prompt": "x", "tool_choice": "required"}, 400, "tool_choice is not served"),
    ("/v1/completions", {"prompt": "x", "min_tokens": 3}, 400, "min_tokens is not served"),
    ("/v1/completions", {"prompt": "x", "max_token": 3}, 400, "max_token is no field .* nearest that is one is max_tokens"),
    ("/v1/completions", {"prompt": "x", "messages": []}, 400, "messages is no field"),
    ("/v1/completions", {"prompt": "x", "": 1}, 400, "is no field"),
    ("/v1/completions", {"prompt": "x", "y" * 10**6: 1}, 400, "^y{64} is no field"),
    ("/v1/completions", {"prompt": "x", "stream_options": {"include_use": True}}, 400, "include_use"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}], "reasoning_effort": "high"}, 400, "reasoning_effort is not served"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}], "max_completion_token": 3}, 400, "is max_completion_tokens"),
    ("/v1/score", {"query": "x", "documents": ["y"], "choice": ["Y"]}, 400, "choice is no field .* is choices"),
    ("/v1/completions", {"prompt": "x", "presence_penalty": 0.5}, 400, "presence_penalty"),
    ("/v1/completions", {"prompt": "x", "allowed_token_ids": [-3]}, 400, "no token -3"),
    ("/v1/completions", {"prompt": "x", "deadline_ms": -1}, 400, "deadline_ms"),
    ("/v1/completions", {"prompt": "x", "priority": 2**80}, 400, "priority"),
    ("/v1/completions", {"prompt": "x", "model": "gpt"}, 404, "no model named 'gpt'"),
    ("/v1/completions", b"[1, 2]", 400, "object"),
    ("/v1/completions", b"not json", 400, "valid"),
    ("/v1/completions", b"\xff\xfe", 400, "valid"),
    ("/v1/completions", b"[" * 100_000, 400, "valid|recursion"),
    ("/v1/completions", b"", 400, "valid"),
    ("/v1/chat/completions", {"messages": [{"content": "x"}]}, 400, "role"),
    ("/v1/chat/completions", {"messages": ["x"]}, 400, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "not served"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, 400, "tools"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, 400, "logprobs"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": [1]}, 400, "chat_template_kwargs"),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": ""}], "chat_template_kwargs": {"messages": []}},
        400,
        "messages is no variable",
    ),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": ""}], "chat_template_kwargs": {"self": 1}},
        400,
        "self is no variable",
    ),
    ("/v1/score", {"query": "x"}, 400, "documents"),
    ("/v1/score", {"query": "x", "documents": ["y"], "items": ["z"]}, 400, "documents"),
    ("/v1/score", {"query": "", "documents": [""]}, 400, "empty"),
    ("/v1/score", {"query": "x", "documents": ["y"], "choices": []}, 400, "choices"),
    ("/v1/score", {"query": "x", "documents": ["y"], "choices": ["Y", "Y"]}, 400, "there twice"),
    ("/v1/score", {"query": "x", "documents": ["y"], "choices": ["Y", "naïve Yes"]}, 400, r"tokens \('na"),
    ("/v1/score", {"query": "x", "documents": ["y"], "choices": [str(i) for i in range(30)]}, 400, "more than 20"),
    ("/v1/nothing", {}, 404, "/v1/nothing"),
    ("/v1/models", {}, 405, "/v1/models"),
]


@pytest.mark.parametrize(("path", "body", "status", "says"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_in_words(server, path, body, status, says):
    got = server.post(path, body)
    assert got.status_code == status, got.text
    error = got.json()["error"]
    assert re.search(says, error["message"])
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert server.is_idle()


def test_nulls_are_as_if_left_out(server):
    body = {"prompt": "the", "max_tokens": 3, "n": None, "stop": None, "logit_bias": None, "seed": None, "user": "me", "temperature": 0}
    assert server.post("/v1/completions", body).json()["choices"][0]["text"]


def test_fields_that_change_no_answer_are_accepted(server):
    harmless = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True}
    neutral = {"tools": [], "tool_choice": "auto", "frequency_penalty": 0.0, "response_format": {"type": "text"}, "verbosity": "medium"}
    expected = server.llm.greedy(server.llm.text.encode("the"), 3)
    body = {"prompt": "the", "max_tokens": 3, "temperature": 0, "stream_options": {"include_obfuscation": True}, **harmless, **neutral}
    got = server.post("/v1/completions", body)
    assert got.json()["choices"][0]["text"] == told(server.llm, expected)
    chat = {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 2, "modalities": ["text"], **harmless, **neutral}
    assert server.post("/v1/chat/completions", chat).status_code == 200


def test_a_large_body_is_refused_before_it_is_read():
    with served(ServerOptions(body_bytes=1000)) as server:
        assert server.post("/v1/completions", {"prompt": "x" * 2000}).status_code == 413
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status_code == 200


def test_strange_names_plain_forms_and_missing_keys_are_refused():
    with served(ServerOptions(api_key="secret")) as server:
        url, body = f"{server.url}/v1/completions", json.dumps({"prompt": "x", "max_tokens": 2})
        good = {"content-type": "application/json", "authorization": "Bearer secret"}
        assert httpx.post(url, content=body, headers=good).status_code == 200
        assert httpx.post(url, content=body, headers=good | {"host": "evil.example"}).status_code == 421
        assert httpx.post(url, content=body, headers=good | {"content-type": "text/plain"}).status_code == 415
        assert httpx.post(url, content=body, headers=good | {"authorization": "Bearer secreT"}).status_code == 401
        assert httpx.post(url, content=body, headers=good | {"authorization": "Bearer \xe9".encode("latin1")}).status_code == 401
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_prefill_only_server_gives_one_token_and_names_its_limit():
    with served(ServerOptions(prefill_only=True)) as server:
        got = server.post("/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert got.status_code == 400
        assert "prefill-only: max_tokens must be 1, got 2" in got.json()["error"]["message"]
        for body in ({"prompt": "x", "max_tokens": 1}, {"prompt": "x"}):
            assert server.post("/v1/completions", body).json()["usage"]["completion_tokens"] == 1
        assert server.post("/v1/score", {"query": "x", "documents": ["y"], "choices": ["Y", "N"]}).status_code == 200


# ---------------------------------------------------------------------- faults
def test_a_failed_step_is_an_error_to_its_clients_only(server):
    server.llm.executor.fails = lambda r: r.tokens[0] == 77
    try:
        got = server.post("/v1/completions", {"prompt": [77], "max_tokens": 3})
        assert got.status_code == 500
        assert "out of memory" in got.json()["error"]["message"]
        with pytest.raises(openai.APIError, match="out of memory"):
            list(server.client.completions.create(model="toy", prompt=[77], max_tokens=3, stream=True))
    finally:
        server.llm.executor.fails = lambda r: False
    assert server.post("/v1/completions", {"prompt": [77], "max_tokens": 3}).status_code == 200
    assert server.is_idle()


@contextmanager
def raw(server, body):
    """A request sent as bytes; the client hangs up at the end."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        line.sendall(b"content-length: %d\r\n\r\n" % len(data) + data)
        yield line


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_blocks_within_one_step(stream):
    with served() as server:
        llm, body = server.llm, {"prompt": [5, 6], "max_tokens": 200, "ignore_eos": True, "stream": stream}
        llm.executor.gate.clear()
        with raw(server, body):
            wait(lambda: llm.core.running)  # it is in a step, which waits
        wait(lambda: server.engine._inbox)  # the server has seen the hang-up
        steps = llm.core.steps
        llm.executor.gate.set()
        wait(server.is_idle)
        assert llm.core.steps == steps
        assert server.metric('requests_total{finish="abort"}') == 1
        assert llm.is_clean()


def abandon(times):
    """Clients that go away mid-stream, while others are served: nothing stays behind."""
    with served(blocks=128, step_s=0.0005) as server:
        stop = threading.Event()
        answers = []

        def load():
            while not stop.is_set():
                answers.append(server.post("/v1/completions", {"prompt": [9, 8, 7], "max_tokens": 20, "temperature": 0}).json())

        workers = [threading.Thread(target=load) for _ in range(2)]
        for each in workers:
            each.start()
        try:
            rng = random.Random(0)
            for i in range(times):
                prompt = [rng.randrange(300) for _ in range(rng.randint(1, 30))]
                body = {"prompt": prompt, "max_tokens": 100, "ignore_eos": True, "stream": bool(i % 3), "n": 1 + i % 2}
                with raw(server, body) as line:
                    if body["stream"] and (read := rng.choice([0, 1, 1000])):
                        line.recv(read)
        finally:
            stop.set()
            for each in workers:
                each.join(20)
        wait(server.is_idle)
        assert server.llm.is_clean()
        ended = {name: server.metric(f'requests_total{{finish="{name}"}}') for name in ("stop", "length", "abort", "error")}
        assert ended["error"] == 0
        assert ended["abort"] >= times / 3
        expected = told(server.llm, server.llm.greedy([9, 8, 7], 20))
        assert {each["choices"][0]["text"] for each in answers} == {expected}


def test_abandoned_streams_leave_nothing_behind():
    abandon(50)


@pytest.mark.slow
def test_hundreds_of_abandoned_streams_leave_nothing_behind():
    abandon(500)


def test_metrics_are_what_was_served():
    with served() as server:
        before = server.llm.greedy([5, 6], 4)
        server.post("/v1/completions", {"prompt": [5, 6], "max_tokens": 4, "temperature": 0})
        assert server.metric("generation_tokens_total") == len(before)
        assert server.metric("prompt_tokens_total") == 2
        assert server.metric("time_to_first_token_seconds_count") == 1
        text = httpx.get(f"{server.url}/metrics").text
        blocks = re.findall(r'^chamber_kv_blocks\{state="\w+"\} (\d+)$', text, re.M)
        assert sum(map(int, blocks)) == 64
        edges = re.findall(r'^chamber_request_seconds_bucket\{le="\S+"\} (\d+)$', text, re.M)
        assert edges == sorted(edges, key=int)
        assert edges[-1] == "1"
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]+\"\})? [\d.e+-]+", line), line


def test_models_and_health(server):
    assert [each.id for each in server.client.models.list()] == ["toy"]
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
