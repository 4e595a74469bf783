"""Generated batches: the shapes of well-known benchmarks, and stand-ins for the three public batches.

Each generator draws the transactions of one batch as lists of slots; see :func:`cloudchamber.transactions.model.batch_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """What a generator is asked for; each takes from it what it knows.

    Parameters
    ----------
    n : int
        Transactions.
    ops : int
        Accesses of a transaction (ycsb, tao).
    keys : int
        Keys, accounts, users or objects there are.
    write_share : float
        Probability that an access writes (ycsb) or that a transaction does (tao, epinions).
    theta : float
        Exponent of the Zipf popularity; 0 is uniform.
    jitter : float
        How far the slot of a key strays from the key's usual place in a transaction (ycsb); infinity: no usual place.
    """

    n: int = 100
    ops: int = 16
    keys: int = 1000
    write_share: float = 0.5
    theta: float = 0.99
    jitter: float = np.inf


def ycsb(shape: Shape, rng: np.random.Generator) -> list[str]:
    """Key-value transactions: ``ops`` different keys by Zipf popularity, each read or written."""
    weights = zipf(shape.keys, shape.theta)
    place = rng.random(shape.keys)
    made = []
    for _ in range(shape.n):
        # the largest of log-weights with Gumbel noise: a draw by weight without replacement
        keys = np.argsort(-(np.log(weights) + rng.gumbel(size=shape.keys)))[: shape.ops]
        noise = rng.normal(size=len(keys))
        keys = keys[np.argsort(noise if np.isinf(shape.jitter) else place[keys] + shape.jitter * noise)]
        made.append(" ".join(f"{'w' if rng.random() < shape.write_share else 'r'}-{key}" for key in keys))
    return made


def tpcc(shape: Shape, rng: np.random.Generator) -> list[str]:
    """TPC-C lite: new-order and payment on 4 warehouses of 10 districts with 30 customers each."""
    made = []
    for _ in range(shape.n):
        warehouse = int(rng.integers(4))
        district = 10 + 10 * warehouse + int(rng.integers(10))
        customer = 100 * district + int(rng.integers(30))
        if rng.random() < 0.5:
            made.append(f"r-{warehouse} r-{district} w-{district} r-{customer} w-{customer}{' *' * 18}")
        else:
            made.append(f"r-{warehouse} w-{warehouse} r-{district} w-{district} r-{customer} w-{customer} *")
    return made


def smallbank(shape: Shape, rng: np.random.Generator) -> list[str]:
    """SmallBank: six kinds of transactions on savings and checking accounts, of which a tenth get nine tenths of the traffic."""
    hot = max(2, shape.keys // 10)
    made = []
    for _ in range(shape.n):
        a, b = (2 * int(each) for each in (_two(hot, rng) if rng.random() < 0.9 else _two(shape.keys, rng)))
        savings, checking, other = f"{a}", f"{a + 1}", f"{b + 1}"
        kinds = (
            f"r-{savings} r-{checking}",  # balance
            f"r-{checking} w-{checking}",  # deposit checking
            f"r-{savings} w-{savings}",  # transact savings
            f"r-{savings} r-{checking} w-{savings} w-{checking} r-{other} w-{other}",  # amalgamate
            f"r-{savings} r-{checking} w-{checking}",  # write check
            f"r-{checking} r-{other} w-{checking} w-{other}",  # send payment
        )
        made.append(kinds[int(rng.integers(len(kinds)))])
    return made


def epinions(shape: Shape, rng: np.random.Generator) -> list[str]:
    """Reviews: reads of an item and who trusts whom, updates of an item, a user, a rating or a trust."""
    users = items = shape.keys
    weights = zipf(items, shape.theta)
    made = []
    for _ in range(shape.n):
        user, other = _two(users, rng)
        item = int(rng.choice(items, p=weights))
        u, v, i = f"{3 * user}", f"{3 * other + 1}", f"{3 * item + 2}"
        if rng.random() >= shape.write_share:
            kinds = [f"r-{i} * * r-{u}", f"r-{u} r-{v} * r-{i}", f"r-{i} r-{u} r-{v} * *"]
        else:
            kinds = [f"r-{i} w-{i}", f"r-{u} w-{u}", f"r-{u} r-{i} * w-{i}", f"r-{u} w-{v}"]
        made.append(kinds[int(rng.integers(len(kinds)))])
    return made


def tao(shape: Shape, rng: np.random.Generator) -> list[str]:
    """A social graph: most transactions read many objects, a few write several at once."""
    weights = zipf(shape.keys, shape.theta)
    made = []
    for _ in range(shape.n):
        writes = rng.random() < shape.write_share
        count = int(rng.integers(2, max(3, shape.ops // 2 + 1) if writes else max(3, shape.ops + 1)))
        keys = rng.choice(shape.keys, min(count, shape.keys), replace=False, p=weights)
        made.append(" ".join(f"{'w' if writes else 'r'}-{key}" for key in keys))
    return made


def alternating(shape: Shape, rng: np.random.Generator) -> list[str]:
    """Two halves: each reads a hot key of its own set first, works, and writes one of the other half's set last."""
    count = max(1, shape.keys // 2)
    made = []
    for t in range(shape.n):
        first, second = int(rng.integers(count)), count + int(rng.integers(count))
        read, write = (first, second) if t < shape.n // 2 else (second, first)
        made.append(f"r-{read}{' *' * max(0, shape.ops - 2)} w-{write}")
    return made


def adversarial(shape: Shape, rng: np.random.Generator) -> list[str]:
    """Against greedy: short transactions look cheap and write late what two long ones write at once, which then wait for all of them."""
    made: list[str] = []
    group = 0
    while len(made) < shape.n:
        a, b, idle = f"w-{2 * group}", f"w-{2 * group + 1}", " *" * (shape.ops - 1)
        made += [a + idle, b + idle, *[f"* * * {a} {b}"] * int(rng.integers(4, 9))]
        group += 1
    made = made[: shape.n]
    return [made[i] for i in rng.permutation(len(made))]


def like_w1(shape: Shape, rng: np.random.Generator) -> list[str]:
    """100 transactions of 16 keys each by a steep Zipf, every key at roughly the same slot wherever it occurs."""
    return ycsb(Shape(100, 16, 5000, 0.555, 1.6, 0.1), rng)


def like_w2(shape: Shape, rng: np.random.Generator) -> list[str]:
    """50 long new-orders, then 50 short payments, on 4 warehouses and 40 districts."""
    made = []
    for t in range(100):
        district = 10 + int(rng.integers(1, 41))
        warehouse = (district - 1) // 10
        begin = f"r-{warehouse} r-{district} w-{district}"
        made.append(begin + " *" * 18 if t < 50 else f"r-{warehouse} w-{warehouse} r-{district} w-{district} *")
    return made


def like_w3(shape: Shape, rng: np.random.Generator) -> list[str]:
    """100 transactions of 9 slots in two alternating halves, on ten hot keys."""
    return alternating(Shape(n=100, ops=9, keys=10), rng)


def zipf(count: int, theta: float) -> np.ndarray:
    """Probabilities proportional to 1 / rank ** theta."""
    weights = 1 / np.arange(1, count + 1) ** theta
    found: np.ndarray = weights / weights.sum()
    return found


def _two(count: int, rng: np.random.Generator) -> Sequence[int]:
    return rng.choice(count, 2, replace=False).tolist()  # type: ignore[no-any-return]


GENERATORS: dict[str, Callable[[Shape, np.random.Generator], list[str]]] = {
    "w1": like_w1,
    "w2": like_w2,
    "w3": like_w3,
    **{each.__name__: each for each in (ycsb, tpcc, smallbank, epinions, tao, alternating, adversarial)},
}
