"""The teacher's solution of homework 01, for every variant: LAYOUT and VARIANT are filled in for each student. Not for handing out."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

STUDENT = "your id"
COURSE = "minivit"
LAYOUT = "interleaved"
VARIANT = "decoupled"
NAMES = ("right", "doubled", "summed", "self pair", "no positive", "one view", "not normalised", "multiplied", "wrong pairs")


def positive_of(batch: int) -> Tensor:
    rows = torch.arange(2 * batch)
    return rows ^ 1 if LAYOUT == "interleaved" else (rows + batch) % (2 * batch)


def is_negative(batch: int) -> Tensor:
    keep = ~torch.eye(2 * batch, dtype=torch.bool)
    keep[torch.arange(2 * batch), partner(batch)] = False
    return keep


# The parts below use no graded function, so that a bug planted in one part costs that part alone.


def image_and_view(batch: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(2 * batch)
    return (rows // 2, rows % 2) if LAYOUT == "interleaved" else (rows % batch, rows // batch)


def partner(batch: int) -> Tensor:
    image, _ = image_and_view(batch)
    return ((image[:, None] == image) & ~torch.eye(2 * batch, dtype=torch.bool)).int().argmax(1)


def counted(batch: int) -> Tensor:
    """Which rows are in the denominator of which anchor, in this variant."""
    image, view = image_and_view(batch)
    positive = F.one_hot(partner(batch), 2 * batch).bool()
    negative = image[:, None] != image
    if VARIANT == "decoupled":
        return negative
    if VARIANT == "own side":
        return negative & (view[:, None] == view) | positive
    return negative | positive


def cosines(z: Tensor) -> Tensor:
    z = z / z.norm(dim=1, keepdim=True)
    return z @ z.T


def check(z: Tensor, temperature: float | Tensor) -> None:
    if z.shape[0] < 4 or z.shape[0] % 2:
        raise ValueError(f"z has {z.shape[0]} rows; two views of at least two images are needed.")
    if not bool((torch.as_tensor(temperature) > 0).all()):
        raise ValueError(f"temperature={temperature} must be positive.")


def column(temperature: float | Tensor, z: Tensor) -> Tensor:
    return torch.as_tensor(temperature, dtype=z.dtype).view(-1, 1)


def variant_loss(z: Tensor, temperature: float | Tensor) -> Tensor:
    check(z, temperature)
    keep = counted(len(z) // 2)
    logits = cosines(z) / column(temperature, z)
    positive = logits.gather(1, partner(len(z) // 2)[:, None])[:, 0]
    return (logits.masked_fill(~keep, -math.inf).logsumexp(1) - positive).mean()


def similarity_gradient(z: Tensor, temperature: float | Tensor) -> Tensor:
    logits = cosines(z) / column(temperature, z)
    target = F.one_hot(partner(len(z) // 2), len(z)).to(z.dtype)
    weights = logits.masked_fill(~counted(len(z) // 2), -math.inf).softmax(1)
    return (weights - target) / column(temperature, z)


def label_aware_loss(z: Tensor, labels: Tensor, temperature: float, weight: float) -> Tensor:
    batch = len(z) // 2
    logits = cosines(z) / temperature
    label = labels[image_and_view(batch)[0]]
    negative = F.one_hot(partner(batch), 2 * batch) + torch.eye(2 * batch) == 0
    same = (label[:, None] == label) & negative
    logits = logits + torch.where(same, math.log(weight) if weight else -math.inf, 0.0).to(z.dtype)
    logits = logits.masked_fill(torch.eye(2 * batch) > 0, -math.inf)
    positive = logits.gather(1, partner(batch)[:, None])[:, 0]
    return (logits.logsumexp(1) - positive).mean()


def diagnose(batch: int, temperature: float, collapsed: float, spread: float, longer: float) -> str:
    def near(a: float, b: float) -> bool:
        return abs(a - b) < 1e-5 * max(1.0, abs(b))

    chance = math.log(2 * batch - 1)
    for name, value in (
        ("doubled", 2 * chance),
        ("summed", 2 * batch * chance),
        ("self pair", math.log(2 * batch)),
        ("no positive", math.log(2 * batch - 2)),
        ("one view", math.log(batch)),
    ):
        if near(collapsed, value):
            return name
    if not near(spread, longer):
        return "not normalised"
    others = 2 * batch - 2
    if near(spread, math.log(1 + others * math.exp(-temperature))):
        return "multiplied"
    if near(spread, math.log(math.exp(1 / temperature) + others)):
        return "wrong pairs"
    return "right"
