"""Whole experiments by name. The only reader of MINIVIT_SCALE, MINIVIT_DATA and MINIVIT_LIMIT."""
import difflib
import math
import os
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minivit import augment, distributed, losses
from minivit.augment import Recipe, View
from minivit.datasets import ImageData, load_data
from minivit.engine import fit
from minivit.evaluate import judge, raw_pixels
from minivit.layers.heads import HEADS, predictor, projector, width
from minivit.layers.norm import set_batch_norm
from minivit.methods import METHODS, Method, Supervised
from minivit.models import create_model
from minivit.optim import ADAMW, LAMB, LARS, StableAdamW, warmup_constant, warmup_cosine
from minivit.protocols import Subject, check, further_figures, in_words
from minivit.runs import Run
from minivit.transfer import NESTEROV, classifier_accuracy

LOSSES = {loss.__name__: loss for loss in (losses.nt_xent, losses.info_nce, losses.nt_logistic, losses.margin_triplet)}
OPTIMIZERS = {
    "adamw": ADAMW, "sgd": NESTEROV, "sgd_plain": partial(torch.optim.SGD, momentum=0.9),
    "lars_simclr": partial(LARS, lr_in_buffer=True), "lars": LARS, "lamb": LAMB,
    "stable_adamw": StableAdamW,
}  # fmt: skip
SCHEDULES = {"cosine": warmup_cosine, "constant": warmup_constant}  # after the warm-up


def _find(table: dict[str, Any], name: Any, what: str) -> Any:
    if name not in table:
        near = difflib.get_close_matches(str(name), table, n=2)
        raise ValueError(f"no {what} is called {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(table)}."))
    return table[name]


