"""Judging a backbone by training on it: the papers' linear evaluation, and fine-tuning in its plain form."""
import copy
from functools import partial
from typing import Any

import torch
from torch import nn

from minivit.augment import Recipe
from minivit.datasets import ImageData
from minivit.engine import fit
from minivit.evaluate import evaluating, extract_features
from minivit.methods.supervised import LinearProbe, Supervised
from minivit.optim import scale_lr

NESTEROV = partial(torch.optim.SGD, momentum=0.9, nesterov=True)


def sgd_probe(
    backbone: nn.Module,
    train: ImageData,
    test: ImageData,
    *,
    recipe: Recipe,
    epochs: float = 100,
    batch_size: int = 512,
    base_lr: float = 0.1,
    **options: Any,
) -> float:
    """Accuracy, in [0, 1], of the papers' linear evaluation: a classifier trained by SGD on augmented images, the backbone frozen.

    The classifier starts at zero; Nesterov momentum 0.9, lr = base_lr · B/256, cosine to zero, no warm-up, no decay. The backbone is in eval
    mode throughout, and a copy of yours is used. ``recipe`` should be crop and flip, without colour distortion; ``options`` go to `fit`.
    Source: Chen et al. 2020, appendix B.6; the official CIFAR-10 command has these defaults.
    """
    method = LinearProbe(copy.deepcopy(backbone), num_classes=len(train.classes), recipe=recipe)
    return _train(method, train, test, epochs=epochs, batch_size=batch_size, base_lr=base_lr, **options)


def fine_tune(
    backbone: nn.Module,
    train: ImageData,
    test: ImageData,
    *,
    recipe: Recipe,
    epochs: float = 30,
    batch_size: int = 512,
    base_lr: float = 0.05,
    **options: Any,
) -> float:
    """Accuracy, in [0, 1], after training backbone and a new classifier together: fine-tuning in its plain form.

    The classifier starts at zero; Nesterov momentum 0.9, lr = base_lr · B/256, cosine to zero, no warm-up, no decay, crop and flip in ``recipe``.
    A copy of the backbone is trained, a frozen patch projection as well; yours stays as it is. Fewer images than ``batch_size`` make one
    smaller batch.
    Source: Chen et al. 2020, appendix B.5 (60 epochs for 1 % of the labels, 30 for 10 %).
    """
    method = Supervised(copy.deepcopy(backbone).requires_grad_(), num_classes=len(train.classes), recipe=recipe)
    return _train(method, train, test, epochs=epochs, batch_size=batch_size, base_lr=base_lr, **options)


def _train(method: Supervised, train: ImageData, test: ImageData, *, epochs: float, batch_size: int, base_lr: float, **options: Any) -> float:
    batch_size = min(batch_size, len(train))
    options = {"optimizer": NESTEROV, "weight_decay": 0.0, **options}
    fit(method, train, epochs=epochs, batch_size=batch_size, lr=scale_lr(base_lr, batch_size), **options)
    return classifier_accuracy(method, test)


def classifier_accuracy(method: Supervised, test: ImageData) -> float:
    """Share of test images, in [0, 1], that the method's own classifier names rightly."""
    with evaluating(method):
        device = next(method.parameters()).device
        logits, labels = extract_features(lambda x: method.classifier(method.backbone(x)), test, transform=method.recipe.eval, device=device)
    return (logits.argmax(1) == labels).float().mean().item()
