"""Methods as the composition of their parts; parameter groups; learning rates."""
import inspect
import math

import pytest
import torch
from randomise import normal, randomise
from test_losses import loop_nt_xent
from torch import nn
from torch.testing import assert_close

from minivit.augment import Batch, HorizontalFlip, RandomResizedCrop, Recipe
from minivit.layers.heads import mlp_head
from minivit.methods import METHODS, SimCLR, Supervised
from minivit.methods.base import Method, param_groups, spread
from minivit.methods.simclr import contrastive_accuracy
from minivit.models import create_model
from minivit.optim import scale_lr, warmup_cosine

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def batch_of(views: int, *, size: int = 32, images: int = 5) -> Batch:
    pictures = tuple(normal(images, 3, size, size, seed=seed) for seed in range(views))
    return Batch(pictures, labels=torch.arange(images) % 3, index=torch.arange(images))


def build(name: str, backbone: nn.Module) -> Method:
    settings = {"supervised": {"num_classes": 3}, "moco": {"queue_size": 20}}
    return METHODS[name](backbone, **settings.get(name, {}))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name):
    method = build(name, create_model("vit_pocket_conv8"))
    views = tuple(view(torch.rand(5, 3, 37, 41)) for view in method.recipe.views)
    loss, figures = method(Batch(views, labels=torch.arange(5) % 3, index=torch.arange(5)), 0.0)
    loss.backward()
    method.after_step(0.0)
    assert loss.shape == ()
    assert loss.isfinite()
    assert all(not value.requires_grad and value.numel() == 1 for value in figures.values())
    assert method.backbone(method.recipe.eval(torch.rand(5, 3, 37, 41))).shape == (5, 64)
    assert all(math.isfinite(value) for value in method.landmarks(8).values())
    assert inspect.getdoc(type(method))


# ---------------------------------------------------------------------------------------------------- SimCLR


@pytest.mark.parametrize("backbone", ["resnet_pocket", "vit_pocket_conv8"])
def test_simclr_is_backbone_projector_and_loss(backbone):
    method = randomise(SimCLR(create_model(backbone), temperature=0.3))
    batch = batch_of(2)
    loss, figures = method(batch, 0.0)
    h = method.backbone(torch.cat(batch.views))  # one pass: BatchNorm sees both views together
    z1, z2 = method.projector(h).split(5)
    assert_close(loss, loop_nt_xent(z1, z2, 0.3), **EXACT)
    nearest = torch.nn.functional.cosine_similarity(z1[:, None], z2[None], dim=-1).argmax(1)
    assert figures["accuracy"].item() == pytest.approx((nearest == torch.arange(5)).double().mean().item())
    assert_close(figures["z_spread"].double(), spread(z1).double())


def test_simclr_has_the_papers_head_and_recipe():
    method = SimCLR(create_model("vit_pocket_conv8"))
    assert [tuple(m.weight.shape) for m in method.projector if isinstance(m, nn.Linear)] == [(64, 64), (128, 64)]
    assert method.temperature == 0.5
    assert method.recipe.views[0] is method.recipe.views[1]
    assert "ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8, form=torchvision)" in repr(method.recipe.views[0])


def test_simclr_takes_another_loss_both_ways_round():
    from minivit.losses import both_ways

    def lopsided(u, v):
        return (u * torch.arange(u.shape[1])).sum() - (v**3).sum()

    method = randomise(SimCLR(create_model("resnet_pocket"), loss=both_ways(lopsided)))
    batch = batch_of(2)
    loss, _ = method(batch, 0.0)
    z1, z2 = method.projector(method.backbone(torch.cat(batch.views))).split(5)
    assert_close(loss, (lopsided(z1, z2) + lopsided(z2, z1)) / 2, **EXACT)
    assert method.landmarks(8) == {}


def test_a_preset_names_simclrs_loss_and_its_settings():
    from minivit import preset

    loss = {"name": "nt_xent", "temperature": 10.0, "normalise": False}
    method = randomise(preset("simclr/pocket", model="resnet_pocket", method_args={"loss": loss}).build(10))
    batch = batch_of(2)
    value, _ = method(batch, 0.0)
    z = method.projector(method.backbone(torch.cat(batch.views)))
    logits = (z @ z.T / 10.0).masked_fill(torch.eye(10, dtype=torch.bool), float("-inf"))
    assert_close(value, torch.nn.functional.cross_entropy(logits, torch.arange(10).roll(5)), **EXACT)


@pytest.mark.parametrize(("layers", "widths"), [(0, []), (1, [(128, 7)]), (2, [(128, 11), (11, 7)])])
def test_simclrs_head_may_be_none_linear_or_deeper(layers, widths):
    from minivit import preset

    method = preset("simclr/pocket", model="resnet_pocket", head_args={"layers": layers, "hidden_dim": 11, "out_dim": 7}).build(10)
    assert [(m.in_features, m.out_features) for m in method.projector if isinstance(m, nn.Linear)] == widths
    assert method.projector(torch.randn(5, 128)).shape == (5, 7 if layers else 128)


