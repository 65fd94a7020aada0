"""Exercises of chapter 07: the corridor, crossed views, wrong heads, two poolings, a comparison at equal cost."""

import math
from statistics import mean, pstdev, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.course.exercises import Exercise
from minivit.layers.heads import mlp_head


def _corridor(batch: int, temperature: float) -> tuple[float, float]:
    start = 4 * temperature * math.log(batch)
    return start, start - 4


def _orthogonal(batch: int, temperature: float) -> float:
    return 4 * temperature * math.log1p((batch - 1) * math.exp(-1 / temperature))


def _ctr(p: Tensor, z: Tensor, temperature: float) -> Tensor:
    logits = F.normalize(p, dim=1) @ F.normalize(z, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(p)))


def _loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, temperature: float, *, scale: float = 2.0) -> Tensor:
    return scale * temperature * (_ctr(p1, z2, temperature) + _ctr(p2, z1, temperature))


def _all_keys(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Every key is a candidate, those of the query's own view, too."""
    return _loss(p1, p2, torch.cat([z1, z2]), torch.cat([z2, z1]), temperature)


HEADS = {
    1: {},  # ViT predictor as it should be
    2: {"out_norm": None},  # the ResNet predictor's layout
    3: {"out_norm": "bn"},
    4: {"bias": True},
    5: {"hidden_norm": None},
    6: {"layers": 3},
}
PATIENTS = {"A": 3, "B": 5, "C": 2}


def patient(name: str) -> nn.Sequential:
    """Predictor A, B or C of exercise 3, as after some training: 32 inputs, 48 hidden, 32 outputs; each wrong in one way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ord(name))
        head = mlp_head(32, 48, 32, **{"layers": 2, "hidden_norm": "bn", "out_norm": "bn_plain", "bias": False, **HEADS[PATIENTS[name]]})
        for layer in head:
            if getattr(layer, "weight", None) is not None and layer.weight.dim() == 1:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
    return head


def _pooled(tokens: Tensor, *, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The mean of the normalised tokens, and the mean of the tokens as they are."""
    return F.layer_norm(tokens, tokens.shape[1:], eps=eps).mean(0), tokens.mean(0)


def _compare(more: list[float], less: list[float]) -> tuple[float, float]:
    gaps = [a - b for a, b in zip(more, less, strict=True)]
    return mean(gaps), stdev(gaps) / math.sqrt(len(gaps))


def _unpaired(more: list[float], less: list[float]) -> tuple[float, float]:
    return mean(more) - mean(less), math.sqrt((stdev(more) ** 2 + stdev(less) ** 2) / len(more))


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _batch(seed: int, *shape: int) -> tuple[Tensor, ...]:
    return tuple(_normal(10 * seed + i, *shape) for i in range(4))


_scores = ([0.61, 0.58, 0.63], [0.55, 0.56, 0.60]), ([0.41, 0.44, 0.46, 0.40], [0.43, 0.47, 0.46, 0.44])

EXERCISES_07 = {
    "07.1": Exercise(
        cases=((256, 0.2), (4096, 1.0), (96, 0.1)),
        reference=_corridor,
        mistakes=(
            (lambda b, t: _corridor(2 * b - 1, t), "2B − 1 candidates are SimCLR's; here a query sees the B keys of the other view."),
            (lambda b, t: (2 * t * math.log(b), 2 * t * math.log(b) - 2), "that is one of the two terms; the loss adds both."),
            (lambda b, t: (2 * math.log(b), 2 * math.log(b) - 2 / t), "the factor 2τ is missing."),
            (lambda b, t: (4 * t * math.log(b), _orthogonal(b, t)), "orthogonal negatives are a reference, no floor: they can be further apart."),
            (
                lambda b, t: (4 * t * math.log(b), 4 * t * math.log(b) - 4 * t),
                "the 4 is not multiplied by τ: 1/τ in the loss and 2τ before it cancel.",
            ),
            (lambda b, t: _corridor(b, t)[::-1], "start first, then the floor."),
        ),
        hints=("All cosines equal: each of the B keys has the share 1/B.", "How far can the mean positive be above the mean of all cosines?"),
    ),
    "07.2": Exercise(
        cases=((*_batch(0, 6, 5), 0.2), (*_batch(1, 4, 7), 1.0)),
        reference=_loss,
        mistakes=(
            (lambda p1, p2, z1, z2, t: _loss(p1, p2, z2, z1, t), "you paired queries and keys of the same view; cross them."),
            (_all_keys, "the keys of the query's own view are in your denominator; only the other view's belong there."),
            (lambda *a: _loss(*a) / 2, "that is the mean of the two terms; they are added."),
            (lambda *a: _loss(*a, scale=1 / a[-1]), "the factor 2τ is missing."),
            (lambda p1, p2, z1, z2, t: 2 * t * _ctr(p1, z2, t), "only one of the two directions is there."),
            (lambda p1, p2, z1, z2, t: _loss(z1, z2, p1, p2, t), "exchanged: each prediction p is a query, keys z are what it looks among."),
        ),
        hints=("One term is `2 * temperature * info_nce(query, key, temperature=temperature)`.", "p1 is of view 1. Of which view are its keys?"),
    ),
    "07.3": Exercise(
        cases=((),),
        reference=lambda: tuple(PATIENTS.values()),
        mistakes=(
            (lambda: (2, 5, 3), "A and C are exchanged: whose output has weights after its last normalisation, whose has no normalisation at all?"),
            (lambda: (5, 3, 2), "A and B are exchanged: look at the hidden values before the ReLU."),
            (lambda: (3, 2, 5), "B and C are exchanged: look at the output's mean and deviation over the batch."),
        ),
        hints=("Count parameters first: 32·48 + 2·48 + 48·32 is right.", "What does a plain last BatchNorm do to the columns of the output?"),
    ),
    "07.4": Exercise(
        cases=((_normal(5, 7, 12),), (3 * _normal(6, 4, 5) + 1,)),
        reference=lambda tokens: torch.cat(_pooled(tokens)),
        mistakes=(
            (
                lambda t: torch.cat([F.layer_norm(t.mean(0), t.shape[1:], eps=1e-6), t.mean(0)]),
                "you normalised the mean; normalise each token, then average.",
            ),
            (lambda t: torch.cat([F.layer_norm(t.T, t.shape[:1], eps=1e-6).mean(1), t.mean(0)]), "LayerNorm treats each token by itself."),
            (lambda t: torch.cat(_pooled(t)[::-1]), "the two are exchanged: with the norm first, without it second."),
            (
                lambda t: torch.cat([((t - t.mean(1, keepdim=True)) / t.std(1, keepdim=True)).mean(0), t.mean(0)]),
                "LayerNorm divides by the deviation with 1/D, not 1/(D − 1).",
            ),
            (
                lambda t: torch.cat([F.normalize(t, dim=1).mean(0), t.mean(0)]),
                "LayerNorm also subtracts each token's mean, and leaves the length √D.",
            ),
        ),
        hints=("`F.layer_norm(tokens, tokens.shape[1:], eps=1e-6)` normalises each row.", "Then `.mean(0)`; join the two with `torch.cat`."),
    ),
    "07.5": Exercise(
        cases=_scores,
        reference=_compare,
        mistakes=(
            (lambda a, b: _compare(b, a), "the sign is turned round: symmetric minus asymmetric."),
            (lambda a, b: (_compare(a, b)[0], _compare(a, b)[1] * math.sqrt(len(a))), "that is the deviation; divide by √ of the number of seeds."),
            (
                lambda a, b: (_compare(a, b)[0], pstdev(x - y for x, y in zip(a, b, strict=True)) / math.sqrt(len(a))),
                "with so few seeds use n − 1 in the deviation (`stdev`).",
            ),
            (_unpaired, "runs of one seed share their data order: take the differences seed by seed first."),
        ),
        hints=("First the differences, seed by seed.", "Standard error: `stdev(differences)` / √ of their number."),
    ),
}
