"""What every method is: a backbone, a recipe of views, and a loss in ``forward``. And what several share: the momentum encoder."""
import copy

import torch
from torch import Tensor, nn

from minivit.augment import Batch, Recipe


class Method(nn.Module):
    """A training objective. `fit` calls the module itself, steps the optimizer, then calls `after_step`.

    ``backbone`` is what evaluation reads; heads are further direct children (``projector``, ``predictor``).
    ``progress`` is the share of training done, from 0 at the first step towards 1.
    """

    backbone: nn.Module
    recipe: Recipe
    sync_batch_norm = True  # where several processes train: joint statistics, or (False) each process its own

    def __init__(self, backbone: nn.Module, recipe: Recipe):
        super().__init__()
        self.backbone, self.recipe = backbone, recipe

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and figures worth logging (detached scalars)."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What follows the optimizer's step, such as a momentum encoder's."""

    def param_groups(self, weight_decay: float) -> list[dict]:
        """Parameters as the optimizer takes them."""
        return param_groups(self, weight_decay)

    def landmarks(self, batch_size: int) -> dict[str, float]:
        """Values of the loss that are known beforehand: its ``chance`` level, say."""
        return {}


def param_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices and kernels with decay; biases, norms, tokens and all about positions without. Frozen ones are left out.

    Source: the rule of the ViT, DeiT and MoCo v3 codes, but for positions and class token: MoCo v3's AdamW decays those, too.
    """
    decay, plain = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            small = parameter.dim() < 2 or "position_bias." in name or name.endswith(("cls_token", "mask_token", "positions.table"))
            (plain if small else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def momentum_copy(module: nn.Module) -> nn.Module:
    """Where a momentum encoder begins: the same weights, frozen ones and buffers included, and no gradient ever."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """One step of the moving average over parameters: ``θ_slow ← θ_slow + (1 − m)(θ_fast − θ_slow)``.

    The same as m·θ_slow + (1 − m)·θ_fast, but weights that are equal stay so to the last bit. Buffers are left alone: a momentum
    encoder is in train mode and its BatchNorm keeps running statistics of its own. Source: He et al. 2020, eq. 2.
    """
    for theirs, ours in zip(slow.parameters(), fast.parameters(), strict=True):
        theirs.lerp_(ours, 1 - momentum)


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """Mean standard deviation over the batch of unit vectors, times √D_z: near 1 when they fill the sphere, 0 when they collapse.

    Source: Chen & He 2021 (SimSiam), §4.1.
    """
    unit = torch.nn.functional.normalize(z.float(), dim=-1)
    deviations = (unit - unit.mean(0)).norm(dim=0) / (len(unit) - 1) ** 0.5  # unit.std(0) in a third of its time
    return deviations.mean() * z.shape[-1] ** 0.5
