"""MoCo v1 to v3 against loops, closed forms and hand-worked queues (facts/moco.md §13)."""
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from randomise import normal, randomise
from test_losses import cosine
from test_methods import batch_of
from torch import nn
from torch.testing import assert_close

from minivit import MoCo, MoCoV3, create_model, fit, info_nce, load_data, preset, projector, queue_nce
from minivit.augment import Batch, Recipe, View
from minivit.layers.heads import mlp_head
from minivit.layers.norm import BatchNorm, set_batch_norm
from minivit.methods.base import follow, momentum_copy
from minivit.optim import scale_lr

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def loop_queue_nce(q, k, queue, temperature):
    losses = []
    for i in range(len(q)):
        positive = torch.exp(cosine(q[i], k[i]) / temperature)
        negatives = [torch.exp(cosine(q[i], row) / temperature) for row in queue]
        losses.append(-torch.log(positive / (positive + sum(negatives))))
    return sum(losses) / len(losses)


# ---------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("batch", "size", "dim", "temperature"), [(2, 3, 5, 0.5), (7, 11, 3, 0.07), (5, 23, 13, 0.2)])
def test_queue_nce_equals_the_loop(batch, size, dim, temperature):
    q, k, queue = normal(batch, dim).requires_grad_(), normal(batch, dim, seed=1) * 3, normal(size, dim, seed=2) * 2
    ours, loop = queue_nce(q, k, queue, temperature=temperature), loop_queue_nce(q, k, queue, temperature)
    assert_close(ours, loop, **EXACT)
    assert_close(torch.autograd.grad(ours, q), torch.autograd.grad(loop, q), **EXACT)


def test_queue_nce_of_random_vectors_is_chance():
    q, k, queue = normal(512, 128), normal(512, 128, seed=1), normal(4096, 128, seed=2)
    expected = math.log(4097) + 1 / (2 * 128 * 0.2**2)  # the spread of the cosines adds 1/(2dτ²)
    assert queue_nce(q, k, queue, temperature=0.2).item() == pytest.approx(expected, rel=0.01)


