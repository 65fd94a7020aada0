"""MoCo v1 and v2: a query looks up its key among a queue of older ones, made by a slowly moving encoder."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit import augment
from minivit.augment import Batch, Recipe
from minivit.layers.heads import projector as build_projector
from minivit.layers.heads import width
from minivit.layers.norm import set_batch_norm
from minivit.losses import Gather, queue_nce
from minivit.methods.base import Method, follow, momentum_copy, spread


class MoCo(Method):
    """View 1 → backbone → projector → q (B, D_z); view 2 → their momentum copies → k (B, D_z), without gradient → `queue_nce`.

    The defaults are v2's. v1: ``projector=projector("moco_v1", backbone.dim)``, ``temperature=0.07`` and `augment.moco_v1`. The queue holds the
    K = ``queue_size`` newest keys as unit vectors (K, D_z), at first random ones; keys are enqueued after the loss, so that no positive is its own
    negative. With ``symmetric`` each view is the query once: the two losses are added and both sets of keys enqueued, as in the official CIFAR demo.

    BatchNorm's statistics are those of a part of the batch, of each process and there of each of ``groups`` ("virtual GPUs"), and keys are
    shuffled over all parts before they are encoded: a query and its key in one part would share statistics, and the network would learn to
    recognise those. ``shuffle=False`` shows it.

    Raises ValueError unless K is a multiple of the keys of a step. K beyond the number of images only adds older copies.
    Source: He et al. 2020, algorithm 1 and §3.3; Chen et al. 2020 (v2); official code, whose queue is (D_z, K).
    """

    sync_batch_norm = False

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: nn.Module | None = None,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        groups: int = 1,
        shuffle: bool = True,
        recipe: Recipe | None = None,
        gather: Gather | None = None,
    ):
        if recipe is None:
            view = augment.moco_v2(backbone.image_size)
            recipe = Recipe((view, view), eval=augment.evaluation(backbone.image_size, mean=view.mean, std=view.std))
        super().__init__(backbone, recipe)
        self.projector = build_projector("moco_v2", backbone.dim) if projector is None else projector
        set_batch_norm(self, groups=groups)
        self.momentum_backbone, self.momentum_projector = momentum_copy(self.backbone), momentum_copy(self.projector)
        self.queue_size, self.momentum, self.temperature = queue_size, check_momentum(momentum), temperature
        self.symmetric, self.shuffle, self.gather = symmetric, shuffle, gather or alone
        self.fresh = torch.empty(0)  # the keys of this step, before they are enqueued
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, width(self.projector, backbone.dim)), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))  # the row that is overwritten next

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        x1, x2 = batch.views
        pairs = [(x1, x2), (x2, x1)] if self.symmetric else [(x1, x2)]
        fresh, losses, accuracies = [], [], []
        for query, key in pairs:
            q = self.projector(self.backbone(query))
            k = self.keys(key)
            losses.append(queue_nce(q, k, self.queue, temperature=self.temperature))
            accuracies.append(queue_accuracy(q, k, self.queue))
            fresh.insert(0, self.gather(k[None])[0][0])  # the keys of view 1 come first
        self.fresh = torch.cat(fresh)
        if self.queue_size % len(self.fresh):
            raise ValueError(f"queue_size={self.queue_size} is not a multiple of the {len(self.fresh)} keys that each step brings.")
        return sum(losses), {"accuracy": sum(accuracies) / len(pairs), "z_spread": spread(q)}

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        """z (B, D_z) of the momentum encoder; each image is encoded at a random place of the joined batch, and its z brought back."""
        if not self.shuffle:
            return self.momentum_projector(self.momentum_backbone(x))
        (everyone,), start = self.gather(x[None])
        order = torch.randperm(len(everyone), device="cpu").to(x.device)  # `fit` seeds all processes alike
        mine = order[start : start + len(x)]
        (shuffled,), _ = self.gather(self.momentum_projector(self.momentum_backbone(everyone[mine]))[None])
        return shuffled[order.argsort()][start : start + len(x)]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The momentum encoder follows; then the keys of this step take the place of the oldest."""
        follow(self.momentum_backbone, self.backbone, self.momentum)
        follow(self.momentum_projector, self.projector, self.momentum)
        start, end = int(self.oldest), int(self.oldest) + len(self.fresh)
        self.queue[start:end] = F.normalize(self.fresh.to(self.queue), dim=1)
        self.oldest.fill_(end % self.queue_size)

    def landmarks(self, batch_size: int) -> dict[str, float]:
        return {"chance": (1 + self.symmetric) * math.log(self.queue_size + 1)}


def alone(local: Tensor) -> tuple[Tensor, int]:
    """`minivit.distributed.gather` of a single process."""
    return local, 0


def check_momentum(momentum: float) -> float:
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must lie in [0, 1].")
    return momentum


@torch.no_grad()
def queue_accuracy(q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
    """How often a query's own key is nearer than every key of the queue: the pretext accuracy among 1 + K."""
    q, k = (F.normalize(x.float(), dim=1) for x in (q, k))
    return ((q * k).sum(1) > (q @ queue.float().T).amax(1)).float().mean()
