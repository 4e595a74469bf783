"""The linear branch: the correction that stands for marginal blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.model import BlockIndex, scale_of
from cloudchamber.core.errors import InputError

from .features import Phi, feature_map
from .linear import Cut, NotFinite, Plan, linear_attention
from .sums import additions

Region = Literal["marginal", "complement", "all"]
REGIONS = ("marginal", "complement", "all")


class LinearBranch(torch.nn.Module):
    """Linear attention over what is not read in full, projected and added: O = O_s + O_l W + b, with one W for all heads of a layer.

    W and b begin at zero, so that a model is at first what sparse attention makes of it, to the bit. **Before training the branch has no
    effect.** They stay in float32 whatever the model is cast to, and autocast does not reach the branch.

    Parameters
    ----------
    head_dim : int
        Of queries, keys and values.
    phi : {"softmax", "elu", "relu", "hedgehog"}, default "softmax"
        Feature map.
    region : {"marginal", "complement", "all"}, default "marginal"
        Keys that the branch sees: marginal blocks, as the paper has it; all that are not critical; or every key, which takes one sum
        for all queries and counts the critical ones twice.
    combine : {"sum", "ratio"}, default "sum"
        "ratio" is a O_s + (1 - a) O_l without projection, where a estimates the share of attention that is critical: a sigmoid of a learned
        line through log(critical / rest) of the pooled scores, 1 where the branch is left nothing. It is not sparse attention at first.

    References
    ----------
    SLA: Beyond Sparsity in Diffusion Transformers via Fine-Tunable Sparse-Linear Attention; SLA2 for "ratio".
    """

    def __init__(
        self, head_dim: int, *, phi: Phi = "softmax", region: Region = "marginal", combine: Literal["sum", "ratio"] = "sum"
    ) -> None:
        super().__init__()
        if head_dim < 1 or region not in REGIONS or combine not in ("sum", "ratio"):
            raise InputError(
                f"head_dim must be at least 1, region one of {', '.join(REGIONS)}, and combine 'sum' or 'ratio'; "
                f"got {head_dim}, {region!r} and {combine!r}."
            )
        self.head_dim, self.phi, self.region, self.combine = head_dim, phi, region, combine
        self.layer: float | None = None
        self.features = feature_map(phi, head_dim)
        self.projection = torch.nn.Linear(head_dim, head_dim) if combine == "sum" else None
        self.gate = torch.nn.Parameter(torch.tensor([1.0, 0.0])) if combine == "ratio" else None  # slope and offset
        if self.projection is not None:
            torch.nn.init.zeros_(self.projection.weight)
            torch.nn.init.zeros_(self.projection.bias)

    @property
    def is_untrained(self) -> bool:
        """Whether it has no effect."""
        return self.projection is not None and not any(bool(each.any()) for each in self.projection.parameters())

    def forward(self, fine: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, x: Tensor | None = None) -> Tensor:
        """Return the kernel's output with the branch's.

        Raises
        ------
        InputError
            If the head dimension is another.
        NotFinite
            If the sum of weights overflows.
        """
        if not q.shape[3] == k.shape[3] == v.shape[3] == self.head_dim:
            raise InputError(f"this branch has head_dim = {self.head_dim}; q, k and v have {q.shape[3]}, {k.shape[3]} and {v.shape[3]}.")
        with torch.autocast(q.device.type, enabled=False):  # sums of half precision would be none
            return self._combined(fine, q, k, v, index)

    def _combined(self, fine: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, index: BlockIndex) -> Tensor:
        kind, group = torch.promote_types(q.dtype, torch.float32), q.shape[1] // k.shape[1]
        q, k, v = (each.to(kind).flatten(0, 1) for each in (q, k, v))
        plan = self._plan(index, len(q), q.shape[1], k.shape[1], group)
        out = self._attended(q, k, v, plan, fine[0].shape[1]).view(fine[0].shape)
        if self.projection is not None:
            added: Tensor = self.projection(out)
            return fine[0] + added.to(fine[0].dtype)
        share = self._critical_share(q, k, index, group).view(*fine[0].shape[:3], 1)
        return (share * fine[0] + (1 - share) * out).to(fine[0].dtype)

    def flops(self, index: BlockIndex, q: Tensor, v: Tensor) -> float:
        """Feature sums of the keys, products with the queries, additions of blocks, and the projection."""
        wide = self.head_dim * (2 if self.phi == "hedgehog" else 1)
        heads, group = q.shape[0] * q.shape[1], q.shape[1] // v.shape[1]
        tokens = heads * q.shape[2] + heads // group * v.shape[2]
        found = 2.0 * tokens * wide * (self.head_dim + 1)
        if self.region != "all":
            found += additions(_marginal_counts(index, self.region), index.k_blocks) * wide * (self.head_dim + 1) * heads / index.heads
        if self.phi == "hedgehog":
            found += 2.0 * tokens * self.head_dim**2
        if self.projection is not None:
            return found + 2.0 * heads * q.shape[2] * self.head_dim**2
        return found + 2.0 * heads * index.q_blocks * index.k_blocks * self.head_dim

    def extra_repr(self) -> str:
        """What torch does not print by itself."""
        return f"head_dim={self.head_dim}, phi={self.phi!r}, region={self.region!r}, combine={self.combine!r}"

    def _plan(self, index: BlockIndex, heads: int, queries: int, keys: int, group: int) -> Plan:
        if self.region == "all":
            return Plan.of_all(queries, keys, group)
        shape = (index.heads, index.q_blocks, index.k_blocks)
        marginal = np.broadcast_to(~self._taken(index).reshape(shape), (heads, *shape[1:]))
        k_sizes = index.k_sizes[::group] if len(index.k_sizes) > 1 else index.k_sizes
        return Plan(Cut(index.q_sizes), Cut(k_sizes), marginal, group)

    def _taken(self, index: BlockIndex) -> np.ndarray:
        """Blocks that are critical, and negligible ones where these are not for the branch: (rows, key blocks)."""
        taken = index.rows.mask(index.k_blocks)
        if self.region == "marginal" and index.negligible is not None:
            taken |= index.negligible.mask(index.k_blocks)
        return taken

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, heads: int) -> Tensor:
        try:
            return linear_attention(self.features(q), self.features(k), v, plan)
        except NotFinite as error:
            where = "a layer" if self.layer is None else f"the layer at {self.layer:.0%} of the depth"
            raise NotFinite(
                f"the sum of weights of head {error.head % heads} of sequence {error.head // heads}, in {where}, is not finite: "
                f"phi={self.phi!r} of such queries or keys overflows; scale them, or use phi='softmax'.",
                error.head,
            ) from None

    def _critical_share(self, q: Tensor, k: Tensor, index: BlockIndex, group: int) -> Tensor:
        """The gate for each query, (heads, queries)."""
        assert self.gate is not None
        q_cut, k_cut = Cut(index.q_sizes), Cut(index.k_sizes)
        mean_q, mean_k = (_means(cut, x) for cut, x in ((q_cut, q), (k_cut, k.repeat_interleave(group, 0))))
        size = torch.as_tensor(index.k_sizes.astype(np.float64), dtype=q.dtype, device=q.device)
        scores = (mean_q @ mean_k.transpose(1, 2) * scale_of(self.head_dim)) + size.clamp(min=1e-9).log()[:, None]
        shape, exists = (index.heads, index.q_blocks, index.k_blocks), (size > 0)[:, None]
        critical, others = (
            torch.from_numpy(each.reshape(shape)).to(q.device).expand(len(q), -1, -1) & exists
            for each in (index.rows.mask(index.k_blocks), ~self._taken(index))
        )
        is_read, is_left = critical.any(2), others.any(2)
        read = scores.masked_fill(~critical & is_read[..., None], -torch.inf).logsumexp(2)
        rest = scores.masked_fill(~others & is_left[..., None], -torch.inf).logsumexp(2)
        share = torch.sigmoid(self.gate[0] * (read - rest) + self.gate[1])
        share = share.masked_fill(~is_read, 0.0).masked_fill(~is_left, 1.0)
        return q_cut.join(share[..., None, None].expand(-1, -1, q_cut.longest, 1))[..., 0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move as any module does, but do not become half precision."""

        def moved(x: Tensor) -> Tensor:
            made = fn(x)
            return made if made.dtype not in (torch.float16, torch.bfloat16) else x.to(made.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self


def _means(cut: Cut, x: Tensor) -> Tensor:
    """Means over the tokens of each block."""
    sizes = torch.as_tensor(np.maximum(cut.sizes, 1).astype(np.float64), dtype=x.dtype, device=x.device)
    return cut.split(x).sum(2) / sizes[..., None]


def _marginal_counts(index: BlockIndex, region: str) -> np.ndarray:
    """Marginal key blocks of each row, (heads, query blocks)."""
    taken = np.diff(index.rows.indptr)
    if region == "marginal" and index.negligible is not None:
        taken = taken + np.diff(index.negligible.indptr)
    return np.asarray(index.k_blocks - taken).reshape(index.heads, index.q_blocks)
