"""Swin V1 and V2 against torchvision, loops in float64 and the values of facts/swin.md."""
import copy
import inspect
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from randomise import normal, randomise
from scipy.interpolate import RectBivariateSpline
from test_models import EXACT, on_meta, parameters, refuses
from torch import nn
from torch.testing import assert_close
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from minivit.layers.position import ContinuousPositionBias, LogCPB, RelativePositionBias, geometric, relative_index, resize_table, spaced
from minivit.layers.window import WindowAttention, in_turns, merge, partition, shift_mask
from minivit.methods.base import param_groups
from minivit.models import create_model
from minivit.models.swin import PatchMerging, SwinBlock
from minivit.monitor import ActivationMonitor
from minivit.weights import load_weights

# window 3×5, maps of 12×20 and 6×10, width 15 and 30 in 3 and 5 heads, 13 classes
SIZES = {"image_size": (24, 40), "patch": 2, "dim": 15, "depth": (2, 3), "heads": (3, 5), "window": (3, 5), "mlp_ratio": 2.2}
VERSIONS = {1: "swin_t", 2: "swin_v2_t"}


def tiny(version: int, *, num_classes: int = 13, **settings) -> nn.Module:
    return create_model(VERSIONS[version], num_classes=num_classes, **{**SIZES, **settings}).double()


def loop_coordinates(window: tuple[int, int], reference: tuple[int, int]) -> torch.Tensor:
    """The official code's log-spaced coordinates, number by number."""
    rows, cols = window
    table = torch.zeros(2 * rows - 1, 2 * cols - 1, 2, dtype=torch.float64)
    for dy in range(1 - rows, rows):
        for dx in range(1 - cols, cols):
            for axis, (offset, size) in enumerate(((dy, reference[0]), (dx, reference[1]))):
                value = math.log2(abs(8 * offset / (size - 1)) + 1) / math.log2(8)
                table[dy + rows - 1, dx + cols - 1, axis] = math.copysign(value, offset)
    return table


def torchvision_swin(version: int, window: tuple[int, int] = (3, 5)) -> SwinTransformer:
    """torchvision's network with random weights; its constants are kept, its coordinates those of float64."""
    kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    sizes = {"patch_size": [2, 2], "embed_dim": 15, "depths": [2, 3], "num_heads": [3, 5], "window_size": list(window), "mlp_ratio": 2.2}
    peer = SwinTransformer(**sizes, num_classes=13, stochastic_depth_prob=0.0, **kinds)
    constants = {name: value.clone() for name, value in peer.named_buffers()}
    randomise(peer)
    for name, value in peer.named_buffers():
        value.copy_(loop_coordinates(window, window)[None] if name.endswith("coords_table") else constants[name])
    return peer.eval()


# ---------------------------------------------------------------------------------------------------- parity


@torch.no_grad()
@pytest.mark.parametrize("image", [(24, 40), (22, 34), (6, 4)], ids=str)  # fits; every map is padded, merging too; one window and no shift
@pytest.mark.parametrize("version", VERSIONS)
def test_swin_equals_torchvision(version, image):
    peer, ours, x = torchvision_swin(version), tiny(version), normal(3, 3, *image)
    dropped = load_weights(ours, peer.state_dict(), "torchvision")
    assert len(dropped) == 5 * version and all("relative_position_index" in name or "coordinates" in name for name in dropped)
    expected = peer(x)
    assert_close(ours(x), expected, **EXACT)
    assert_close(ours.train()(x), expected, **EXACT)
    assert_close(ours.forward_tokens(x), rearrange(peer.norm(peer.features(x)), "b h w d -> b (h w) d"), **EXACT)


@pytest.mark.parametrize("version", VERSIONS)
def test_swin_gradients_equal_torchvision(version):
    peer, ours, x = torchvision_swin(version), tiny(version), normal(2, 3, 24, 40)
    load_weights(ours, peer.state_dict())
    for model in (ours, peer):
        model(x).square().sum().backward()
    gradients = copy.deepcopy(ours)
    load_weights(gradients, {name: p.grad for name, p in peer.named_parameters()})
    for name, p in ours.named_parameters():
        assert_close(p.grad, gradients.get_parameter(name).data, **EXACT)