def v3_loss(p, z, temperature):
    """The sum of both terms of MoCo v3 for the same queries and keys in both directions."""
    return 2 * 2 * temperature * info_nce(p, z, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("batch", [16, 256])
def test_v3_loss_keeps_its_corridor(batch, temperature):
    """Start: 4τ ln B. Perfect positives and orthogonal negatives: 4τ ln(1 + (B−1) e^(−1/τ)). Floor: 4τ ln B − 4, or 0."""
    eye = torch.eye(256, dtype=torch.float64)[:batch]
    assert v3_loss(eye, eye, temperature).item() == pytest.approx(4 * temperature * math.log(1 + (batch - 1) * math.exp(-1 / temperature)), rel=1e-9)
    draws = [v3_loss(normal(batch, 256, seed=2 * i), normal(batch, 256, seed=2 * i + 1), temperature).item() for i in range(20)]
    method = MoCoV3(create_model("resnet_pocket"), temperature=temperature)
    assert sum(draws) / 20 == pytest.approx(4 * temperature * math.log(batch) + 2 / (256 * temperature), rel=0.02)
    floor = 0 if (batch, temperature) in [(16, 0.1), (16, 0.2), (256, 0.1)] else 4 * temperature * math.log(batch) - 4
    assert method.landmarks(batch) == pytest.approx({"chance": 4 * temperature * math.log(batch), "floor": floor})
    simplex = eye - eye[:, :batch].mean(1, keepdim=True) * torch.cat([torch.ones(batch), torch.zeros(256 - batch)]).double()
    assert method.landmarks(batch)["floor"] < v3_loss(simplex, simplex, temperature) < v3_loss(eye, eye, temperature)


def test_hand_worked_losses_of_v3():
    """facts/moco.md §3.3: τ 0.2, B 256: 4.44 at random, 0.80 with orthogonal negatives; τ 1: 22.18 and 18.21."""
    eye = torch.eye(256)
    assert v3_loss(eye, eye, 0.2).item() == pytest.approx(0.80, abs=0.005)
    assert v3_loss(eye, eye, 1.0).item() == pytest.approx(18.21, abs=0.005)
    assert 4 * 0.2 * math.log(256) == pytest.approx(4.44, abs=0.005)


# ---------------------------------------------------------------------------------------------------- momentum encoder


def test_follow_is_the_moving_average_and_keeps_what_is_equal():
    slow, fast = nn.Linear(5, 7), nn.Linear(5, 7)
    before = copy.deepcopy(slow)
    follow(slow, fast, 0.97)
    assert_close(slow.weight, 0.97 * before.weight + 0.03 * fast.weight)
    twin = momentum_copy(fast)
    for _ in range(300):
        follow(twin, fast, 0.999)
    assert torch.equal(twin.weight, fast.weight) and not twin.weight.requires_grad
    follow(slow, fast, 0.0)
    assert torch.equal(slow.weight, fast.weight)
    follow(slow, before, 1.0)
    assert torch.equal(slow.weight, fast.weight)


def test_the_momentum_encoder_has_running_statistics_of_its_own():
    method = MoCoV3(create_model("resnet_pocket")).double()
    method(batch_of(2, images=6), 0.0)
    own, slow = (dict(part.named_buffers()) for part in (method.backbone, method.momentum_backbone))
    assert own["bn1.num_batches_tracked"] == slow["bn1.num_batches_tracked"] == 2
    method(Batch(tuple(3 * view for view in batch_of(2, images=6).views), torch.zeros(6), torch.arange(6)), 0.0)
    kept = slow["bn1.running_var"].clone()
    method.after_step(0.0)
    assert torch.equal(slow["bn1.running_var"], kept)


def test_a_weight_normed_projection_has_a_momentum_copy_that_follows():
    method = MoCoV3(create_model("vit_pocket_patch8", patch_norm="weight"), momentum=0.0, ramp=False).double()
    randomise(method.backbone)
    method.after_step(0.0)
    x = batch_of(1).views[0]
    assert_close(method.momentum_backbone(x), method.backbone(x), rtol=0, atol=0)
    assert not any(p.requires_grad for p in method.momentum_backbone.parameters())


@pytest.mark.parametrize("kind", [MoCo, MoCoV3])
def test_key_side_starts_as_a_copy_and_never_has_a_gradient(kind):
    method = kind(create_model("vit_pocket_patch8", freeze_patch=True), **({"queue_size": 12} if kind is MoCo else {})).double()
    assert_close(dict(method.momentum_backbone.named_parameters()), dict(method.backbone.named_parameters()), rtol=0, atol=0)
    method(batch_of(2, images=6), 0.0)[0].backward()
    names = {name for name, p in method.named_parameters() if p.grad is not None}
    assert not any(name.startswith("momentum_") for name in names)
    assert {"backbone.blocks.0.attn.to_qkv.weight", "projector.0.weight"} <= names
    assert method.backbone.stem.proj.weight.grad is None
    trained = {id(p) for group in method.param_groups(0.1) for p in group["params"]}
    frozen = [*method.momentum_backbone.parameters(), *method.momentum_projector.parameters(), *method.backbone.stem.parameters()]
    assert not trained & {id(p) for p in frozen}


# ---------------------------------------------------------------------------------------------------- MoCo v1 and v2


def moco(images=6, **settings) -> MoCo:
    """A MoCo whose key side has weights of its own, and a batch for it."""
    settings = {"queue_size": 24, "temperature": 0.3, "projector": mlp_head(128, 11, 5, bias=True, hidden_norm=None), **settings}
    return randomise(MoCo(create_model("resnet_pocket"), **settings))


@pytest.mark.parametrize("shuffle", [False, True])
def test_moco_is_queries_keys_and_loss(shuffle):
    method, batch = moco(shuffle=shuffle), batch_of(2, images=6)
    queue = method.queue.clone()
    loss, figures = method(batch, 0.0)
    q = method.projector(method.backbone(batch.views[0]))
    k = method.momentum_projector(method.momentum_backbone(batch.views[1]))
    assert_close(loss, loop_queue_nce(q, k, queue, 0.3), **EXACT)
    right = [all(cosine(q[i], k[i]) > cosine(q[i], row) for row in queue) for i in range(6)]
    assert figures["accuracy"].item() == pytest.approx(sum(right) / 6)


def test_symmetric_moco_adds_both_losses_and_enqueues_both_sets_of_keys():
    method, batch = moco(symmetric=True), batch_of(2, images=6)
    queue = method.queue.clone()
    loss, _ = method(batch, 0.0)
    q1, q2 = (method.projector(method.backbone(view)) for view in batch.views)
    k1, k2 = (method.momentum_projector(method.momentum_backbone(view)) for view in batch.views)
    assert_close(loss, loop_queue_nce(q1, k2, queue, 0.3) + loop_queue_nce(q2, k1, queue, 0.3), **EXACT)
    method.after_step(0.0)
    assert_close(method.queue, torch.cat([F.normalize(k1), F.normalize(k2), queue[12:]]), **EXACT)  # k of view 1 first
    assert method.landmarks(6)["chance"] == pytest.approx(2 * math.log(25))


def test_the_queue_is_a_ring_that_is_written_after_the_loss():
    method = moco(queue_size=12, images=6)
    before = method.queue.clone()
    seen = []
    for seed in range(3):
        views = tuple(normal(6, 3, 32, 32, seed=10 * seed + i) for i in range(2))
        method(Batch(views, torch.zeros(6), torch.arange(6)), 0.0)
        assert_close(method.queue, before)  # not before the optimizer has stepped
        method.after_step(0.0)
        assert_close(method.queue.norm(dim=1)[: 6 * (seed + 1)], torch.ones(min(6 * (seed + 1), 12)).double())
        seen.append(F.normalize(method.fresh))
        before = method.queue.clone()
    assert_close(method.queue, torch.cat([seen[2], seen[1]]))
    assert method.oldest == 6


def test_a_queue_that_the_batch_does_not_divide_is_refused_before_anything_changes():
    method = moco(queue_size=16)
    before = copy.deepcopy(method.state_dict())
    data = load_data("shapes", limit=30)
    with pytest.raises(ValueError, match="queue_size=16 is not a multiple of the 6 keys"):
        fit(method.float(), data, steps=1, batch_size=6, lr=0.1)
    after = method.double().state_dict()
    assert all(torch.allclose(after[name], value) for name, value in before.items() if "bn" not in name and "downsample" not in name)


def test_groups_normalise_apart_and_shuffling_mixes_them():
    batch = batch_of(2, images=6)
    whole, split = moco(shuffle=False), moco(shuffle=False, groups=3)
    assert {m.groups for m in split.modules() if isinstance(m, BatchNorm)} == {3}
    assert abs(whole(batch, 0.0)[0] - split(batch, 0.0)[0]) > 1e-4
    q = split.projector(split.backbone(batch.views[0]))
    parts = [set_batch_norm(copy.deepcopy(split.backbone), groups=1)(part) for part in batch.views[0].chunk(3)]
    assert_close(q, split.projector(torch.cat(parts)), **EXACT)
    mixed = moco(groups=3)
    torch.manual_seed(3)
    order = torch.randperm(6)
    torch.manual_seed(3)
    keys = mixed.keys(batch.views[1])
    shuffled = set_batch_norm(mixed.momentum_backbone, groups=1)
    parts = [mixed.momentum_projector(shuffled(part)) for part in batch.views[1][order].chunk(3)]
    assert_close(keys[order], torch.cat(parts), **EXACT)
    assert (keys - split.keys(batch.views[1])).abs().max() > 1e-3


def test_moco_starts_with_random_unit_keys_and_v2s_settings():
    method = MoCo(create_model("resnet18", stem="cifar"))
    assert method.queue.shape == (65536, 128) and (method.momentum, method.temperature) == (0.999, 0.2)
    assert_close(method.queue.norm(dim=1), torch.ones(65536))
    assert method.queue.mean(0).abs().max() < 0.01
    assert [type(m) for m in method.projector] == [nn.Linear, nn.ReLU, nn.Linear] and method.projector[2].bias is not None
    assert not any(isinstance(m, BatchNorm) for m in method.projector)
    v1 = projector("moco_v1", 2048)
    assert [tuple(p.shape) for p in v1.parameters()] == [(128, 2048), (128,)]
    assert method.landmarks(256)["chance"] == pytest.approx(11.09, abs=0.005)


# ---------------------------------------------------------------------------------------------------- MoCo v3


def moco_v3(backbone="resnet_pocket", **settings) -> MoCoV3:
    dim = create_model(backbone).dim
    heads = {"projector": mlp_head(dim, 11, 5, out_norm="bn_plain"), "predictor": mlp_head(5, 7, 5)}
    return randomise(MoCoV3(create_model(backbone), **{"temperature": 0.3, **heads, **settings}))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", [None, 1.7])
def test_v3_crosses_the_views_and_predicts_on_the_query_side_only(symmetric, scale):
    method, batch = moco_v3(symmetric=symmetric, scale=scale), batch_of(2, images=6)
    p1, p2 = (method.predictor(method.projector(method.backbone(view))) for view in batch.views)  # one pass for each view
    z1, z2 = (method.momentum_projector(method.momentum_backbone(view)) for view in batch.views)
    loss, _ = method(batch, 0.0)
    expected = 0
    for p, z in ((p1, z2), (p2, z1))[: 1 + symmetric]:
        for i in range(6):  # the positive and the five other keys of the same view
            terms = [torch.exp(cosine(p[i], z[j]) / 0.3) for j in range(6)]
            expected = expected - (scale or 0.6) * torch.log(terms[i] / sum(terms)) / 6
    assert_close(loss, expected, **EXACT)


def test_v3_without_a_predictor():
    assert moco_v3(predictor=nn.Identity()).predict(normal(6, 3, 32, 32)).shape == (6, 5)
    chosen = preset("moco_v3/pocket", predictor_args={"layers": 0}).build(10)
    assert not list(chosen.predictor.parameters())


def test_momentum_ramp():
    method = moco_v3(momentum=0.9)
    assert [method.momentum_at(progress) for progress in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1])
    assert moco_v3(momentum=0.9, ramp=False).momentum_at(0.7) == 0.9


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_zero_copies_and_one_never_moves(momentum):
    method = moco_v3(momentum=momentum, ramp=False)
    before = copy.deepcopy(dict(method.momentum_backbone.named_parameters()))
    loss, _ = method(batch_of(2, images=6), 0.0)
    loss.backward()
    torch.optim.SGD(method.param_groups(0.0)[0]["params"], lr=0.1).step()
    method.after_step(0.5)
    slow, fast = (dict(part.named_parameters()) for part in (method.momentum_backbone, method.backbone))
    for name, value in slow.items():
        assert torch.equal(value, fast[name] if momentum == 0 else before[name])


