"""Functional losses. Each takes raw vectors, normalises them itself and computes in float32 (float64 stays float64)."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Gather = Callable[[Tensor], tuple[Tensor, int]]


def nt_xent(
    z1: Float[Tensor, "batch out_dim"],
    z2: Float[Tensor, "batch out_dim"],
    *,
    temperature: float,
    gather: Gather | None = None,
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """SimCLR's loss, the mean over all 2B anchors: ``−s(i,j)/τ + log Σ_{k≠i} exp(s(i,k)/τ)``.

    s is the cosine; j is the other view of i's image, so an anchor has one positive and 2B−2 negatives, and the
    positive stays in the denominator. Untrained vectors that point anywhere give about ln(2B−1).

    ``gather`` joins the vectors of all processes, with gradient: it maps ``(2, B, D_z)`` to ``((2, R·B, D_z), offset)``,
    where the local images start at ``offset``. The anchors stay local, so the mean over processes is the loss of the joined batch.
    ``normalise=False`` takes dot products of the raw vectors in place of cosines, as in the paper's table 5.

    Raises ValueError unless both are (B, D_z) of one shape with B ≥ 2, and τ > 0.
    Source: Chen et al. 2020, eq. 1 and algorithm 1. The official code returns twice this value (a sum over the two views).
    """
    _check(z1, z2, temperature)
    with torch.autocast(z1.device.type, enabled=False):
        local = torch.stack([_full(z1), _full(z2)])
        local = F.normalize(local, dim=-1) if normalise else local
        everyone, offset = gather(local) if gather else (local, 0)
        anchors, keys = local.flatten(0, 1), everyone.flatten(0, 1)  # view 1 of every image, then view 2
        batch, total = z1.shape[0], everyone.shape[1]
        image = torch.arange(batch, device=z1.device) + offset
        self_pair = torch.cat([image, image + total])
        positive = torch.cat([image + total, image])
        logits = anchors @ keys.T / temperature
        logits = logits.scatter(1, self_pair[:, None], float("-inf"))
        return F.cross_entropy(logits, positive)


def info_nce(
    q: Float[Tensor, "batch out_dim"], k: Float[Tensor, "keys out_dim"], *, temperature: float, offset: int = 0
) -> Float[Tensor, ""]:
    """InfoNCE, the mean over B queries: ``−log softmax_j(q_i · k_j / τ)`` at j = offset + i, unit vectors.

    ``k`` holds the positive of query i in row ``offset + i``; every other row is a negative. No factor 2τ: MoCo v3
    multiplies by it itself. Raises ValueError where the positives would lie outside ``k``.
    Source: van den Oord et al. 2018, eq. 4, with the cosine and temperature of He et al. 2020, eq. 1.
    """
    if offset < 0 or offset + len(q) > len(k):
        raise ValueError(f"offset={offset}: the positives of {len(q)} queries must lie inside the {len(k)} rows of k.")
    _check(q, k[offset : offset + len(q)], temperature)
    with torch.autocast(q.device.type, enabled=False):
        logits = F.normalize(_full(q), dim=-1) @ F.normalize(_full(k), dim=-1).T / temperature
        return F.cross_entropy(logits, torch.arange(q.shape[0], device=q.device) + offset)


def queue_nce(
    q: Float[Tensor, "batch out_dim"],
    k: Float[Tensor, "batch out_dim"],
    queue: Float[Tensor, "queue_size out_dim"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """MoCo's loss, the mean over B queries: ``−log( exp(q_i·k_i/τ) / (exp(q_i·k_i/τ) + Σ_j exp(q_i·queue_j/τ)) )``, unit vectors.

    The positive stands in column 0 of B × (1 + K) logits; the K rows of ``queue`` are the only negatives, so k must not be in it yet.
    Vectors that point anywhere give about ln(K+1). No factor 2τ.
    Source: He et al. 2020, eq. 1 and algorithm 1.
    """
    _check(q, k, temperature)
    with torch.autocast(q.device.type, enabled=False):
        q, k, queue = (F.normalize(_full(x), dim=-1) for x in (q, k, queue))
        positive = (q * k).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, q @ queue.T], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def both_ways(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of (anchors, keys) as a loss of two views: the mean of both ways round."""
    return lambda z1, z2: (loss(z1, z2) + loss(z2, z1)) / 2


def nt_logistic(
    u: Float[Tensor, "batch out_dim"], v: Float[Tensor, "batch out_dim"], *, temperature: float, semi_hard: bool = False
) -> Float[Tensor, ""]:
    """NT-Logistic, each pair judged by itself: ``−ln σ(s(i,i)/τ) − ln σ(−s(i,j)/τ)``, the mean over anchors i and negatives j ≠ i.

    s(i,j) is the cosine of uᵢ and vⱼ. Negatives come from the other view only, as in the paper's comparison of losses. With
    ``semi_hard`` an anchor's one negative is the most similar of those less similar than its positive, or none if there is none.
    Source: Chen et al. 2020, tables 2 and 4; semi-hard mining: Schroff et al. 2015.
    """
    _check(u, v, temperature)
    with torch.autocast(u.device.type, enabled=False):
        scores = F.normalize(_full(u), dim=-1) @ F.normalize(_full(v), dim=-1).T / temperature
        weights = _share_of_negatives(scores.detach(), semi_hard)
        return (F.softplus(-scores.diagonal()) + (weights * F.softplus(scores)).sum(1)).mean()


def margin_triplet(
    u: Float[Tensor, "batch out_dim"], v: Float[Tensor, "batch out_dim"], *, margin: float, semi_hard: bool = False
) -> Float[Tensor, ""]:
    """The triplet loss: ``max(s(i,j) − s(i,i) + margin, 0)``, the mean over anchors i and negatives j ≠ i.

    s(i,j) is the cosine of uᵢ and vⱼ; negatives and ``semi_hard`` are those of `nt_logistic`. Raises ValueError for a negative margin.
    Source: Chen et al. 2020, tables 2 and 4; Schroff et al. 2015.
    """
    if margin < 0:
        raise ValueError(f"margin={margin} must not be negative.")
    _check(u, v, 1.0)
    with torch.autocast(u.device.type, enabled=False):
        similarity = F.normalize(_full(u), dim=-1) @ F.normalize(_full(v), dim=-1).T
        weights = _share_of_negatives(similarity.detach(), semi_hard)
        return (weights * F.relu(similarity - similarity.diagonal()[:, None] + margin)).sum(1).mean()


def _share_of_negatives(similarity: Tensor, semi_hard: bool) -> Tensor:
    """How much each negative counts for each anchor, ``(B, B)``: all alike, or the semi-hard one alone."""
    others = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if not semi_hard:
        return others.to(similarity.dtype) / (len(similarity) - 1)
    easier = similarity.masked_fill(similarity >= similarity.diagonal()[:, None], float("-inf"))
    chosen = F.one_hot(easier.argmax(1), len(similarity))
    return chosen * easier.isfinite()


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check(a: Tensor, b: Tensor, temperature: float) -> None:
    if a.dim() != 2 or a.shape != b.shape:
        raise ValueError(f"the two sides must be (B, D_z) and pair up row by row: got {tuple(a.shape)} and {tuple(b.shape)}.")
    if a.shape[0] < 2:
        raise ValueError("a contrastive loss needs a batch of at least 2: one image has no negatives.")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive.")
