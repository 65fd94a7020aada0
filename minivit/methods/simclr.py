"""SimCLR: two views of an image attract, views of different images repel."""
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minivit import augment
from minivit.augment import Batch, Recipe
from minivit.layers.heads import projector as build_projector
from minivit.losses import Gather, nt_xent
from minivit.methods.base import Method, spread


class SimCLR(Method):
    """Backbone → h (B, D) → projector → z (B, D_z) → `nt_xent`. Evaluation reads h; z is thrown away.

    Both views go through the network in one pass of 2B images, so BatchNorm sees them together, as in the official code.
    ``projector`` is any module ``(B, D) -> (B, D_z)``; by default the paper's two-layer head. ``recipe`` is by default
    the paper's at the backbone's image size. With several processes pass ``gather`` (`minivit.distributed.gather`).
    ``loss``, a function of z1 and z2, both (B, D_z), takes the place of `nt_xent` at this temperature; one that sees only one
    side's negatives goes through `minivit.losses.both_ways`.
    Source: Chen et al. 2020, algorithm 1; losses compared: table 4.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: nn.Module | None = None,
        temperature: float = 0.5,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        recipe: Recipe | None = None,
        gather: Gather | None = None,
    ):
        if recipe is None:
            view = augment.simclr(backbone.image_size)
            recipe = Recipe((view, view), eval=augment.evaluation(backbone.image_size))
        super().__init__(backbone, recipe)
        self.projector = build_projector("simclr_v1", backbone.dim) if projector is None else projector
        self.temperature, self.chance_is_known = temperature, loss is None
        self.loss = loss or partial(nt_xent, temperature=temperature, gather=gather)

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.backbone(torch.cat(batch.views))
        z1, z2 = self.projector(h).chunk(2)
        loss = self.loss(z1, z2)
        return loss, {"accuracy": contrastive_accuracy(z1, z2), "z_spread": spread(z1)}

    def landmarks(self, batch_size: int) -> dict[str, float]:
        return {"chance": math.log(2 * batch_size - 1)} if self.chance_is_known else {}


@torch.no_grad()
def contrastive_accuracy(z1: Tensor, z2: Tensor) -> Tensor:
    """How often, among all z2, the nearest to z1 of an image is its own: SimCLR's B-way contrastive accuracy."""
    unit1, unit2 = (nn.functional.normalize(z.float(), dim=-1) for z in (z1, z2))
    return ((unit1 @ unit2.T).argmax(1) == torch.arange(len(z1), device=z1.device)).float().mean()
