"""Exercises of chapter 03: NT-Xent in two steps, three wrong losses, pairs as neighbours, the gradient, false negatives."""
import torch
import torch.nn.functional as F
from torch import Tensor

from minivit.course.exercises import Exercise


def _row(z: Tensor, i: int, j: int, temperature: float, *, itself: bool = False, positive: bool = True, unit: bool = True) -> float:
    """The loss of anchor i with positive j; the flags are mistakes."""
    z = F.normalize(z, dim=1) if unit else z
    logits = z @ z[i] / temperature
    kept = [n for n in range(len(z)) if (itself or n != i) and (positive or n != j)]
    return float(logits[kept].logsumexp(0) - logits[j])


def _matrix(
    z1: Tensor, z2: Tensor, temperature: float, *, itself: float = -torch.inf, partner: Tensor | None = None, reduction: str = "mean", dim: int = 1
) -> Tensor:
    """NT-Xent; what is not the default is a mistake."""
    z = F.normalize(torch.cat([z1, z2]), dim=dim)
    logits = (z @ z.T / temperature).fill_diagonal_(itself)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z1)) if partner is None else partner, reduction=reduction)


def _decoupled(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z, partner = F.normalize(torch.cat([z1, z2]), dim=1), torch.arange(2 * len(z1)).roll(len(z1))[:, None]
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return (logits.scatter(1, partner, -torch.inf).logsumexp(1) - logits.gather(1, partner)[:, 0]).mean()


def _one_side(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits[: len(z1)], torch.arange(len(z1)) + len(z1))


def _not_normalised(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z = torch.cat([z1, z2])
    return F.cross_entropy((z @ z.T / temperature).fill_diagonal_(-torch.inf), torch.arange(len(z)).roll(len(z1)))


def mystery(number: int):
    """Loss number 1, 2 or 3 of exercise 2: ``loss(z1, z2, temperature)``, wrong in one way each."""
    wrong = (_one_side, lambda z1, z2, t: _matrix(z1, z2, 1 / t), lambda z1, z2, t: _matrix(z1, z2, t, dim=0))
    return wrong[number - 1]


def _partners(count: int) -> Tensor:
    return torch.arange(2 * count) ^ 1


def _gradient(cosines: Tensor, positive: int, temperature: float) -> Tensor:
    share = (cosines / temperature).softmax(0)
    share[positive] -= 1
    return share / temperature


def _without_positive(cosines: Tensor, positive: int, temperature: float) -> Tensor:
    logits = cosines / temperature
    share = logits.index_fill(0, torch.tensor(positive), -torch.inf).softmax(0)
    share[positive] = -1
    return share / temperature


def _false_negatives(sizes: list[int], batch: int) -> float:
    """Two views each of the other B − 1 images, times the chance that one of them is of the anchor's class."""
    images = sum(sizes)
    return 2 * (batch - 1) * sum(n * (n - 1) for n in sizes) / (images * (images - 1))


def _vectors(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


_cosines = torch.tensor([0.1, 0.8, -0.3, 0.6, 0.5], dtype=torch.float64)

EXERCISES_03 = {
    "03.1a": Exercise(
        cases=((_vectors(0, 6, 5), 1, 4, 0.5), (_vectors(1, 10, 3), 7, 2, 0.2)),
        reference=_row,
        mistakes=(
            (lambda *a: _row(*a, itself=True), "the anchor itself is still in the denominator."),
            (lambda *a: _row(*a, positive=False), "the positive belongs into the denominator, too: it has 2B − 1 terms."),
            (lambda *a: _row(*a, unit=False), "s is the cosine: bring the vectors to length 1 first."),
            (lambda z, i, j, t: _row(z, i, j, 1 / t), "you multiplied by τ; divide by it."),
            (lambda *a: -_row(*a), "the sign is turned round: the loss is minus a logarithm."),
        ),
        hints=(
            "All cosines of the anchor at once: `unit @ unit[i]`, of shape (2B,).",
            "`logits[i] = -torch.inf` takes the anchor out; `logits.logsumexp(0)` is the logarithm of the denominator.",
        ),
    ),
    "03.1b": Exercise(
        cases=((_vectors(2, 5, 7), _vectors(3, 5, 7), 0.5), (_vectors(4, 3, 4), _vectors(5, 3, 4), 0.1)),
        reference=_matrix,
        mistakes=(
            (lambda z1, z2, t: _matrix(z1, z2, t, itself=1 / t), "the self-pair is still in the denominator."),
            (lambda z1, z2, t: _matrix(z1, z2, t, itself=0.0), "you masked with 0, and e⁰ = 1 stays in the denominator; use −∞."),
            (_decoupled, "the positive is missing in the denominator; that is another method's loss."),
            (lambda z1, z2, t: _matrix(z1, z2, t, partner=_partners(len(z1))), "you paired neighbouring rows; the partner of row i is row i + B."),
            (lambda z1, z2, t: _matrix(z1, z2, t, reduction="sum"), "that is the sum over the anchors; take the mean."),
            (lambda z1, z2, t: 2 * _matrix(z1, z2, t), "that is twice the loss: the official code's convention, not the paper's."),
            (_one_side, "only the first views are anchors; there are 2B of them."),
            (_not_normalised, "s is the cosine: bring the vectors to length 1 first."),
            (lambda z1, z2, t: _matrix(z1, z2, 1 / t), "you multiplied by τ; divide by it."),
            (lambda z1, z2, t: _matrix(z1, z2, t, dim=0), "you normalised over the batch; each vector has to have length 1."),
        ),
        hints=(
            "Put both views into one tensor (2B, D_z); all logits are one matrix product.",
            "Set the diagonal to −∞; `F.cross_entropy(logits, target)` does the rest. The target of row i is the row of its partner.",
        ),
    ),
    "03.2": Exercise(
        cases=((),),
        reference=lambda: (7, 6, 8),
        mistakes=(
            (lambda: (6, 7, 8), "1 and 2 are exchanged: which of them changes when the two views are swapped?"),
            (lambda: (7, 8, 6), "2 and 3 are exchanged: which of them is right at τ = 1?"),
            (lambda: (8, 6, 7), "1 and 3 are exchanged: which of them changes when the two views are swapped?"),
        ),
        hints=(
            "Try the museum's checks first, with `notices`.",
            "Swap the views; try τ = 1; multiply each vector by a number of its own. What must not change?",
        ),
    ),
    "03.3": Exercise(
        cases=((2,), (5,), (8,)),
        reference=_partners,
        mistakes=(
            (lambda count: torch.arange(2 * count).roll(count), "those are the partners of the layout (i, i + B)."),
            (lambda count: torch.arange(2 * count).roll(-1), "row 1 got row 2; but 0 and 1 are partners of each other, then 2 and 3."),
            (lambda count: torch.arange(2 * count).roll(1), "row 0 got the last row; but 0 and 1 are partners of each other, then 2 and 3."),
            (lambda count: torch.arange(count) ^ 1, "there are 2B rows, not B."),
            (lambda count: _partners(count) + 1, "the paper counts from 1, tensors from 0."),
        ),
        hints=("For B = 2 the answer is 1, 0, 3, 2.", "Even rows go one up, odd rows one down."),
    ),
    "03.4": Exercise(
        cases=((_cosines, 1, 0.2), (_cosines, 4, 0.5), (_vectors(6, 9).tanh(), 0, 1.0)),
        reference=_gradient,
        mistakes=(
            (lambda c, j, t: _gradient(c, j, t) * t, "the factor 1/τ from inside the exponential is missing."),
            (lambda c, j, t: (c / t).softmax(0) / t, "the positive's own entry is missing −1/τ: it also stands in the numerator."),
            (_without_positive, "the positive stands in the denominator; your shares sum to 1 without it."),
            (lambda c, j, t: -_gradient(c, j, t), "the sign is turned round: a negative that comes closer makes the loss larger."),
            (lambda c, j, t: _gradient(c, j, t).abs(), "the positive's entry is below zero: the loss falls when it comes closer."),
        ),
        hints=(
            "ℓ = −s_j/τ + ln Σ exp(s_n/τ). Differentiate the two terms one by one.",
            "The derivative of ln Σ exp(u_n) with respect to u_k is the softmax share of k; and u = s/τ.",
        ),
    ),
    "03.5": Exercise(
        cases=(([400] * 10, 160), ([3, 5, 2], 4), ([5000] * 10, 512)),
        reference=_false_negatives,
        mistakes=(
            (lambda sizes, batch: _false_negatives(sizes, batch) / 2, "each of the other images has two views in the batch."),
            (
                lambda sizes, batch: 2 * batch * sum(n * n for n in sizes) / sum(sizes) ** 2,
                "you counted the anchor's own image and its positive, too.",
            ),
            (
                lambda sizes, batch: 2 * (batch - 1) * sum(n * n for n in sizes) / sum(sizes) ** 2,
                "an image is in a batch once: with one of the class taken, n − 1 of the other images are left.",
            ),
            (lambda sizes, batch: 2 * batch * _false_negatives(sizes, batch), "that is for all 2B anchors together; give it for one."),
        ),
        hints=(
            "How many *other* images are there, and how many views has each?",
            "Two different images are of one class with probability Σ n(n − 1) / (N(N − 1)).",
        ),
    ),
}  # fmt: skip
