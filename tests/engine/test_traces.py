import gzip
import json

import numpy as np
import pytest

from cloudchamber.core.datasets import find
from cloudchamber.core.errors import InputError
from cloudchamber.core.registry import load_study
from cloudchamber.engine.data import FILES, Clients, read_trace, traces_dataset
from cloudchamber.engine.traces import Trace, chats, gaps, scale
from cloudchamber.engine.workloads import preset

HERE = find(traces_dataset())
real = [pytest.mark.data, pytest.mark.skipif(HERE is None, reason="llm-traces is not here")]


def write(path, text):
    path.write_text(text)
    return read_trace(path)


@pytest.mark.parametrize(
    ("name", "rows", "n_input", "n_output", "cv", "span_s"),
    [
        pytest.param("azure-code", 8819, 2047.8, 27.9, 13.2, 3436, marks=real),
        pytest.param("azure-conv", 19_366, 1154.7, 211.1, 1.09, 3502, marks=real),
        pytest.param("mooncake-conversation", 12_031, 12_035.1, 342.6, None, 3537, marks=real),
        pytest.param("mooncake-synthetic", 3993, 15_325.5, 149.1, None, 1022, marks=real),
        pytest.param("arxiv", 28_257, 2588.1, 291.4, None, 0, marks=real),
    ],
)
def test_public_traces_have_their_published_statistics(name, rows, n_input, n_output, cv, span_s):
    trace = read_trace(HERE / FILES[name])
    assert len(trace) == rows
    assert (round(float(trace.n_input.mean()), 1), round(float(trace.n_output.mean()), 1)) == (n_input, n_output)
    assert round(float(trace.arrival_s[-1])) == span_s
    if cv is not None:
        between = np.diff(trace.arrival_s)
        assert float(between.std() / between.mean()) == pytest.approx(cv, rel=0.01)


