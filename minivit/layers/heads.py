"""Projection and prediction heads: one MLP, and a table of who puts which norm where."""
from dataclasses import dataclass, replace

import torch
from torch import nn

from minivit.layers.norm import BatchNorm


class ScaleOnlyBatchNorm(BatchNorm):
    """BatchNorm with a trained scale and no shift: SimCLR's last layer. The bias exists, stays zero and is never trained."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.bias.requires_grad_(False)


NORMS = {
    None: None,
    "none": None,  # the same, for files that know no None
    "bn": BatchNorm,
    "bn_scale": ScaleOnlyBatchNorm,  # scale, no shift
    "bn_plain": lambda channels: BatchNorm(channels, affine=False),  # neither
}


def mlp_head(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    *,
    layers: int = 2,
    hidden_norm: str | None = "bn",
    out_norm: str | None = None,
    bias: bool | tuple[bool, bool] = False,
) -> nn.Sequential:
    """An MLP ``(B, in_dim) -> (B, out_dim)`` of ``layers`` Linears with ReLU between them; ``layers=0`` is the identity.

    Norms are None (or "none"), "bn", "bn_scale" (scale without shift) or "bn_plain" (neither); ``bias`` is for all Linears, or
    (hidden, out). Linears keep PyTorch's initialisation, as in all the official codes but SimCLR's (normal, std 0.01).
    """
    for name, norm in (("hidden_norm", hidden_norm), ("out_norm", out_norm)):
        if norm not in NORMS:
            raise ValueError(f"{name}={norm!r}: a head knows {', '.join(map(repr, NORMS))}.")
    if layers < 0:
        raise ValueError(f"layers={layers}: a head has 0 (none), 1 (linear) or more layers.")
    hidden_bias, out_bias = bias if isinstance(bias, tuple) else (bias, bias)
    widths = [in_dim, *[hidden_dim] * (layers - 1), out_dim]
    modules: list[nn.Module] = []
    for i in range(layers):
        last = i == layers - 1
        norm = NORMS[out_norm if last else hidden_norm]
        modules.append(nn.Linear(widths[i], widths[i + 1], bias=out_bias if last else hidden_bias))
        modules.extend([norm(widths[i + 1])] if norm else [])
        modules.extend([] if last else [nn.ReLU(inplace=True)])
    return nn.Sequential(*modules)


@dataclass(frozen=True)
class Head:
    """One head of one paper. A width of None means: as wide as the input."""

    layers: int
    hidden_dim: int | None
    out_dim: int | None
    hidden_norm: str | None
    out_norm: str | None
    bias: bool | tuple[bool, bool] = False

    def build(self, in_dim: int) -> nn.Sequential:
        hidden, out = self.hidden_dim or in_dim, self.out_dim or in_dim
        return mlp_head(in_dim, hidden, out, layers=self.layers, hidden_norm=self.hidden_norm, out_norm=self.out_norm, bias=self.bias)


HEADS: dict[str, dict[str, Head]] = {
    # SimCLR, official TF code: BN after every Linear, the last one without shift.
    "simclr_v1": {"projector": Head(2, None, 128, "bn", "bn_scale")},
    "simclr_v2": {"projector": Head(3, None, 128, "bn", "bn_scale")},
    # MoCo, official code: a linear map with a bias; v2 an MLP with biases and no BN at all.
    "moco_v1": {"projector": Head(1, None, 128, None, None, bias=True)},
    "moco_v2": {"projector": Head(2, None, 128, None, None, bias=True)},
    # MoCo v3, official code. The ResNet predictor has no BN on its output although the paper's text says so.
    "moco_v3_vit": {"projector": Head(3, 4096, 256, "bn", "bn_plain"), "predictor": Head(2, 4096, None, "bn", "bn_plain")},
    "moco_v3_resnet": {"projector": Head(2, 4096, 256, "bn", "bn_plain"), "predictor": Head(2, 4096, None, "bn", None)},
    # BYOL: bias on the hidden Linear only, nothing on the output.
    "byol": {"projector": Head(2, 4096, 256, "bn", None, bias=(True, False)), "predictor": Head(2, 4096, None, "bn", None, bias=(True, False))},
    # SimSiam (ImageNet form: three layers; CIFAR uses layers=2). The predictor is a bottleneck with a bias at its end.
    "simsiam": {"projector": Head(3, None, 2048, "bn", "bn_plain"), "predictor": Head(2, 512, None, "bn", None, bias=(False, True))},
    # SwAV: the prototypes are not part of the head.
    "swav": {"projector": Head(2, 2048, 128, "bn", None, bias=True)},
}


def projector(name: str, in_dim: int, **overrides) -> nn.Sequential:
    """The projection head of a paper, ``(B, in_dim) -> (B, D_z)``: ``projector("simclr_v1", 512, out_dim=64)``."""
    return _build(name, "projector", in_dim, overrides)


def predictor(name: str, in_dim: int, **overrides) -> nn.Sequential:
    """The prediction head of a paper, ``(B, D_z) -> (B, D_z)``."""
    return _build(name, "predictor", in_dim, overrides)


@torch.no_grad()
def width(head: nn.Module, in_dim: int) -> int:
    """D_z of a head that takes ``(B, in_dim)``, found by trying it in eval mode."""
    training = head.training
    out = head.eval()(torch.zeros(1, in_dim).to(next(head.parameters(), torch.zeros(()))))
    head.train(training)
    return out.shape[1]


def _build(name: str, part: str, in_dim: int, overrides: dict) -> nn.Sequential:
    known = [paper for paper, heads in HEADS.items() if part in heads]
    if name not in known:
        raise ValueError(f"no {part} is called {name!r}; there are: {', '.join(known)}.")
    unknown = set(overrides) - set(Head.__dataclass_fields__)
    if unknown:
        raise ValueError(f"a head has no {', '.join(sorted(unknown))}; it has {', '.join(Head.__dataclass_fields__)}.")
    return replace(HEADS[name][part], **overrides).build(in_dim)