def test_one_average_a_step_over_backbone_and_projector():
    method = moco_v3(momentum=0.9, ramp=False)
    before = copy.deepcopy(method)
    method(batch_of(2, images=6), 0.0)
    method.after_step(0.0)
    for slow, fast in (("momentum_backbone", "backbone"), ("momentum_projector", "projector")):
        for (name, value), old, new in zip(
            getattr(method, slow).named_parameters(), getattr(before, slow).parameters(), getattr(before, fast).parameters(), strict=True
        ):
            assert_close(value, 0.9 * old + 0.1 * new, msg=name)


def test_a_frozen_patch_projection_stays_as_it_was_drawn():
    chosen = preset("moco_v3/pocket", model="vit_pocket_patch8", model_args={"freeze_patch": True}, limit=60, batch_size=20, steps=4)
    train, _ = chosen.load()
    start = chosen.build(10)
    method, _ = chosen.fit(train)
    for side in (method.backbone, method.momentum_backbone):
        assert torch.equal(side.stem.proj.weight, start.backbone.stem.proj.weight)
        assert not torch.equal(side.blocks[0].attn.to_qkv.weight, start.backbone.blocks[0].attn.to_qkv.weight)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_default_recipe_is_the_papers_two_views():
    first, second = MoCoV3(create_model("resnet_pocket")).recipe.views
    assert "Solarize" not in repr(first) and "Solarize" in repr(second)


