"""Judging features without training the backbone: k nearest neighbours, a linear probe, and the baselines beside them.

Every number comes with its protocol: features of the frozen backbone in eval mode, the recipe's ``eval`` view, the last epoch.
"""
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivit.augment import View
from minivit.datasets import ImageData

TrainX, TrainY = Float[Tensor, "train dim"], Int[Tensor, "train"]
TestX, TestY = Float[Tensor, "test dim"], Int[Tensor, "test"]


@contextmanager
def evaluating(*modules: nn.Module):
    """Eval mode and no gradients inside; each module's own mode afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def extract_features(
    fn: Callable[[Tensor], Tensor], data: ImageData, *, transform: View, batch_size: int = 500, device: torch.device | None = None
) -> tuple[TrainX, TrainY]:
    """``fn`` on every image in order: features ``(N, D)`` in float32 and labels ``(N,)``.

    ``fn`` is any ``(B, 3, H, W) -> (B, D)``. A module is put into eval mode for the while; for a lambda over a method's
    parts, ``with evaluating(method):`` does that: in train mode BatchNorm would mix the images of a batch.
    Raises FloatingPointError where a feature is not finite: a network that diverged cannot be judged.
    """
    owner = fn if isinstance(fn, nn.Module) else getattr(fn, "__self__", None)
    modules = [owner] if isinstance(owner, nn.Module) else []
    if device is None:
        device = next((p.device for module in modules for p in module.parameters()), data.labels.device)
    out = []
    with evaluating(*modules):
        for ids in torch.arange(len(data)).split(batch_size):
            images = data.images[ids.to(data.images.device)].to(device).float() / 255
            out.append(fn(transform(images)).float())
    features = torch.cat(out)
    if not features.isfinite().all():
        raise FloatingPointError("features are not finite: the network has diverged.")
    return features, data.labels.to(device)


def raw_pixels(x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch pixels"]:
    """The image itself as a feature vector: the baseline that needs no network."""
    return x.flatten(1)


def knn_predict(train_x: TrainX, train_y: TrainY, test_x: TestX, *, k: int = 20, temperature: float = 0.1) -> TestY:
    """Weighted vote of the k most similar training images: cosine s, weight exp(s / temperature). ``(N_test,)`` classes.

    Source: Wu et al. 2018, §3.4 (there k = 200, temperature 0.07).
    """
    if not 1 <= k <= len(train_x):
        raise ValueError(f"k={k}: from 1 to the {len(train_x)} training images.")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive.")
    bank, classes = F.normalize(train_x, dim=1), int(train_y.max()) + 1
    out = []
    for chunk in F.normalize(test_x, dim=1).split(1000):
        similarity, nearest = (chunk @ bank.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(chunk), classes)
        votes.scatter_add_(1, train_y[nearest], ((similarity - 1) / temperature).exp())
        out.append(votes.argmax(1))
    return torch.cat(out)


def knn_accuracy(
    train_x: TrainX, train_y: TrainY, test_x: TestX, test_y: TestY, *, k: int = 20, temperature: float = 0.1
) -> float:
    """Share of test images, in [0, 1], that `knn_predict` names rightly."""
    predicted = knn_predict(train_x, train_y, test_x, k=k, temperature=temperature)
    return (predicted == test_y).float().mean().item()


def linear_probe(train_x: TrainX, train_y: TrainY, test_x: TestX, test_y: TestY, *, l2: float = 1e-3) -> float:
    """Accuracy, in [0, 1], of multinomial logistic regression on stored features.

    Features are standardised by the training set's mean and deviation; minimises mean cross-entropy + l2/2 · ‖W‖²
    with L-BFGS from zero until it is flat, in float64, so the answer has no seed and no learning rate. The bias is not decayed.
    No augmentation: the papers' SGD protocol, which augments, scores a little higher.
    """
    mean, std = train_x.double().mean(0), train_x.double().std(0).clamp(min=1e-6)
    x, test = ((part.double() - mean) / std for part in (train_x, test_x))
    classes = int(train_y.max()) + 1
    weight = x.new_zeros(x.shape[1], classes, requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, train_y) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return ((test @ weight + bias).argmax(1) == test_y).float().mean().item()


def judge(
    fn: Callable[[Tensor], Tensor], train: ImageData, test: ImageData, *, transform: View, device: torch.device | None = None
) -> tuple[dict[str, float], list[list[int]]]:
    """kNN (k 20, temperature 0.1) and linear probe (l2 1e-3) of one feature function, ``{"knn": …, "probe": …}``,
    and the kNN's confusion matrix: row = true class, column = predicted, so that the headline can be recomputed."""
    train_x, train_y = extract_features(fn, train, transform=transform, device=device)
    test_x, test_y = extract_features(fn, test, transform=transform, device=device)
    predicted, classes = knn_predict(train_x, train_y, test_x), len(train.classes)
    confusion = torch.bincount(test_y * classes + predicted, minlength=classes**2).view(classes, classes)
    knn = (predicted == test_y).float().mean().item()
    return {"knn": knn, "probe": linear_probe(train_x, train_y, test_x, test_y)}, confusion.tolist()
