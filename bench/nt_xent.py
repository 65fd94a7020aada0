"""NT-Xent, forward and backward: ours, lightly's, pytorch-metric-learning's and the usual few lines: ``python -m bench.nt_xent``.

Neither library is a dependency of ours; where one is not installed its line is left out (README.md says how to try them).
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.pairs import OURS, Row, agree, compare, installed, show
from minivit import nt_xent

Loss = Callable[[Tensor, Tensor], Tensor]
TEMPERATURE = 0.5


def ours() -> Loss:
    return lambda z1, z2: nt_xent(z1, z2, temperature=TEMPERATURE)


def by_hand() -> Loss:
    """The form most often met: all similarities, the diagonal out by a boolean mask, the positive put in front."""

    def loss(z1: Tensor, z2: Tensor) -> Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        similarity, batch = z @ z.T / TEMPERATURE, len(z1)
        itself = torch.eye(2 * batch, dtype=torch.bool)
        partner = itself.roll(batch, 1)
        positive, negative = similarity[partner].view(2 * batch, 1), similarity[~(itself | partner)].view(2 * batch, -1)
        return F.cross_entropy(torch.cat([positive, negative], 1), torch.zeros(2 * batch, dtype=torch.long))

    return loss


def lightlys() -> Loss:
    from lightly.loss.ntx_ent_loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def metric_learnings() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))


PEERS: dict[str, tuple[str, Callable[[], Loss]]] = {
    "the usual lines, masks": ("torch", by_hand),
    "lightly": ("lightly", lightlys),
}
# Keeps every negative of the batch beside every positive pair, a table that grows as B³ (at 256 half a gigabyte): compared at a quarter.
CUBIC = {"pytorch-metric-learning": ("pytorch_metric_learning", metric_learnings)}


def stepper(loss: Loss, z1: Tensor, z2: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """The loss and its gradients at leaves of their own."""
    leaves = [z.clone().requires_grad_() for z in (z1, z2)]

    def step() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        return value.detach(), *torch.autograd.grad(value, leaves)

    return step


def against(peers: dict[str, tuple[str, Callable[[], Loss]]], batch: int, dim: int, *, rounds: int, repeats: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(batch, dim, generator=generator)
    z2 = z1 + torch.randn(batch, dim, generator=generator)  # pairs that are alike: the loss is well below chance
    sides = {OURS: stepper(ours(), z1, z2)}
    present = {peer: make for peer, (name, make) in peers.items() if installed(name)}
    for peer, make in present.items():
        sides[peer] = stepper(make(), z1, z2)
        for name, mine, its in zip(("loss", "gradient", "gradient"), sides[OURS](), sides[peer](), strict=True):
            agree(f"{peer}, {name}", ((mine - its).abs().max() / mine.abs().max()).item(), 1e-5)
    absent = tuple(peer for peer in peers if peer not in present)
    return compare(f"NT-Xent forward + backward, {batch} × {dim}", sides, rounds=rounds, repeats=repeats, absent=absent)


def main(*, batch: int = 256, dim: int = 128, rounds: int = 9, repeats: int = 20) -> list[Row]:
    quarter = against(CUBIC, max(batch // 4, 2), dim, rounds=rounds, repeats=max(repeats // 4, 1))
    return against(PEERS, batch, dim, rounds=rounds, repeats=repeats) + quarter


if __name__ == "__main__":
    show(main())
