"""Our weighted kNN vote against scikit-learn's with the same weights, brute force on both sides: ``python -m bench.knn``."""
import numpy as np
import torch
from torch import Tensor

from bench.pairs import OURS, Row, agree, compare, installed, show
from minivit.evaluate import knn_predict

PEER, CLASSES, TEMPERATURE = "scikit-learn, brute, cosine", 10, 0.1


def features(count: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Float32 features of ten classes that overlap: some answers are wrong, few are close calls."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return centres[labels] + 3 * torch.randn(count, dim, generator=generator), labels


def scikit_learn(train_x: Tensor, train_y: Tensor, test_x: Tensor, *, k: int) -> np.ndarray:
    """Distances are 1 − s for the cosine s, so these weights are our exp((s − 1) / temperature)."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / TEMPERATURE))
    return model.fit(train_x.numpy(), train_y.numpy()).predict(test_x.numpy())


def main(*, train: int = 10_000, test: int = 2_000, dim: int = 128, k: int = 20, rounds: int = 9) -> list[Row]:
    (x, y), (tx, _) = features(train, dim, seed=0), features(test, dim, seed=1)
    sides = {OURS: lambda: knn_predict(x, y, tx, k=k, temperature=TEMPERATURE)}
    if installed("sklearn"):
        sides[PEER] = lambda: scikit_learn(x, y, tx, k=k)
        agree("share of other answers", (sides[OURS]().numpy() != sides[PEER]()).mean().item(), 0.0)
    absent = () if PEER in sides else (PEER,)
    return compare(f"kNN, {train:,} × {dim} train, {test:,} test, k {k}", sides, rounds=rounds, absent=absent)


if __name__ == "__main__":
    show(main())