@pytest.mark.parametrize(
    ("name", "distinct", "share"),
    [
        pytest.param("mooncake-conversation", 182_790, 0.3664, marks=real),
        pytest.param("mooncake-synthetic", 43_924, 0.6396, marks=real),
    ],
)
def test_mooncake_shares_what_it_is_known_to_share(name, distinct, share):
    """The published figures count the last, partial block too."""
    rows = [json.loads(line) for line in gzip.decompress((HERE / FILES[name]).read_bytes()).splitlines()]
    assert len({block for row in rows for block in row[3]}) == distinct
    trace = read_trace(HERE / FILES[name])
    whole = Trace(trace.arrival_s, (trace.n_input + 511) // 512 * 512, trace.n_output, [row[3] for row in rows], 512)
    assert whole.hit_share == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize("model", [pytest.param(each, marks=real) for each in ("m-small", "m-mid", "deepseek-r1")])
def test_servegen_clients_are_drawn_at_the_rate_asked_for(model):
    drawn = [Clients(HERE, model).draw(400, 10.0, np.random.default_rng(seed)) for seed in range(6)]
    assert all(len(each) == 400 and each.n_input.min() >= 1 for each in drawn)
    assert 20 < np.mean([each.arrival_s[-1] for each in drawn]) < 80


def test_known_schemas_are_read(tmp_path):
    azure = write(
        tmp_path / "azure.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.6805901,396,109\n",
    )
    assert azure.arrival_s.tolist() == [0.0, pytest.approx(1.0, abs=1e-6)] and azure.n_output.tolist() == [44, 109]
    burst = write(
        tmp_path / "burst.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,s1,1,ChatGPT,472,18,490,Conversation log\n45,,1,ChatGPT,1087,0,1087,API log\n118,s1,1,GPT-4,417,276,693,Conversation log\n",
    )
    assert burst.arrival_s.tolist() == [0, 113] and burst.program == ["s1", "s1"]  # without an answer: failed
    mooncake = write(
        tmp_path / "mooncake.jsonl",
        '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 500, "input_length": 1030, "output_length": 5, "hash_ids": [0, 3, 4]}\n',
    )
    assert mooncake.blocks[0][0] == mooncake.blocks[1][0] and mooncake.blocks[0][1] != mooncake.blocks[1][1]
    assert len(mooncake.blocks[0]) == 2 and mooncake.hit_share == 0.25
    compact = write(tmp_path / "compact.csv", "arrival_s,input_tokens,output_tokens\n3,10,2\n1,5,1\n")
    assert compact.arrival_s.tolist() == [0, 2] and compact.n_input.tolist() == [5, 10]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "has the columns a, b; known are"),
        ("arrival_s,input_tokens,output_tokens\n1,x,2\n", "line 2: cannot read"),
        ("arrival_s,input_tokens,output_tokens\n1,0,2\n", "no request with a prompt and an answer"),
        ("arrival_s,input_tokens,output_tokens\nnan,3,2\n", "no number"),
        ('{"timestamp": 1}\n', "line 1: cannot read"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        write(tmp_path / "trace.csv", text)


def test_scaling_keeps_the_shape_of_arrivals_and_what_is_shared():
    trace = Trace(np.array([0.0, 1.0, 3.0]), np.array([1024, 1536, 600]), np.array([10, 20, 1]), [[1, 2], [1, 2, 3], [1]], 512)
    half = scale(trace, rate=2.0, length=0.5)
    assert half.arrival_s.tolist() == [0.0, 0.5, 1.5] and half.n_input.tolist() == [512, 768, 300] and half.block_tokens == 256
    assert half.hit_share == trace.hit_share > 0


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 4.0])
def test_gaps_have_the_rate_and_spread_asked_for(cv):
    between = np.diff(gaps(200_000, 5.0, cv, np.random.default_rng(0)))
    assert between.mean() == pytest.approx(0.2, rel=0.05) and between.std() / between.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_a_turn_begins_with_all_that_was_said_before():
    trace = chats(60, 2.0, np.random.default_rng(0), turns=4, think_s=1.0, shared=64, prompt=(50, 0.5), answer=(20, 0.5))
    seen: dict[str, tuple[int, list[int]]] = {}
    for i in range(60):
        before = seen.get(trace.program[i])
        if before is not None:
            tokens, blocks = before
            assert trace.n_input[i] > tokens and trace.blocks[i][: tokens // 16] == blocks[: tokens // 16]
        assert trace.blocks[i][:4] == [0, 1, 2, 3]
        seen[trace.program[i]] = int(trace.n_input[i] + trace.n_output[i]), trace.blocks[i]
    assert trace.hit_share > 0.5


@pytest.mark.parametrize("name", ["azure-code", "mooncake", "arxiv", "servegen-m-small"])
def test_twins_need_no_data_and_say_so(name):
    workload = load_study("engine").workloads()[name]
    twin = workload.twin()
    assert twin.is_generated and len(twin.trace(0)) == twin.n and twin.name == name


def test_parts_and_renaming():
    study = load_study("engine")
    workload = study.adjusted(study.workloads()["smoke"], n=10)
    assert workload.part(0, 0.5) is workload
    plain, other = workload.trace(0), workload.renamed(np.random.default_rng(1)).trace(0)
    assert plain.blocks != other.blocks and plain.hit_share == other.hit_share and plain.n_input.tolist() == other.n_input.tolist()


def test_users_trace_and_its_settings(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i},100,5\n" for i in range(40)))
    study = load_study("engine")
    workload = study.workload(path, n="10", rate="2", cost="h100-8b")
    assert workload.name == "mine" and len(workload.trace(3)) == 10 and workload.trace(0).arrival_s[1] == 0.5
    assert workload.part(0.0, 0.5).trace(0).arrival_s[-1] == 4.5 and workload.part(0.0, 0.1) is None and workload.twin() is None
    for wrong, said in (
        ({"n": "x"}, "n must be"),
        ({"nonsense": 1}, "no parameter"),
        ({"cost": "tpu"}, "tpu"),
        ({"prompt": "3"}, "a mean"),
    ):
        with pytest.raises(InputError, match=said):
            study.workload(path, **wrong)


@pytest.mark.parametrize("name", ["a100-8b", "h100-8b", "cpu-32m"])
def test_presets_are_cost_models(name):
    cost, tokens = preset(name)
    assert cost.step_s > 0 and tokens > 10_000