def in_official_layout(peer: SwinTransformer, *, timm: bool = False) -> dict[str, torch.Tensor]:
    """Microsoft's (or timm's) names for torchvision's weights, written out from their sources; constants as they come."""
    own, given = peer.state_dict(), {}
    v2 = "features.1.0.attn.logit_scale" in own
    outer = {"patch_embed.proj": "features.0.0", "patch_embed.norm": "features.0.2", "norm": "norm", "head.fc" if timm else "head": "head"}
    outer |= {f"layers.{int(timm)}.downsample.{part}": f"features.2.{part}" for part in ("norm", "reduction")}
    for stage, depth in enumerate((2, 3)):
        for i in range(depth):
            theirs, block = f"features.{2 * stage + 1}.{i}", f"layers.{stage}.blocks.{i}"
            outer |= {f"{block}.{name}": f"{theirs}.{name}" for name in ("norm1", "norm2", "attn.proj")}
            outer |= {f"{block}.mlp.fc1": f"{theirs}.mlp.0", f"{block}.mlp.fc2": f"{theirs}.mlp.3"}
            given[f"{block}.attn.qkv.weight"] = own[f"{theirs}.attn.qkv.weight"]
            q, k, v = own[f"{theirs}.attn.qkv.bias"].chunk(3)
            if v2:
                given |= {f"{block}.attn.q_bias": q, f"{block}.attn.v_bias": v}
                names = ["logit_scale", "cpb_mlp.0.weight", "cpb_mlp.0.bias", "cpb_mlp.2.weight"] + ([] if timm else ["relative_coords_table"])
            else:
                given[f"{block}.attn.qkv.bias"] = torch.cat([q, k, v])
                names = ["relative_position_bias_table"]
            given |= {f"{block}.attn.{name}": own[f"{theirs}.attn.{name}"] for name in names}
            if not timm:
                given[f"{block}.attn.relative_position_index"] = own[f"{theirs}.attn.relative_position_index"].view(15, 15)
                given |= {f"{block}.attn_mask": torch.zeros(16, 15, 15)} if i % 2 else {}
    pairs = [(f"{new}.{kind}", f"{name}.{kind}") for new, name in outer.items() for kind in ("weight", "bias")]
    return given | {new: own[name] for new, name in pairs if name in own}


@torch.no_grad()
@pytest.mark.parametrize("source", ["swin", "timm"])
@pytest.mark.parametrize("version", VERSIONS)
def test_official_and_timm_layouts_load(version, source):
    peer, ours, x = torchvision_swin(version), tiny(version), normal(3, 3, 24, 40)
    weights = in_official_layout(peer, timm=source == "timm")
    dropped = load_weights(ours, weights, source)
    assert_close(ours(x), peer(x), **EXACT)
    assert len(dropped) == (0 if source == "timm" else 5 * version + 2)
    if source == "swin" and version == 2:
        early = {name.replace("cpb_mlp", "rpe_mlp"): value for name, value in weights.items()}
        load_weights(tiny(2), early, "swin")
    features = tiny(version, num_classes=0)
    assert {"head.weight", "head.bias"} <= set(load_weights(features, weights, source))
    assert_close(peer.head(features(x)), peer(x), **EXACT)
    assert "missing: stages.0.merge" in refuses(tiny(version), weights, "timm" if source == "swin" else "swin")


COUNTS = {  # facts/swin.md A7 and B5: official code, 1000 classes
    "swin_t": 28_288_354,
    "swin_s": 49_606_258,
    "swin_b": 87_768_224,
    "swin_l": 196_532_476,
    "swin_v2_t": 28_347_154,
    "swin_v2_s": 49_728_418,
    "swin_v2_b": 87_918_816,
    "swin_v2_l": 196_739_932,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_official_ones(name):
    assert parameters(on_meta(name, num_classes=1000)) == COUNTS[name]


def test_parameter_counts_of_other_windows_and_of_the_largest():
    assert parameters(on_meta("swin_b", num_classes=1000, image_size=384, window=12)) == 87_903_584
    assert parameters(on_meta("swin_l", num_classes=1000, image_size=384, window=12)) == 196_735_516
    assert parameters(on_meta("swin_v2_t", num_classes=1000, window=16)) == COUNTS["swin_v2_t"]
    huge, giant = (on_meta(f"swin_v2_{size}", num_classes=1000) for size in "hg")
    assert parameters(huge) == 658_027_922 + 3 * 2 * 1408  # the official formula, and an extra norm after blocks 6, 12 and 18 of stage 3
    assert parameters(giant) == pytest.approx(3.0e9, rel=1e-3)
    assert [i for i, layer in enumerate(huge.stages[2].blocks) if isinstance(layer, nn.LayerNorm)] == [6, 13, 20]
    assert [sum(isinstance(layer, nn.LayerNorm) for layer in stage.blocks) for stage in giant.stages] == [0, 0, 7, 0]


# ---------------------------------------------------------------------------------------------------- windows, shift, mask


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 3), rows=st.integers(1, 4), cols=st.integers(1, 4), down=st.integers(1, 3), across=st.integers(1, 3))
def test_windows_are_slices_and_merge_back(batch, rows, cols, down, across):
    x = normal(batch, rows * down, cols * across, 2)
    cut = partition(x, (rows, cols))
    slices = [x[b, rows * y : rows * (y + 1), cols * i : cols * (i + 1)] for b in range(batch) for y in range(down) for i in range(across)]
    assert torch.equal(cut, torch.stack([piece.reshape(-1, 2) for piece in slices]))
    assert torch.equal(merge(cut, (rows, cols), rows * down, cols * across), x)


