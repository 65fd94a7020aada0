"""A MoCo v3 step against the passes it cannot do without: ``python -m bench.moco_v3_step``.

Ours: from two views to new weights: loss, logged figures, backward, AdamW, momentum encoder. The peer: two times forward and backward
through backbone, projector and predictor, and two times forward through backbone and projector, nothing else. A speed of 0.91 is a step
of 1.10 times its passes.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.pairs import OURS, Row, agree, compare, show
from bench.simclr_step import stepper
from minivit import MoCoV3, create_model, mlp_head
from minivit.augment import Batch

TEMPERATURE = 0.2
PEER = "2 forward and backward, 2 forward"


def build(model: str, image: int, hidden_dim: int, **sizes: int) -> MoCoV3:
    backbone = create_model(model, image_size=image, **sizes)
    projector = mlp_head(backbone.dim, hidden_dim, 256, layers=3, out_norm="bn_plain")
    predictor = mlp_head(256, hidden_dim, 256, out_norm="bn_plain")
    return MoCoV3(backbone, projector=projector, predictor=predictor, temperature=TEMPERATURE)


def predictions(method: MoCoV3, x: Tensor) -> Tensor:
    return method.predictor(method.projector(method.backbone(x)))


@torch.no_grad()
def keys(method: MoCoV3, x: Tensor) -> Tensor:
    return method.momentum_projector(method.momentum_backbone(x))


def check(method: MoCoV3, batch: Batch) -> None:
    """The passes, with the loss written out, give the method's loss."""
    x1, x2 = batch.views
    expected = 0
    for query, key in ((x1, x2), (x2, x1)):
        p, z = F.normalize(predictions(method, query)), F.normalize(keys(method, key))
        expected = expected - 2 * TEMPERATURE * (p @ z.T / TEMPERATURE).log_softmax(1).diagonal().mean()
    agree("loss", (method(batch, 0.0)[0] - expected).abs().item(), 1e-4)


def one(model: str, *, image: int, images: int, hidden_dim: int, rounds: int, repeats: int = 1, **sizes: int) -> list[Row]:
    method = build(model, image, hidden_dim, **sizes)
    x1, x2 = torch.rand(2, images, 3, image, image)
    batch = Batch((x1, x2), torch.zeros(images), torch.arange(images))
    check(method, batch)
    ours = stepper(method, lambda: method(batch, 0.0)[0])

    def step() -> None:
        ours()
        method.after_step(0.5)

    def passes() -> None:
        for x in (x1, x2):
            predictions(method, x).sum().backward()
            keys(method, x)
        method.zero_grad()

    return compare(f"MoCo v3 step, {model}, 2 × {images} images", {OURS: step, PEER: passes}, rounds=rounds, repeats=repeats)


def main(*, images: int = 128, large_images: int = 8, large_image: int = 224, hidden_dim: int = 4096, rounds: int = 9, **sizes: int) -> list[Row]:
    torch.manual_seed(0)
    rows = one("vit_pocket_conv8", image=32, images=images, hidden_dim=256, rounds=rounds, repeats=10)
    return rows + one("moco_v3_vit_small", image=large_image, images=large_images, hidden_dim=hidden_dim, rounds=rounds, **sizes)


if __name__ == "__main__":
    show(main())
