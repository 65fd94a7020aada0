"""Training with labels: the yardstick beside every method that does without."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit import augment
from minivit.augment import Batch, Recipe
from minivit.methods.base import Method, param_groups


class Supervised(Method):
    """Backbone → h (B, D) → Linear → cross-entropy with the labels.

    The classifier is the method's, so that ``backbone`` gives features here as everywhere. ``label_smoothing`` as in
    Szegedy et al. 2016. By default the recipe is crop and flip at the backbone's image size.
    """

    def __init__(
        self, backbone: nn.Module, *, num_classes: int, label_smoothing: float = 0.0, recipe: Recipe | None = None
    ):
        if recipe is None:
            recipe = Recipe((augment.supervised(backbone.image_size),), eval=augment.evaluation(backbone.image_size))
        super().__init__(backbone, recipe)
        self.classifier = nn.Linear(backbone.dim, num_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.label_smoothing, self.num_classes = label_smoothing, num_classes

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.classifier(self.features(batch.views[0])).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return loss, {"accuracy": (logits.detach().argmax(1) == batch.labels).float().mean()}

    def features(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def landmarks(self, batch_size: int) -> dict[str, float]:
        return {"chance": math.log(self.num_classes)}


class LinearProbe(Supervised):
    """Only the classifier learns. The backbone gets no gradient and stays in eval mode: its BatchNorm uses and keeps its running statistics.

    Source: the linear evaluation of Chen et al. 2020, appendix B.6, and official code.
    """

    def train(self, mode: bool = True) -> "LinearProbe":
        super().train(mode)
        self.backbone.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.backbone(x)

    def param_groups(self, weight_decay: float) -> list[dict]:
        return param_groups(self.classifier, weight_decay)
