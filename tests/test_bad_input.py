"""Each kind of bad input gets one clear sentence, before any work is done."""
import inspect

import numpy as np
import pytest
import torch

import minivit
from minivit import Attention, SimCLR, collapse_report, create_model, fit, info_nce, knn_accuracy, load_data, nt_xent, preset, projector, series
from minivit.augment import ColorJitter, RandomResizedCrop
from minivit.costs import complexity
from minivit.layers.position import ContinuousPositionBias, resize_table
from minivit.layers.stems import ConvLayer, ConvStem
from minivit.layers.window import WindowAttention
from minivit.methods import METHODS
from minivit.monitor import ActivationMonitor
from minivit.optim import scale_lr
from minivit.presets import train_and_judge
from minivit.runs import Run
from minivit.studies import draw, edf, read_study
from minivit.transfer import at_window

DATA = load_data("shapes", limit=40)


def pocket() -> SimCLR:
    return preset("simclr/pocket").build(10)


def two(shape=(5, 7)):
    return torch.randn(shape), torch.randn(shape)


CASES = {
    "unknown model": (lambda: create_model("vit_tinny_patch16_224"), "did you mean vit_tiny_patch16_224"),
    "unknown setting of a model": (lambda: create_model("vit_pocket_conv8", dept=3), "did you mean depth"),
    "unknown method": (lambda: METHODS["simclr"] and preset("simklr"), "no preset is called 'simklr/pocket'; did you mean simclr/pocket"),
    "unknown field of a preset": (lambda: preset("simclr/pocket", learning_rate=1.0), "a preset has no 'learning_rate'; it has method"),
    "unknown loss of a preset": (lambda: preset("simclr/pocket", method_args={"loss": {"name": "nt_logistics"}}), "did you mean nt_logistic"),
    "unknown optimizer of a preset": (lambda: preset("simclr/pocket", optimizer="adam"), "no optimizer is called 'adam'; did you mean adamw"),
    "unknown schedule of a preset": (lambda: preset("simclr/pocket", schedule="constnat"), "no schedule is called 'constnat'; did you mean constant"),
    "clipping what is not there": (lambda: clipped(stem=0.1), "SimCLR has no part called 'stem'"),
    "clipping to less than nothing": (lambda: clipped(backbone=-1.0), "must not be negative, and is -1.0"),
    "unknown norm of the patch projection": (lambda: create_model("vit_pocket_patch8", patch_norm="ln"), "a patch projection knows 'none', 'bn' and"),
    "no window": (lambda: series.running(np.ones(3), window=0), "window=0: at least one step"),
    "a band of one event": (lambda: series.band(np.ones((1, 3))), "two events or more, not 1"),
    "a lead of too few steps": (lambda: series.lead(np.ones(100), np.ones(100)), "100 steps are too few for two blocks of 50"),
    "a lead of what never changes": (lambda: series.lead(np.ones(300), np.arange(300.0)), "a series that never changes"),
    "attention judged where there is none": (
        lambda: judged(model="resnet_pocket", attention_logits={}), "looks at attention, which this backbone does not have"
    ),
    "unknown method of a preset": (lambda: preset("simclr/pocket", method="simclear"), "no method is called 'simclear'; did you mean simclr"),
    "unknown judgement": (lambda: judged(probe={}), "no judgement is called 'probe'; there are projection, quarter_turns"),
    "unknown option of a judgement": (lambda: judged(fine_tune={"label": 20}), "fine_tune has no option 'label'; it has labels, epochs"),
    "more labels than images": (lambda: judged(few_labels={"counts": [10, 500]}), "500 labelled images: from 1 to the 60 of shapes"),
    "more labels than images to fine-tune on": (lambda: judged(fine_tune={"labels": 61}), "61 labelled images: from 1 to the 60 of shapes"),
    "judged for a class that is not there": (lambda: judged(quarter_turns={"classes": ["cat"]}), "the class 'cat'; shapes has disc"),
    "a projection judged where there is none": (lambda: judged("supervised/pocket", projection={}), "which Supervised does not have"),
    "unknown data": (lambda: load_data("cifar-10"), "did you mean 'cifar10'"),
    "unknown split": (lambda: load_data("shapes", "validation"), "there are 'train' and 'test'"),
    "unknown class": (lambda: load_data("shapes", classes=("disc", "cat")), "no class 'cat'"),
    "missing folder": (lambda: load_data("folder:/no/such/place"), "/no/such/place"),
    "patch does not divide the image": (lambda: create_model("vit_pocket_patch8", image_size=36), "36×36 is not divisible by patch=8"),
    "patch does not divide at run time": (lambda: create_model("vit_pocket_conv8")(torch.randn(2, 3, 32, 30)), "32×30 is not divisible by patch=8"),
    "heads do not divide the width": (lambda: Attention(64, 5), "heads=5 does not divide dim=64"),
    "conv stem of a patch that is no power of two": (lambda: create_model("vit_pocket_conv8", image_size=36, patch=6), "patch of 2, 4, 8"),
    "unknown norm of a conv stem": (lambda: create_model("vit_c_pocket", stem_norm="gn"), "norm='gn': a conv stem knows 'bn', 'ln', 'none'"),
    "a norm of a conv stem without a conv stem": (lambda: create_model("vit_p_pocket", stem_norm="ln"), "stem_norm='ln' is of conv stems"),
    "a stem whose padding breaks the grid": (lambda: ConvStem(64, [ConvLayer(3, 2, 16, 0)]), "2·padding is at least"),
    "a stem with a stride of nothing": (lambda: ConvStem(64, [ConvLayer(3, 0, 16, 1)]), "kernel, stride and width are at least 1"),
    "patches of no pixel": (lambda: create_model("vit_p_pocket", patch=0), "patch=0: a patch has a side of at least one pixel"),
    "cost of a stem at no size": (lambda: complexity(create_model("vit_c_pocket").stem), "a ConvStem does not know its images' size"),
    "search from zero": (lambda: draw({"lr": [0, 0.1]}, 0), "lr = .0, 0.1. is no interval"),
    "search of one value": (lambda: draw({"lr": [0.1]}, 0), "lr = .0.1. is no interval"),
    "distribution of no runs": (lambda: edf([], [0.1]), "at least one run"),
    "batch of one": (lambda: nt_xent(*two((1, 7)), temperature=0.5), "at least 2"),
    "batch of one in BatchNorm": (lambda: pocket().projector(torch.randn(1, 64)), "two images"),
    "views that do not pair up": (lambda: inspect.unwrap(nt_xent)(torch.randn(5, 7), torch.randn(6, 7), temperature=0.5), r"\(5, 7\) and \(6, 7\)"),
    "temperature of zero": (lambda: nt_xent(*two(), temperature=0.0), "temperature=0.0 must be positive"),
    "positives outside the keys": (lambda: info_nce(*two(), temperature=0.5, offset=1), "offset=1: the positives"),
    "batch larger than the data": (lambda: fit(pocket(), DATA, steps=1, batch_size=41, lr=0.1), "from 2 to the 40 images"),
    "neither steps nor epochs": (lambda: fit(pocket(), DATA, batch_size=8, lr=0.1), "either steps or epochs"),
    "no step at all": (lambda: fit(pocket(), DATA, steps=0, batch_size=8, lr=0.1), "at least one"),
    "negative learning rate": (lambda: fit(pocket(), DATA, steps=1, batch_size=8, lr=-0.1), "lr=-0.1 must be positive"),
    "checkpoints without a folder": (lambda: fit(pocket(), DATA, steps=1, batch_size=8, lr=0.1, checkpoint_every=1), "needs a folder"),
    "unknown head": (lambda: projector("simclr_v3", 64), "there are: simclr_v1"),
    "unknown setting of a head": (lambda: projector("simclr_v1", 64, width=3), "a head has no width"),
    "crop area": (lambda: RandomResizedCrop(32, area=(0.5, 1.5)), "0 < low ≤ high ≤ 1"),
    "hue": (lambda: ColorJitter(0.4, 0.4, 0.4, 0.7), "0 to 0.5"),
    "scaling rule": (lambda: scale_lr(0.3, 256, rule="cubic"), "there are linear, sqrt"),
    "more neighbours than images": (lambda: knn_accuracy(*two_labelled(), *two_labelled(), k=9), "from 1 to the 5"),
    "one vector": (lambda: collapse_report(torch.randn(1, 3)), "N ≥ 2"),
    "no run there": (lambda: Run.load("/no/such/run"), "not a run"),
    "no study there": (lambda: read_study("/no/such/study"), "not a study"),
    "mask without a mask token": (
        lambda: create_model("vit_pocket_conv8").forward_tokens(torch.randn(2, 3, 32, 32), mask=torch.zeros(2, 4, 4, dtype=torch.bool)),
        "build it with mask_token=True",
    ),
    "heads do not divide the width of a Swin": (lambda: create_model("swin_pocket", heads=(5, 6)), "heads=5 does not divide dim=48"),
    "a Swin's patch does not divide the image": (lambda: create_model("swin_t")(torch.randn(2, 3, 224, 226)), "224×226 is not divisible by patch=4"),
    "stages without heads": (lambda: create_model("swin_t", depth=(2, 2)), r"depth=\(2, 2\) and heads=\(3, 6, 12, 24\): one number for each"),
    "unknown attention": (lambda: create_model("swin_pocket", attention="linear"), "kind='linear': attention is 'dot' or 'cosine'"),
    "unknown bias": (lambda: create_model("swin_pocket", bias="cpb"), "bias='cpb': there are 'table', 'log'"),
    "unknown place of the norm": (lambda: create_model("swin_pocket", norm="after"), "norm='after': there are 'pre', 'res_post'"),
    "unknown place of the norm in merging": (lambda: create_model("swin_pocket", merge_norm="post"), "merge_norm='post'"),
    "unknown coordinates": (lambda: ContinuousPositionBias(3, 4, coords="ln"), "coords='ln': there are 'log', 'linear'"),
    "a window of nothing": (lambda: WindowAttention(6, 3, 0), "window=0: a window has one row"),
    "a pretrained window for some stages": (lambda: create_model("swin_v2_pocket", pretrained_window=(4, 4, 4)), "for each of the 2 stages"),
    "tokens that do not fill the window": (lambda: WindowAttention(6, 3, 4)(torch.randn(2, 9, 6)), "9 tokens do not fit window"),
    "masks that do not divide the windows": (
        lambda: WindowAttention(6, 3, 3)(torch.randn(3, 9, 6), torch.ones(2, 9, 9, dtype=torch.bool)), "3 windows of 9 tokens do not fit .* 2 masks"
    ),
    "unknown way to resize a table": (lambda: resize_table(torch.randn(3, 5, 5), 4, "nearest"), "resize='nearest': a table"),
    "a window that no square image fits": (lambda: at_window(create_model("swin_t", image_size=(64, 96)), 8), "window=8: no square image"),
    "larger windows of a ViT": (
        lambda: judged("supervised/pocket", larger_windows={"windows": [4], "contents": ["many"]}), "judges a classifier on a Swin"
    ),
    "more objects than the data can draw": (
        lambda: judged("supervised/pocket_swin", "swin_pocket", larger_windows={"windows": [4], "contents": ["few"]}), "has no content 'few'"
    ),
    "larger windows without windows": (
        lambda: judged("supervised/pocket_swin", "swin_pocket", larger_windows={"contents": ["many"]}), "larger_windows needs 'windows'"
    ),
    "few labels without counts": (lambda: judged(few_labels={}), "few_labels needs 'counts'"),
    "a larger window of nothing": (
        lambda: judged("supervised/pocket_swin", "swin_pocket", larger_windows={"windows": [4, 0], "contents": ["many"]}), "window=0: a window"
    ),
    "a depth profile of a ViT": (lambda: judged("supervised/pocket", depth_profile={}), "looks at the blocks of a Swin"),
    "a monitor of nothing": (lambda: ActivationMonitor(create_model("resnet_pocket")), "ResNet has no transformer block"),
}