@dataclass(frozen=True)
class Preset:
    """An experiment as data: everything that decides its result, apart from the seed."""

    method: str  # a name in minivit.methods.METHODS
    model: str  # for create_model
    data: str  # for load_data
    image_size: int
    batch_size: int  # images, not views
    lr: float  # the peak as used
    steps: int | None = None
    epochs: float | None = None
    warmup: int = 0  # steps
    schedule: str = "cosine"
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    clip: dict[str, float] = field(default_factory=dict)  # largest norm of the gradient of parts of the method: {"backbone.stem": 0.1}
    view: str = "simclr"  # a recipe in minivit.augment
    view_args: dict[str, Any] = field(default_factory=dict)
    mean: float | tuple[float, ...] = 0.5  # normalisation, of all channels or of each
    std: float | tuple[float, ...] = 0.25
    model_args: dict[str, Any] = field(default_factory=dict)
    method_args: dict[str, Any] = field(default_factory=dict)
    head: str = "simclr_v1"  # in minivit.layers.heads.HEADS: projector, and predictor where the paper has one
    head_args: dict[str, Any] = field(default_factory=dict)  # of the projector
    predictor_args: dict[str, Any] = field(default_factory=dict)  # {"layers": 0}: none
    data_size: int | None = None  # images are brought to this side once, on loading
    limit: int | None = None  # training images; a fifth of it for the test images
    labels: int | None = None  # train on so many of the training images only, balanced; the test images stay
    also: dict[str, dict[str, Any]] = field(default_factory=dict)  # further judgements: names in minivit.protocols and their options

    def __post_init__(self) -> None:
        _find(METHODS, self.method, "method")
        _find(HEADS, self.head, "head")
        _find(OPTIMIZERS, self.optimizer, "optimizer")
        _find(SCHEDULES, self.schedule, "schedule")
        if "loss" in self.method_args:
            _find(LOSSES, self.method_args["loss"].get("name"), "loss")

    def load(self) -> tuple[ImageData, ImageData]:
        """Training and test images."""
        test_limit = max(self.limit // 5, 1) if self.limit else None
        train = load_data(self.data, "train", size=self.data_size, limit=self.limit)
        return train, load_data(self.data, "test", size=self.data_size, limit=test_limit)

    def recipe(self) -> Recipe:
        given = {"mean": self.mean, "std": self.std}
        normalise = {name: (value,) * 3 if isinstance(value, float | int) else tuple(value) for name, value in given.items()}
        view = getattr(augment, self.view)(self.image_size, **self.view_args, **normalise)
        views = view if isinstance(view, tuple) else (view,) * (1 if self.method == "supervised" else 2)
        return Recipe(views, eval=augment.evaluation(self.image_size, **normalise))

    def build(self, num_classes: int, seed: int = 0) -> Method:
        """A freshly initialised method; the weights are a function of ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = create_model(self.model, image_size=self.image_size, **self.model_args)
            extra: dict[str, Any] = {"num_classes": num_classes}
            if self.method != "supervised":
                extra = {"projector": projector(self.head, backbone.dim, **self.head_args), "gather": distributed.gather}
            if "predictor" in HEADS[self.head]:
                extra["predictor"] = predictor(self.head, width(extra["projector"], backbone.dim), **self.predictor_args)
            given = dict(self.method_args)
            if "loss" in given:  # {"name": "margin_triplet", "margin": 0.4}: a function of minivit.losses and its settings
                settings = dict(given["loss"])
                given["loss"] = losses.both_ways(partial(LOSSES[settings.pop("name")], **settings))
            method = METHODS[self.method](backbone, recipe=self.recipe(), **extra, **given)
        return set_batch_norm(method, sync=method.sync_batch_norm)

    def fit(self, train: ImageData, *, seed: int = 0, method: Method | None = None, **options: Any) -> tuple[Method, Run]:
        """Build (unless given) and train; ``options`` go to `fit`."""
        method = method or self.build(len(train.classes), seed)
        settings: dict[str, Any] = {name: getattr(self, name) for name in ("steps", "epochs", "batch_size", "lr", "warmup", "weight_decay", "clip")}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in self.optimizer_args.items()}  # TOML has no tuples
        settings |= {"optimizer": partial(OPTIMIZERS[self.optimizer], **given), "schedule": SCHEDULES[self.schedule]}
        settings |= {"seed": seed, "config": self.config(train)}
        run = fit(method, self.labelled(train, seed), **settings, **options)
        return method, run

    def labelled(self, train: ImageData, seed: int) -> ImageData:
        """The training images that ``labels`` leaves; repeated where a batch is larger, each time in another view."""
        if self.labels is None:
            return train
        copies = math.ceil(self.batch_size / self.labels)
        return train.balanced(self.labels, seed=seed).subset(torch.arange(self.labels).repeat(copies))

    def total_steps(self, train: ImageData) -> int:
        """Length of the training in steps."""
        return self.steps or int(self.epochs * (len(train) // self.batch_size))

    def config(self, train: ImageData) -> dict[str, Any]:
        return {"preset": asdict(self), "data": {"name": train.name, "images": len(train), "checksum": train.checksum()}}


def final_figures(preset: Preset, method: Method, train: ImageData, test: ImageData, *, seed: int) -> tuple[dict[str, float], list[list[int]]]:
    """kNN and probe of the trained backbone, the same backbone before training and raw pixels, chance, a classifier's own
    test accuracy where there is one, and what ``preset.also`` asks for; and the trained kNN's confusion matrix."""
    options = {"transform": method.recipe.eval, "device": next(method.parameters()).device}
    untrained = preset.build(len(train.classes), seed).backbone.to(options["device"])
    trained, confusion = judge(method.backbone, train, test, **options)
    judged = {"": trained, "random_": judge(untrained, train, test, **options)[0], "raw_": judge_raw_pixels(train, test, **options)}
    figures = {prefix + name: value for prefix, scores in judged.items() for name, value in scores.items()}
    if isinstance(method, Supervised):  # its own answers, too
        figures["accuracy"] = classifier_accuracy(method, test)
    figures |= further_figures(Subject(method, untrained, train, test, seed), preset.also)
    return {"chance": 1 / len(train.classes), **{name: round(value, 4) for name, value in figures.items()}}, confusion


_judged: dict[tuple[str, ...], dict[str, float]] = {}


def judge_raw_pixels(train: ImageData, test: ImageData, *, transform: View, device: torch.device) -> dict[str, float]:
    """`judge` of the images themselves, once in a process for each data set and view: every run of a study asks for it."""
    key = (train.checksum(), test.checksum(), repr(transform))
    if key not in _judged:
        _judged[key], _ = judge(raw_pixels, train, test, transform=transform, device=device)
    return _judged[key]


def train_and_judge(preset: Preset, *, seed: int = 0, folder: str | Path | None = None, **options: Any) -> tuple[Method, Run]:
    """The whole experiment: load, train, evaluate, and write the run's card. ValueError, before any training, for a judgement that cannot work."""
    train, test = preset.load()
    method = preset.build(len(train.classes), seed)
    check(preset.also, method, train)
    method, run = preset.fit(train, seed=seed, method=method, folder=folder, **options)
    if distributed.rank() > 0:
        return method, run
    final, confusion = final_figures(preset, method, train, test, seed=seed)
    run.log(run.config["fit"]["steps"], knn_confusion=confusion)
    run.flush()
    run.write_card(seed=seed, data=run.config["data"], test_images=len(test), final=final, protocols=in_words(preset.also))
    return method, run


POCKET = Preset(
    method="simclr", model="vit_pocket_conv8", data="shapes", image_size=32, steps=1000, batch_size=160, lr=3e-3, warmup=20,
    view_args={"strength": 0.8, "min_area": 0.5}, method_args={"temperature": 0.2}, head_args={"hidden_dim": 256, "out_dim": 64},
)  # fmt: skip
LABELS = replace(POCKET, method="supervised", view="evaluation", view_args={}, steps=250, batch_size=128, method_args={}, head_args={})
STEM = replace(LABELS, view="supervised", view_args={"min_area": 0.5}, steps=90)
SWIN = replace(LABELS, model="swin_v2_pocket", model_args={"depth": (2, 2)}, steps=900, batch_size=32)
CIFAR = replace(POCKET, data="cifar10", batch_size=256, view_args={"strength": 0.5, "min_area": 0.2})
CPU = replace(CIFAR, steps=3500, batch_size=128, lr=1.5e-3, warmup=50, model_args={"dim": 96, "depth": 4, "heads": 3})
GPU = replace(
    CIFAR, model="resnet18", model_args={"stem": "cifar"}, steps=None, epochs=200, batch_size=512, lr=1e-3, warmup=970,
    view_args={"strength": 0.5}, method_args={"temperature": 0.5}, head_args={"out_dim": 128},
)  # fmt: skip
STEM_GPU = replace(STEM, data="cifar10", steps=None, epochs=100, batch_size=512, lr=1e-3, warmup=485, view_args={"min_area": 0.2})

# MoCo v3's heads and v2's at pocket size; views as for SimCLR on `shapes`, whose colours need strong ones. In a few hundred steps
# every step that the keys lag behind costs: m = 0.5 without a ramp, where the paper has 0.99.
V3 = replace(
    POCKET, method="moco_v3", head="moco_v3_vit", head_args={"hidden_dim": 256, "out_dim": 64}, predictor_args={"hidden_dim": 256},
    batch_size=128, method_args={"temperature": 0.2, "momentum": 0.5, "ramp": False},
)  # fmt: skip
# v2 gets SimCLR's head, with BatchNorm, and the symmetric loss: in so few steps its own head hardly learns (study moco_v2).
V2 = replace(
    POCKET, method="moco", batch_size=256, lr=2e-3, method_args={"queue_size": 1024, "momentum": 0.99, "temperature": 0.2, "symmetric": True},
)  # fmt: skip
IMAGENET = {"data": "folder:imagenet", "data_size": 256, "image_size": 224, "mean": augment.IMAGENET_MEAN, "std": augment.IMAGENET_STD}
V3_IMAGENET = replace(
    V3, **IMAGENET, model="moco_v3_vit_small", model_args={"freeze_patch": True}, batch_size=4096, lr=2.4e-3, steps=None, epochs=300,
    warmup=12_480, weight_decay=0.1, view="moco_v3", view_args={}, head_args={}, predictor_args={},
    method_args={"temperature": 0.2, "momentum": 0.99}, also={"sgd_probe": {"epochs": 90, "batch_size": 1024, "base_lr": 3.0}},
)  # fmt: skip
V2_IMAGENET = replace(
    V2, **IMAGENET, model="resnet50", batch_size=256, lr=0.03, steps=None, epochs=200, warmup=0, weight_decay=1e-4, optimizer="sgd_plain",
    head="moco_v2", head_args={}, view="moco_v2", view_args={}, method_args={},
    also={"sgd_probe": {"epochs": 100, "batch_size": 256, "base_lr": 30.0}},
)  # fmt: skip

LAB = replace(
    V3, model="vit_pocket_patch8", model_args={"dim": 32, "depth": 4, "positions": "sincos"}, predictor_args={"layers": 0}, steps=150,
    batch_size=128, lr=2e-2, weight_decay=0.1, schedule="constant", method_args={"temperature": 0.2, "momentum": 0.0, "ramp": False},
)  # fmt: skip
LAB_GPU = replace(
    GPU, method="moco_v3", model="vit_pocket_patch4", model_args={"dim": 256, "depth": 7, "heads": 4, "positions": "sincos"}, view="moco_v3", lr=4e-3,
    view_args={"min_area": 0.2}, head="moco_v3_vit", head_args={"hidden_dim": 2048}, predictor_args={"hidden_dim": 2048},
    weight_decay=0.1, schedule="constant", method_args={"temperature": 0.2, "momentum": 0.99, "ramp": False},
)  # fmt: skip

PRESETS = {
    "simclr/pocket": POCKET,
    # The live run of chapter 00: 250 steps fit into a minute on one thread.
    "simclr/pocket_live": replace(POCKET, steps=250),
    # Chapter 03's live run: quarter turns among the views, a projection of 16 numbers, 170 steps.
    "simclr/pocket_turns": replace(
        POCKET, steps=170, view_args={**POCKET.view_args, "quarter_turns": True}, head_args={"hidden_dim": 256, "out_dim": 16},
        also={"projection": {}, "quarter_turns": {"classes": ["triangle", "crescent"]}},
    ),
    # Chapter 02 trains two of these, one after the other.
    "simclr/pocket_short": replace(POCKET, steps=120),
    "supervised/pocket": replace(POCKET, method="supervised", view="supervised", view_args={"min_area": 0.5}, method_args={}, head_args={}),
    # The live runs of chapter 01: labels, every image as it is; pocket-c, and the net of 64 tokens whose attention has something to show.
    "supervised/pocket_live": LABELS,
    "supervised/pocket_patch4": replace(LABELS, model="vit_pocket_patch4", model_args={"positions": "sincos"}, steps=120),
    # Chapter 09: patches against early convolutions, at equal cost.
    "supervised/pocket_p": replace(STEM, model="vit_p_pocket"),
    "supervised/pocket_c": replace(STEM, model="vit_c_pocket"),
    "simclr/pocket_p": replace(POCKET, model="vit_p_pocket", steps=400),
    "simclr/pocket_c": replace(POCKET, model="vit_c_pocket", steps=400),
    # Chapter 10: windows of 4, and what becomes of them at larger ones; blocks in one line, of digits, which deep nets learn quickly.
    "supervised/pocket_swin": SWIN,
    "supervised/pocket_deep": replace(
        LABELS, data="digits", model="swin_pocket", model_args={"dim": 32, "depth": (12,), "heads": (2,)}, steps=250, batch_size=32
    ),
    # 50 classes of Tiny-ImageNet, from 64 to 96 and 128 pixels, which are resized ones: fifty minutes on two cores, and twenty for its judgements.
    "supervised/tinyimagenet_swin": replace(
        SWIN, data="folder:tinyimagenet50", image_size=64, model_args={"depth": (2, 2, 2), "heads": (3, 6, 12)}, steps=6000, batch_size=128,
        lr=2e-3, warmup=200, view="supervised", view_args={"min_area": 0.25}, mean=augment.IMAGENET_MEAN, std=augment.IMAGENET_STD,
        also={"larger_windows": {
            "windows": [4, 6, 8], "contents": ["resized"], "images": 2500, "tune": 300, "tune_windows": [4, 6, 8], "tune_lr": 3e-4, "batch_size": 128,
        }},
    ),
    "supervised/cifar10_swin": replace(STEM_GPU, model="swin_v2_pocket", model_args={"dim": 96, "depth": (2, 6), "heads": (3, 6)}),
    # About twelve minutes on two cores; the long one fifty, and its judgements ten more.
    "simclr/cifar10_cpu": CPU,
    "simclr/cifar10_cpu_long": replace(
        CPU, steps=16_000, warmup=200,
        also={"projection": {}, "few_labels": {"counts": [500, 5000]}, "fine_tune": {"labels": 500, "epochs": 60}, "sgd_probe": {"epochs": 10}},
    ),
    # One GPU: the official CIFAR-10 net and augmentation, 200 epochs; AdamW in place of LARS. The same with quarter turns for chapter 03.
    "simclr/cifar10": GPU,
    "simclr/cifar10_turns": replace(GPU, view_args={"strength": 0.5, "quarter_turns": True}, also={"projection": {}, "quarter_turns": {}}),
    "simclr/cifar10_vit": replace(
        GPU, model="vit_pocket_conv8", model_args={"patch": 4, "dim": 256, "depth": 7, "heads": 4}, method_args={"temperature": 0.2}
    ),
    "simclr/cifar10_p": replace(GPU, model="vit_p_pocket", model_args={"dim": 192, "depth": 6, "heads": 3}, method_args={"temperature": 0.2}),
    "simclr/cifar10_c": replace(
        GPU, model="vit_c_pocket", model_args={"dim": 192, "depth": 5, "heads": 3, "stem": "conv"}, method_args={"temperature": 0.2}
    ),
    # The official commands, to the letter where the library can: LARS with the peak rate as used (base 1.0 · 512/256; base 0.3 · 4096/256), [0, 1]
    # without normalisation. CIFAR-10: about 91 % by linear evaluation. ImageNet: the paper's ablation setting of 100 epochs, 64.5 %, on many GPUs.
    "simclr/cifar10_official": replace(
        GPU, model_args={"stem": "cifar", "first_shortcut": True}, optimizer="lars_simclr", lr=2.0, weight_decay=1e-4, epochs=1000,
        view_args={"strength": 0.5, "form": "tf_v2"}, mean=0.0, std=1.0, also={"sgd_probe": {"epochs": 100, "batch_size": 512}},
    ),
    "simclr/imagenet_resnet50": replace(
        GPU, model="resnet50", model_args={"first_shortcut": True}, data="folder:imagenet", data_size=256, image_size=224, batch_size=4096,
        optimizer="lars_simclr", lr=4.8, weight_decay=1e-6, epochs=100, warmup=3120, view_args={"form": "tf_v1"}, mean=0.0, std=1.0,
        method_args={"temperature": 0.1}, also={"sgd_probe": {"epochs": 90, "batch_size": 4096}},
    ),
    "moco_v2/pocket": V2,
    # Chapter 05's live runs; in the second the key encoder is a copy of the query encoder at every step. The queue is as long as seven steps'
    # keys: 1,024 would be renewed in two, and nothing could become stale.
    "moco_v2/pocket_live": replace(V2, steps=80, method_args={**V2.method_args, "queue_size": 3584}),
    "moco_v2/pocket_copy": replace(V2, steps=80, method_args={**V2.method_args, "queue_size": 3584, "momentum": 0.0}),
    "moco_v3/pocket": V3,
    "moco_v3/pocket_live": replace(V3, steps=250),
    # Chapter 08: a rate at which 64 tokens become unstable, and no schedule that would calm them.
    "moco_v3/pocket_instability": replace(
        V3, model="vit_pocket_patch4", model_args={"dim": 64, "depth": 4}, steps=120, batch_size=256, lr=1e-2, weight_decay=0.1,
        schedule="constant", method_args={"temperature": 0.2, "momentum": 0.9, "ramp": False},
    ),
    # What the chapter trains: patches of 8 pixels and neither predictor nor lag, so that it learns in so few steps, at a rate that it just bears.
    "moco_v3/pocket_instability_live": LAB,
    # m₀ by the paper's relative lag: at 0.9 keys are 9 of 14,000 steps behind, at its 0.99 99 of 94,000.
    "moco_v3/cifar10_cpu": replace(
        V3, data="cifar10", view="moco_v3", view_args={"min_area": 0.2}, steps=14_000, lr=1.5e-3, warmup=200, model_args=CPU.model_args,
        method_args={"temperature": 0.2, "momentum": 0.9},
    ),
    # The official CIFAR-10 demo of MoCo v1/v2: linear head, K 4,096, τ 0.1; kNN 82.6 % after 200 epochs (on the head's output, k 200).
    "moco_v2/cifar10": replace(
        V2, model="resnet18", model_args={"stem": "cifar"}, data="cifar10", steps=None, epochs=200, batch_size=512, lr=0.06, warmup=0,
        weight_decay=5e-4, optimizer="sgd_plain", view="moco_v2", view_args={"min_area": 0.08}, head="moco_v1", head_args={},
        method_args={"queue_size": 4096, "momentum": 0.99, "temperature": 0.1, "groups": 8},
    ),
    # One GPU, to be laid beside simclr/cifar10.
    "moco_v3/cifar10": replace(
        GPU, method="moco_v3", head="moco_v3_resnet", head_args={"hidden_dim": 2048}, predictor_args={"hidden_dim": 2048}, view="moco_v3",
        view_args={"min_area": 0.2}, method_args={"temperature": 0.2, "momentum": 0.99},
    ),
    "moco_v3/cifar10_vit": replace(
        GPU, method="moco_v3", model="vit_pocket_conv8", model_args={"patch": 4, "dim": 256, "depth": 7, "heads": 4}, view="moco_v3",
        view_args={"min_area": 0.2}, head="moco_v3_vit", head_args={"hidden_dim": 2048}, predictor_args={"hidden_dim": 2048},
        method_args={"temperature": 0.2, "momentum": 0.99},
    ),
    "moco_v3/cifar10_instability": LAB_GPU,
    "moco_v3/cifar10_instability_live": LAB_GPU,
    # The official ImageNet recipes, with the peak rate as used; where ours differ: norms, biases and tokens are not decayed, v1's two steps of the
    # learning rate are a cosine, and rates change with every step. v1 and v2 want 8 processes (or groups=8): 60.6 and 67.5 %.
    "moco_v1/imagenet_resnet50": replace(V2_IMAGENET, view="moco_v1", head="moco_v1", method_args={"temperature": 0.07}),
    "moco_v2/imagenet_resnet50": V2_IMAGENET,
    # v3: 73.2 % (small), 76.7 % (base), 68.9 % (ResNet-50, 100 epochs) by linear evaluation. With a conv stem nothing is frozen.
    "moco_v3/imagenet_vit_small": V3_IMAGENET,
    "moco_v3/imagenet_vit_base": replace(V3_IMAGENET, model="moco_v3_vit_base"),
    "moco_v3/imagenet_vit_conv_small": replace(V3_IMAGENET, model="moco_v3_vit_conv_small", model_args={}),
    "moco_v3/imagenet_vit_conv_base": replace(V3_IMAGENET, model="moco_v3_vit_conv_base", model_args={}),
    "moco_v3/imagenet_resnet50": replace(
        V3_IMAGENET, model="resnet50", model_args={}, optimizer="lars", lr=9.6, weight_decay=1e-6, epochs=100, warmup=3120, head="moco_v3_resnet",
        view_args={"min_area": 0.2}, method_args={"temperature": 1.0, "momentum": 0.99},
        also={"sgd_probe": {"epochs": 90, "batch_size": 1024, "base_lr": 0.1}},
    ),
    "supervised/cifar10": replace(
        CIFAR, method="supervised", model="resnet18", model_args={"stem": "cifar"}, steps=None, epochs=100, batch_size=512, lr=1e-3,
        warmup=485, view="supervised", view_args={"min_area": 0.2}, method_args={}, head_args={},
    ),
    "supervised/cifar10_p": replace(STEM_GPU, model="vit_p_pocket", model_args={"dim": 192, "depth": 6, "heads": 3}),
    "supervised/cifar10_c": replace(STEM_GPU, model="vit_c_pocket", model_args={"dim": 192, "depth": 5, "heads": 3, "stem": "conv"}),
}  # fmt: skip


def scale() -> str:
    """"pocket" or "full", as MINIVIT_SCALE has it."""
    chosen = os.environ.get("MINIVIT_SCALE", "pocket")
    if chosen not in ("pocket", "full"):
        raise ValueError(f"MINIVIT_SCALE={chosen!r}: 'pocket' or 'full'.")
    return chosen


def preset(name: str, **overrides: Any) -> Preset:
    """A preset by name, ``"simclr/pocket"``, with fields replaced: ``preset("simclr/pocket", steps=50)``.

    A name without a scale, ``"simclr"``, means ``simclr/pocket``, or ``simclr/cifar10`` when MINIVIT_SCALE=full; every pocket
    preset gives way to the full one then (``pocket_turns`` to ``cifar10_turns``, where there is one of that ending).
    MINIVIT_DATA replaces the data set. MINIVIT_LIMIT keeps that many images, with batches of at most half of them and at most
    two epochs: a quick try of everything, not a result.
    Raises ValueError for an unknown name or field, with the nearest ones.
    """
    family, _, variant = name.partition("/")
    if scale() == "full" and (not variant or variant.startswith("pocket")):
        special = f"{family}/cifar10{variant.removeprefix('pocket')}"
        name = special if special in PRESETS else f"{family}/cifar10"
    elif not variant:
        name = f"{family}/pocket"
    found = _find(PRESETS, name, "preset")
    unknown = set(overrides) - {f.name for f in fields(Preset)}
    if unknown:
        raise ValueError(f"a preset has no {sorted(unknown)[0]!r}; it has {', '.join(f.name for f in fields(Preset))}.")
    return replace(found, **{**_environment(found), **overrides})


def changed_by_environment() -> list[str]:
    """Which of MINIVIT_SCALE, MINIVIT_DATA and MINIVIT_LIMIT are set, so that a preset's name means something else."""
    given = {name: os.environ.get(name) for name in ("MINIVIT_SCALE", "MINIVIT_DATA", "MINIVIT_LIMIT")}
    return [name for name, value in given.items() if value and (name, value) != ("MINIVIT_SCALE", "pocket")]


def _environment(chosen: Preset) -> dict[str, Any]:
    """What MINIVIT_DATA and MINIVIT_LIMIT change."""
    data, limit = os.environ.get("MINIVIT_DATA"), os.environ.get("MINIVIT_LIMIT")
    changes: dict[str, Any] = {"data": data} if data else {}
    if limit:
        if not (limit.isdigit() and int(limit) >= 10):
            raise ValueError(f"MINIVIT_LIMIT={limit!r}: a number of images, at least 10.")
        changes |= {"limit": int(limit), "batch_size": min(chosen.batch_size, int(limit) // 2)}
        changes |= {"epochs": min(chosen.epochs, 2)} if chosen.epochs else {}
        changes |= _small_queue(chosen, changes["batch_size"]) if chosen.method == "moco" else {}
    return changes


def _small_queue(chosen: Preset, batch_size: int) -> dict[str, Any]:
    """For a quick try of MoCo: a queue of at most four batches, and a batch of which queue and groups are multiples."""
    batch_size = 2 ** int(math.log2(batch_size))
    args = {"queue_size": 65536, "groups": 1, **chosen.method_args}
    small = {"queue_size": min(args["queue_size"], 4 * batch_size), "groups": min(args["groups"], batch_size // 2)}
    return {"batch_size": batch_size, "method_args": args | small}
