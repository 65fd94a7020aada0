"""Every registered model against one contract; ViT and ResNet against torchvision; timm's parameter counts."""
import copy
import inspect
import re
from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from randomise import normal, randomise
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18, resnet50
from torchvision.models.vision_transformer import VisionTransformer

from minivit.layers.norm import BatchNorm, TokenBatchNorm
from minivit.layers.position import sincos_2d
from minivit.layers.stems import ConvLayer
from minivit.models import create_model, list_models
from minivit.weights import load_weights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SMALL = 2_000_000  # parameters of a model that the contract runs on the CPU


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(name: str, **settings) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **settings)


# ---------------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", list_models())
def test_every_model_keeps_the_contract(name):
    device = "cpu" if parameters(on_meta(name)) < SMALL else "meta"
    settings = {"depth": (1, 1, 2, 1)} if name.startswith("swin") and device == "meta" else {}  # further blocks are the same ones
    with torch.device(device):
        model, logits = create_model(name, **settings), create_model(name, num_classes=11, **settings)
        height, width = (model.image_size,) * 2 if isinstance(model.image_size, int) else model.image_size
        tokens = {}
        for h, w in ((height, width), (2 * height, width)):
            x = torch.rand(3, 3, h, w)
            assert model(x).shape == (3, model.dim)
            assert logits(x).shape == (3, 11)
            batch, tokens[h], dim = model.forward_tokens(x).shape
            assert (batch, dim) == (3, model.dim)
        assert tokens[2 * height] - model.prefix_tokens == 2 * (tokens[height] - model.prefix_tokens) > 0
    assert {str(p.device) for p in model.parameters()} == {device}
    if device == "cpu":
        model(x).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in list_models() if parameters(on_meta(name)) < SMALL])
def test_images_of_a_batch_do_not_see_each_other_in_eval(name):
    model = randomise(create_model(name)).eval()
    x = normal(3, 3, model.image_size, model.image_size)
    with torch.no_grad():
        assert_close(model(x)[1:2], model(x[1:2]), **EXACT)


def test_patterns_list_models():
    assert list_models("vit_*_224") == [
        "vit_base_patch16_224", "vit_huge_patch14_224", "vit_large_patch16_224", "vit_small_patch16_224", "vit_tiny_patch16_224",
    ]  # fmt: skip
    assert list_models("no such*") == []


# Counted with timm 1.0.31 and torchvision 0.29, 1000 classes; the CIFAR stem by hand (facts/simclr.md §2.4).
COUNTS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_large_patch16_224": 304_326_632,
    "vit_huge_patch14_224": 632_045_800,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_with_1000_classes(name):
    assert parameters(on_meta(name, num_classes=1000)) == COUNTS[name]


def test_parameter_counts_of_features():
    assert parameters(on_meta("resnet18", stem="cifar")) == 11_168_832
    moco_v3 = on_meta("vit_small_patch16_224", positions="sincos", heads=12)
    assert parameters(moco_v3) == 21_589_632 + 384  # facts/moco.md


def test_moco_v3_models_are_the_official_ones():
    """facts/moco.md §4.1: counts with the fixed positions, which are no parameters of ours, and twelve heads everywhere."""
    positions = {"small": 197 * 384, "base": 197 * 768}
    counts = {"small": 21_665_664, "base": 85_798_656}
    for size, expected in counts.items():
        model = on_meta(f"moco_v3_vit_{size}")
        assert parameters(model) + positions[size] == expected
        conv = on_meta(f"moco_v3_vit_conv_{size}")
        assert [len(m.blocks) for m in (model, conv)] == [12, 11]
        assert {block.attn.heads for m in (model, conv) for block in m.blocks} == {12}
    assert parameters(on_meta("moco_v3_vit_conv_small")) == pytest.approx(20.6e6, rel=0.005)
    assert parameters(on_meta("moco_v3_vit_conv_base")) == pytest.approx(82.2e6, rel=0.005)
    bound = (6 / (3 * 16**2 + 384)) ** 0.5
    assert create_model("moco_v3_vit_small", depth=1).stem.proj.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)  # 0.0722