def test_simclr_landmark_is_chance():
    method = SimCLR(create_model("vit_pocket_patch8"), projector=nn.Identity())
    assert method.landmarks(128)["chance"] == pytest.approx(5.54, abs=0.005)  # facts/simclr.md §2.2
    assert method.landmarks(4096)["chance"] == pytest.approx(9.01, abs=0.005)


def test_contrastive_accuracy_counts_partners():
    z = torch.eye(5)
    assert contrastive_accuracy(z, 3 * z) == 1
    assert contrastive_accuracy(z, z[[1, 0, 2, 3, 4]]) == pytest.approx(0.6)


def test_spread_is_one_on_the_sphere_and_zero_after_collapse():
    assert spread(normal(4001, 17)).item() == pytest.approx(1, abs=0.03)
    assert spread(normal(1, 17).expand(5, -1)).item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- supervised


def test_supervised_starts_at_chance_exactly():
    method = Supervised(create_model("resnet_pocket"), num_classes=13).double()
    loss, _ = method(batch_of(1), 0.0)
    assert loss.item() == pytest.approx(math.log(13), rel=1e-6)
    assert method.landmarks(5)["chance"] == math.log(13)


def test_supervised_is_cross_entropy_on_the_classifier():
    method, batch = randomise(Supervised(create_model("resnet_pocket"), num_classes=3, label_smoothing=0.1)), batch_of(1)
    logits = method.classifier(method.backbone(batch.views[0]))
    probabilities = logits.softmax(1).log()
    picked = torch.stack([probabilities[i, label] for i, label in enumerate(batch.labels)])
    loss, figures = method(batch, 0.0)
    assert_close(loss.double(), -(0.9 * picked + 0.1 * probabilities.mean(1)).mean(), rtol=1e-5, atol=1e-5)
    assert figures["accuracy"].item() == pytest.approx((logits.argmax(1) == batch.labels).double().mean().item())


def test_supervised_recipe_is_crop_and_flip():
    (view,) = Supervised(create_model("resnet_pocket"), num_classes=3).recipe.views
    assert [type(operation) for operation in view.operations] == [RandomResizedCrop, HorizontalFlip]


def test_own_recipes_and_heads_are_taken():
    backbone = create_model("vit_pocket_patch8")
    recipe = Recipe((), eval=Supervised(backbone, num_classes=3).recipe.eval)
    method = SimCLR(backbone, projector=mlp_head(64, 7, 5), recipe=recipe)
    assert method.recipe is recipe
    assert method.projector(torch.zeros(3, 64)).shape == (3, 5)


# ---------------------------------------------------------------------------------------------------- parameter groups


@pytest.mark.parametrize("backbone", ["resnet_pocket", "vit_pocket_conv8", "vit_pocket_patch8"])
@pytest.mark.parametrize("name", METHODS)
def test_param_groups_split_what_is_trained(name, backbone):
    method = build(name, create_model(backbone))
    for parameter in list(method.backbone.parameters())[:1]:
        parameter.requires_grad_(False)
    decay, plain = method.param_groups(0.05)
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    given = [id(p) for group in (decay, plain) for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    kernels = {id(m.weight) for m in method.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m.weight.requires_grad}
    assert {id(p) for p in decay["params"]} == kernels  # no bias, norm, token or position among them


def test_param_groups_leave_tokens_undecayed():
    model = create_model("vit_pocket_patch8", pool="cls", mask_token=True)
    decay, plain = param_groups(model, 0.1)
    undecayed = {id(p) for p in plain["params"]}
    assert {id(model.cls_token), id(model.mask_token), id(model.positions.table)} <= undecayed
    assert not undecayed & {id(p) for p in decay["params"]}


# ---------------------------------------------------------------------------------------------------- learning rates


def test_warmup_cosine_worked_by_hand():
    values = [warmup_cosine(step, steps=10, warmup=4) for step in range(11)]
    half = math.sqrt(3) / 2
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 1, (1 + half) / 2, 3 / 4, 1 / 2, 1 / 4, (1 - half) / 2, 0]
    assert values == pytest.approx(expected, abs=1e-12)
    assert [warmup_cosine(step, steps=4) for step in range(5)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0], abs=1e-12
    )


def test_scale_lr_gives_the_papers_values():
    """facts/simclr.md: 0.3 · B / 256 and 0.075 · √B are both 4.8 at B = 4096; CIFAR-10's 1.0 is 2.0 at 512."""
    assert scale_lr(0.3, 4096) == pytest.approx(4.8)
    assert scale_lr(0.075, 4096, rule="sqrt") == pytest.approx(4.8)
    assert scale_lr(1.0, 512) == pytest.approx(2.0)
    assert scale_lr(0.1, 4096, rule="sqrt") == pytest.approx(6.4)
    assert scale_lr(0.3, 4096, rule="none") == 0.3
    with pytest.raises(ValueError, match="rule='square'"):
        scale_lr(0.3, 4096, rule="square")
