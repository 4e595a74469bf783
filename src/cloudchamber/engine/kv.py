"""Paged KV memory: blocks, tables, a prefix cache over chained hashes, reference counts, pins. Bookkeeping only, no tensor.

A block is in exactly one state: *free* (nothing in it), *cached* (a full block nobody uses, found by its hash, least recently
freed evicted first), *used* (in a request's table), *pinned* (kept for a program between two turns).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from weakref import WeakValueDictionary

import numpy as np

from cloudchamber.core.errors import InputError

from .model import Retain
from .request import Request
from .seams import KVGroup, KVLayout, PoolCounts, ProgramId, ReqId


class PagedKV:
    """The one-group manager: every layer stores every token.

    Parameters
    ----------
    blocks : int
        Blocks of the pool.
    block_tokens : int
        Tokens of a block.
    layout : KVLayout or None
        Where the bytes lie; None for a simulation.
    prefix_cache : bool
        Whether finished blocks are found again.

    Raises
    ------
    InputError
        If there is no block, or a block without token.
    """

    def __init__(self, blocks: int, block_tokens: int = 16, layout: KVLayout | None = None, prefix_cache: bool = True) -> None:
        if blocks < 1 or block_tokens < 1:
            raise InputError(f"a pool needs at least one block of at least one token, got {blocks} blocks of {block_tokens}.")
        self.blocks, self.block_tokens, self.prefix_cache = blocks, block_tokens, prefix_cache
        self.layout = layout or KVLayout(0, (KVGroup((0, 2, block_tokens, 0, 0)),))
        self._free = list(range(blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently freed first
        self._uses = [0] * blocks
        self._pin_uses = [0] * blocks
        self._pinned = 0
        self._hash: list[int | None] = [None] * blocks
        self._prefix: list[_Prefix | None] = [None] * blocks  # what it holds, to the letter: 64-bit hashes collide
        self._prefixes: WeakValueDictionary[tuple[_Prefix | str, bytes], _Prefix] = WeakValueDictionary()
        self._block_of: dict[int, int] = {}
        self._tables: dict[ReqId, list[int]] = {}
        self._committed: dict[ReqId, int] = {}  # full blocks of a table that are registered, or need not be
        self._tips: dict[ReqId, _Prefix | str] = {}  # the prefix that those blocks hold
        self._hits: dict[ReqId, int] = {}
        self._pins: dict[ProgramId, list[int]] = {}
        self._watch = _Watch(self._block_of)
        self._parent: list[int | None] = [None] * blocks  # hash of the block before
        self._children: Counter[int] = Counter()  # registered blocks that follow a hash
        self._gone: list[int] = []  # hashes that the watch has not been told of

    # ------------------------------------------------------------------ prefixes
    def lookup(self, r: Request) -> int:
        """Leading tokens that are cached now, in full blocks, at most all but the last."""
        if not self.prefix_cache:
            return 0
        known = self._watch.found.get(r.id)
        if known is None:
            hashes = self._hashes(r, r.n_tokens)
            known = self._watch.add(r.id, hashes, len(self._match(r, hashes)))
        return min(known, (r.n_tokens - 1) // self.block_tokens) * self.block_tokens

    def changed(self) -> set[ReqId]:
        """Requests whose lookup may have changed since this was asked last."""
        found, self._watch.changed = self._watch.changed, set()
        return found

    def _match(self, r: Request, hashes: list[int]) -> list[int]:
        """Blocks of the longest cached prefix, contents compared."""
        found: list[int] = []
        tip: _Prefix | str | None = r.salt
        for i, value in enumerate(hashes):
            block = self._block_of.get(value)
            if block is None:
                break
            if r.tokens is not None:
                tip = self._prefixes.get((tip, self._tokens(r, i)))  # type: ignore[arg-type]
                if tip is None or tip is not self._prefix[block]:
                    break
            found.append(block)
        return found

    def _tokens(self, r: Request, i: int) -> bytes:
        """Tokens of a request's block."""
        assert r.tokens is not None
        return np.array(r.tokens[i * self.block_tokens : (i + 1) * self.block_tokens], np.int64).tobytes()

    def _hashes(self, r: Request, n_tokens: int) -> list[int]:
        """Chained hashes of the full blocks among the first tokens, as far as they are known."""
        full = n_tokens // self.block_tokens
        if r.tokens is not None and len(r.hashes) < full:
            from xxhash import xxh3_64_intdigest as digest

            parent = r.hashes[-1] if r.hashes else digest(r.salt.encode())
            for i in range(len(r.hashes), full):
                parent = digest(parent.to_bytes(8, "little") + self._tokens(r, i))
                r.hashes.append(parent)
        return r.hashes[:full]

    # ------------------------------------------------------------------ blocks
    def allocate(self, r: Request, n_tokens: int) -> bool:
        """Give blocks for the first ``n_tokens``. False, and nothing done, if there are too few.

        A request without table first gets those of its cached prefix, and ``n_computed`` says how many tokens they hold.
        """
        table, blocks = self._tables.get(r.id), -(-n_tokens // self.block_tokens)
        if table is not None and blocks <= len(table):
            return True
        hits: list[int] = []
        if table is None and self.prefix_cache:
            limit = min((r.n_tokens - 1) // self.block_tokens, blocks)
            hits = self._match(r, self._hashes(r, r.n_tokens)[:limit])
        need = blocks - len(table if table is not None else hits)
        idle = sum(1 for block in hits if not self._uses[block] and not self._pin_uses[block])
        if need > len(self._free) + len(self._cached) - idle:
            return False
        if table is None:
            self._watch.drop(r.id)
            self._tables[r.id] = table = []
            self._committed[r.id] = self._hits[r.id] = len(hits)
            self._tips[r.id] = (self._prefix[hits[-1]] if hits else None) or r.salt
            r.n_computed = len(hits) * self.block_tokens
            for block in hits:
                self._use(block)
            table += hits
        for _ in range(need):
            block = self._take()
            self._uses[block] = 1
            table.append(block)
        self._tell_gone()
        return True

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        block, _ = self._cached.popitem(last=False)
        self._forget(block)
        return block

    def _forget(self, block: int) -> None:
        value, parent = self._hash[block], self._parent[block]
        if value is not None:
            del self._block_of[value]
            self._hash[block] = self._prefix[block] = None
            self._gone.append(value)
            if parent is not None:
                self._children[parent] -= 1
                if not self._children[parent]:
                    del self._children[parent]

    def _tell_gone(self) -> None:
        if self._gone:
            self._watch.went(self._gone, any(value in self._children for value in self._gone))
            self._gone = []

    def _use(self, block: int) -> None:
        if not self._uses[block]:
            if self._pin_uses[block]:
                self._pinned -= 1
            else:
                del self._cached[block]
        self._uses[block] += 1

    def _settle(self, block: int) -> None:
        """Put a block where it belongs once nobody uses it."""
        if self._uses[block]:
            return
        if self._pin_uses[block]:
            self._pinned += 1
        elif self._hash[block] is None:
            self._free.append(block)
        else:
            self._cached[block] = None

    def commit(self, r: Request, n_computed: int) -> None:
        """Register the full blocks among the first ``n_computed`` tokens. Of two equal blocks the first stays registered."""
        done, full = self._committed[r.id], n_computed // self.block_tokens
        if full <= done or not self.prefix_cache:
            return
        full = min(full, len(self._tables[r.id]))
        hashes, table = self._hashes(r, n_computed), self._tables[r.id]
        came = []
        for i in range(done, min(full, len(hashes))):
            tip, value, block = None, hashes[i], table[i]
            if r.tokens is not None:
                tip = self._tips[r.id] = self._prefixes.setdefault((self._tips[r.id], self._tokens(r, i)), _Prefix())
            if value not in self._block_of:
                self._block_of[value] = block
                self._hash[block], self._prefix[block], self._parent[block] = value, tip, hashes[i - 1] if i else None
                if i:
                    self._children[hashes[i - 1]] += 1
                came.append(value)
        self._watch.came(came)
        self._committed[r.id] = full

    def truncate(self, r: Request, n_tokens: int) -> None:
        """Give back the blocks beyond ``n_tokens``.

        Raises
        ------
        InputError
            If that would take back a registered block, which others may be using.
        """
        table = self._tables[r.id]
        stay = -(-n_tokens // self.block_tokens)
        if n_tokens < min(self._committed[r.id], len(table)) * self.block_tokens:
            raise InputError(f"request {r.id} has {self._committed[r.id]} registered blocks; it cannot be cut back to {n_tokens} tokens.")
        while len(table) > stay:
            self._release(table.pop())

    def _release(self, block: int) -> None:
        self._uses[block] -= 1
        self._settle(block)

    def free(self, r: Request, retain: Retain) -> None:
        """Give a request's blocks up, tails first so that they are evicted first; a pin holds the registered ones for its program."""
        self._watch.drop(r.id)
        table = self._tables.pop(r.id, None)
        if table is None:
            return
        own, full = self._hits.pop(r.id), self._committed.pop(r.id)
        del self._tips[r.id]
        if retain.kind == "pin" and r.program is not None:  # where an equal block was registered first, that one
            self._pin(r.program, self._match(r, r.hashes[:full]))
        for i in range(len(table) - 1, -1, -1):
            block = table[i]
            if retain.kind == "free" and i >= own and self._uses[block] == 1 and not self._pin_uses[block]:
                self._forget(block)
            self._release(block)
        self._tell_gone()

    def _pin(self, program: ProgramId, blocks: list[int]) -> None:
        old = self._pins.pop(program, [])
        for block in blocks:
            if not self._uses[block] and not self._pin_uses[block]:
                del self._cached[block]
                self._pinned += 1
            self._pin_uses[block] += 1
        self._drop_pin(old)
        if blocks:
            self._pins[program] = blocks

    def unpin(self, program: ProgramId) -> None:
        """Leave a program's pinned blocks to the LRU; nothing happens without a pin."""
        self._drop_pin(self._pins.pop(program, []))

    def _drop_pin(self, blocks: Iterable[int]) -> None:
        for block in reversed(list(blocks)):
            self._pin_uses[block] -= 1
            if not self._pin_uses[block] and not self._uses[block]:
                self._pinned -= 1
                self._settle(block)

    def pinned_blocks(self, program: ProgramId) -> int:
        """Blocks of a program's pin; 0 without one."""
        return len(self._pins.get(program, ()))

    # ------------------------------------------------------------------ views
    def table(self, r: Request, group: int = 0) -> np.ndarray:
        """Page ids of a request, int32."""
        return np.array(self._tables[r.id], dtype=np.int32)

    def counts(self) -> PoolCounts:
        """Blocks by state."""
        free, cached = len(self._free), len(self._cached)
        return PoolCounts(free, cached, self.blocks - free - cached - self._pinned, self._pinned)


class _Prefix:
    """The tokens of some leading full blocks: equal ones are one object, for as long as a block or a request holds them."""

    __slots__ = ("__weakref__",)


class _Watch:
    """How many leading blocks of each waiting request are registered, kept true as blocks come and go.

    Asking every waiting request again for every decision would be the hot loop of a scheduler that orders by cached tokens. A
    request is found by its last registered block and by the first that is not: while no block goes before its children, nothing else
    concerns it.
    """

    def __init__(self, block_of: dict[int, int]) -> None:
        self.found: dict[ReqId, int] = {}
        self.changed: set[ReqId] = set()
        self._block_of = block_of
        self._chains: dict[ReqId, list[int]] = {}
        self._last: dict[int, set[ReqId]] = {}
        self._next: dict[int, set[ReqId]] = {}

    def add(self, request: ReqId, chain: list[int], found: int) -> int:
        self._chains[request] = chain
        self._place(request, found)
        return found

    def drop(self, request: ReqId) -> None:
        if request in self.found:
            self._lift(request)
            del self.found[request], self._chains[request]

    def came(self, values: list[int]) -> None:
        for value in values:
            for request in tuple(self._next.get(value, ())):
                self._look(request, self.found[request])

    def went(self, values: list[int], orphans: bool) -> None:
        """Blocks went; ``orphans``: some of them before their children, so that all must be asked again."""
        if orphans:
            for request in self.found:
                self._look(request, 0)
            return
        for value in values:
            for request in tuple(self._last.get(value, ())):
                self._look(request, self.found[request])

    def _look(self, request: ReqId, at: int) -> None:
        chain = self._chains[request]
        while at and chain[at - 1] not in self._block_of:
            at -= 1
        while at < len(chain) and chain[at] in self._block_of:
            at += 1
        if at != self.found[request]:
            self._lift(request)
            self._place(request, at)
            self.changed.add(request)

    def _place(self, request: ReqId, found: int) -> None:
        self.found[request], chain = found, self._chains[request]
        for index, at in ((self._last, found - 1), (self._next, found)):
            if 0 <= at < len(chain):
                index.setdefault(chain[at], set()).add(request)

    def _lift(self, request: ReqId) -> None:
        found, chain = self.found[request], self._chains[request]
        for index, at in ((self._last, found - 1), (self._next, found)):
            if 0 <= at < len(chain):
                index[chain[at]].discard(request)
                if not index[chain[at]]:
                    del index[chain[at]]
