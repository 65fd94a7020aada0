"""A whole SimCLR step, from pictures in bytes to new weights, with each library's own parts: ``python -m bench.simclr_step``.

Both sides: two views, a ViT, the head with its BatchNorms, NT-Xent, backward, AdamW; sizes and starting weights are the same.
Ours: views of the whole batch, our ViT and head, our loss, and the figures that `SimCLR` logs at every step. Theirs: torchvision v2
image by image in uint8 (its quickest form on a CPU, here in one process: a data loader's workers would want the cores that
train), torchvision's ViT, PyTorch's BatchNorm, lightly's loss or, where it is not installed, the usual lines of `bench.nt_xent`.
"""
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from bench import augment, nt_xent, vit_step
from bench.pairs import OURS, Row, agree, compare, installed, show
from minivit import ADAMW, ImageData, Recipe, SimCLR
from minivit.augment import Batch, evaluation, simclr
from minivit.engine import make_batch

IMAGE = 32


class Theirs(nn.Module):
    """torchvision's ViT and the same head out of PyTorch's own layers."""

    def __init__(self, backbone: nn.Module, dim: int, loss: nt_xent.Loss):
        super().__init__()
        layers = (nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, 128, bias=False), nn.BatchNorm1d(128))
        self.backbone, self.projector, self.loss = backbone, nn.Sequential(*layers), loss
        self.projector[-1].bias.requires_grad_(False)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.loss(*self.projector(self.backbone(torch.cat([x1, x2]))).chunk(2))


def methods(dim: int, depth: int, heads: int, loss: nt_xent.Loss) -> tuple[SimCLR, Theirs]:
    """Both sides, with the same weights."""
    backbone, peer = vit_step.models(dim=dim, depth=depth, heads=heads, num_classes=0)
    view = simclr(IMAGE, strength=0.5)
    ours = SimCLR(backbone, temperature=nt_xent.TEMPERATURE, recipe=Recipe((view, view), eval=evaluation(IMAGE)))
    theirs = Theirs(peer, dim, loss)
    theirs.projector.load_state_dict(ours.projector.state_dict(), strict=False)
    return ours, theirs


def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """The loss, backward, AdamW."""
    optimizer = ADAMW([p for p in module.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def check(ours: SimCLR, theirs: Theirs, images: int) -> None:
    """Loss and gradient of the two sides on the same views."""
    x1, x2 = torch.rand(2, images, 3, IMAGE, IMAGE)
    found = []
    for module, loss in ((ours, ours(Batch((x1, x2), torch.zeros(images), torch.arange(images)), 0.0)[0]), (theirs, theirs(x1, x2))):
        last = [p for p in module.projector.parameters() if p.dim() == 2][-1]
        found.append((loss.detach(), torch.autograd.grad(loss, last)[0]))
    for name, mine, its in zip(("loss", "gradient"), *found, strict=True):
        agree(name, ((mine - its).abs().max() / mine.abs().max()).item(), 1e-4 if name == "gradient" else 1e-5)


def main(*, images: int = 64, dim: int = 192, depth: int = 4, heads: int = 3, rounds: int = 9, repeats: int = 1) -> list[Row]:
    torch.manual_seed(0)
    name = "lightly" if installed("lightly") else "usual NT-Xent"
    ours, theirs = methods(dim, depth, heads, nt_xent.lightlys() if name == "lightly" else nt_xent.by_hand())
    check(ours, theirs, images)
    pictures = torch.randint(256, (images, 3, IMAGE, IMAGE), dtype=torch.uint8)
    data, ids = ImageData(pictures, torch.zeros(images, dtype=torch.long), ("one",), "noise"), torch.arange(images)
    one = v2.Compose([augment.torchvisions(augment.Settings()), v2.ToDtype(torch.float32, scale=True)])

    def our_loss() -> Tensor:
        return ours(make_batch(data, ours.recipe, ids, seed=0, step=0, device=torch.device("cpu")), 0.0)[0]

    def their_loss() -> Tensor:
        return theirs(*(torch.stack([one(picture) for picture in pictures]) for _ in range(2)))

    sides = {OURS: stepper(ours, our_loss), f"torchvision (v2 uint8, ViT), {name}": stepper(theirs, their_loss)}
    return compare(f"SimCLR step, ViT {depth} × {dim}, 2 × {images} images", sides, rounds=rounds, repeats=repeats)


if __name__ == "__main__":
    show(main())