# ---------------------------------------------------------------------------------------------------- ViT

# image 42, patch 7 (36 tokens), width 10 in 5 heads, MLP 23 (ratio 2.3), 3 blocks, 13 classes
TINY = {"image_size": 42, "patch": 7, "dim": 10, "depth": 3, "heads": 5, "mlp_ratio": 2.3}


def tiny(**settings) -> nn.Module:
    return create_model("vit_tiny_patch16_224", **{**TINY, **settings}).double()


def torchvision_vit(**settings) -> VisionTransformer:
    sizes = {"image_size": 42, "patch_size": 7, "num_layers": 3, "num_heads": 5, "hidden_dim": 10, "mlp_dim": 23}
    return randomise(VisionTransformer(**sizes, num_classes=13, **settings)).eval()


@torch.no_grad()
def test_vit_equals_torchvision():
    peer, ours, x = torchvision_vit(), tiny(num_classes=13), normal(3, 3, 42, 42)
    assert load_weights(ours, peer.state_dict(), "torchvision") == []
    assert_close(ours(x), peer(x), **EXACT)
    for block in ours.blocks:
        block.attn.fused = False
    assert_close(ours(x), peer(x), **EXACT)
    tokens = peer._process_input(x)
    tokens = peer.encoder(torch.cat([peer.class_token.expand(3, -1, -1), tokens], dim=1))
    assert_close(ours.forward_tokens(x), tokens, **EXACT)


def test_vit_gradients_equal_torchvision():
    peer, ours, x = torchvision_vit(), tiny(num_classes=13), normal(3, 3, 42, 42)
    load_weights(ours, peer.state_dict())
    for model in (ours, peer):
        model(x).square().sum().backward()
    gradients = copy.deepcopy(ours)
    load_weights(gradients, {name: p.grad for name, p in peer.named_parameters()})
    for name, p in ours.named_parameters():
        assert_close(p.grad, gradients.get_parameter(name).data, **EXACT)


def in_timm_layout(peer: VisionTransformer) -> dict[str, torch.Tensor]:
    """timm's names for torchvision's weights, written out from timm's source."""
    own = peer.state_dict()
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    pairs = {"patch_embed.proj": "conv_proj", "norm": "encoder.ln"} | ({"head": "heads.head"} if "heads.head.weight" in own else {})
    for i in range(len(peer.encoder.layers)):
        block = f"encoder.layers.encoder_layer_{i}"
        pairs |= {f"blocks.{i}.norm1": f"{block}.ln_1", f"blocks.{i}.norm2": f"{block}.ln_2"}
        pairs |= {f"blocks.{i}.attn.proj": f"{block}.self_attention.out_proj"}
        pairs |= {f"blocks.{i}.mlp.fc1": f"{block}.mlp.0", f"blocks.{i}.mlp.fc2": f"{block}.mlp.3"}
        names |= {f"blocks.{i}.attn.qkv.{kind}": f"{block}.self_attention.in_proj_{kind}" for kind in ("weight", "bias")}
    names |= {f"{timm}.{kind}": f"{name}.{kind}" for timm, name in pairs.items() for kind in ("weight", "bias")}
    assert sorted(names.values()) == sorted(own)
    return {timm: own[name] for timm, name in names.items()}


@torch.no_grad()
def test_vit_takes_timms_layout():
    peer, ours, x = torchvision_vit(), tiny(num_classes=13), normal(3, 3, 42, 42)
    assert load_weights(ours, in_timm_layout(peer), "timm") == []
    assert_close(ours(x), peer(x), **EXACT)


