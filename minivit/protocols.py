"""Further judgements of a trained method, which a preset's ``also`` asks for by name; each with its protocol in words."""
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from minivit.augment import Recipe, View, evaluation
from minivit.augment.geometry import HorizontalFlip, RandomResizedCrop
from minivit.datasets import SHAPES, ImageData, shapes
from minivit.engine import fit
from minivit.evaluate import evaluating, extract_features, judge, linear_probe, raw_pixels
from minivit.layers.attention import Attention
from minivit.layers.window import WindowAttention
from minivit.methods import Method, Supervised
from minivit.models.swin import Swin
from minivit.monitor import ActivationMonitor
from minivit.transfer import at_window, classifier_accuracy, fine_tune, sgd_probe

Figures = dict[str, float]
Feature = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """What is judged: the trained method, its backbone before training, and the images."""

    method: Method
    untrained: nn.Module
    train: ImageData
    test: ImageData
    seed: int

    def h(self, x: Tensor) -> Tensor:
        return self.method.backbone(x)

    def z(self, x: Tensor) -> Tensor:
        return self.method.projector(self.method.backbone(x))

    def features(self, fn: Feature, data: ImageData) -> tuple[Tensor, Tensor]:
        device = next(self.method.parameters()).device
        with evaluating(self.method, self.untrained):
            return extract_features(fn, data, transform=self.method.recipe.eval, device=device)

    def probe(self, fn: Feature, train: ImageData, test: ImageData) -> float:
        return linear_probe(*self.features(fn, train), *self.features(fn, test))

    def crop_and_flip(self) -> Recipe:
        """The recipe's first view without its colours: what linear evaluation and fine-tuning train on."""
        view, eval_view = self.method.recipe.views[0], self.method.recipe.eval
        kept = [operation for operation in view.operations if isinstance(operation, RandomResizedCrop | HorizontalFlip)]
        return Recipe((View(*kept, mean=view.mean, std=view.std),), eval=eval_view)


def projection(subject: Subject) -> Figures:
    device = next(subject.method.parameters()).device
    with evaluating(subject.method):
        scores, _ = judge(subject.z, subject.train, subject.test, transform=subject.method.recipe.eval, device=device)
    return {f"z_{name}": value for name, value in scores.items()}


def quarter_turns(subject: Subject, *, classes: Sequence[str] | None = None) -> Figures:
    train, test = (turned(data, classes or data.classes) for data in (subject.train, subject.test))
    sides = {"h": subject.h, "z": subject.z, "random": subject.untrained, "raw": raw_pixels}
    return {f"turn_{name}": subject.probe(fn, train, test) for name, fn in sides.items()}


def turned(data: ImageData, classes: Sequence[str]) -> ImageData:
    """Every image of these classes in all four positions; the label is the number of quarter turns."""
    wanted = torch.tensor([data.classes.index(name) for name in classes], device=data.labels.device)
    data = data.subset(torch.isin(data.labels, wanted).nonzero()[:, 0])
    images = torch.cat([data.images.rot90(turns, (-2, -1)) for turns in range(4)])
    labels = torch.arange(4, device=data.labels.device).repeat_interleave(len(data))
    return ImageData(images, labels, ("0°", "90°", "180°", "270°"), data.name)


def few_labels(subject: Subject, *, counts: Sequence[int]) -> Figures:
    figures = {}
    for count in counts:
        labelled = subject.train.balanced(count, seed=subject.seed)
        for prefix, fn in (("", subject.h), ("raw_", raw_pixels)):
            figures[f"{prefix}probe_{count}"] = subject.probe(fn, labelled, subject.test)
    return figures


def linear_evaluation(subject: Subject, **options: Any) -> Figures:
    accuracy = sgd_probe(subject.method.backbone, subject.train, subject.test, recipe=subject.crop_and_flip(), seed=subject.seed, **options)
    return {"sgd_probe": accuracy}


def fine_tuning(subject: Subject, *, labels: int | None = None, **options: Any) -> Figures:
    train = subject.train.balanced(labels, seed=subject.seed) if labels else subject.train
    suffix = f"_{labels}" if labels else ""
    starts = {"fine_tune": subject.method.backbone, "scratch": subject.untrained}
    options = {"recipe": subject.crop_and_flip(), "seed": subject.seed, **options}
    return {name + suffix: fine_tune(backbone, train, subject.test, **options) for name, backbone in starts.items()}


def attention_logits(subject: Subject) -> Figures:
    largest = []

    def look(module: Attention, inputs: tuple[Tensor]) -> None:
        q, k, _ = module.split_heads(inputs[0])
        largest.append((q @ k.mT / q.shape[-1] ** 0.5).abs().max())

    handles = [part.register_forward_pre_hook(look) for part in subject.method.backbone.modules() if isinstance(part, Attention)]
    try:
        subject.features(subject.h, subject.test)
    finally:
        for handle in handles:
            handle.remove()
    return {"attention_logit": float(torch.stack(largest).max())}