def test_an_untrained_network_starts_near_chance():
    """4τ ln B up to 15 % (facts/moco.md §13), never below the floor."""
    chosen = preset("moco_v3/pocket", limit=300)
    train, _ = chosen.load()
    view = View(*chosen.recipe().views[0].operations, mean=(0.5,) * 3, std=(0.25,) * 3)
    method = chosen.build(10)
    method.recipe = Recipe((view, view), eval=method.recipe.eval)
    batch = Batch(tuple(view(train.images[:256].float() / 255) for _ in range(2)), train.labels[:256], torch.arange(256))
    loss, _ = method(batch, 0.0)
    chance = method.landmarks(256)["chance"]
    assert chance == pytest.approx(4.436, abs=0.001) and 0.98 * chance <= loss.item() <= 1.15 * chance


# ---------------------------------------------------------------------------------------------------- official recipes

# facts/moco.md §6.4, §1.3, §2, §2.1: batch, base rate, weight decay, epochs, warm-up epochs, τ, m, smallest crop, head, optimizer
OFFICIAL = {
    "moco_v1/imagenet_resnet50": (256, 0.03, 1e-4, 200, 0, 0.07, 0.999, 0.2, "moco_v1", "sgd_plain"),
    "moco_v2/imagenet_resnet50": (256, 0.03, 1e-4, 200, 0, 0.2, 0.999, 0.2, "moco_v2", "sgd_plain"),
    "moco_v2/cifar10": (512, 0.03, 5e-4, 200, 0, 0.1, 0.99, 0.08, "moco_v1", "sgd_plain"),
    "moco_v3/imagenet_vit_small": (4096, 1.5e-4, 0.1, 300, 40, 0.2, 0.99, 0.08, "moco_v3_vit", "adamw"),
    "moco_v3/imagenet_vit_base": (4096, 1.5e-4, 0.1, 300, 40, 0.2, 0.99, 0.08, "moco_v3_vit", "adamw"),
    "moco_v3/imagenet_resnet50": (4096, 0.6, 1e-6, 100, 10, 1.0, 0.99, 0.2, "moco_v3_resnet", "lars"),
}
IMAGENET_IMAGES = 1_281_167


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_recipes(name):
    batch, base, decay, epochs, warmup, temperature, momentum, area, head, optimizer = OFFICIAL[name]
    chosen = preset(name)
    with torch.device("meta"):
        method = chosen.build(1000)
    assert (chosen.batch_size, chosen.weight_decay, chosen.epochs, chosen.head, chosen.optimizer) == (batch, decay, epochs, head, optimizer)
    assert chosen.lr == pytest.approx(scale_lr(base, batch))
    assert chosen.warmup == warmup * (IMAGENET_IMAGES // batch)
    assert (method.temperature, method.momentum) == (temperature, momentum)
    assert method.recipe.views[0].operations[0].area == (area, 1.0)
    if "vit" in name:
        assert not method.backbone.stem.proj.weight.requires_grad and method.ramp
        assert count(method.projector) == 19_415_040 + (method.backbone.dim - 384) * 4096
    if name == "moco_v2/cifar10":
        assert (method.queue_size, method.symmetric) == (4096, False)
        assert {m.groups for m in method.modules() if isinstance(m, BatchNorm)} == {8}


def test_presets_of_moco_keep_their_groups_and_their_own_statistics():
    """SimCLR and MoCo v3 join statistics over processes; MoCo must not."""
    for name, sync in (("moco_v2/pocket", False), ("moco_v3/pocket", True), ("simclr/pocket", True)):
        method = preset(name).build(10)
        assert {m.sync for m in method.modules() if isinstance(m, BatchNorm)} == {sync}