@torch.no_grad()
def test_permuted_patches_give_the_same_feature_without_positions_only():
    x, order = normal(2, 3, 42, 42), normal(36).argsort()
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) c p q", p=7, q=7)[:, order]
    shuffled = rearrange(patches, "b (h w) c p q -> b c (h p) (w q)", h=6)
    for pool in ("cls", "avg"):
        bag = randomise(tiny(pool=pool, positions="none"))
        assert_close(bag(shuffled), bag(x), **EXACT)
        for positions in ("learned", "sincos"):
            ordered = randomise(tiny(pool=pool, positions=positions, dim=20))
            assert (ordered(shuffled) - ordered(x)).abs().mean() > 1e-2


@torch.no_grad()
def test_pooling_reads_the_tokens_it_says():
    x = normal(2, 3, 42, 42)
    cls, avg = randomise(tiny()), randomise(tiny(pool="avg"))
    assert_close(cls(x), cls.forward_tokens(x)[:, 0], **EXACT)
    assert_close(avg(x), avg.forward_tokens(x).mean(1), **EXACT)
    assert (cls.forward_tokens(x).shape[1], avg.forward_tokens(x).shape[1]) == (37, 36)
    bare = randomise(tiny(pool="avg_no_norm"))
    bare.load_state_dict(avg.state_dict(), strict=False)
    assert not list(bare.norm.parameters())
    assert_close(avg(x), avg.norm(bare.forward_tokens(x)).mean(1), **EXACT)
    assert_close(bare(x), bare.forward_tokens(x).mean(1), **EXACT)


def test_vit_bn_has_pytorchs_batch_norm_where_it_says():
    """Per channel, over all tokens of all images: nn.BatchNorm1d of the tokens in one long row."""
    x = normal(3, 5, 10)
    for norm, kinds in (("bn_mlp", [nn.LayerNorm, TokenBatchNorm, nn.LayerNorm]), ("bn", [TokenBatchNorm] * 3)):
        model = randomise(tiny(norm=norm))
        block = model.blocks[1]
        assert [type(part) for part in (block.norm1, block.norm2, model.norm)] == kinds
        peer = nn.BatchNorm1d(10, dtype=torch.float64)
        peer.load_state_dict(block.norm2.state_dict())
        assert_close(block.norm2(x), rearrange(peer(rearrange(x, "b n d -> (b n) d")), "(b n) d -> b n d", b=3), **EXACT)
        assert_close(block.norm2.running_var, peer.running_var, **EXACT)


def test_a_frozen_patch_projection_has_no_gradient():
    model = tiny(freeze_patch=True)
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("stem."))
    for setting in ({"freeze_patch": True}, {"patch_norm": "bn"}):
        with pytest.raises(ValueError, match="other stems are trained"):
            create_model("vit_pocket_conv8", **setting)


@torch.no_grad()
def test_the_norm_of_the_patch_projection_is_in_the_stem():
    for norm in ("bn", "weight"):
        model, x = randomise(tiny(patch_norm=norm)).eval(), normal(2, 3, 28, 28)
        assert type(model.stem.norm).__name__ == {"bn": "BatchNorm", "weight": "Identity"}[norm]
        assert model(x).shape == (2, model.dim)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["cls", "avg"])
def test_mask_token_stands_in_before_the_positions(pool):
    model, x = randomise(tiny(pool=pool, depth=0, mask_token=True, image_size=(21, 35))), normal(2, 3, 21, 35)
    mask = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    plain, masked = (model.forward_tokens(x, mask=m)[:, model.prefix_tokens :] for m in (None, mask))
    where = rearrange(mask, "b h w -> b (h w)")
    assert torch.equal(masked[~where], plain[~where])
    table = model.positions.table[model.prefix_tokens :].expand(2, -1, -1)
    assert_close(masked[where], model.norm(model.mask_token + table)[where], **EXACT)
    everything = torch.ones_like(mask)
    assert torch.equal(model.forward_tokens(x, mask=everything), model.forward_tokens(-3 * x, mask=everything))


