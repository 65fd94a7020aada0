"""The models of the conv-stem paper against its tables (facts/conv_stem.md), their stems against loops; costs; the distribution of errors."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from randomise import normal, randomise
from torch import nn
from torch.testing import assert_close
from torchvision.models import regnet_y_800mf, resnet50

from minivit.costs import complexity
from minivit.layers.norm import BatchNorm, PixelLayerNorm
from minivit.layers.stems import ConvStem, PatchifyBatchNormStem, PatchifyStem
from minivit.models import create_model
from minivit.models.early_convs import STEMS, stem
from minivit.models.resnet import ResNetConfig, ResNetStem
from minivit.studies import behind_best, draw, edf, edf_band, near_best

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def on_meta(name: str, **settings) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **settings)


# ---------------------------------------------------------------------------------------------------- costs

# Sheet §3, 1000 classes: parameters, 10⁹ multiply-adds, 10⁶ activations.
MODELS = {
    "vit_p_1gf": (4_830_376, 1.083, 5.52),
    "vit_p_4gf": (18_507_112, 3.909, 11.04),
    "vit_p_18gf": (86_567_656, 17.58, 23.9),
    "vit_p_36gf": (178_364_392, 36.0, 37.1),
    "vit_c_1gf": (4_567_936, 1.079, 5.63),
    "vit_c_4gf": (17_754_136, 3.966, 11.26),
    "vit_c_18gf": (81_573_160, 17.73, 24.0),
    "vit_c_36gf": (167_796_008, 35.03, 36.6),
    # torchvision's own figures of its RegNets, without activations
    "regnet_y_800mf": (6_432_512, 0.834, None),
    "regnet_y_3_2gf": (19_436_338, 3.176, None),
    "regnet_y_16gf": (83_590_140, 15.912, None),
    "regnet_y_32gf": (145_046_770, 32.28, None),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_cost_what_the_paper_says(name):
    parameters, gigaflops, millions = MODELS[name]
    found = complexity(on_meta(name, num_classes=1000))
    assert found.parameters == parameters
    assert found.flops / 1e9 == pytest.approx(gigaflops, rel=0.01)
    assert millions is None or found.activations / 1e6 == pytest.approx(millions, rel=0.01)


# Sheet §2 and §4: 10⁶ multiply-adds, parameters, 10⁶ activations of the stem alone; "0.60" there is 0.602, so to the last digit.
STEM_COSTS = {
    "vit_p_1gf": (28.9, 147_648, 0.04),
    "vit_p_4gf": (57.9, 295_296, 0.08),
    "vit_p_18gf": (115.8, 590_592, 0.15),
    "vit_p_36gf": (154.3, 787_456, 0.20),
    "vit_c_1gf": (112.9, 256_152, 0.60),
    "vit_c_4gf": (435.4, 1_021_488, 1.20),
    "vit_c_18gf": (1717, 2_683_968, 2.26),
    "vit_c_36gf": (1743, 2_815_296, 2.31),
    "vit_s1_4gf": (422, 752_564, 1.298),
    "vit_s2_4gf": (422, 716_960, 1.1),
    "vit_s3_4gf": (458, 671_459, 1.6),
    "vit_s4_4gf": (407, 555_464, 2.9),
    # by hand: 4² · (8² · 3) · 64; the others as side² · kernel² · channels in · channels out, summed
    "vit_p_pocket": (0.1966, 12_352, 0.001),
    "vit_c_pocket": (0.7660, 27_856, 0.008),
    "vit_s1_pocket": (0.8099, 23_757, 0.010),
    "vit_s2_pocket": (0.7757, 17_634, 0.009),
    "vit_s3_pocket": (0.8243, 14_799, 0.017),
}


@pytest.mark.parametrize("name", STEM_COSTS)
def test_stems_cost_what_the_paper_says(name):
    millions, parameters, outputs = STEM_COSTS[name]
    found = complexity(on_meta(name).stem, 32 if "pocket" in name else 224)
    assert found.parameters == parameters
    assert found.flops / 1e6 == pytest.approx(millions, rel=0.01)
    digits = 10.0 ** -len(str(outputs).partition(".")[2])
    assert found.activations / 1e6 == pytest.approx(outputs, abs=0.51 * digits)


def test_a_conv_stem_pays_with_one_block():
    for size, block in (("1gf", 87.8), ("4gf", 320.9), ("18gf", 1455), ("36gf", 2560)):
        p, c, shorter = (on_meta(name, **depth) for name, depth in ((f"vit_p_{size}", {}), (f"vit_c_{size}", {}), (f"vit_p_{size}", {"depth": 3})))
        assert len(c.blocks) == len(p.blocks) - 1
        of_one_block = (complexity(p).flops - complexity(shorter).flops) / (len(p.blocks) - 3)
        assert of_one_block / 1e6 == pytest.approx(block, rel=0.01)


def test_pocket_models_cost_the_same():
    p = complexity(create_model("vit_p_pocket"))
    for name in ("c", "s1", "s2", "s3"):
        model = create_model(f"vit_{name}_pocket")
        assert complexity(model).flops == pytest.approx(p.flops, rel=0.05)
        assert model.forward_tokens(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 64)
    small, large = (complexity(create_model(f"vit_{name}_pocket", dim=192, heads=3, **more), 32).flops
                    for name, more in (("c", {"depth": 5, "stem": "conv"}), ("p", {"depth": 6})))  # fmt: skip
    assert small == pytest.approx(large, rel=0.05)


def test_costs_of_a_small_vit_by_hand():
    """Image 21×14, patch 7: N = 6 patches and a class token; D = 10, two heads, MLP 20, 2 blocks, 13 classes."""
    model = create_model("vit_tiny_patch16_224", image_size=(21, 14), patch=7, dim=10, depth=2, heads=2, mlp_ratio=2.0, num_classes=13)
    n, d, hidden, heads = 7, 10, 20, 2
    block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * hidden
    outputs = n * 3 * d + heads * n * n + n * d + n * d + n * hidden + n * d
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = complexity(model.train())
    assert (found.flops, found.activations) == (6 * 3 * 49 * d + 2 * block + d * 13, 6 * d + 2 * outputs + 13)
    assert found.parameters == sum(value.numel() for value in before.values())
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    twice = complexity(model.double(), (42, 14))
    assert twice.parameters == found.parameters and twice.flops > 2 * found.flops - d * 13


# ---------------------------------------------------------------------------------------------------- stems

# Sheet §2 and §4: kernels, strides, paddings and widths, the last convolution included; sides of the maps for an image of 224.
PAPER = {
    "c_1gf": ((3, 3, 3, 3, 1), (2, 2, 2, 2, 1), (1, 1, 1, 1, 0), (24, 48, 96, 192, 192), (112, 56, 28, 14, 14)),
    "c_4gf": ((3, 3, 3, 3, 1), (2, 2, 2, 2, 1), (1, 1, 1, 1, 0), (48, 96, 192, 384, 384), (112, 56, 28, 14, 14)),
    "c_18gf": ((3,) * 6 + (1,), (2, 2, 1, 2, 1, 2, 1), (1,) * 6 + (0,), (64, 128, 128, 256, 256, 512, 768), (112, 56, 56, 28, 28, 14, 14)),
    "c_36gf": ((3,) * 6 + (1,), (2, 2, 1, 2, 1, 2, 1), (1,) * 6 + (0,), (64, 128, 128, 256, 256, 512, 1024), (112, 56, 56, 28, 28, 14, 14)),
    "s1_4gf": ((3, 3, 3, 2, 1), (2, 2, 2, 2, 1), (1, 1, 1, 0, 0), (52, 104, 208, 416, 384), (112, 56, 28, 14, 14)),
    "s2_4gf": ((3, 3, 3, 4, 1), (2, 2, 1, 4, 1), (1, 1, 1, 0, 0), (32, 64, 128, 256, 384), (112, 56, 56, 14, 14)),
    "s3_4gf": ((3, 3, 3, 8, 1), (2, 1, 1, 8, 1), (1, 1, 1, 0, 0), (17, 34, 68, 136, 384), (112, 112, 112, 14, 14)),
    "s4_4gf": ((3, 3, 3, 16, 1), (1, 1, 1, 16, 1), (1, 1, 1, 0, 0), (8, 16, 32, 64, 384), (224, 224, 224, 14, 14)),
}
POCKET = {  # ours, after the same rules; for an image of 32
    "c_pocket": ((3, 3, 3, 1), (2, 2, 2, 1), (1, 1, 1, 0), (16, 32, 64, 64), (16, 8, 4, 4)),
    "s1_pocket": ((3, 3, 2, 1), (2, 2, 2, 1), (1, 1, 0, 0), (19, 38, 76, 64), (16, 8, 4, 4)),
    "s2_pocket": ((3, 3, 4, 1), (2, 1, 4, 1), (1, 1, 0, 0), (10, 20, 40, 64), (16, 16, 4, 4)),
    "s3_pocket": ((3, 3, 8, 1), (1, 1, 8, 1), (1, 1, 0, 0), (5, 10, 20, 64), (32, 32, 4, 4)),
}


@pytest.mark.parametrize("name", [*PAPER, *POCKET])
def test_stems_are_the_papers_tables(name):
    layers = on_meta(f"vit_{name}").stem.layers
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    kernels, strides, paddings, widths, sides = (PAPER | POCKET)[name]
    assert [conv.kernel_size for conv in convs] == [(kernel, kernel) for kernel in kernels]
    assert [conv.stride for conv in convs] == [(stride, stride) for stride in strides]
    assert [conv.padding for conv in convs] == [(padding, padding) for padding in paddings]
    assert tuple(conv.out_channels for conv in convs) == widths
    assert [type(layer) for layer in layers] == [nn.Conv2d, BatchNorm, nn.ReLU] * (len(convs) - 1) + [nn.Conv2d]  # nothing after the last 1×1
    assert [conv.bias is not None for conv in convs] == [False] * (len(convs) - 1) + [True]
    side = 224 if name in PAPER else 32
    x, seen = torch.empty(2, 3, side, side, device="meta"), []
    for layer in layers:
        x = layer(x)
        seen += [x.shape[-1]] if isinstance(layer, nn.Conv2d) else []
    assert tuple(seen) == sides


@pytest.mark.parametrize("norm", ["bn", "ln", "none"])
@pytest.mark.parametrize("records", [((3, 2, 5), (2, 2, 7)), ((3, 1, 5), (3, 2, 7), (4, 4, 11))], ids=["two", "three"])
def test_a_stem_of_records_is_its_convolutions_one_after_the_other(records, norm):
    built, x = randomise(ConvStem(13, stem(*records), norm=norm)), normal(3, 3, 24, 40)
    weights, expected = list(built.parameters()), x
    for kernel, stride, _ in records:
        bias = weights.pop(1) if norm == "none" else None
        expected = F.conv2d(expected, weights.pop(0), bias, stride=stride, padding=1 if kernel == 3 else 0)
        if norm != "none":
            gain, shift = (weights.pop(0)[:, None, None] for _ in range(2))
            axes, eps = ((0, 2, 3), 1e-5) if norm == "bn" else (1, 1e-6)
            mean, variance = expected.mean(axes, keepdim=True), expected.var(axes, unbiased=False, keepdim=True)
            expected = (expected - mean) / (variance + eps).sqrt() * gain + shift
        expected = expected.clamp(min=0)
    expected = torch.einsum("oc, bchw -> bohw", weights[0][:, :, 0, 0], expected) + weights[1][:, None, None]
    assert_close(built(x), rearrange(expected, "b d h w -> b (h w) d"), **EXACT)
    assert built.patch == math.prod(stride for _, stride, _ in records)


def test_batch_norm_and_relu_after_patches():
    built, x = randomise(PatchifyBatchNormStem(11, 7)), normal(3, 3, 21, 35)
    patches = F.unfold(x, 7, stride=7).mT @ built.proj.weight.flatten(1).T + built.proj.bias
    expected = F.batch_norm(rearrange(patches, "b n d -> (b n) d"), None, None, built.norm.weight, built.norm.bias, training=True).relu()
    assert_close(built(x), rearrange(expected, "(b n) d -> b n d", b=3), **EXACT)
    for size in ("4gf", "pocket"):
        plain, changed = on_meta(f"vit_p_{size}"), on_meta(f"vit_p_bn_relu_{size}")
        assert complexity(changed).parameters == complexity(plain).parameters + 2 * plain.dim
        assert type(changed.stem) is PatchifyBatchNormStem and type(plain.stem) is PatchifyStem
        layers = on_meta(f"vit_c_ln_{size}").stem.layers
        assert {type(layer) for layer in layers} == {nn.Conv2d, PixelLayerNorm, nn.ReLU}
        assert complexity(on_meta(f"vit_c_ln_{size}")) == complexity(on_meta(f"vit_c_{size}"))


def test_the_hybrid_stands_on_forty_convolutions():
    model = on_meta("vit_base_resnet50", num_classes=1000)
    convs = [name for name, layer in model.stem.body.named_modules() if isinstance(layer, nn.Conv2d) and "downsample" not in name]
    assert (len(convs), len(model.blocks), model.stem.patch, model.stem.body.dim) == (40, 12, 16, 1024)
    extended = ResNetConfig(block="bottleneck", depths=(3, 4, 9, 0))
    assert complexity(on_meta("vit_base_resnet50", num_classes=1000, stem=extended)).parameters == 98_659_112  # timm's, sheet §3


@torch.no_grad()
def test_the_hybrids_stem_is_torchvisions_resnet():
    with torch.device("meta"):
        peer = resnet50()
        built = ResNetStem(11, ResNetConfig(block="bottleneck", depths=(3, 4, 0, 0)))
    randomise(peer.double().to_empty(device="cpu")).eval()
    randomise(built.double().to_empty(device="cpu")).eval()
    built.body.load_state_dict({name: peer.state_dict()[name] for name in built.body.state_dict()})
    x = normal(2, 3, 24, 40)
    features = peer.layer2(peer.layer1(peer.maxpool(peer.relu(peer.bn1(peer.conv1(x))))))
    assert_close(built(x), rearrange(F.conv2d(features, built.proj.weight, built.proj.bias), "b d h w -> b (h w) d"), **EXACT)
    assert built.patch == 8 and built(x).shape == (2, 15, 11)
    with pytest.raises(ValueError, match="24×41 is not divisible by patch=8"):
        built(normal(1, 3, 24, 41))


@torch.no_grad()
def test_regnet_equals_torchvision():
    with torch.device("meta"):
        ours = create_model("regnet_y_800mf", num_classes=13).double().to_empty(device="cpu")
    peer, x = randomise(regnet_y_800mf(num_classes=13)).eval(), normal(2, 3, 64, 96)
    ours.load_state_dict(peer.state_dict())
    assert_close(ours.eval()(x), peer(x), **EXACT)
    assert_close(ours.fc(ours.forward_tokens(x).mean(1)), peer(x), **EXACT)
    with pytest.raises(ValueError, match="a RegNet has no tokens to mask"):
        ours.forward_tokens(x, mask=torch.zeros(2, 2, 3, dtype=torch.bool))


def test_every_stem_is_in_a_table_here():
    assert set(STEMS) == {*PAPER, *POCKET}


# ---------------------------------------------------------------------------------------------------- distributions of errors


def test_edf_by_hand():
    """Five runs: two tie, one diverged and stays one of the five."""
    errors = [0.3, math.nan, 0.1, 0.3, 0.5]
    assert edf(errors, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, math.inf]).tolist() == [0, 0.2, 0.2, 0.6, 0.6, 0.8, 0.8]
    assert edf([math.nan, math.nan], [0.0, 1.0]).tolist() == [0, 0]
    assert edf([0.2, math.inf], [0.2, 9.0]).tolist() == [0.5, 0.5]


def test_distances_to_the_best_run():
    scores = [0.50, math.nan, 0.47, 0.50, 0.30]
    assert behind_best(scores) == pytest.approx([0, math.nan, 0.03, 0, 0.2], nan_ok=True)
    assert near_best(scores) == pytest.approx([1, 0, 0.7, 1, 0])
    levels = np.linspace(0, 0.1, 100_001)
    assert edf(behind_best([0.61, 0.6, 0.51, 0.6]), [0.01]) == 0.75  # 0.61 − 0.6 is a little more than 0.01 in a computer
    area = edf(behind_best(scores), levels).mean()
    assert near_best(scores).mean() == pytest.approx(area, abs=1e-4)  # the area under the distribution, as a share
    assert np.isnan(behind_best([math.nan, math.nan])).all() and near_best([math.nan]).tolist() == [0]
    assert near_best([]).tolist() == []  # a study that has not begun


def test_a_bootstrap_band_is_binomial_at_each_level():
    """Three of five runs are at most 0.3: counts of a new draw are Binomial(5, 3/5), with P(0) = .010, P(≤ 1) = .087, P(≤ 4) = .922."""
    errors, at = [0.3, math.nan, 0.1, 0.3, 0.5], [0.05, 0.3]
    low, high = edf_band(errors, at)
    assert low.tolist() == [0, 0.2] and high.tolist() == [0, 1]
    low, high = edf_band(errors, at, level=0.8)
    assert low.tolist() == [0, 0.4] and high.tolist() == [0, 0.8]


def test_draws_are_log_uniform_and_take_the_same_place_in_every_interval():
    narrow, wide = {"lr": [1e-3, 4e-3], "weight_decay": [0.1, 0.8]}, {"weight_decay": [0.01, 10.0], "lr": [1e-4, 1.0]}
    places = {name: [] for name in narrow}
    for seed in range(600):
        one, two = draw(narrow, seed), draw(wide, seed)
        for name, seen in places.items():
            for search, drawn in ((narrow, one), (wide, two)):
                low, high = search[name]
                assert low <= drawn[name] <= high
                seen.append(math.log(drawn[name] / low) / math.log(high / low))
            assert seen[-1] == pytest.approx(seen[-2], abs=1e-3)  # four digits are kept
    for seen in places.values():
        assert np.quantile(seen, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.06)
    assert abs(np.corrcoef(places["lr"], places["weight_decay"])[0, 1]) < 0.1
    assert draw({"lr": [0.1, 0.1]}, 3) == {"lr": 0.1} and draw({}, 3) == {}