def test_a_fresh_mask_closes_fifteen_windows():
    """56×56 in windows of 7, shifted by 3: those of the last row and the last column. (`unwrap`: what is kept from another size is not asked.)"""
    mask = inspect.unwrap(shift_mask)(56, 56, 7, (3, 3))
    assert mask.shape == (64, 49, 49)
    closed = (~mask).flatten(1).any(dim=1).view(8, 8)
    assert closed.sum() == 15 and closed[-1].all() and closed[:, -1].all()
    corner = mask[-1].view(7, 7, 7, 7)
    assert corner[0, 0, :4, :4].all() and corner[0, 0].sum() == 16 and corner[6, 0].sum() == 12 and corner[6, 6].sum() == 9


def test_the_index_of_two_by_two():
    assert inspect.unwrap(relative_index)((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def loop_attend(block: SwinBlock, x: torch.Tensor) -> torch.Tensor:
    """Shifted window attention of a map, one query and one key at a time, without rolling, windows or a mask.

    Of a map rolled by −s, the pixel (y, x) lies in the window ((y−s) mod H // M, …). It looks at the pixels of that window which the roll
    has left where they were to it.
    """
    attention, (rows, cols) = block.attn, block.attn.window
    batch, height, width, dim = x.shape
    heads, d = attention.heads, dim // attention.heads
    down, right = (m // 2 if size > m else 0 for m, size in zip((rows, cols), (height, width)))  # one window has nothing to shift
    table = attention.position_bias.table
    table = table() if callable(table) else table
    bias = attention.to_qkv.bias
    if attention.kind == "cosine":
        bias = torch.cat([attention.q_bias, 0 * attention.q_bias, attention.v_bias])
    qkv = x @ attention.to_qkv.weight.T + bias
    out = torch.zeros_like(x)
    rolled = {(y, i): ((y - down) % height, (i - right) % width) for y in range(height) for i in range(width)}
    for b in range(batch):
        for head in range(heads):
            q, k, v = (qkv[b, :, :, part * dim + head * d : part * dim + (head + 1) * d] for part in range(3))
            for (y, i), (ry, ri) in rolled.items():
                scores, values = [], []
                for (ky, ki), (sy, si) in rolled.items():
                    together = (ry // rows, ri // cols) == (sy // rows, si // cols)
                    if together and (ry - sy, ri - si) == (y - ky, i - ki):
                        score = (q[y, i] * k[ky, ki]).sum() / d**0.5
                        if attention.kind == "cosine":
                            score = F.cosine_similarity(q[y, i], k[ky, ki], dim=0) * attention.logit_scale[head].exp()
                        scores.append(score + table[head, y - ky + rows - 1, i - ki + cols - 1])
                        values.append(v[ky, ki])
                out[b, y, i, head * d : (head + 1) * d] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out @ attention.to_out.weight.T + attention.to_out.bias


@torch.no_grad()
@pytest.mark.parametrize("height", [4, 2])
@pytest.mark.parametrize("kind", ["dot", "cosine"])
def test_shift_and_mask_equal_a_loop_over_neighbours(kind, height):
    position_bias = (RelativePositionBias if kind == "dot" else LogCPB)(2, (2, 3))
    block = randomise(SwinBlock(6, WindowAttention(6, 2, (2, 3), kind=kind, position_bias=position_bias), shifted=True))
    x = normal(2, height, 6, 6)
    expected = loop_attend(block, x)
    for block.attn.fused in (True, False):
        assert_close(block.attend(x), expected, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("version", VERSIONS)
def test_opposite_borders_do_not_see_each_other(version):
    """A random vector is added at the top left: one constant over channels would be removed by V1's norm."""
    model = randomise(create_model(VERSIONS[version], image_size=16, patch=2, dim=8, depth=(2,), heads=(2,), window=4)).eval()
    x = normal(1, 8, 8, 8)
    changed = x.clone()
    changed[0, 0, 0] += normal(8, seed=1)
    plain, shifted = model.stages[0].blocks
    moved = (shifted(changed) - shifted(x)).abs().amax(dim=(0, 3)) > 0
    assert moved[:2, :2].all() and not moved[2:].any() and not moved[:, 2:].any()
    moved = (plain(changed) - plain(x)).abs().amax(dim=(0, 3)) > 0
    assert moved[:4, :4].all() and not moved[4:].any() and not moved[:, 4:].any()


def test_windows_shrink_to_small_maps():
    """facts/swin.md B3: 256 pixels with windows of 16, and 192 with 12."""
    assert on_meta("swin_v2_t", window=16).windows == ((16, 16), (16, 16), (16, 16), (8, 8))
    assert on_meta("swin_v2_b", image_size=192, window=12).windows == ((12, 12), (12, 12), (12, 12), (6, 6))
    assert on_meta("swin_t", image_size=(64, 224)).windows == ((7, 7), (7, 7), (4, 7), (2, 7))


# ---------------------------------------------------------------------------------------------------- attention and biases


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dot", "cosine"])
def test_maps_are_what_attention_applies(kind):
    attention = randomise(WindowAttention(10, 5, (2, 3), kind=kind, position_bias=RelativePositionBias(5, (2, 3))))
    x, mask = normal(8, 6, 10), shift_mask(4, 6, (2, 3), (1, 1))
    maps = attention.maps(x, mask)
    assert_close(maps.sum(-1), torch.ones(8, 5, 6, dtype=torch.float64), **EXACT)
    assert (maps[:, :, :, :] == 0).eq(~mask.repeat(2, 1, 1)[:, None]).all()
    v = rearrange(attention.project(x)[..., 20:], "w n (h d) -> w h n d", h=5)
    assert_close(attention(x, mask), attention.to_out(rearrange(maps @ v, "w h n d -> w n (h d)")), **EXACT)
    attention.position_bias = None
    assert_close(attention(x), attention.to_out(rearrange(attention.maps(x) @ v, "w h n d -> w n (h d)")), **EXACT)


@torch.no_grad()
def test_cosine_attention_does_not_see_the_scale_of_its_input():
    x = normal(3, 9, 10)
    for kind, same in (("cosine", True), ("dot", False)):
        attention = randomise(WindowAttention(10, 2, 3, kind=kind))
        (attention.q_bias if kind == "cosine" else attention.to_qkv.bias).zero_()
        gap = (attention.maps(100 * x) - attention.maps(x)).abs().max()
        assert gap < 1e-9 if same else gap > 0.1


def test_the_scale_of_cosines_stops_at_a_hundred_and_does_not_come_back():
    attention = WindowAttention(6, 3, 2, kind="cosine").double()
    assert attention.logit_scale.exp().tolist() == pytest.approx([10, 10, 10], rel=1e-6)
    attention.logit_scale.data = torch.tensor([math.log(50), math.log(100) + 1, math.log(1000)], dtype=torch.float64)
    q, k, _ = attention.split_heads(normal(2, 4, 18), 1)
    assert_close(q.norm(dim=-1).mean(dim=(0, 2)), torch.tensor([50.0, 100.0, 100.0], dtype=torch.float64), **EXACT)
    assert_close(k.norm(dim=-1), torch.ones(2, 3, 4, dtype=torch.float64), **EXACT)
    (q * normal(2, 3, 4, 2)).sum().backward()
    assert attention.logit_scale.grad[0] != 0 and (attention.logit_scale.grad[1:] == 0).all()


@torch.no_grad()
def test_a_forbidden_pair_stays_forbidden_when_a_head_is_saturated():
    """With −100, as in the official code, a masked key of cosine +1 and bias 16 beats an allowed one of cosine −1."""
    attention = WindowAttention(2, 1, (1, 2), kind="cosine").double()
    attention.logit_scale.fill_(9.0)
    attention.to_qkv.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [1, 0], [0, 1]]))
    x = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)  # each looks away from itself and at the other
    assert_close(attention.maps(x)[0, 0], torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(attention.maps(x, torch.eye(2, dtype=torch.bool)[None])[0, 0], torch.eye(2, dtype=torch.float64))


# facts/swin.md B3, four decimals
OWN_8 = [0, 0.3665, 0.5721, 0.7156, 0.8260, 0.9157, 0.9913, 1.0566]
BEYOND_8 = [1.1141, 1.1655, 1.2119, 1.2542, 1.2930, 1.3290, 1.3625, 1.3938]
OWN_16 = [0.2056, 0.3491, 0.4595, 0.5492, 0.6248, 0.6901, 0.7476, 0.7990, 0.8454, 0.8877, 0.9265, 0.9625, 0.9960, 1.0273, 1.0566]


def test_coordinates_of_the_fact_sheet():
    for sizes, expected in (({"window": 8}, OWN_8), ({"window": 16, "pretrained_window": 8}, OWN_8 + BEYOND_8), ({"window": 16}, [0, *OWN_16])):
        bias = LogCPB(3, **sizes)
        table, middle = bias.coordinates(bias.window), len(expected) - 1
        assert table[middle, middle:, 1].tolist() == pytest.approx(expected, abs=5e-5)
        assert torch.equal(table[..., 0], table[..., 1].T) and torch.equal(table, -table.flip(0, 1))


def test_range_that_a_window_of_sixteen_adds_to_one_of_eight():
    """Over the old range: 8/7 linearly, 0.319 in the code's coordinates. The paper's 1/3 takes logarithms of 8 and 16, of 1 + offset here."""
    offsets = torch.tensor([7.0, 15.0])
    assert spaced(offsets, 7, "paper").tolist() == pytest.approx([math.log(8), math.log(16)])
    for coords, ratio in (("linear", 8 / 7), ("paper", 1 / 3), ("log", 0.319)):
        old, new = spaced(offsets, 7, coords).tolist()
        assert (new - old) / old == pytest.approx(ratio, abs=5e-4)


@torch.no_grad()
def test_continuous_bias_equals_a_loop():
    for limit in (16.0, None):
        bias = randomise(ContinuousPositionBias(5, (2, 3), pretrained_window=(3, 4), limit=limit, hidden_dim=7))
        table = loop_coordinates((2, 3), (3, 4))
        first, _, last = bias.mlp
        expected = torch.zeros(5, 6, 6, dtype=torch.float64)
        for i in range(6):
            for j in range(6):
                c = table[i // 3 - j // 3 + 1, i % 3 - j % 3 + 2]
                b = last.weight @ (first.weight @ c + first.bias).clamp(min=0)
                expected[:, i, j] = b if limit is None else 16 / (1 + (-b).exp())
        assert_close(bias(), expected, **EXACT)


def test_the_first_bias_is_eight_in_v2_and_zero_in_v1():
    bias = LogCPB(24, 8)()
    assert bias.mean().item() == pytest.approx(8, abs=0.05) and (bias - 8).abs().max() < 0.3
    assert RelativePositionBias(24, 7).table.std().item() == pytest.approx(0.02, rel=0.1)
    assert LogCPB(3, 1)().shape == (3, 1, 1)


def test_the_table_is_kept_at_inference_until_a_weight_changes():
    bias, computed = LogCPB(3, 4).double().eval(), []
    bias.mlp.register_forward_hook(lambda *_: computed.append(1))
    with torch.no_grad():
        first = bias()
        assert torch.equal(bias(), first) and len(computed) == 1
        bias.mlp[0].bias += 1
        moved = bias()
        assert len(computed) == 2 and (moved - first).abs().max() > 1e-3
        bias.load_state_dict(LogCPB(3, 4).state_dict())
        assert (bias() - moved).abs().max() > 1e-3
        bias.train()()
        assert len(computed) == 4
    assert bias.eval()().requires_grad and copy.deepcopy(bias)().shape == (3, 16, 16)
    with torch.inference_mode():
        LogCPB(3, 4).eval()()


def test_inference_mode_leaves_nothing_that_training_cannot_use():
    shift_mask.cache_clear(), relative_index.cache_clear()
    model, x = create_model("swin_v2_pocket", dim=8, heads=(2, 2), depth=(2, 1)), torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        model.eval()(x)
    model.train()(x).square().mean().backward()


@pytest.mark.parametrize("kind", ["dot", "cosine"])
def test_autocast_leaves_scores_and_biases_in_float32(kind, monkeypatch):
    seen = []

    def spy(q, k, v, *, attn_mask, scale):
        seen.extend([q.dtype, k.dtype, v.dtype, attn_mask.dtype])
        return attend(q, k, v, attn_mask=attn_mask, scale=scale)

    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    attention = WindowAttention(32, 2, 4, kind=kind, position_bias=LogCPB(2, 4)).eval()
    x = torch.randn(3, 16, 32)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = attention(x)
        assert half.dtype == torch.bfloat16 and set(seen) == {torch.float32}
        assert_close(half.float(), attention(x), atol=2e-2, rtol=2e-2)
        assert attention.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


# ---------------------------------------------------------------------------------------------------- blocks, merging, model


@torch.no_grad()
def test_three_places_of_the_norm():
    """Drop path, a factor here, comes after the norm of the branch: before it, that norm would undo it."""
    x = normal(2, 4, 6, 10)
    for place in ("pre", "res_post", "post"):
        block = randomise(SwinBlock(10, WindowAttention(10, 2, (2, 3)), norm=place, mlp_ratio=1.7, shifted=True))
        block.drop_path.forward = lambda branch: 3 * branch
        y = x
        for f, norm in ((block.attend, block.norm1), (block.mlp, block.norm2)):
            ln = partial(F.layer_norm, normalized_shape=(10,), weight=norm.weight, bias=norm.bias)
            y = {"pre": lambda: y + 3 * f(ln(y)), "res_post": lambda: y + 3 * ln(f(y)), "post": lambda: ln(y + 3 * f(y))}[place]()  # noqa: B023
        assert_close(block(x), y, **EXACT)
        assert block.mlp[0].out_features == 17


def test_a_fresh_v2_block_is_the_identity_and_only_its_norms_have_a_gradient():
    model, x = create_model("swin_v2_pocket"), torch.randn(2, 8, 8, 48)
    for block in model.stages[0].blocks:
        assert torch.equal(block(x), x)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    blocks = [(name, p) for name, p in model.named_parameters() if ".blocks." in name]
    assert {name.split(".")[4] for name, p in blocks if p.grad.abs().sum() > 0} == {"norm1", "norm2"}
    assert all((norm.weight == 1).all() for norm in (model.norm, model.stem_norm, model.stages[0].merge.norm))
    fresh = create_model("swin_pocket").stages[0].blocks[1]
    assert not torch.equal(fresh(x), x)


@torch.no_grad()
def test_merging_reads_the_rows_first_and_has_its_norm_where_it_says():
    x = normal(2, 4, 6, 5)
    corners = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
    for place, width in (("before", 20), ("after", 10)):
        merging = randomise(PatchMerging(5, norm=place))
        ln = partial(F.layer_norm, normalized_shape=(width,), weight=merging.norm.weight, bias=merging.norm.bias)
        expected = ln(corners) @ merging.reduction.weight.T if place == "before" else ln(corners @ merging.reduction.weight.T)
        assert_close(merging(x), expected, **EXACT)


@torch.no_grad()
def test_extra_norms_stand_on_the_main_branch():
    model, x = randomise(tiny(2, extra_norm=2)), normal(2, 12, 20, 15)
    first, second, norm = model.stages[0].blocks
    assert_close(model.stages[0](x), model.stages[0].merge(norm(second(first(x)))), **EXACT)
    assert isinstance(norm, nn.LayerNorm) and len(model.stages[1].blocks) == 3 + 1


def test_swin_starts_as_the_official_code_does():
    model = create_model("swin_pocket", num_classes=500, drop_path=0.2)
    for matrix in (model.head.weight, model.stages[1].blocks[0].mlp[0].weight, model.stages[0].merge.reduction.weight):
        assert matrix.std().item() == pytest.approx(0.02, rel=0.05)
    assert (model.head.bias == 0).all() and (model.stages[1].blocks[0].attn.to_qkv.bias == 0).all()
    assert model.stem.proj.weight.abs().max() <= 1 / 48**0.5  # PyTorch's own start: ±1/√(3·4·4)
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0.2 * i / 5 for i in range(6)])
    assert [block.shifted for block in blocks] == [False, True] * 3
    assert not any(block.shifted for stage in create_model("swin_pocket", shifted=False).stages for block in stage.blocks)


@torch.no_grad()
def test_mask_token_stands_in_after_the_stem_and_before_the_positions():
    model = randomise(create_model("swin_pocket", depth=(0,), heads=(1,), patch=2, image_size=(8, 12), mask_token=True, positions="learned"))
    x, mask = normal(2, 3, 8, 12), torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    plain, masked = (model.forward_tokens(x, mask=m) for m in (None, mask))
    where = mask.flatten(1)
    assert torch.equal(masked[~where], plain[~where])
    assert_close(masked[where], model.norm(model.mask_token + model.positions.table.expand(2, -1, -1))[where], **EXACT)
    model = randomise(create_model("swin_v2_pocket", mask_token=True, image_size=16))
    everything, x = torch.ones(2, 4, 4, dtype=torch.bool), normal(2, 3, 16, 16)
    assert torch.equal(model.forward_tokens(x, mask=everything), model.forward_tokens(-3 * x, mask=everything))
    assert model.forward_tokens(x).shape == (2, 4, 96)


@pytest.mark.parametrize("name", ["swin_pocket", "swin_v2_pocket"])
def test_no_decay_for_what_the_official_code_spares(name):
    model = create_model(name, mask_token=True)
    decay, plain = param_groups(model, 0.05)
    undecayed = {id(p) for p in plain["params"]}
    for key, p in model.named_parameters():
        spared = p.dim() == 1 or any(part in key for part in ("position_bias", "logit_scale", "mask_token", "norm"))
        assert (id(p) in undecayed) == spared, key
    assert {id(p) for p in decay["params"]}.isdisjoint(undecayed)


# ---------------------------------------------------------------------------------------------------- other windows


def as_picture(table: torch.Tensor, side: int) -> torch.Tensor:
    """An official table ``((2M−1)², heads)`` by hand: offset (dy, dx) of head h at [h, dy + M − 1, dx + M − 1]."""
    return torch.stack([torch.stack([table[y * side : (y + 1) * side, head] for y in range(side)]) for head in range(table.shape[1])])


@torch.no_grad()
def test_v1_tables_of_another_window_are_resized():
    """Bicubic, head by head. The rest of the checkpoint, and a table of the right size, are taken as they are."""
    peer = torchvision_swin(1, window=(3, 3))
    weights, ours = in_official_layout(torchvision_swin(1)), tiny(1, window=5, image_size=(20, 40))
    tables = {name: as_picture(value, 5) for name, value in peer.state_dict().items() if name.endswith("bias_table")}
    load_weights(ours, peer.state_dict())
    for name, table in tables.items():
        stage, block = (int(name.split(".")[i]) for i in (1, 2))
        expected = torch.cat([F.interpolate(head[None, None], size=(9, 9), mode="bicubic")[0] for head in table])
        assert_close(ours.stages[stage // 2].blocks[block].attn.position_bias.table.data, expected, **EXACT)
    geometrically = tiny(1, window=5, image_size=(20, 40))
    load_weights(geometrically, ours.state_dict(), "minivit")
    assert_close(geometrically.state_dict(), ours.state_dict(), rtol=0, atol=0)
    load_weights(geometrically, peer.state_dict(), resize="geometric")
    table = geometrically.stages[0].blocks[1].attn.position_bias.table.data
    assert_close(table, resize_table(tables["features.1.1.attn.relative_position_bias_table"], 5, "geometric"), **EXACT)
    assert (table - ours.stages[0].blocks[1].attn.position_bias.table).abs().max() > 1e-3
    assert "position_bias.table (135, 3)" in refuses(tiny(1, window=5), {**weights, **dict.fromkeys(
        [name for name in weights if name.endswith("bias_table") and "layers.0" in name], normal(135, 3))}, "swin")  # fmt: skip


def official_geometry(old: int, new: int) -> tuple[float, list[float]]:
    """q by the bisection of facts/swin.md A10 (but finer than 1e-6), and where the old values then lie."""
    low, high = 1.01, 1.5
    while high - low > 1e-12:
        q = (low + high) / 2
        total = sum(q**k for k in range(old // 2))
        low, high = (q, high) if total <= new // 2 else (low, q)
    steps = [sum(q**k for k in range(i + 1)) for i in range(old // 2)]
    return q, [-d for d in reversed(steps)] + [0.0] + steps


@pytest.mark.parametrize(("source", "target", "ratio"), [(6, 7, 1.0913), (7, 12, 1.2407), (12, 14, 1.0329)])
def test_geometric_resizing_equals_scipys_spline(source, target, ratio):
    old, new = 2 * source - 1, 2 * target - 1
    q, at = official_geometry(old, new)
    assert q == pytest.approx(ratio, abs=5e-5)
    table, wanted = normal(3, old, old), [float(i) for i in range(1 - target, target)]
    spline = [torch.from_numpy(RectBivariateSpline(at, at, head.numpy())(wanted, wanted)) for head in table]
    ours = resize_table(table, target, "geometric")
    assert_close(ours, torch.stack(spline), atol=1e-8, rtol=0)
    assert_close(ours[:, target - 1, target - 1], table[:, source - 1, source - 1], **EXACT)


def test_geometric_resizing_at_its_ends():
    table = normal(2, 5, 7)
    assert torch.equal(resize_table(table, (3, 4), "geometric"), table)
    assert torch.equal(resize_table(table, (2, 3), "geometric"), table[:, 1:-1, 1:-1])
    assert resize_table(table, (8, 16), "geometric")[:, ::14, ::30].allclose(table[:, ::4, ::6], atol=1e-5)
    assert_close(geometric(5, 5), torch.eye(5, dtype=torch.float64))


@torch.no_grad()
def test_v2_keeps_the_bias_of_an_offset_in_a_larger_window():
    old = randomise(create_model("swin_v2_pocket", dim=6, heads=(2, 3)))
    settings = {"dim": 6, "heads": (2, 3), "image_size": 64, "window": 8}
    same = create_model("swin_v2_pocket", pretrained_window=old.windows, **settings).double()
    stretched = create_model("swin_v2_pocket", **settings).double()
    for new in (same, stretched):
        assert load_weights(new, old.state_dict(), "minivit") == []
    for before, after, other in zip(*([stage.blocks[1].attn.position_bias for stage in model.stages] for model in (old, same, stretched))):
        assert_close(after.table()[:, 4:-4, 4:-4], before.table(), **EXACT)
        assert (other.table()[:, 4:-4, 4:-4] - before.table()).abs().max() > 1e-3
    assert same(normal(2, 3, 64, 64)).shape == (2, 12)
    shrunk = on_meta("swin_v2_pocket", patch=8)  # its last map is 2×2
    new = on_meta("swin_v2_pocket", image_size=64, window=8, pretrained_window=shrunk.windows)
    assert [stage.blocks[0].attn.position_bias.reference for stage in new.stages] == [(4, 4), (2, 2)]


def test_a_checkpoint_of_another_window_asks_which():
    weights = torchvision_swin(2).state_dict()
    message = refuses(tiny(2, window=(6, 10)), weights)
    assert "trained with another window than (6, 10): say which by pretrained_window" in message
    load_weights(tiny(2, window=(6, 10), pretrained_window=((3, 5), (3, 5))), weights)


# ---------------------------------------------------------------------------------------------------- memory


def kept_for_backward(model: nn.Module, x: torch.Tensor) -> tuple[int, dict[str, torch.Tensor], torch.Tensor]:
    """Bytes that a forward pass keeps, weights not counted; its gradients and its result."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    model.zero_grad()
    out.square().sum().backward()
    return sum(kept.values()), {name: p.grad.clone() for name, p in model.named_parameters()}, out.detach()


@pytest.mark.parametrize("version", VERSIONS)
def test_checkpointing_and_sequential_attention_change_memory_and_nothing_else(version):
    settings = {"depth": (2, 2, 2), "heads": (1, 2, 1), "dim": 8, "image_size": 32, "window": 4, "num_classes": 0}
    models = {key: tiny(version, **settings, **more) for key, more in {
        "plain": {}, "checkpoint": {"checkpoint": True}, "one": {"sequential": 1}, "three": {"sequential": 3}, "all": {"sequential": 99},
        "both": {"sequential": 1, "checkpoint": True},
    }.items()}  # fmt: skip
    x, found = normal(3, 3, 32, 32), {}
    for key, model in models.items():
        found[key] = kept_for_backward(randomise(model), x)
        assert_close(found[key][1:], found["plain"][1:], **EXACT)
    assert found["checkpoint"][0] < 0.3 * found["plain"][0]
    assert found["one"][0] < 0.7 * found["plain"][0]
    assert [bool(block.sequential) for stage in models["one"].stages for block in stage.blocks] == [True] * 4 + [False] * 2


def test_sequential_attention_takes_some_windows_at_a_time(monkeypatch):
    attention, sizes = randomise(WindowAttention(6, 2, (2, 3))), []
    attention.register_forward_hook(lambda module, inputs, out: sizes.append(len(inputs[0])))
    x, mask = normal(8, 6, 6), shift_mask(4, 6, (2, 3), (1, 1))
    out = in_turns(attention, x, mask, images=2, at_once=3)
    assert sizes == [6, 2]  # two images, three windows each, then the fourth
    assert_close(out, attention(x, mask), **EXACT)


# ---------------------------------------------------------------------------------------------------- activations


@torch.no_grad()
@pytest.mark.parametrize("name", ["swin_v2_pocket", "vit_pocket_patch8"])
def test_activation_monitor_sees_what_each_block_gives(name):
    model, x, seen = randomise(create_model(name)), normal(3, 3, 32, 32), {}
    with ActivationMonitor(model) as monitor:
        model(x)
    model(2 * x)  # not watched any more
    blocks = [block for part in getattr(model, "stages", [model]) for block in part.blocks]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, out: seen.setdefault(module, out))
    model(x)
    assert len(monitor.amplitude) == len(monitor.variance) == len(blocks)
    for key, block in zip(monitor.amplitude, blocks):
        assert model.get_submodule(key) is block
        out = seen[block].reshape(-1, seen[block].shape[-1])
        assert monitor.amplitude[key] == pytest.approx(((out**2).sum() / out.numel()).sqrt().item())
        assert monitor.variance[key] == pytest.approx(((out - out.mean(0)) ** 2).mean().item())
