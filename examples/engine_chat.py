"""Talk to `chamber serve engine` with OpenAI's client (pip install openai): a chat as it is written, scores, and what the server counted.

python examples/engine_chat.py         # a small random model, made and served here: what it says is noise
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 python examples/engine_chat.py     # a server that runs, such as `chamber serve engine --demo`
"""

import os
import tempfile
import threading
from pathlib import Path

import httpx
from openai import OpenAI


def served() -> str:
    """Serve a random checkpoint from this process, and return the URL."""
    from cloudchamber.engine.checkpoints import Shape, tiny
    from cloudchamber.engine.llm import LLM, EngineOptions
    from cloudchamber.engine.policies.plas import PLAS
    from cloudchamber.engine.serving.aio import AsyncEngine
    from cloudchamber.engine.serving.server import listen, serve

    small = Shape(hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    folder = tiny(Path(tempfile.mkdtemp()) / "random", shape=small)
    engine = AsyncEngine(LLM(folder, policy=PLAS(), options=EngineOptions(block_tokens=16, max_model_len=1024)))
    listener = listen("127.0.0.1", 0)
    threading.Thread(target=serve, args=(engine, listener), daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


url = os.environ.get("OPENAI_BASE_URL") or served()
client = OpenAI(base_url=url, api_key="none")
model = client.models.list().data[0].id

# two turns of one program: the second finds the first one's KV in the prefix cache
messages = [{"role": "user", "content": "Return the sum of two numbers."}]
for turn in range(2):
    program = {"program_id": "chat-1", "is_last": turn == 1, "priority": 0, "deadline_ms": 60_000}
    options = {"include_usage": True}
    answer = ""
    for event in client.chat.completions.create(
        model=model, messages=messages, max_tokens=48, temperature=0, stream=True, stream_options=options, extra_body=program
    ):
        for choice in event.choices:
            answer += choice.delta.content or ""
        if event.usage is not None:
            cached = event.usage.prompt_tokens_details.cached_tokens
            print(
                f"turn {turn + 1}: {event.usage.completion_tokens} tokens to {event.usage.prompt_tokens}, {cached} of them from the cache"
            )
    print(repr(answer), end="\n\n")
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And of three?"}]

# one token, drawn from the choices alone: how likely is each?
body = {"query": "Is this Python? ", "documents": ["def f(x):\n    return x\n", "Once upon a time"], "choices": ["Y", "N"]}
for each in httpx.post(f"{url}/score", json=body, timeout=60).json()["data"]:
    print(body["documents"][each["index"]][:16].ljust(18), {choice: round(share, 3) for choice, share in each["probabilities"].items()})

print()
for line in httpx.get(url.removesuffix("/v1") + "/metrics", timeout=60).text.splitlines():
    if line.startswith(("chamber_requests_in_flight", "chamber_kv_blocks{", "chamber_generation_tokens", "chamber_cached_prompt")):
        print(line)
