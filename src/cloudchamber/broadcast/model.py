"""The nouns of broadcasting: regions and the links between them, a job, and the trees its data takes."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message

Edge = tuple[int, int]


class BroadcastSpec(Message, frozen=True):
    """The network, which is known before any job. Policies name regions by their index.

    Parameters
    ----------
    regions : tuple of str
        Names like ``aws:us-east-1``.
    price_usd_gb : ndarray of shape (regions, regions)
        Egress price from row to column; infinite where there is no link.
    throughput_gbps : ndarray of shape (regions, regions)
        What all VMs of a region together can send over a link; 0 where there is none.
    egress_gbps, ingress_gbps : ndarray of shape (regions,)
        What all VMs of a region together can send and receive.
    vms : int
        Rented in every region that takes part.
    vm_usd_h : float
    shared : bool
        Whether partitions that take the same link share it. Published results let each have all of it, and take a gigabyte for a gigabit.
    """

    regions: tuple[str, ...]
    price_usd_gb: np.ndarray
    throughput_gbps: np.ndarray
    egress_gbps: np.ndarray
    ingress_gbps: np.ndarray
    vms: int
    vm_usd_h: float
    shared: bool


class Job(Message, frozen=True):
    """Data that must get from one region to several.

    Parameters
    ----------
    source : int
    destinations : tuple of int
    volume_gb : float
    partitions : int
        Equal parts, each of which may take a tree of its own.

    Raises
    ------
    InputError
        If there is no destination, one is named twice or is the source, or a number is not above 0.
    """

    source: int
    destinations: tuple[int, ...]
    volume_gb: float
    partitions: int

    def __post_init__(self) -> None:
        if not self.destinations or len({self.source, *self.destinations}) != len(self.destinations) + 1:
            raise InputError("a job needs at least one destination, each named once, and none of them the source.")
        if not math.isfinite(self.volume_gb) or self.volume_gb <= 0 or self.partitions < 1:
            raise InputError(f"volume_gb must be above 0 and partitions at least 1, got {self.volume_gb!r} and {self.partitions!r}.")


class Broadcast(Message, frozen=True):
    """The answer: for each partition, the links of its tree as (from, to). Prices and speeds are the world's business."""

    trees: tuple[tuple[Edge, ...], ...]


class BroadcastPolicy(Protocol):
    """Decides over which links data is copied. See :class:`cloudchamber.core.policy.Policy` for a base class.

    The bill is egress (volume times price, once for every link of every partition's tree) plus all VMs of every region that takes part,
    relays included, until the last byte has arrived.
    """

    def reset(self, spec: BroadcastSpec, rng: np.random.Generator) -> None:
        """Learn the network; called once before each trial."""
        ...

    def plan(self, job: Job) -> Broadcast:
        """Return a tree from the source to all destinations for every partition."""
        ...