def test_initial_logits_of_a_vit_are_zero_and_drop_path_grows_linearly():
    model = create_model("vit_pocket_conv8", num_classes=13, drop_path=0.2)
    assert (model(torch.rand(3, 3, 32, 32)) == 0).all()
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2])


def test_vit_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="no mask token"):
        tiny().forward_tokens(normal(2, 3, 42, 42), mask=torch.zeros(2, 6, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="42×43 is not divisible by patch=7"):
        tiny()(normal(2, 3, 42, 43))
    with pytest.raises(ValueError, match="43×43 is not divisible"):
        tiny(image_size=43)
    with pytest.raises(ValueError, match="heads=3 does not divide dim=10"):
        tiny(heads=3)
    for setting in ("positions", "pool", "norm", "stem"):
        with pytest.raises(ValueError, match=f"{setting}='other'"):
            tiny(**{setting: "other"})
    with pytest.raises(ValueError, match="multiply to 2, not to patch=7"):
        tiny(stem=(ConvLayer(3, 2, 5, 1),))


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="no model is called 'resnet_18'; did you mean resnet18"):
        create_model("resnet_18")
    with pytest.raises(ValueError, match="no setting 'patch_size'; did you mean"):
        create_model("vit_pocket_conv8", patch_size=4)
    with pytest.raises(ValueError, match="no setting 'heads'; there are: block"):
        create_model("resnet18", heads=4)


# ---------------------------------------------------------------------------------------------------- ResNet


def unfilled(build: Callable[..., nn.Module], *args, **settings) -> nn.Module:
    """A float64 model without the seconds that its initialisation takes: its weights are whatever lay in memory."""
    with torch.device("meta"):
        return build(*args, **settings).double().to_empty(device="cpu")


