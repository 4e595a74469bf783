from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.broadcast import Broadcast, BroadcastStudy, Job, Transfer, measured
from cloudchamber.broadcast.policies.tree_search import bill
from cloudchamber.broadcast.simulator import flows, violation
from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message
from cloudchamber.core.parallel import run_task

from .worlds import all_trees, spec, worlds

STUDY = BroadcastStudy()
PRICE = [[0, 0.1, 0.2, 0.3], [0.1, 0, 0.05, 0.06], [0.1, 0.1, 0, 0.1], [0.1, 0.1, 0.1, 0]]
JOB = Job(0, (1, 2), 100.0, 2)
CHAIN = ((0, 1), (1, 2))


def trial(plan, reset=None):
    """Run a policy made of one function on the smoke workload."""

    class Made:
        def reset(self, spec, rng):
            if reset:
                reset(spec, rng)

        def plan(self, job):
            return plan(job)

    return run_task(STUDY, {"made": Made}, STUDY.workloads()["smoke"], 0)[1][0].outcome


def star(job):
    return Broadcast((tuple((job.source, each) for each in job.destinations),) * job.partitions)


def test_bill_by_hand():
    """Published timing: 50 GB a partition at 1 'gigabyte' a second is 50 s; three regions of two VMs."""
    done = measured(Broadcast((CHAIN, CHAIN)), spec(PRICE), JOB)
    assert done.egress_usd == pytest.approx(100 * 0.1 + 100 * 0.05)
    assert done.time_s == pytest.approx(50)
    assert done.vm_usd == pytest.approx(3 * 2 * 0.54 / 3600 * 50)
    assert (done.relays, done.cost_usd) == (0, pytest.approx(15.045))


def test_shared_links_by_hand():
    done = measured(Broadcast((CHAIN, CHAIN)), spec(PRICE, shared=True), JOB)
    assert done.time_s == pytest.approx(2 * 50 * 8)


def test_two_trees_share_the_work_where_links_are_shared():
    other = ((0, 2), (2, 1))
    one, two = (measured(Broadcast(trees), spec(PRICE, shared=True), JOB) for trees in ((CHAIN, CHAIN), (CHAIN, other)))
    assert two.time_s == pytest.approx(one.time_s / 2)
    assert two.egress_usd == pytest.approx(50 * (0.1 + 0.05) + 50 * (0.2 + 0.1))


def test_links_get_equal_parts_of_a_limit_they_exceed():
    network = spec(PRICE, np.full((4, 4), 3.0), egress=[5, 9, 9, 9], ingress=[9, 9, 2, 9])
    assert flows([(0, 1), (0, 2)], network) == {(0, 1): 2.5, (0, 2): 2.0}
    assert flows([(0, 1)], network) == {(0, 1): 3.0}


def test_a_relay_takes_part_and_is_billed():
    done = measured(Broadcast((((0, 3), (3, 1), (3, 2)),) * 2), spec(PRICE), JOB)
    assert done.relays == 1 and done.vm_usd == pytest.approx(4 * 2 * 0.54 / 3600 * done.time_s)


class Priced(Message, frozen=True):
    trees: tuple[tuple[tuple[int, int, float, float], ...], ...]


class Scored(Message, frozen=True):
    trees: tuple[tuple[tuple[int, int], ...], ...]
    cost_usd: float


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Priced(((((0, 1, 0.0, 1e9)), (1, 2, 0.0, 1e9)),) * 2), "no Broadcast"),  # its own prices and speeds
        (Scored((CHAIN, CHAIN), 0.0), "no Broadcast"),
        (Broadcast((CHAIN,)), "1 trees for 2 partitions"),
        (Broadcast((CHAIN, CHAIN, CHAIN)), "3 trees for 2 partitions"),
        (Broadcast((CHAIN, ())), "partition 1: aws:r1 does not get the data"),
        (Broadcast((CHAIN, ((0, 1),))), "partition 1: aws:r2 does not get the data"),
        (Broadcast((CHAIN, ((0, 1), (0, 2), (1, 2)))), "gets the data twice"),
        (Broadcast((CHAIN, ((0, 1), (1, 2), (0, 1)))), "gets the data twice"),
        (Broadcast((CHAIN, ((0, 1), (1, 2), (2, 0)))), "gets the data twice"),
        (Broadcast((CHAIN, ((1, 2), (2, 1)))), "does not come from aws:r0"),
        (Broadcast((CHAIN, ((0, 1), (3, 2)))), "does not come from aws:r0"),
        (Broadcast((CHAIN, ((0, 1), (1, 2), (3, 3)))), "no link from aws:r3 to aws:r3"),
        (Broadcast((CHAIN, ((0, 1), (1, 4)))), "names no region"),
        (Broadcast((CHAIN, ((0, 1), (-3, 2)))), "names no region"),
        (Broadcast((CHAIN, ((0, 1), (True, 2)))), "no Broadcast"),
        (Broadcast((CHAIN, ((0, 1), (1.0, 2)))), "no Broadcast"),
        (Broadcast((CHAIN, ((0, 1), (float("nan"), 2)))), "no Broadcast"),
        (Broadcast((CHAIN, ((0, 2**70),))), "no Broadcast"),
        (Broadcast(None), "no Broadcast"),
        (None, "no Broadcast"),
        (object(), "no Broadcast"),
        ((CHAIN, CHAIN), "no Broadcast"),
    ],
)
def test_a_wrong_answer_is_void(answer, says):
    found = measured(answer, spec(PRICE), JOB)
    assert isinstance(found, tuple) and says in found[0]