def larger_windows(
    subject: Subject,
    *,
    windows: Sequence[int],
    contents: Sequence[str],
    images: int = 300,
    tune: int = 0,
    tune_windows: Sequence[int] = (),
    tune_lr: float = 1e-3,
    batch_size: int = 64,
) -> Figures:
    trained = subject.method.backbone
    old, first, figures = trained.config, contents[0], {}

    def at(window: int, **options: Any) -> Supervised:
        return moved_to(subject.method, at_window(trained, window, **options))

    def size_for(window: int) -> int:
        return old.image_size * window // old.window

    def images_for(window: int, content: str, split: str, count: int) -> ImageData:
        return seen_at(subject, split, content, size_for(window), count)

    for window in windows:
        for content in contents:
            figures[f"{content}_{window}"] = classifier_accuracy(at(window), images_for(window, content, "test", images))
        if window != old.window:
            test = images_for(window, first, "test", images)
            figures[f"{first}_{window}_stay"] = classifier_accuracy(moved_to(subject.method, trained, size_for(window)), test)
            other = {"resize": "geometric"} if old.bias == "table" else {"stretched": True}
            if old.bias in ("table", "log", "linear"):
                figures[f"{first}_{window}_other"] = classifier_accuracy(at(window, **other), test)
    for window in tune_windows:
        method, at_once = at(window), max(batch_size * old.window**2 // window**2, 2)
        train = images_for(window, first, "train", tune * at_once)
        fit(method, train, steps=tune, batch_size=at_once, lr=tune_lr, weight_decay=0.0, seed=subject.seed)
        figures[f"{first}_{window}_tuned"] = classifier_accuracy(method, images_for(window, first, "test", images))
    return figures


def moved_to(method: Supervised, backbone: Swin, size: int | None = None) -> Supervised:
    """The same classifier on this backbone, and images of ``size``, the backbone's own if not given; nothing random."""
    view = method.recipe.eval
    view = evaluation(size or backbone.image_size, mean=view.mean, std=view.std)
    moved = Supervised(backbone, num_classes=method.num_classes, recipe=Recipe((view,), eval=view))
    moved.classifier.load_state_dict(method.classifier.state_dict())
    return moved.to(next(method.parameters()).device)


def seen_at(subject: Subject, split: str, content: str, size: int, count: int) -> ImageData:
    """Images for ``size``: "resized", which the view enlarges; or `shapes` of the old size in pixels, "many" or "one" in a wider view."""
    data = getattr(subject, split)
    if content == "resized":
        return data.balanced(min(count, len(data)))
    images, labels = drawn(count, {"train": 0, "test": 1}[split], size, {"many": None, "one": 1}[content])
    return ImageData(images, labels, SHAPES, "shapes").to(data.labels.device)


drawn = lru_cache(maxsize=16)(lambda count, seed, size, objects: shapes(count, seed, size=size, objects=objects))


class AttentionPeaks:
    """Of every block, in forward order: the largest weight that a query gives to one key, the mean over queries of that head where it is greatest."""

    def __init__(self, model: nn.Module):
        self.parts = [part for part in model.modules() if isinstance(part, WindowAttention)]

    def __enter__(self) -> "AttentionPeaks":
        self.largest: list[float] = []
        self.handles = [part.register_forward_pre_hook(self._look) for part in self.parts]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    @torch.no_grad()
    def _look(self, part: WindowAttention, inputs: tuple) -> None:
        self.largest.append(part.maps(*inputs).amax(dim=-1).mean(dim=(0, 2)).max().item())


def depth_profile(subject: Subject, *, images: int = 300) -> Figures:
    test = subject.test.balanced(min(images, len(subject.test)))
    figures = {}
    for prefix, backbone in (("start_", subject.untrained), ("", subject.method.backbone)):
        with ActivationMonitor(backbone) as monitor, AttentionPeaks(backbone) as peaks:
            Subject(subject.method, backbone, subject.train, test, subject.seed).features(backbone, test)
        amplitudes = list(monitor.amplitude.values())
        figures |= {f"{prefix}amplitude_{i}": amplitude for i, amplitude in enumerate(amplitudes)}
        figures[f"{prefix}growth"] = amplitudes[-1] / amplitudes[0]
        figures[f"{prefix}range"] = max(amplitudes) / min(amplitudes)
        figures[f"{prefix}peak"] = max(peaks.largest)
    return figures


@dataclass(frozen=True)
class Protocol:
    """A judgement, ``(Subject, **options) -> figures``; in one sentence how its numbers come about; and the names of its options."""

    words: str
    judge: Callable[..., Figures]
    options: tuple[str, ...] = ()


TRAINING = ("epochs", "batch_size", "base_lr")
PROTOCOLS = {
    "projection": Protocol("z_*: kNN (k 20, temperature 0.1) and linear probe (l2 1e-3) of the projection z in place of h", projection),
    "quarter_turns": Protocol(
        "turn_*: linear probe (l2 1e-3) that names an image's quarter turn, from h, z, an untrained h and raw pixels; chance 0.25",
        quarter_turns,
        ("classes",),
    ),
    "few_labels": Protocol(
        "probe_N: linear probe (l2 1e-3) on h of N labelled training images, balanced, drawn by the seed; raw_: on raw pixels",
        few_labels,
        ("counts",),
    ),
    "sgd_probe": Protocol(
        "sgd_probe: linear classifier by Nesterov SGD, lr 0.1·B/256, cosine, crop and flip, backbone frozen in eval mode",
        linear_evaluation,
        TRAINING,
    ),
    "fine_tune": Protocol(
        "fine_tune: backbone and new classifier by Nesterov SGD, lr 0.05·B/256, cosine, no decay, crop and flip; scratch: from random weights",
        fine_tuning,
        ("labels", *TRAINING),
    ),
    "larger_windows": Protocol(
        "CONTENT_W: accuracy of the trained classifier at window W, images larger in proportion: many or one object of the old size in pixels, or "
        "resized; table bicubic, other biases with the old offsets' coordinates; _other: table geometric, coordinates stretched; _stay: old window, "
        "same images; _tuned: after so many steps of AdamW, of as many pixels as in training, no decay",
        larger_windows,
        ("windows", "contents", "images", "tune", "tune_windows", "tune_lr", "batch_size"),
    ),
    "depth_profile": Protocol(
        "amplitude_I: root mean square of the main branch after block I, test images; growth: last over first; range: largest over smallest; "
        "peak: the largest weight of a query, mean over queries, in the most peaked head of all; start_: before training",
        depth_profile,
        ("images",),
    ),
    "attention_logits": Protocol("attention_logit: the largest |q·k| / √d of any head and block on the test images", attention_logits),
}
ALWAYS = "knn: k 20, cosine, weights exp(s/0.1), all training images; probe: logistic regression, l2 1e-3, standardised features, no augmentation"


def check(also: dict[str, dict[str, Any]], method: Method, train: ImageData) -> None:
    """ValueError, before any training, for a judgement that this method and these images cannot have."""
    for name, options in also.items():
        if name not in PROTOCOLS:
            raise ValueError(f"also: no judgement is called {name!r}; there are {', '.join(PROTOCOLS)}.")
        for option in set(options) - set(PROTOCOLS[name].options):
            raise ValueError(f"also: {name} has no option {option!r}; it has {', '.join(PROTOCOLS[name].options) or 'none'}.")
        for option, parameter in inspect.signature(PROTOCOLS[name].judge).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and option not in options:
                raise ValueError(f"also: {name} needs {option!r}.")
        if name in ("projection", "quarter_turns") and not hasattr(method, "projector"):
            raise ValueError(f"also: {name} judges a projection, which {type(method).__name__} does not have.")
        if name == "attention_logits" and not any(isinstance(part, Attention) for part in method.backbone.modules()):
            raise ValueError(f"also: {name} looks at attention, which this backbone does not have.")
        if name == "larger_windows":
            if not (isinstance(method, Supervised) and isinstance(method.backbone, Swin)):
                raise ValueError("also: larger_windows judges a classifier on a Swin, trained with labels.")
            for content in options["contents"]:
                if content not in ("many", "one", "resized") or (content != "resized" and train.name != "shapes"):
                    raise ValueError(f"also: larger_windows of {train.name} has no content {content!r}: 'resized', and of shapes 'many' and 'one'.")
            for window in {*options["windows"], *options.get("tune_windows", ())}:
                at_window(method.backbone, window)
        if name == "depth_profile" and not any(isinstance(part, WindowAttention) for part in method.backbone.modules()):
            raise ValueError("also: depth_profile looks at the blocks of a Swin, which this backbone is not.")
        for absent in set(options.get("classes") or ()) - set(train.classes):
            raise ValueError(f"also: {name} asks for the class {absent!r}; {train.name} has {', '.join(train.classes)}.")
        for count in [*options.get("counts", ()), *filter(None, [options.get("labels")])]:
            if not 1 <= count <= len(train):
                raise ValueError(f"also: {name} asks for {count} labelled images: from 1 to the {len(train)} of {train.name}.")


def further_figures(subject: Subject, also: dict[str, dict[str, Any]]) -> Figures:
    """What the named protocols come to, one after the other; their options are the dicts' values."""
    figures: Figures = {}
    for name, options in also.items():
        figures |= PROTOCOLS[name].judge(subject, **options)
    return figures


def in_words(also: dict[str, dict[str, Any]]) -> list[str]:
    """The protocols behind a card's figures, with the options that were given."""
    lines = [ALWAYS, "both: last epoch, backbone frozen in eval mode, the recipe's eval view"]
    for name, options in also.items():
        given = ", ".join(f"{key} {value}" for key, value in options.items())
        lines.append(PROTOCOLS[name].words + (f" ({given})" if given else ""))
    return lines
