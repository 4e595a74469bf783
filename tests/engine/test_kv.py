import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.model import CACHED, FREE, pin

from .worlds import check_pool, prompt, simple


def computed(kv, r, tokens=None):
    assert kv.allocate(r, r.n_tokens)
    kv.commit(r, r.n_tokens if tokens is None else tokens)
    check_pool(kv)
    return kv.table(r).tolist()


def test_a_second_prompt_shares_the_full_blocks_of_the_first():
    kv = PagedKV(8, 4)
    first, second = prompt(0, range(10)), prompt(1, [*range(8), 99, 98, 97])
    table = computed(kv, first)
    assert kv.lookup(second) == 8
    assert computed(kv, second)[:2] == table[:2] and second.n_computed == 8
    assert kv.counts().used == 4


def test_the_last_token_is_always_computed():
    kv = PagedKV(8, 4)
    computed(kv, prompt(0, range(8)))
    assert kv.lookup(prompt(1, range(8))) == 4


def test_least_recently_freed_goes_first_and_tails_before_heads():
    kv = PagedKV(4, 4)
    first, second = prompt(0, range(8)), prompt(1, range(50, 58))
    computed(kv, first), computed(kv, second)
    kv.free(first, CACHED), kv.free(second, CACHED)
    computed(kv, prompt(2, range(90, 94)))
    assert kv.lookup(prompt(3, range(12))) == 4 and kv.lookup(prompt(4, [*range(50, 58), 0])) == 8


def test_salts_share_nothing():
    kv = PagedKV(8, 4)
    computed(kv, prompt(0, range(8), salt="a"))
    assert kv.lookup(prompt(1, range(9), salt="b")) == 0 and kv.lookup(prompt(2, range(9), salt="a")) == 8


def test_a_block_being_written_is_shared_with_nobody():
    kv = PagedKV(8, 4)
    computed(kv, prompt(0, range(8)), tokens=6)
    assert kv.lookup(prompt(1, range(9))) == 4


def test_without_prefix_cache_nothing_is_found():
    kv = PagedKV(8, 4, prefix_cache=False)
    first = prompt(0, range(8))
    computed(kv, first)
    kv.free(first, CACHED)
    assert kv.lookup(prompt(1, range(9))) == 0 and kv.counts().free == 8


def test_free_forgets_own_blocks_but_not_those_it_found():
    kv = PagedKV(8, 4)
    first, second = prompt(0, range(8)), prompt(1, [*range(4), 50, 51, 52, 53, 54])
    computed(kv, first), kv.free(first, CACHED)
    computed(kv, second), kv.free(second, FREE)
    check_pool(kv)
    assert kv.lookup(prompt(2, range(9))) == 8 and kv.counts().cached == 2


def test_truncate_gives_drafts_back_and_refuses_registered_blocks():
    kv = PagedKV(8, 4)
    r = prompt(0, range(6))
    computed(kv, r)
    assert kv.allocate(r, 15) and kv.counts().used == 4
    kv.truncate(r, 7)
    check_pool(kv)
    assert kv.counts().used == 2
    with pytest.raises(InputError, match="cannot be cut back to 3 tokens"):
        kv.truncate(r, 3)


def test_allocation_is_all_or_nothing():
    kv = PagedKV(3, 4)
    assert not kv.allocate(simple(0, 16), 16) and kv.counts().free == 3 and not kv._tables


def test_unpin_leaves_the_blocks_to_the_lru():
    kv = PagedKV(4, 4)
    r = prompt(0, range(8), program="p")
    computed(kv, r), kv.free(r, pin(1.0))
    assert (kv.counts().pinned, kv.pinned_blocks("p")) == (2, 2)
    assert not kv.allocate(simple(1, 16), 16)
    kv.unpin("p"), kv.unpin("p")
    check_pool(kv)
    assert kv.counts().cached == 2 and kv.allocate(simple(1, 16), 16)


@pytest.mark.parametrize("args", [(0, 4), (4, 0)])
def test_a_pool_needs_a_block_of_a_token(args):
    with pytest.raises(InputError, match="at least one block of at least one token"):
        PagedKV(*args)


@pytest.mark.parametrize("bits", [0, 1, 3])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_colliding_hashes_are_told_apart_by_content(bits, data):
    """With hashes of so few bits, a hit still is KV of exactly those leading tokens."""
    import xxhash

    original = xxhash.xxh3_64_intdigest
    xxhash.xxh3_64_intdigest = lambda content: original(content) & bits
    try:
        kv, holds, live = PagedKV(10, 2), {}, []
        for number in range(data.draw(st.integers(2, 25))):
            if live and data.draw(st.booleans()):
                kv.free(live.pop(data.draw(st.integers(0, len(live) - 1))), data.draw(st.sampled_from([CACHED, FREE])))
            r = prompt(number, data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=9)), salt=data.draw(st.sampled_from(["", "x"])))
            kv.lookup(r)
            if not kv.allocate(r, r.n_tokens):
                kv.free(r, CACHED)
                continue
            table = kv.table(r).tolist()
            for i, block in enumerate(table):
                prefix = (r.salt, *r.tokens[: 2 * i + 2])
                assert 2 * i >= r.n_computed or holds[block] == prefix
                holds[block] = prefix
            kv.commit(r, r.n_tokens)
            live.append(r)
            check_pool(kv)
    finally:
        xxhash.xxh3_64_intdigest = original


def test_tables_are_page_ids():
    kv = PagedKV(4, 4)
    r = simple(0, 9)
    assert kv.allocate(r, 9) and kv.table(r).dtype == np.int32 and len(set(kv.table(r).tolist())) == 3
