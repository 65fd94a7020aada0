"""Judging a backbone by training on it: the papers' linear evaluation, and fine-tuning in its plain form."""
import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from minivit.augment import Recipe
from minivit.datasets import ImageData
from minivit.engine import fit
from minivit.evaluate import evaluating, extract_features
from minivit.methods.supervised import LinearProbe, Supervised
from minivit.models.swin import Swin
from minivit.optim import scale_lr
from minivit.weights import load_weights

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


def at_window(model: Swin, window: int, *, stretched: bool = False, resize: str = "bicubic") -> Swin:
    """The same weights in a Swin of another window, for images larger in proportion; yours stays as it is.

    V1's table of biases is resized, "bicubic" or "geometric" (`resize_table`). V2's biases are computed anew: an offset keeps the coordinate
    that it had in training; ``stretched`` gives every window the coordinates of its own size, as without ``pretrained_window``.
    Source: Liu et al. 2022 (Swin V2), §3.3 and table 1.
    """
    old = model.config
    if not isinstance(old.image_size, int) or not isinstance(old.window, int) or old.image_size * window % old.window:
        raise ValueError(f"window={window}: no square image is larger than {old.image_size} as that window is than {old.window}.")
    trained = None if stretched else old.pretrained_window or model.windows
    config = replace(old, image_size=old.image_size * window // old.window, window=window, pretrained_window=trained)
    larger = Swin(config, getattr(model.head, "out_features", 0)).to(next(model.parameters()))
    load_weights(larger, model.state_dict(), "minivit", resize=resize)
    return larger