@pytest.mark.parametrize(("name", "peer"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_resnet_equals_torchvision(name, peer):
    peer, ours, x = randomise(unfilled(peer, num_classes=13)), unfilled(create_model, name, num_classes=13), normal(2, 3, 35, 39)
    assert load_weights(ours, peer.state_dict()) == []
    with torch.no_grad():
        assert_close(ours.eval()(x), peer.eval()(x), **EXACT)
        assert_close(ours.train()(x), peer.train()(x), **EXACT)
    assert_close(dict(ours.named_buffers()), dict(peer.named_buffers()), **EXACT)  # the running statistics after that step


@torch.no_grad()
def test_cifar_stem_is_torchvisions_network_with_another_start():
    peer, ours = unfilled(resnet18, num_classes=13), unfilled(create_model, "resnet18", num_classes=13, stem="cifar")
    peer.conv1, peer.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    randomise(peer)
    x = normal(2, 3, 17, 19)
    load_weights(ours, peer.state_dict())
    assert_close(ours.eval()(x), peer.eval()(x), **EXACT)
    assert ours.forward_tokens(x).shape == (2, 3 * 3, 512)
    assert_close(ours.fc(ours.forward_tokens(x).mean(1)), ours(x), **EXACT)


def test_residual_branches_start_at_zero():
    for name in ("resnet_pocket", "resnet50"):
        model = create_model(name, width=8)
        for block in [*model.layer1, *model.layer2, *model.layer3, *model.layer4]:
            norms = [child for child in block.children() if isinstance(child, BatchNorm)]
            assert (norms[-1].weight == 0).all()
            assert all((norm.weight == 1).all() for norm in norms[:-1])


def test_resnet_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="no tokens to mask"):
        create_model("resnet_pocket").forward_tokens(torch.zeros(2, 3, 32, 32), mask=torch.zeros(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="stem='mnist'"):
        create_model("resnet18", stem="mnist")
    with pytest.raises(ValueError, match="four stages"):
        create_model("resnet18", depths=(2, 2, 2))


# ---------------------------------------------------------------------------------------------------- load_weights


def refuses(model: nn.Module, weights: dict, source: str = "torchvision") -> str:
    """The message of the refusal, after a look that no weight has changed."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as refusal:
        inspect.unwrap(load_weights)(model, weights, source)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(refusal.value)


def test_load_weights_lists_everything_that_is_wrong_and_changes_nothing():
    weights = dict(torchvision_vit().state_dict())
    weights["encoder.layers.encoder_layer_3.ln_1.weight"] = normal(10)
    del weights["encoder.ln.bias"], weights["class_token"]
    message = refuses(tiny(num_classes=17), weights)
    assert "missing: cls_token, norm.bias; unexpected: blocks.3.norm1.weight; of wrong shape: " in message
    assert "head.weight (13, 10) instead of (17, 10), head.bias (13,) instead of (17,)" in message
    assert message.endswith("Nothing was changed.")


def test_load_weights_refuses_another_image_size():
    message = refuses(tiny(num_classes=13, image_size=49), torchvision_vit().state_dict())
    assert "of wrong shape: positions.table (37, 10) instead of (50, 10)." in message


def test_load_weights_refuses_what_is_not_a_checkpoint_of_the_source():
    weights = torchvision_vit().state_dict()
    assert "source='tinm': weights come from torchvision, timm" in refuses(tiny(num_classes=13), weights, "tinm")
    assert "unexpected: class_token" in refuses(tiny(num_classes=13), weights, "timm")
    assert "missing: cls_token" in refuses(tiny(num_classes=13), {})
    assert "model, epoch are something else" in refuses(tiny(num_classes=13), {"model": dict(weights), "epoch": 3})
    assert "both our head.weight" in refuses(tiny(num_classes=13), {**weights, "head.weight": normal(13, 10)})
    headless = {name: value for name, value in weights.items() if "heads" not in name}
    assert "missing: head.weight, head.bias" in refuses(tiny(num_classes=13), headless)


@torch.no_grad()
def test_load_weights_drops_the_classifier_where_there_is_none():
    peer, ours, x = torchvision_vit(), tiny(), normal(3, 3, 42, 42)
    assert load_weights(ours, peer.state_dict()) == ["head.weight", "head.bias"]
    peer.heads = nn.Identity()
    assert_close(ours(x), peer(x), **EXACT)
    resnet = resnet18(num_classes=13)
    assert load_weights(create_model("resnet18"), resnet.state_dict(), "timm") == ["fc.weight", "fc.bias"]


def test_load_weights_takes_torchvisions_old_files():
    weights = torchvision_vit().state_dict()
    old = {re.sub(r"mlp\.([03])", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}", name): value for name, value in weights.items()}
    assert "encoder.layers.encoder_layer_2.mlp.linear_2.bias" in old
    ours = tiny(num_classes=13)
    load_weights(ours, old)
    assert torch.equal(ours.blocks[2].mlp[2].bias, weights["encoder.layers.encoder_layer_2.mlp.3.bias"])
    weights = {name: value for name, value in resnet18().state_dict().items() if not name.endswith("num_batches_tracked")}
    load_weights(create_model("resnet18", num_classes=1000), weights)


def test_load_weights_keeps_dtype_and_does_not_share_memory():
    weights, ours = torchvision_vit().state_dict(), create_model("vit_tiny_patch16_224", num_classes=13, **TINY)
    load_weights(ours, weights)
    assert ours.norm.bias.dtype == torch.float32
    with torch.no_grad():
        ours.norm.bias.zero_()
    assert (weights["encoder.ln.bias"] != 0).all()


# ---------------------------------------------------------------------------------------------------- MoCo v3's checkpoints


def official_moco_v3(peer: VisionTransformer) -> dict[str, torch.Tensor]:
    """The layout of the official files: torchvision's random weights under timm's names, momentum encoder and heads beside them."""
    weights = {f"module.base_encoder.{name}": value for name, value in in_timm_layout(peer).items()}
    weights |= {name.replace("base_encoder", "momentum_encoder"): -value for name, value in weights.items()}
    weights |= {"module.base_encoder.head.0.weight": normal(7, 24), "module.base_encoder.head.1.running_mean": normal(7)}
    return weights | {"module.predictor.0.weight": normal(7, 7)}


def moco_v3_pair() -> tuple[nn.Module, VisionTransformer]:
    """A small MoCo v3 ViT (twelve heads, sin-cos positions) and torchvision's network of the same shape with random weights."""
    sizes = {"image_size": 21, "patch_size": 7, "num_layers": 2, "num_heads": 12, "hidden_dim": 24, "mlp_dim": 96}
    peer = randomise(VisionTransformer(**sizes)).eval()
    peer.encoder.pos_embedding.data = sincos_2d(24, 3, 3, cls_token=True).double()[None]
    peer.heads = nn.Identity()
    return create_model("moco_v3_vit_small", image_size=21, patch=7, dim=24, depth=2).double(), peer


@torch.no_grad()
def test_official_moco_v3_checkpoints_give_the_features_of_an_independent_vit():
    ours, peer = moco_v3_pair()
    weights, x = official_moco_v3(peer), normal(3, 3, 21, 21)
    dropped = load_weights(ours, weights, "moco_v3")
    assert_close(ours(x), peer(x), **EXACT)
    assert "positions.table" in dropped and "predictor.0.weight" in dropped and "head.0.weight" in dropped
    assert len([name for name in dropped if name.startswith("momentum_encoder.")]) == 4 + 2 + 2 * 12
    bare = {name.removeprefix("module.base_encoder."): value for name, value in weights.items() if "base_encoder" in name}
    again = create_model("moco_v3_vit_small", image_size=21, patch=7, dim=24, depth=2).double()
    load_weights(again, bare, "moco_v3")
    assert_close(again(x), peer(x), **EXACT)


def test_moco_v3_checkpoints_do_not_load_into_six_heads_or_other_positions():
    _, peer = moco_v3_pair()
    weights = official_moco_v3(peer)
    sizes = {"image_size": 21, "patch": 7, "dim": 24, "depth": 2}
    assert "have 12 heads, this model 6" in refuses(create_model("moco_v3_vit_small", heads=6, **sizes), weights, "moco_v3")
    other = {**weights, "module.base_encoder.pos_embed": normal(1, 10, 24)}
    assert "not the sin-cos code of this model" in refuses(create_model("moco_v3_vit_small", **sizes), other, "moco_v3")
    assert "unexpected: positions.table" in refuses(create_model("moco_v3_vit_small", positions="none", **sizes), weights, "moco_v3")


@torch.no_grad()
def test_official_conv_stems_and_resnets_of_moco_v3_load():
    """Each layer of the official stem is conv, norm, ReLU in one Sequential; a ResNet's names are torchvision's."""
    sizes = {"image_size": 32, "patch": 8, "dim": 24, "depth": 1}
    donor, ours = randomise(create_model("moco_v3_vit_conv_small", **sizes)), create_model("moco_v3_vit_conv_small", **sizes).double()
    rules = {"stem.layers.": "patch_embed.proj.", "to_qkv": "qkv", "to_out": "proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    weights = {}
    for name, value in donor.state_dict().items():
        for old, new in rules.items():
            name = name.replace(old, new)
        weights[f"module.base_encoder.{name}"] = value
    x = normal(2, 3, 32, 32)
    load_weights(ours, weights, "moco_v3")
    assert_close(ours.eval()(x), donor.eval()(x), **EXACT)
    peer, resnet = randomise(unfilled(resnet50, num_classes=13)), unfilled(create_model, "resnet50")
    weights = {f"module.base_encoder.{name}": value for name, value in peer.state_dict().items() if not name.startswith("fc.")}
    weights["module.base_encoder.fc.0.weight"] = normal(5, 2048)
    assert load_weights(resnet, weights, "moco_v3") == ["fc.0.weight"]
    peer.fc = nn.Identity()
    assert_close(resnet.eval()(normal(1, 3, 35, 39)), peer.eval()(normal(1, 3, 35, 39)), **EXACT)
