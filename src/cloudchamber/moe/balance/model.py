"""The nouns of expert balancing: the cluster, what a policy sees, the plan it answers with."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message


class ClusterSpec(Message, frozen=True):
    """What a policy knows before the trial: the layers, their experts, and the slots that hold them.

    Parameters
    ----------
    layers, experts : int
        Mixture-of-experts layers, and logical experts of each.
    slots : int
        Places for experts in each layer, over all devices (R); at least ``experts``, the rest is for replicas.
    devices : int
        GPUs (G). Slot s lies on device s // (slots / devices).
    nodes : int
        Machines (N); device g lies on node g // (devices / nodes).
    groups : int
        Expert groups (K); expert e belongs to group e // (experts / groups). A router sends a token to few groups.
    expert_mb : float
        Megabytes (10^6) of one expert's weights: what it costs to move it.
    bandwidth_gb_s : float
        GB/s (10^9) at which one device receives weights.
    steps : int
        Forward steps in a window of load.

    Raises
    ------
    InputError
        If slots, devices, nodes and groups do not fit each other.
    """

    layers: int
    experts: int
    slots: int
    devices: int
    nodes: int = 1
    groups: int = 1
    expert_mb: float = 44.0
    bandwidth_gb_s: float = 10.0
    steps: int = 100

    def __post_init__(self) -> None:
        Message.__post_init__(self)
        for name in ("layers", "experts", "slots", "devices", "nodes", "groups", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
        for name in ("expert_mb", "bandwidth_gb_s"):
            value = getattr(self, name)
            if not np.isfinite(value) or value <= 0:
                raise InputError(f"{name} must be a finite number above 0, got {value!r}.")
        most = self.experts * self.devices
        rules = (
            (self.slots >= self.experts, f"{self.slots} slots cannot hold {self.experts} experts; give at least {self.experts}."),
            (self.slots % self.devices == 0, f"{self.slots} slots do not divide among {self.devices} devices; give a multiple."),
            (self.devices % self.nodes == 0, f"{self.devices} devices do not divide among {self.nodes} nodes; give a multiple."),
            (self.experts % self.groups == 0, f"{self.experts} experts do not divide into {self.groups} groups; give a divisor."),
            (self.slots <= most, f"{self.slots} slots are more than every expert on every device ({most}); give fewer."),
        )
        for is_right, message in rules:
            if not is_right:
                raise InputError(message)

    @property
    def slots_per_device(self) -> int:
        """Slots of each device in each layer."""
        return self.slots // self.devices

    def checked(self, load: np.ndarray) -> np.ndarray:
        """Return the load as float64.

        Raises
        ------
        InputError
            If it is not of shape (layers, experts), or not finite and at least 0.
        """
        made = np.array(load, dtype=np.float64, order="C")
        if made.shape != (self.layers, self.experts):
            raise InputError(f"load must have the shape (layers, experts) = ({self.layers}, {self.experts}), got {made.shape}.")
        if not np.isfinite(made).all() or (made < 0).any():
            raise InputError("load must be finite and at least 0 everywhere; count the tokens of each expert again.")
        return made


class Plan(Message, frozen=True):
    """Which expert every slot holds. All else (maps back, replica counts, what must move) is derived from it.

    Parameters
    ----------
    phy2log : ndarray of int, shape (layers, slots)
        The expert in each slot; a device's slots are neighbours. Each expert needs at least one slot in each layer; its load
        is spread evenly over all it has.

    Examples
    --------
    >>> plan = Plan(np.array([[0, 1, 0, 2]]))
    >>> plan.count(3)
    array([[2, 1, 1]])
    >>> plan.log2phy(3).tolist()
    [[[0, 2], [1, -1], [3, -1]]]
    """

    phy2log: np.ndarray

    def __post_init__(self) -> None:
        table = self.phy2log  # unsigned ones would turn into floats in sums with others
        if isinstance(table, np.ndarray) and table.dtype.kind in "iu" and table.dtype != np.int64:
            msgspec.structs.force_setattr(self, "phy2log", table.astype(np.int64))
        Message.__post_init__(self)

    def check(self, spec: ClusterSpec) -> None:
        """Check that it is a plan for this cluster.

        Raises
        ------
        InputError
            Naming the layer, and what is wrong there.
        """
        table = self.phy2log
        if type(table) is not np.ndarray or table.dtype.kind not in "iu":
            raise InputError(f"phy2log must be an array of whole numbers, got {getattr(table, 'dtype', type(table).__name__)}.")
        if table.shape != (spec.layers, spec.slots):
            raise InputError(f"phy2log must have the shape (layers, slots) = ({spec.layers}, {spec.slots}), got {table.shape}.")
        outside = (table < 0) | (table >= spec.experts)
        if outside.any():
            layer, slot = (int(i) for i in np.argwhere(outside)[0])
            raise InputError(f"slot {slot} of layer {layer} holds expert {table[layer, slot]}; experts are 0 to {spec.experts - 1}.")
        missing = self.count(spec.experts) == 0
        if missing.any():
            layer, expert = (int(i) for i in np.argwhere(missing)[0])
            raise InputError(f"expert {expert} of layer {layer} has no slot; every expert needs at least one.")

    def count(self, experts: int) -> np.ndarray:
        """Replicas of each expert, shape (layers, experts)."""
        layers = len(self.phy2log)
        flat = np.arange(layers)[:, None] * experts + self.phy2log
        return np.bincount(flat.ravel(), minlength=layers * experts).reshape(layers, experts)

    def log2phy(self, experts: int) -> np.ndarray:
        """Slots of each expert in rising order, padded with -1, shape (layers, experts, most replicas)."""
        count = self.count(experts)
        order = np.argsort(self.phy2log, axis=1, kind="stable")
        first = np.cumsum(count, axis=1) - count
        holders = np.take_along_axis(self.phy2log, order, axis=1)
        rank = np.arange(order.shape[1]) - np.take_along_axis(first, holders, axis=1)
        slots = np.full((*count.shape, int(count.max())), -1, dtype=np.int64)
        slots[np.arange(len(order))[:, None], holders, rank] = order
        return slots

    def device_load(self, load: np.ndarray, spec: ClusterSpec) -> np.ndarray:
        """Load of each device, shape (layers, devices): each replica of an expert carries an equal share."""
        return self.slot_load(load, spec).reshape(spec.layers, spec.devices, -1).sum(axis=2)  # type: ignore[no-any-return]

    def slot_load(self, load: np.ndarray, spec: ClusterSpec) -> np.ndarray:
        """Load of each slot, shape (layers, slots)."""
        return np.take_along_axis(load / self.count(spec.experts), self.phy2log, axis=1)

    def aligned(self, prev: Plan, spec: ClusterSpec) -> Plan:
        """The same plan with devices renamed where one is to hold what another of its node holds already: then nothing moves."""
        shape = (spec.layers, spec.devices, spec.slots_per_device)
        new, old = self.phy2log.reshape(shape), np.sort(prev.phy2log.reshape(shape), axis=2)
        content = np.sort(new, axis=2)
        node = np.arange(spec.devices) // (spec.devices // spec.nodes)
        same = (content[:, :, None] == old[:, None]).all(axis=3) & (node[:, None] == node)
        in_place = same[:, np.arange(spec.devices), np.arange(spec.devices)]
        made = np.array(new)
        for layer in np.flatnonzero((same.any(axis=2) & ~in_place).any(axis=1)):
            made[layer] = new[layer, _renaming(same[layer], node)]
        return Plan(made.reshape(spec.layers, spec.slots))

    def moves(self, prev: Plan, spec: ClusterSpec) -> np.ndarray:
        """The fewest sends that turn ``prev`` into this plan, slots of a device and devices of equal content being interchangeable.

        Returns
        -------
        ndarray of int, shape (sends, 4)
            Layer, expert, sending and receiving device of each.
        """
        have, need = prev.held(spec), self.aligned(prev, spec).held(spec)
        layer, target, expert = np.nonzero(need & ~have)
        holders = have.sum(axis=1)[layer, expert]
        key = layer * spec.experts + expert
        order = np.argsort(key, kind="stable")
        turn = np.empty(len(key), dtype=np.int64)  # receivers of an expert take turns among those that hold it
        turn[order] = np.arange(len(key)) - np.searchsorted(key[order], key[order])
        senders = np.argsort(~have, axis=1, kind="stable")  # (layer, rank, expert): devices that hold the expert first
        return np.column_stack([layer, expert, senders[layer, turn % np.maximum(holders, 1), expert], target])

    def held(self, spec: ClusterSpec) -> np.ndarray:
        """Whether a device holds an expert, shape (layers, devices, experts)."""
        held = np.zeros((spec.layers, spec.devices, spec.experts), dtype=bool)
        device = np.arange(spec.slots) // spec.slots_per_device
        held[np.arange(spec.layers)[:, None], device, self.phy2log] = True
        return held


def _renaming(same: np.ndarray, node: np.ndarray) -> np.ndarray:
    """Which new device's content each device gets; ``same[new, old]`` says where nothing would move."""
    devices = len(same)
    of = np.full(devices, -1)
    used = np.zeros(devices, dtype=bool)
    for old in np.flatnonzero(same.diagonal()):  # what is in place stays
        of[old], used[old] = old, True
    for new in range(devices):
        free = np.flatnonzero(same[new] & (of < 0))
        if not used[new] and len(free):
            of[free[0]], used[new] = new, True
    for old in np.flatnonzero(of < 0):  # the rest keep their names, or take a free one of their node
        mine = old if not used[old] else next(new for new in range(devices) if not used[new] and node[new] == node[old])
        of[old], used[mine] = mine, True
    return of


class BalancePolicy(Protocol):
    """Decides how often each expert is replicated and where the replicas lie."""

    def reset(self, spec: ClusterSpec, rng: np.random.Generator) -> None:
        """Forget everything and learn the static facts of the next trial."""

    def plan(self, load: np.ndarray, prev: Plan | None) -> Plan:
        """Return the plan to serve the next window with.

        Parameters
        ----------
        load : ndarray of float, shape (layers, experts)
            Tokens predicted for each expert, from the windows that are over.
        prev : Plan or None
            The plan in place; None before the first.
        """
