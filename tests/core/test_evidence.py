import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudchamber.core.claims import Claim, Measure, Population, Published, Source, Tolerance
from cloudchamber.core.errors import InputError
from cloudchamber.core.evidence.canonical import canonical
from cloudchamber.core.evidence.provenance import Provenance, host
from cloudchamber.core.evidence.record import MAX_BYTES, DataUse, Evidence, Method, Result, Unreadable, parse, private, size
from cloudchamber.core.evidence.standing import Standing, export, read_export
from cloudchamber.core.evidence.store import PACKAGED, Store
from cloudchamber.core.outcome import Metric

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
CODE = Provenance("m" * 64, "r" * 64, (DataUse("toy", "MIT", "d" * 64),))


def claim(**changes):
    fields = {
        "id": "toy-cheap",
        "text": "A is cheap.",
        "source": Source("Toy", "Nowhere", "2025"),
        "published": Published("1.05", 1.05),
        "quantity": Metric("cost_usd", "USD"),
        "comparator": "the optimum",
        "population": Population("toy", ("w",)),
        "tolerance": Tolerance("2025-01-01", high=1.1),
        "measure": Measure("ratio", policies=("A",)),
        "kind": "simulated",
        "reproduce": ("chamber", "study", "toy", "--json"),
    }
    return Claim(**{**fields, **changes})


def record(estimate=1.04, verdict="holds", *, hours=0, code=CODE, of=None, **changes):
    of = of or claim()
    fields = {
        "claim": of.id,
        "study": "toy",
        "text": of.text,
        "source": of.source,
        "published": of.published,
        "quantity": of.quantity.name,
        "unit": of.quantity.unit,
        "direction": "min",
        "comparator": of.comparator,
        "population": of.population,
        "tolerance": of.tolerance,
        "measure": of.measure,
        "assessor": "threshold",
        "kind": "simulated",
        "method": code.method(of, NOW + timedelta(hours=hours), 1.5),
        "result": Result(n=3, void=0, rows_sha256="a" * 64, estimate=estimate, interval=(estimate - 0.01, estimate + 0.01)),
        "verdict": verdict,
    }
    return Evidence(**{**fields, **changes})


def result(**changes):
    return msgspec.structs.replace(record().result, **changes)


# by hand


def test_a_record_survives_the_store_and_names_what_it_supersedes(tmp_path):
    store = Store(tmp_path)
    first = store.add(record())
    second = store.add(record(1.5, "fails", hours=1))
    assert (first.supersedes, second.supersedes) == ("", first.id)
    again = Store(tmp_path)
    assert again.of("toy-cheap") == [first, second]
    assert again.newest("toy-cheap") == second
    assert [each.id for each in again.of("toy-cheap")] == [first.id, second.id]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"toy-cheap.{each.id[:16]}.json" for each in (first, second))


def test_a_failing_record_stays_visible_behind_a_holding_one(tmp_path):
    store = Store(tmp_path)
    store.add(record(1.5, "fails"))
    store.add(record(hours=1))
    standing = Standing.of("toy", claim(), store, CODE)
    assert (standing.status, standing.records, standing.failing, standing.why) == ("holds", 2, 1, "1 other failing record")


def test_a_run_that_could_not_test_never_hides_one_that_did(tmp_path):
    store = Store(tmp_path)
    tested = store.add(record())
    store.add(record(verdict="not testable here", hours=5, result=result(estimate=None, interval=None)))
    assert store.newest("toy-cheap") == tested


def test_a_changed_tolerance_must_be_newer_than_the_runs_already_seen(tmp_path):
    store = Store(tmp_path)
    store.add(record(1.5, "fails"))
    wider = Tolerance("2025-01-01", high=2.0)
    with pytest.raises(InputError, match="state when it was changed"):
        store.add(record(1.5, hours=2, tolerance=wider))
    store.add(record(1.5, hours=2, tolerance=Tolerance("2025-03-01T13:00:00+00:00", high=2.0)))
    assert len(store) == 2


def test_what_the_package_ships_can_be_read():
    for each in Store():
        assert (PACKAGED / f"{each.claim}.{each.id[:16]}.json").is_file()


# bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tolerance": Tolerance("2025-03-02", high=1.1)}, "after the run"),
        ({"kind": "rumour"}, "unknown kind"),
        ({"verdict": "surely"}, "verdict"),
        ({"result": Result(n=0, void=0, rows_sha256="a")}, "n is 0"),
        ({"result": Result(n=1, void=0, rows_sha256="a", estimate=float("nan"))}, "NaN"),
        ({"result": Result(n=1, void=0, rows_sha256="a", estimate=1.0, interval=(1.1, 1.2))}, "does not hold the estimate"),
        ({"result": Result(n=1, void=0, rows_sha256="a", interval=(1.1, 1.2))}, "does not hold the estimate"),
    ],
)
def test_a_contradictory_record_cannot_be_made(changes, says):
    with pytest.raises(InputError, match=says):
        record(**changes)


def test_data_without_licence_is_refused():
    with pytest.raises(InputError, match="no licence"):
        Provenance.of(_Study(), [{"name": "toy", "licence": "", "sha256": "d"}])


def test_a_record_without_method_cannot_be_stored(tmp_path):
    with pytest.raises(InputError, match="by which command"):
        Store(tmp_path).add(record(method=Method()))


def test_a_forged_record_is_refused(tmp_path):
    Store(tmp_path).add(record(1.5, "fails"))
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text().replace('"verdict": "fails"', '"verdict": "holds"'))
    with pytest.raises(InputError, match="forged or damaged"):
        Store(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"id": 3', b'{"id": "x", "claim": "a"}'])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(InputError):
        parse(data)


def test_a_newer_schema_is_kept_and_shown_as_unreadable(tmp_path):
    raw = {**record().to_json(), "schema": 2, "trust": {"level": 3}}
    del raw["id"]
    import hashlib

    identity = hashlib.sha256(canonical(raw)).hexdigest()
    (tmp_path / "toy-cheap.new.json").write_text(json.dumps({"id": identity, **raw}))
    store = Store(tmp_path)
    assert isinstance(next(iter(store)), Unreadable)
    standing = Standing.of("toy", claim(), store)
    assert (standing.status, standing.why) == ("untested", "1 unreadable (newer schema)")
    other = Store(tmp_path / "other")
    assert other.merge(store) == 1
    assert list(Store(tmp_path / "other")) == list(store)


# staleness


class _Study:
    name = "toy"


def test_stale_propagates_from_code_runner_claim_and_data():
    old = record()
    assert CODE.stale_because(old, claim()) == ()
    assert CODE.stale_because(old, claim(tolerance=Tolerance("2025-01-01", high=9.0))) == ("the claim changed",)
    changed = msgspec.structs.replace
    assert changed(CODE, module_sha256="x").stale_because(old, claim()) == ("code of toy changed",)
    assert changed(CODE, runner_sha256="x").stale_because(old, claim()) == ("the runner changed",)
    assert changed(CODE, data=(DataUse("toy", "MIT", "x"),)).stale_because(old, claim()) == ("data toy changed",)
    assert changed(CODE, data=(DataUse("toy", "MIT", None),)).stale_because(old, claim()) == ()


def test_module_hash_sees_every_source_but_claims(tmp_path, monkeypatch):
    package = tmp_path / "staletoy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "study.py").write_text("class Toy: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import staletoy.study

    def now():
        return Provenance.of(staletoy.study.Toy()).module_sha256

    before = now()
    (package / "claims.py").write_text("CLAIMS = ()\n")
    assert now() == before
    (package / "study.py").write_text("class Toy: pass\r\n")
    assert now() == before  # a checkout with other line ends is the same code
    (package / "policies").mkdir()
    (package / "policies" / "greedy.py").write_text("x = 1\n")
    assert now() != before
    del sys.modules["staletoy"], sys.modules["staletoy.study"]


@pytest.mark.parametrize(
    "text",
    [
        "/home/alice/traces/a.csv",
        "~/secret/a.csv",
        "--trace=/srv/bob/x/a.csv",
        "cannot open '/home/alice/a.csv'",
        "C:\\Users\\alice\\a.csv",
    ],
)
def test_paths_lose_their_folders(text):
    assert not any(word in private(text) for word in ("alice", "bob", "secret"))
    assert "a.csv" in private(text)


def test_other_text_stays():
    for text in ("spot/traces/a.csv", "https://example.org/a/b/c", "ratio 3/4", "--set tp=2.0"):
        assert private(text) == text


def test_no_name_of_host_or_user_in_a_record():
    import getpass
    import socket

    command = ("chamber", "study", "toy", "--trace", str(Path.home() / "x" / "t.csv"), "--json")
    text = json.dumps(record(of=claim(reproduce=command)).to_json())
    assert str(Path.home()) + "/" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert host().cores >= 1


# properties

RECORDS = st.lists(
    st.tuples(st.floats(0.5, 2.0), st.sampled_from(["holds", "partly", "fails", "not testable here"]), st.integers(0, 3)),
    min_size=1,
    max_size=6,
    unique=True,
)
FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FAST
@given(RECORDS, st.randoms())
def test_order_of_records_is_irrelevant_and_history_only_grows(tmp_path_factory, drawn, random):
    made = [record(estimate, verdict, hours=hours) for estimate, verdict, hours in drawn]
    one, other = Store(tmp_path_factory.mktemp("a")), Store(tmp_path_factory.mktemp("b"))
    one.merge(made)
    sizes = []
    for each in random.sample(made, len(made)):
        other.merge([each])
        sizes.append(len(other))
    assert sizes == sorted(sizes)
    assert one.newest("toy-cheap") == other.newest("toy-cheap")
    assert one.of("toy-cheap") == other.of("toy-cheap")
    before = {path.name: path.read_bytes() for path in other.folders[0].iterdir()}
    other.add(record(1.0, "fails", hours=9))
    other.merge(one)
    other.add(made[0])
    after = {path.name: path.read_bytes() for path in other.folders[0].iterdir()}
    assert before.items() <= after.items()
    assert not [name for name in ("remove", "delete", "clear", "pop", "discard") if hasattr(other, name)]


@FAST
@given(RECORDS, RECORDS)
def test_two_stores_merge_without_conflict(tmp_path_factory, mine, yours):
    a, b = Store(tmp_path_factory.mktemp("a")), Store(tmp_path_factory.mktemp("b"))
    a.merge(record(*each[:2], hours=each[2]) for each in mine)
    b.merge(record(*each[:2], hours=each[2]) for each in yours)
    files = {path.name: path.read_bytes() for store in (a, b) for path in store.folders[0].iterdir()}
    assert all(
        (store.folders[0] / name).read_bytes() == data
        for store in (a, b)
        for name, data in files.items()
        if (store.folders[0] / name).exists()
    )  # same name, same bytes: git has nothing to resolve
    a.merge(list(b))
    b.merge(list(a))
    assert list(a) == list(b)
    assert list(Store(a.folders[0])) == list(a)


@FAST
@given(RECORDS)
def test_export_and_import_lose_nothing(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("export")
    store = Store(folder / "store")
    store.merge(record(estimate, verdict, hours=hours) for estimate, verdict, hours in drawn)
    export(folder / "claims.json", [Standing.of("toy", claim(), store, CODE)], store)
    other = Store(folder / "other")
    other.merge(read_export(folder / "claims.json"))
    assert list(other) == list(store)
    assert {p.name: p.read_bytes() for p in (folder / "other").iterdir()} == {p.name: p.read_bytes() for p in (folder / "store").iterdir()}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_id_changes_if_any_byte_of_the_content_does(data):
    content = canonical(parse(canonical(record().to_json())).to_json())
    position = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[position]))
    changed = content[:position] + bytes([other]) + content[position + 1 :]
    try:
        found = parse(changed)
    except InputError:
        return
    # what still parses must be the same content in other bytes, as an escape or a number's other spelling is
    assert canonical(found.to_json()) == content


def test_whole_numbers_in_float_fields_keep_the_id(tmp_path):
    store = Store(tmp_path)
    kept = store.add(record(1.0, result=result(estimate=1, interval=(1, 1))))
    assert [each.id for each in Store(tmp_path)] == [kept.id]


def test_a_long_record_keeps_its_digest_and_summary_under_the_limit():
    from cloudchamber.core.evidence.assessors import assess

    names = tuple(f"w{i}" for i in range(10))
    rows = [
        {
            "study": "toy",
            "workload": name,
            "policy": "A",
            "seed": seed,
            "cost_usd": 1 + seed / 7,
            "bound": 1.0,
            "ratio": 1 + seed / 7,
            "void": None,
            "generated": False,
            "evidence": "simulated",
        }
        for name in names
        for seed in range(200)
    ]
    long = assess(claim(population=Population("toy", names)), rows)
    assert size(long) < MAX_BYTES
    assert long.result.series == ()
    assert len(long.result.parts) == 10
    short = assess(claim(population=Population("toy", names)), [row for row in rows if row["seed"] < 12])
    assert size(short) < MAX_BYTES
    assert len(short.result.series) == 10
