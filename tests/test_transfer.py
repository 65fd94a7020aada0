"""Judging by training: what may change, what must not, and the further judgements against their definitions."""
import math

import numpy as np
import pytest
import torch
from randomise import randomise
from torch import nn

from minivit import Supervised, create_model, extract_features, fine_tune, linear_probe, load_data, preset, sgd_probe
from minivit.augment import HorizontalFlip, RandomResizedCrop, Recipe, View, evaluation
from minivit.evaluate import evaluating, knn_accuracy
from minivit.layers.norm import BatchNorm
from minivit.methods import LinearProbe
from minivit.presets import PRESETS, final_figures, train_and_judge
from minivit.protocols import PROTOCOLS, Subject, further_figures, in_words, seen_at, turned
from minivit.transfer import at_window, classifier_accuracy

QUIET = {"device": "cpu"}
AS_IT_IS = Recipe((evaluation(32),), eval=evaluation(32))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def images():
    return load_data("shapes", limit=100), load_data("shapes", "test", limit=50)


def small_net() -> nn.Module:
    """BatchNorm in it, whose statistics would give a train mode away."""
    torch.manual_seed(0)
    return create_model("resnet_pocket", width=4)


def test_a_linear_probe_trains_its_classifier_and_nothing_else():
    from minivit import fit

    train = load_data("shapes", limit=60)
    method = LinearProbe(small_net(), num_classes=10, recipe=Recipe((View(HorizontalFlip()),), eval=View()))
    assert any(isinstance(module, BatchNorm) for module in method.backbone.modules())
    before, classifier = state(method.backbone), state(method.classifier)
    fit(method, train, steps=3, batch_size=20, lr=0.1, **QUIET)
    assert same(state(method.backbone), before)  # weights and running statistics
    assert not same(state(method.classifier), classifier)
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
    method.train()
    assert method.training and not any(module.training for module in method.backbone.modules())


def test_a_supervised_method_trains_its_backbone():
    from minivit import fit

    method = Supervised(small_net(), num_classes=10, recipe=AS_IT_IS)
    before = state(method.backbone)
    fit(method, load_data("shapes", limit=60), steps=3, batch_size=20, lr=0.1, **QUIET)
    assert not same(state(method.backbone), before)


@pytest.mark.parametrize("judgement", [sgd_probe, fine_tune])
def test_a_judgement_leaves_the_backbone_as_it_was(judgement, images):
    backbone = small_net().train()
    before = state(backbone)
    accuracy = judgement(backbone, *images, recipe=AS_IT_IS, epochs=1, batch_size=25, **QUIET)
    assert 0 <= accuracy <= 1 and same(state(backbone), before) and backbone.training
    assert judgement(backbone, *images, recipe=AS_IT_IS, epochs=1, batch_size=25, **QUIET) == accuracy


class Labels(nn.Module):
    """A feature that a linear classifier can read: the mean colour of a picture painted by its class."""

    dim, image_size = 3, 32

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean((2, 3)) * self.scale


def painted(n: int, seed: int):
    from minivit import ImageData

    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(90, 110, (n, 3, 32, 32), generator=g)
    images[torch.arange(n), labels] += 60
    return ImageData(images.to(torch.uint8), labels, ("red", "green", "blue"), "painted")


def test_sgd_probe_finds_what_the_convex_probe_finds():
    """Three colours that a line separates: both probes name all; a feature of one constant value gives chance to both."""
    train, test = painted(60, 0), painted(30, 1)
    features = [extract_features(Labels(), data, transform=evaluation(32)) for data in (train, test)]
    assert linear_probe(*features[0], *features[1]) == 1.0
    assert sgd_probe(Labels(), train, test, recipe=AS_IT_IS, epochs=60, batch_size=20, base_lr=20.0, **QUIET) == 1.0
    blind = Labels()
    nn.init.zeros_(blind.scale)
    assert sgd_probe(blind, train, test, recipe=AS_IT_IS, epochs=5, batch_size=20, **QUIET) == pytest.approx(1 / 3)
    assert fine_tune(blind, train, test, recipe=AS_IT_IS, epochs=5, batch_size=20, **QUIET) == pytest.approx(1 / 3)  # zero times zero stays
    half = Labels()
    nn.init.constant_(half.scale, 1e-3)  # too small for the classifier alone at this lr
    assert fine_tune(half, train, test, recipe=AS_IT_IS, epochs=60, batch_size=20, base_lr=20.0, **QUIET) == 1.0