def test_a_link_that_does_not_exist_is_not_for_free():
    price = [[0, 0.1, None], [0.1, 0, 0.1], [0.1, 0.1, 0]]
    assert "no link from aws:r0 to aws:r2" in measured(Broadcast((((0, 2), (2, 1)),) * 2), spec(price), JOB)[0]


def test_whole_numbers_of_numpy_are_whole_numbers():
    tree = tuple((np.int64(a), np.int64(b)) for a, b in CHAIN)
    assert isinstance(measured(Broadcast((tree, tree)), spec(PRICE), JOB), Transfer)


def test_changing_prices_in_place_gains_nothing():
    honest = trial(star)

    def cheap(spec, rng):
        import msgspec

        for name in ("price_usd_gb", "throughput_gbps"):
            msgspec.structs.force_setattr(spec, name, np.full_like(getattr(spec, name), 1e-9))

    def overwrite(spec, rng):
        try:
            spec.price_usd_gb.setflags(write=True)
            spec.price_usd_gb[:] = 0.0
        except ValueError:
            pass  # read-only to the ground

    assert trial(star, cheap).metrics == honest.metrics
    assert trial(star, overwrite).metrics == honest.metrics


def test_changing_the_job_in_place_gains_nothing():
    import msgspec

    def fewer(job):
        msgspec.structs.force_setattr(job, "destinations", job.destinations[:1])
        return star(job)

    assert "does not get the data" in trial(fewer).violations[0]


@pytest.mark.parametrize("error", [ValueError, TimeoutError, SystemExit, MemoryError])
def test_a_failed_plan_is_void_not_a_cheap_one(error):
    def fail(job):
        raise error("no idea")

    outcome = trial(fail)
    assert outcome.is_void and not outcome.metrics


@given(worlds(most=4), st.data())
def test_search_and_world_make_out_the_same_bill(world, data):
    network, job = world
    every = list(all_trees(network, job))
    trees = [data.draw(st.sampled_from(every)) for _ in range(job.partitions)]
    done = measured(Broadcast(tuple(trees)), network, job)
    assert done.cost_usd == pytest.approx(bill(network, job, [{b: a for a, b in tree} for tree in trees]))


@given(worlds(most=4), st.data())
def test_numbering_of_regions_does_not_matter(world, data):
    network, job = world
    tree = data.draw(st.sampled_from(list(all_trees(network, job))))
    from cloudchamber.broadcast.workloads import _renamed

    renamed, moved = _renamed(network, job, np.random.default_rng(data.draw(st.integers(0, 99))))
    number = {name: i for i, name in enumerate(renamed.regions)}
    again = tuple((number[network.regions[a]], number[network.regions[b]]) for a, b in tree)
    first, second = (
        measured(Broadcast((tree,) * job.partitions), network, job),
        measured(Broadcast((again,) * job.partitions), renamed, moved),
    )
    assert first.cost_usd == pytest.approx(second.cost_usd, rel=1e-12)
    assert violation(again, renamed, moved) == ""


def test_feedback_names_the_dearest_and_the_slowest_link():
    outcome = trial(star)
    assert "Dearest link" in outcome.feedback and "slowest" in outcome.feedback


@pytest.mark.parametrize(
    "make",
    [
        lambda: Job(0, (), 1.0, 1),
        lambda: Job(0, (0,), 1.0, 1),
        lambda: Job(0, (1, 1), 1.0, 1),
        lambda: Job(0, (1,), 0.0, 1),
        lambda: Job(0, (1,), 1.0, 0),
    ],
)
def test_impossible_jobs_are_refused(make):
    with pytest.raises(InputError):
        make()
