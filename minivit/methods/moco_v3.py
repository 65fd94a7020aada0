"""MoCo v3: the momentum encoder without the queue. Keys are the other images of the batch, and the query side predicts them."""
import math

import torch
from torch import Tensor, nn

from minivit import augment
from minivit.augment import Batch, Recipe
from minivit.layers.heads import predictor as build_predictor
from minivit.layers.heads import projector as build_projector
from minivit.layers.heads import width
from minivit.losses import Gather, info_nce
from minivit.methods.base import Method, follow, momentum_copy, spread
from minivit.methods.moco import alone, check_momentum
from minivit.methods.simclr import contrastive_accuracy


class MoCoV3(Method):
    """Query side: backbone → projector → predictor → p (B, D_z). Key side: momentum copies of the first two → z (B, D_z), no gradient.

    Loss: ``2τ · (info_nce(p1, z2) + info_nce(p2, z1))``; the negatives of a query are the other B − 1 keys of the other view. Whatever τ is, it
    starts near 4τ ln B (`landmarks`: chance) and cannot fall more than 4 below that, nor below 0 (floor). ``scale`` takes the place of the 2τ.
    ``symmetric=False`` leaves out the second term, at half the cost. The two views go through the network one after the other, so each
    has BatchNorm statistics of its own. ``predictor=nn.Identity()`` does without.

    With ``ramp`` the momentum rises from ``momentum`` to 1: m = 1 − (1 − m₀)(1 + cos(π·progress)) / 2. It is applied after the optimizer's step, the
    paper's order; the official code updates before the keys are made, the same sequence with each m one step later.
    Default heads are the official ones of ViTs; ResNets take "moco_v3_resnet", τ = 1 and ``augment.moco_v3(size, min_area=0.2)``.
    The frozen patch projection is the backbone's: ``create_model(…, freeze_patch=True)``.
    Source: Chen, Xie & He 2021, algorithm 1 and §4; official code.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
        temperature: float = 0.2,
        scale: float | None = None,
        momentum: float = 0.99,
        ramp: bool = True,
        symmetric: bool = True,
        recipe: Recipe | None = None,
        gather: Gather | None = None,
    ):
        if recipe is None:
            views = augment.moco_v3(backbone.image_size)
            recipe = Recipe(views, eval=augment.evaluation(backbone.image_size, mean=views[0].mean, std=views[0].std))
        super().__init__(backbone, recipe)
        self.projector = build_projector("moco_v3_vit", backbone.dim) if projector is None else projector
        out_dim = width(self.projector, backbone.dim)
        self.predictor = build_predictor("moco_v3_vit", out_dim) if predictor is None else predictor
        self.momentum_backbone, self.momentum_projector = momentum_copy(self.backbone), momentum_copy(self.projector)
        self.temperature, self.scale = temperature, 2 * temperature if scale is None else scale
        self.momentum, self.ramp, self.symmetric, self.gather = check_momentum(momentum), ramp, symmetric, gather or alone

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        x1, x2 = batch.views
        z2 = self.keys(x2)
        z1 = self.keys(x1) if self.symmetric else None
        p1 = self.predict(x1)
        loss = self.contrast(p1, z2)
        if self.symmetric:
            loss = loss + self.contrast(self.predict(x2), z1)
        return loss, {"accuracy": contrastive_accuracy(p1, z2), "z_spread": spread(z2), "p_spread": spread(p1)}

    def predict(self, x: Tensor) -> Tensor:
        return self.predictor(self.projector(self.backbone(x)))

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        return self.momentum_projector(self.momentum_backbone(x))

    def contrast(self, p: Tensor, z: Tensor) -> Tensor:
        """Queries (B, D_z) of this process against the keys of all: only keys are gathered, and they have no gradient."""
        (everyone,), start = self.gather(z[None])
        return self.scale * info_nce(p, everyone, temperature=self.temperature, offset=start)

    def after_step(self, progress: float) -> None:
        momentum = self.momentum_at(progress)
        follow(self.momentum_backbone, self.backbone, momentum)
        follow(self.momentum_projector, self.projector, momentum)

    def momentum_at(self, progress: float) -> float:
        return 1 - (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2 if self.ramp else self.momentum

    def landmarks(self, batch_size: int) -> dict[str, float]:
        terms = (1 + self.symmetric) * self.scale
        return {"chance": terms * math.log(batch_size), "floor": max(terms * (math.log(batch_size) - 1 / self.temperature), 0.0)}