def test_classifier_accuracy_counts_its_own_answers(images):
    method = Supervised(small_net(), num_classes=10, recipe=AS_IT_IS)
    with torch.no_grad():
        method.classifier.bias[3] = 1.0  # always answers 3
    assert classifier_accuracy(method, images[1]) == pytest.approx((images[1].labels == 3).float().mean().item())


# ---------------------------------------------------------------------------------------------------- few labels


@pytest.mark.parametrize("count", [10, 37, 100])
def test_balanced_takes_equally_many_of_each_class(count, images):
    train = images[0]
    few = train.balanced(count, seed=3)
    counts = torch.bincount(few.labels, minlength=10)
    assert len(few) == count and counts.max() - counts.min() <= 1
    assert few.checksum() == train.balanced(count, seed=3).checksum()
    if count < 100:
        assert few.checksum() != train.balanced(count, seed=4).checksum()
    where = [(train.images == image).flatten(1).all(1).nonzero()[0, 0].item() for image in few.images]
    assert len(set(where)) == count and torch.equal(train.labels[where], few.labels)


def test_balanced_refuses_more_than_there_are(images):
    with pytest.raises(ValueError, match="count=101: from 1 to the 100 images of shapes"):
        images[0].balanced(101)


def test_few_labels_train_on_those_only():
    chosen = preset("supervised/pocket", labels=7, limit=100, batch_size=20, steps=2)
    train, _ = chosen.load()
    few, seven = chosen.labelled(train, 1), train.balanced(7, seed=1)
    assert len(few) == 21 and torch.equal(few.labels, seven.labels.repeat(3))  # enough for a batch
    assert torch.equal(few.images, seven.images.repeat(3, 1, 1, 1))
    _, run = chosen.fit(train, seed=1, **QUIET)
    assert run.config["data"]["checksum"] == train.checksum() and run.config["preset"]["labels"] == 7
    assert preset("supervised/pocket", limit=100).labelled(train, 1) is train


# ---------------------------------------------------------------------------------------------------- further judgements


@pytest.fixture(scope="module")
def subject():
    chosen = preset("simclr/pocket_turns", limit=100, batch_size=20, steps=3)
    train, test = chosen.load()
    method, _ = chosen.fit(train, **QUIET)
    return Subject(method, chosen.build(10).backbone, train, test, seed=0)


def test_projection_judges_z(subject):
    with evaluating(subject.method):
        parts = [extract_features(lambda x: subject.method.projector(subject.method.backbone(x)), d, transform=subject.method.recipe.eval)
                 for d in (subject.train, subject.test)]  # fmt: skip
    assert parts[0][0].shape[1] == 16
    figures = further_figures(subject, {"projection": {}})
    assert figures == {"z_knn": knn_accuracy(*parts[0], *parts[1]), "z_probe": linear_probe(*parts[0], *parts[1])}


def test_turned_holds_every_position(subject):
    data = turned(subject.test, ("crescent", "triangle"))
    chosen = [i for i, label in enumerate(subject.test.labels) if subject.test.classes[label] in ("crescent", "triangle")]
    assert len(data) == 4 * len(chosen) and data.classes == ("0°", "90°", "180°", "270°")
    for at, (image, label) in enumerate(zip(data.images, data.labels)):
        original = subject.test.images[chosen[at % len(chosen)]]
        assert np.array_equal(image.numpy(), np.rot90(original.numpy(), int(label), axes=(1, 2)))


def test_quarter_turns_compare_four_features(subject):
    figures = further_figures(subject, {"quarter_turns": {"classes": ["triangle"]}})
    assert set(figures) == {"turn_h", "turn_z", "turn_random", "turn_raw"}
    train, test = (turned(d, ["triangle"]) for d in (subject.train, subject.test))
    view = subject.method.recipe.eval
    (x, y), (tx, ty) = (extract_features(subject.method.backbone, data, transform=view) for data in (train, test))
    assert figures["turn_h"] == linear_probe(x, y, tx, ty)