def judged(name="simclr/pocket", model="vit_pocket_conv8", **also):
    """A run that must not begin: its steps would take hours."""
    return train_and_judge(preset(name, model=model, limit=60, batch_size=30, steps=10**6, also=also))


def clipped(**clip):
    return fit(pocket(), DATA, steps=1, batch_size=8, lr=0.1, clip=clip)


def two_labelled():
    return torch.randn(5, 3), torch.arange(5)


@pytest.mark.parametrize("case", CASES)
def test_one_clear_sentence(case):
    call, message = CASES[case]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and 20 < len(text) < 400


def test_a_name_that_minivit_does_not_have():
    with pytest.raises(AttributeError, match="minivit has no 'nt_xnet'"):
        minivit.nt_xnet  # noqa: B018


@pytest.mark.parametrize("setting", ["MINIVIT_SCALE=big", "MINIVIT_LIMIT=few"])
def test_environment(monkeypatch, setting):
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(ValueError, match="'pocket' or 'full'|a number of images"):
        preset("simclr")


def test_environment_chooses_scale_data_and_limit(monkeypatch):
    assert preset("simclr").data == "shapes"
    monkeypatch.setenv("MINIVIT_SCALE", "full")
    assert preset("simclr") == preset("simclr/pocket_live") == preset("simclr/cifar10")
    monkeypatch.setenv("MINIVIT_DATA", "folder:photos")
    monkeypatch.setenv("MINIVIT_LIMIT", "70")
    chosen = preset("simclr")
    assert (chosen.data, chosen.limit, chosen.batch_size, chosen.model) == ("folder:photos", 70, 35, "resnet18")


@pytest.mark.parametrize("limit", [10, 70, 200])
def test_a_quick_try_of_moco_has_a_batch_that_divides_its_queue(monkeypatch, limit):
    monkeypatch.setenv("MINIVIT_LIMIT", str(limit))
    for name in ("moco_v2/pocket", "moco_v2/cifar10", "moco_v2/imagenet_resnet50"):
        chosen = preset(name)
        assert chosen.batch_size <= limit / 2 and chosen.method_args["queue_size"] % chosen.batch_size == 0
        assert chosen.batch_size % chosen.method_args["groups"] == 0 and chosen.batch_size > chosen.method_args["groups"]
