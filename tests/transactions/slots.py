"""The slow world: tries every start slot by slot against everything that was placed before; and random batches."""

from __future__ import annotations

from hypothesis import strategies as st

SLOT = st.one_of(st.just("*"), st.builds("{}-{}".format, st.sampled_from("rw"), st.integers(0, 4)))
TRANSACTION = st.lists(SLOT, min_size=1, max_size=5).map(" ".join)
TEXTS = st.lists(TRANSACTION, min_size=1, max_size=7)


def starts_by_slots(texts, order, model="mv"):
    """Start of every transaction, found by trial."""
    rows = [text.split() for text in texts]
    placed = []
    starts = {}
    for t in order:
        start = 0
        while any(_clash(rows[t], start, rows[u], starts[u], model) for u in placed):
            start += len(rows[t]) if model == "occ" else 1
        starts[t] = start
        placed.append(t)
    return [starts[t] for t in range(len(rows))]


def _clash(later, start, earlier, began, model):
    """Whether a transaction at ``start`` would break the serial order with one that comes before it."""
    pairs = [
        (i, j) for i, a in enumerate(earlier) for j, b in enumerate(later) if "*" not in (a, b) and a[2:] == b[2:] and "w" in (a[0], b[0])
    ]
    if model == "mv":
        return any(start + j <= began + i for i, j in pairs)
    if model == "2pl":  # the lock taken at i is held to the end
        return any(start + j < began + len(earlier) for _, j in pairs)
    return bool(pairs) and start < began + len(earlier) and began < start + len(later)


def makespan_by_slots(texts, order, model="mv"):
    starts = starts_by_slots(texts, order, model)
    return max((start + len(text.split()) for start, text in zip(starts, texts, strict=True)), default=0)