@torch.no_grad()
def test_the_largest_attention_logit_is_that_of_the_loop(subject):
    net, found = subject.method.backbone.eval(), []
    x, dim = subject.method.recipe.eval(subject.test.images.float() / 255), net.dim
    tokens = net.positions(net.stem(x), net.stem.grid(32, 32))
    for block in net.blocks:
        q, k, _ = block.attn.to_qkv(block.norm1(tokens)).split(dim, dim=-1)
        for head in range(block.attn.heads):
            part = slice(head * dim // block.attn.heads, (head + 1) * dim // block.attn.heads)
            found.append((torch.einsum("bic, bjc -> bij", q[..., part], k[..., part]) / math.sqrt(dim / block.attn.heads)).abs().max())
        tokens = block(tokens)
    assert further_figures(subject, {"attention_logits": {}}) == {"attention_logit": pytest.approx(max(found).item(), rel=1e-5)}
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_linear_evaluation_has_no_colour_distortion_on_shapes():
    chosen = preset("simclr/pocket_turns", limit=100)
    subject = Subject(chosen.build(10), chosen.build(10).backbone, *chosen.load(), seed=0)
    recipe = subject.crop_and_flip()
    (view,) = recipe.views
    assert [type(operation) for operation in view.operations] == [RandomResizedCrop, HorizontalFlip]
    assert (view.mean, view.std) == (recipe.eval.mean, recipe.eval.std)


def test_every_judgement_answers_and_says_how(subject):
    also = {"few_labels": {"counts": [10, 40]}, "sgd_probe": {"epochs": 1}, "fine_tune": {"labels": 20, "epochs": 1}}
    figures = further_figures(subject, also)
    assert set(figures) == {"probe_10", "probe_40", "raw_probe_10", "raw_probe_40", "sgd_probe", "fine_tune_20", "scratch_20"}
    assert all(0 <= value <= 1 for value in figures.values())
    words = in_words(also)
    assert len(words) == 5 and words[-1].endswith("(labels 20, epochs 1)")
    further = {"projection", "quarter_turns", "attention_logits", "larger_windows", "depth_profile"}
    assert set(PROTOCOLS) == {"few_labels", "sgd_probe", "fine_tune"} | further


# ---------------------------------------------------------------------------------------------------- Swins at other windows


@torch.no_grad()
@pytest.mark.parametrize("bias", ["table", "log", "linear", "paper", "none"])
def test_a_swin_at_another_window(bias):
    """Weights are the old ones; a bias of V2 keeps the old offsets' values, one that is stretched keeps those of the border."""
    trained = randomise(create_model("swin_v2_pocket", bias=bias, num_classes=3))
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    same, larger = at_window(trained, 4), at_window(trained, 7)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(same(x), trained(x)) and larger(torch.randn(2, 3, 56, 56, dtype=torch.float64)).shape == (2, 3)
    assert larger.windows == ((7, 7), (7, 7)) and larger.image_size == 56
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    old, new = (model.stages[1].blocks[1].attn.position_bias for model in (trained, larger))
    if bias in ("log", "linear", "paper"):
        torch.testing.assert_close(new.table()[:, 3:-3, 3:-3], old.table())
    if bias in ("log", "linear"):
        stretched = at_window(trained, 7, stretched=True).stages[1].blocks[1].attn.position_bias.table()
        torch.testing.assert_close(stretched[:, ::2, ::2], old.table()) if bias == "linear" else None
        torch.testing.assert_close(stretched[:, 0, 0], old.table()[:, 0, 0])
    if bias == "table":
        assert not torch.allclose(new.table, at_window(trained, 7, resize="geometric").stages[1].blocks[1].attn.position_bias.table)


@pytest.fixture(scope="module")
def window_subject():
    chosen = preset("supervised/pocket_swin", limit=60, batch_size=20, steps=3)
    train, test = chosen.load()
    return Subject(chosen.fit(train)[0], chosen.build(10).backbone, train, test, seed=0)


def test_larger_windows_judges_every_content_and_way(window_subject):
    options = {"windows": [4, 6], "contents": ["many", "one", "resized"], "images": 20, "tune": 1, "tune_windows": [6], "batch_size": 9}
    before = [p.clone() for p in window_subject.method.parameters()]
    figures = further_figures(window_subject, {"larger_windows": options})
    by_content = {f"{content}_{window}" for content in ("many", "one", "resized") for window in (4, 6)}
    assert set(figures) == by_content | {"many_6_stay", "many_6_other", "many_6_tuned"}
    assert figures["many_4"] == figures["one_4"]  # 32 pixels hold one object
    assert all(torch.equal(old, new) for old, new in zip(before, window_subject.method.parameters()))


def test_seen_at_draws_the_same_shapes_and_takes_other_images_as_they_are(window_subject):
    for split in ("train", "test"):
        same, wide = (seen_at(window_subject, split, "many", size, 10) for size in (32, 64))
        assert torch.equal(same.images, getattr(window_subject, split).images[:10]) and wide.images.shape == (10, 3, 64, 64)
    assert seen_at(window_subject, "test", "resized", 64, 10**6).images.shape[1:] == (3, 32, 32)


def test_depth_profile_sees_amplitudes_and_the_most_peaked_head():
    chosen = preset("supervised/pocket_deep", limit=50, batch_size=20, steps=2, model_args={"dim": 8, "depth": (3,), "heads": (2,)})
    train, test = chosen.load()
    method = chosen.fit(train)[0]
    untrained = chosen.build(10).backbone
    found = further_figures(Subject(method, untrained, train, test, 0), {"depth_profile": {}})
    assert set(found) == {p + n for p in ("", "start_") for n in ("amplitude_0", "amplitude_1", "amplitude_2", "growth", "range", "peak")}
    amplitudes, heads = [], []
    for block in method.backbone.stages[0].blocks:
        block.register_forward_hook(lambda module, inputs, out: amplitudes.append(out.square().mean().sqrt().item()))
        block.attn.register_forward_pre_hook(lambda module, inputs: heads.append(module.maps(*inputs).amax(-1).mean((0, 2))))
    with torch.no_grad():
        method.backbone(method.recipe.eval(test.images.float() / 255))
    assert [found[f"amplitude_{i}"] for i in range(3)] == pytest.approx(amplitudes, rel=1e-4)
    assert found["range"] == pytest.approx(max(amplitudes) / min(amplitudes), rel=1e-4)
    assert found["growth"] == pytest.approx(amplitudes[-1] / amplitudes[0], rel=1e-4)
    assert found["peak"] == pytest.approx(torch.stack(heads).max().item(), rel=1e-4)


def test_every_presets_judgements_exist():
    for chosen in PRESETS.values():
        assert all(set(options) <= set(PROTOCOLS[name].options) for name, options in chosen.also.items())


def test_the_last_step_is_judged_and_not_the_best():
    """A judge looks in at every step; what the card says is the last one's figure, although earlier ones may be better."""
    from minivit import DenseKNN

    chosen = preset("simclr/pocket", limit=100, batch_size=20, steps=6, lr=0.3)
    train, test = chosen.load()
    method, run = train_and_judge(chosen, callbacks=[DenseKNN(train, test, every=1)])
    looks = run.history("knn")[1]
    assert max(looks) > looks[-1] + 0.01  # otherwise this test could not fail
    assert run.card["final"]["knn"] == pytest.approx(looks[-1], abs=5e-5)
    assert final_figures(chosen, method, train, test, seed=0)[0]["knn"] == run.card["final"]["knn"]


def test_small_images_get_the_small_stem():
    """The ImageNet stem would leave a 32×32 picture one pixel wide before the last stage."""
    for name, chosen in PRESETS.items():
        if chosen.model.startswith("resnet") and chosen.image_size <= 32:
            with torch.no_grad():
                features = chosen.build(10).backbone.eval().forward_map(torch.zeros(1, 3, 32, 32))
            assert features.shape[-2:] == (4, 4), name
