"""Layers against plain loops, PyTorch's own modules and the parameter counts of the papers."""
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from randomise import normal, randomise
from torch import nn
from torch.testing import assert_close
from torchvision.ops import Conv2dNormActivation

from minivit.layers.attention import Attention, attention_maps
from minivit.layers.block import Block, DropPath
from minivit.layers.heads import HEADS, mlp_head, predictor, projector
from minivit.layers.norm import BatchNorm, set_batch_norm
from minivit.layers.position import POSITIONS, LearnedPositions, SinCosPositions, sincos_2d
from minivit.layers.stems import ConvLayer, ConvStem, PatchifyStem, conv_layers

EXACT = {"rtol": 1e-9, "atol": 1e-9}
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------------------------------------------- attention


def loop_attention(attention: Attention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and maps, one image, head, query and key at a time. Rows of the fused weight: all of Q, all of K, all of V."""
    batch, tokens, dim = x.shape
    width = dim // attention.heads
    maps = torch.zeros(batch, attention.heads, tokens, tokens, dtype=x.dtype)
    mixed = torch.zeros_like(x)
    for b in range(batch):
        qkv = x[b] @ attention.to_qkv.weight.T + attention.to_qkv.bias
        for h in range(attention.heads):
            q, k, v = (qkv[:, part * dim + h * width : part * dim + (h + 1) * width] for part in range(3))
            for i in range(tokens):
                weights = [math.exp(float(q[i] @ k[j]) / math.sqrt(width)) for j in range(tokens)]
                for j in range(tokens):
                    maps[b, h, i, j] = weights[j] / sum(weights)
                    mixed[b, i, h * width : (h + 1) * width] += maps[b, h, i, j] * v[j]
    return mixed @ attention.to_out.weight.T + attention.to_out.bias, maps


@torch.no_grad()
def test_attention_equals_a_double_loop():
    attention, x = randomise(Attention(35, 5)), normal(2, 11, 35)
    out, maps = loop_attention(attention, x)
    attention.fused = False
    assert_close(attention(x), out, **EXACT)
    assert_close(attention.maps(x), maps, **EXACT)
    attention.fused = True
    assert_close(attention(x), out, **EXACT)


@torch.no_grad()
def test_attention_equals_pytorch():
    attention, x = randomise(Attention(35, 5)), normal(3, 11, 35)
    peer = nn.MultiheadAttention(35, 5, batch_first=True, dtype=torch.float64)
    peer.in_proj_weight.copy_(attention.to_qkv.weight)
    peer.in_proj_bias.copy_(attention.to_qkv.bias)
    peer.out_proj.load_state_dict(attention.to_out.state_dict())
    out, maps = peer(x, x, x, average_attn_weights=False)
    assert_close(attention(x), out, **EXACT)
    assert_close(attention.maps(x), maps, **EXACT)


def test_attention_gradients_of_both_paths_are_equal():
    attention, x = randomise(Attention(21, 3)), normal(2, 5, 21)
    gradients = []
    for attention.fused in (False, True):
        gradients.append(torch.autograd.grad(attention(x).square().sum(), list(attention.parameters())))
    assert_close(*gradients, **EXACT)


def test_attention_maps_rows_sum_to_one():
    maps = attention_maps(normal(2, 3, 7, 5), normal(2, 3, 7, 5, seed=1))
    assert maps.shape == (2, 3, 7, 7)
    assert (maps > 0).all()
    assert_close(maps.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64), **TIGHT)


def test_attention_follows_a_permutation_of_tokens():
    attention, x, order = randomise(Attention(35, 5)), normal(2, 11, 35), normal(11).argsort()
    assert_close(attention(x)[:, order], attention(x[:, order]), **EXACT)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="heads=3 does not divide dim=35"):
        Attention(35, 3)
    with pytest.raises(ValueError, match="heads=0"):
        Attention(35, 0)


# ---------------------------------------------------------------------------------------------------- block


@torch.no_grad()
def test_block_equals_its_two_equations():
    block, x = randomise(Block(35, 5, mlp_ratio=2.0)), normal(3, 7, 35)

    def norm(x, layer):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    first, _, second = block.mlp
    x1 = x + loop_attention(block.attn, norm(x, block.norm1))[0]
    hidden = norm(x1, block.norm2) @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert first.out_features == 70
    assert_close(block(x), x1 + hidden @ second.weight.T + second.bias, **EXACT)


def test_drop_path_keeps_the_expectation_and_drops_whole_images():
    torch.manual_seed(0)
    drop = DropPath(0.3)
    out = drop(torch.ones(20011, 3, 2, dtype=torch.float64))
    kept = out[:, 0, 0] > 0
    assert (out == out[:, :1, :1]).all()
    assert_close(out[kept], torch.full_like(out[kept], 1 / 0.7), **TIGHT)
    assert abs(out.mean().item() - 1) < 5 * math.sqrt(0.3 / 0.7 / 20011)  # five standard errors


def test_drop_path_is_the_identity_in_eval_and_at_rate_zero():
    x = normal(5, 7, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="rate lies in"):
            DropPath(rate)


# ---------------------------------------------------------------------------------------------------- positions


def loop_sincos(dim: int, row: int, col: int, channel: int) -> float:
    """One entry, from the formula alone."""
    d = dim // 4
    block, i = divmod(channel, d)
    angle = (row if block < 2 else col) * 10000 ** (-i / d)
    return math.sin(angle) if block % 2 == 0 else math.cos(angle)


def test_sincos_equals_the_formula_on_a_grid_that_is_not_square():
    dim, height, width = 28, 3, 5
    code = sincos_2d(dim, height, width)
    expected = [[loop_sincos(dim, row, col, c) for c in range(dim)] for row in range(height) for col in range(width)]
    assert code.dtype == torch.float32
    assert_close(code, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_sincos_of_the_class_token_is_zero():
    code = sincos_2d(28, 3, 5, cls_token=True)
    assert code.shape == (16, 28)
    assert (code[0] == 0).all()
    assert torch.equal(code[1:], sincos_2d(28, 3, 5))


def test_sincos_of_the_transposed_grid_swaps_the_halves():
    code = rearrange(sincos_2d(28, 3, 5), "(h w) (half d) -> (w h) (half d)", h=3, half=2)
    row_half, col_half = code.chunk(2, dim=1)
    assert torch.equal(torch.cat([col_half, row_half], dim=1), sincos_2d(28, 5, 3))
    assert len(sincos_2d(28, 11, 13).unique(dim=0)) == 11 * 13


def test_sincos_needs_a_multiple_of_four():
    with pytest.raises(ValueError, match="dim=30"):
        sincos_2d(30, 3, 5)


@pytest.mark.parametrize("prefix", [0, 1])
def test_learned_positions_resampled_to_their_own_grid_are_themselves(prefix):
    positions = LearnedPositions(7, (3, 5), prefix)
    assert_close(positions.resampled((3, 5)), positions.table, rtol=1e-6, atol=1e-6)
    other = positions.resampled((11, 13))
    assert other.shape == (prefix + 143, 7)
    assert torch.equal(other[:prefix], positions.table[:prefix])


def test_learned_positions_resample_along_the_right_axis():
    positions = LearnedPositions(1, (3, 5), 0)
    with torch.no_grad():
        positions.table.copy_(torch.arange(3.0).repeat_interleave(5)[:, None])  # the row number
    picture = rearrange(positions.resampled((6, 5)), "(h w) 1 -> h w", h=6)
    assert_close(picture, picture[:, :1].expand(6, 5))
    assert (picture[:, 0].diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions_keep_the_dtype_on_any_grid(name, dtype):
    positions = POSITIONS[name](8, (3, 5), 1).to(dtype)
    for grid in ((3, 5), (2, 7)):
        x = torch.zeros(2, 1 + grid[0] * grid[1], 8, dtype=dtype)
        assert positions(x, grid).dtype == dtype
        assert positions(x, grid).shape == x.shape


def test_sincos_positions_are_computed_anew_and_not_saved():
    positions = SinCosPositions(28, (3, 5), 1)
    assert not positions.state_dict()
    assert torch.equal(positions(torch.zeros(1, 78, 28), (7, 11))[0], sincos_2d(28, 7, 11, cls_token=True))


# ---------------------------------------------------------------------------------------------------- batch norm


def loop_of_batch_norms(ours: BatchNorm, x: torch.Tensor, peer_class: type, groups: int):
    """Each chunk through a BatchNorm of its own; the running statistics are the average of the chunks' ones."""
    peers = [peer_class(ours.num_features, affine=ours.affine, dtype=torch.float64) for _ in range(groups)]
    for peer in peers:
        peer.load_state_dict(ours.state_dict())
    out = torch.cat([peer(chunk) for peer, chunk in zip(peers, x.chunk(groups), strict=True)])
    mean = torch.stack([peer.running_mean for peer in peers]).mean(0)
    var = torch.stack([peer.running_var for peer in peers]).mean(0)
    return out, mean, var


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("peer", "shape"), [(nn.BatchNorm1d, (7,)), (nn.BatchNorm1d, (7, 5)), (nn.BatchNorm2d, (7, 5, 11))])
@pytest.mark.parametrize("groups", [1, 3])
def test_batch_norm_equals_pytorch_chunk_by_chunk(peer, shape, groups, affine):
    ours = randomise(BatchNorm(7, groups=groups, affine=affine))
    for step in range(3):  # running statistics accumulate
        x = normal(39, *shape, seed=step).add(2).requires_grad_()
        expected, mean, var = loop_of_batch_norms(ours, x, peer, groups)
        out = ours(x)
        assert_close(out, expected, **TIGHT)
        assert_close((ours.running_mean, ours.running_var), (mean, var), **TIGHT)
        assert ours.num_batches_tracked == step + 1
        weight = normal(*out.shape, seed=9)
        assert_close(torch.autograd.grad((out * weight).sum(), x), torch.autograd.grad((expected * weight).sum(), x), **TIGHT)
    reference = peer(7, affine=affine, dtype=torch.float64).eval()
    reference.load_state_dict(ours.state_dict())
    before = copy.deepcopy(ours.state_dict())
    assert_close(ours.eval()(x), reference(x), **TIGHT)
    assert_close(ours.state_dict(), before)


def test_batch_norm_by_groups_computes_half_precision_in_float32():
    x = (normal(26, 7, 5, 3) + 50).bfloat16()
    one, split = BatchNorm(7), BatchNorm(7, groups=1)
    split.groups = 2
    assert split(x).dtype == one(x).dtype == torch.bfloat16
    expected = torch.cat([BatchNorm(7)(half.float()) for half in x.chunk(2)])
    assert_close(split(x).float(), expected, rtol=1e-2, atol=1e-2)


def test_batch_norm_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="two images in each group.*got 1"):
        BatchNorm(7)(torch.zeros(1, 7))
    with pytest.raises(ValueError, match="two images in each group.*got 5"):
        BatchNorm(7, groups=3)(torch.zeros(5, 7))
    with pytest.raises(ValueError, match="groups=3 does not divide"):
        BatchNorm(7, groups=3)(torch.zeros(7, 7))
    with pytest.raises(ValueError, match="takes"):
        BatchNorm(7)(torch.zeros(7))
    assert BatchNorm(7).eval()(torch.zeros(1, 7)).shape == (1, 7)


def test_set_batch_norm_reaches_every_one():
    net = nn.Sequential(BatchNorm(3), nn.Sequential(nn.Linear(3, 5), BatchNorm(5, affine=False)))
    assert set_batch_norm(net, groups=2, sync=True) is net
    assert [(m.groups, m.sync) for m in net.modules() if isinstance(m, BatchNorm)] == [(2, True)] * 2


# ---------------------------------------------------------------------------------------------------- stems


def test_stem_parameter_counts_are_the_papers():
    assert parameters(PatchifyStem(192, 16)) == 147_648
    assert parameters(PatchifyStem(384, 16)) == 295_296
    assert parameters(PatchifyStem(768, 16)) == 590_592
    assert [layer.width for layer in conv_layers(192, 16)] == [24, 48, 96, 192]
    assert [layer.width for layer in conv_layers(384, 16)] == [48, 96, 192, 384]
    assert parameters(ConvStem(192, conv_layers(192, 16))) == 256_152
    assert parameters(ConvStem(384, conv_layers(384, 16))) == 1_021_488
    widths, strides = (64, 128, 128, 256, 256, 512), (2, 2, 1, 2, 1, 2)
    large = [ConvLayer(3, stride, width, 1) for width, stride in zip(widths, strides, strict=True)]
    assert parameters(ConvStem(768, large)) == 2_683_968
    assert parameters(ConvStem(1024, large)) == 2_815_296


@torch.no_grad()
def test_patchify_is_one_linear_map_of_each_patch():
    stem, x = randomise(PatchifyStem(11, 7)), normal(2, 3, 21, 35)
    patches = F.unfold(x, 7, stride=7).mT
    assert stem.grid(21, 35) == (3, 5)
    assert_close(stem(x), patches @ stem.proj.weight.flatten(1).T + stem.proj.bias, **EXACT)


@torch.no_grad()
def test_conv_stem_equals_torchvision_blocks():
    stem, x = randomise(ConvStem(44, conv_layers(44, 8))), normal(3, 3, 24, 40)
    widths = (3, 11, 22, 44)
    peer = nn.Sequential(*[Conv2dNormActivation(widths[i], widths[i + 1], 3, 2) for i in range(3)], nn.Conv2d(44, 44, 1)).double()
    peer.load_state_dict(dict(zip(peer.state_dict(), stem.state_dict().values(), strict=True)))
    for training in (True, False):
        assert_close(stem.train(training)(x), peer.train(training)(x).flatten(2).mT, **EXACT)
    assert stem.patch == 8
    assert stem(x).shape == (3, 15, 44)


def test_conv_stem_without_norm_has_biases():
    stem = ConvStem(44, conv_layers(44, 4), norm="none")
    assert [type(m).__name__ for m in stem.layers] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    assert all(m.bias is not None for m in stem.layers if isinstance(m, nn.Conv2d))


def test_patchify_starts_as_moco_v3_does():
    stem = PatchifyStem(768, 16)
    assert 0.99 * 0.0625 < stem.proj.weight.abs().max() <= 0.0625
    assert (stem.proj.bias == 0).all()


@torch.no_grad()
def test_a_patch_projection_with_batch_norm_is_the_projection_and_pytorchs():
    stem, peer, x = randomise(PatchifyStem(11, 7, norm="bn")), nn.BatchNorm2d(11).double(), normal(2, 3, 21, 35)
    peer.load_state_dict(stem.norm.state_dict())
    for training in (True, False):
        assert_close(stem.train(training)(x), peer.train(training)(stem.proj(x)).flatten(2).mT, **EXACT)
    assert parameters(stem) == parameters(PatchifyStem(11, 7)) + 2 * 11


@torch.no_grad()
def test_a_patch_projection_with_weight_norm_has_length_and_direction_apart():
    torch.manual_seed(0)
    stem, x = PatchifyStem(11, 7, norm="weight"), normal(2, 3, 21, 35)
    torch.manual_seed(0)
    assert_close(stem.double()(x), PatchifyStem(11, 7).double()(x), rtol=1e-6, atol=1e-6)  # it starts as the one without
    length, direction = (value for name, value in randomise(stem).state_dict().items() if "original" in name)
    kernel = torch.stack([g * v / v.square().sum().sqrt() for g, v in zip(length, direction)])
    assert_close(stem(x), F.conv2d(x, kernel, stem.proj.bias, stride=7).flatten(2).mT, **EXACT)
    assert parameters(stem) == parameters(PatchifyStem(11, 7)) + 11


def test_stems_say_what_they_cannot_do():
    with pytest.raises(ValueError, match="21×36 is not divisible by patch=7"):
        PatchifyStem(11, 7)(torch.zeros(1, 3, 21, 36))
    for dim, patch in ((44, 7), (44, 1), (44, 0), (44, 16)):
        with pytest.raises(ValueError, match=f"patch={patch}"):
            conv_layers(dim, patch)
    with pytest.raises(ValueError, match="norm='gn'"):
        ConvStem(44, conv_layers(44, 8), norm="gn")


# ---------------------------------------------------------------------------------------------------- heads

# L: Linear, Lb: with bias, BN: affine, BNs: scale only, BN0: no affine, R: ReLU. Counts: facts/moco.md §3.5, else by hand.
PLACEMENT = {
    ("simclr_v1", "projector", 2048): ("L BN R L BNs", 128, 2048 * 2048 + 2 * 2048 + 2048 * 128 + 128),
    ("simclr_v2", "projector", 2048): ("L BN R L BN R L BNs", 128, 2 * (2048 * 2048 + 2 * 2048) + 2048 * 128 + 128),
    ("moco_v1", "projector", 2048): ("Lb", 128, 2049 * 128),
    ("moco_v2", "projector", 2048): ("Lb R Lb", 128, 2048 * 2049 + 128 * 2049),
    ("moco_v3_vit", "projector", 768): ("L BN R L BN R L BN0", 256, 20_987_904),  # 20.99 M
    ("moco_v3_vit", "predictor", 256): ("L BN R L BN0", 256, 2_105_344),  # 2.11 M
    ("moco_v3_resnet", "projector", 2048): ("L BN R L BN0", 256, 9_445_376),  # 9.45 M
    ("moco_v3_resnet", "predictor", 256): ("L BN R L", 256, 2_105_344),
    ("byol", "projector", 2048): ("Lb BN R L", 256, 2049 * 4096 + 2 * 4096 + 4096 * 256),
    ("byol", "predictor", 256): ("Lb BN R L", 256, 257 * 4096 + 2 * 4096 + 4096 * 256),
    ("simsiam", "projector", 2048): ("L BN R L BN R L BN0", 2048, 3 * 2048 * 2048 + 2 * 2 * 2048),
    ("simsiam", "predictor", 2048): ("L BN R Lb", 2048, 2048 * 512 + 2 * 512 + 513 * 2048),
    ("swav", "projector", 2048): ("Lb BN R Lb", 128, 2049 * 2048 + 2 * 2048 + 2049 * 128),
}


def spell(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return "L" if module.bias is None else "Lb"
    if isinstance(module, BatchNorm):
        trained = [p is not None and p.requires_grad for p in (module.weight, module.bias)]
        return {(True, True): "BN", (True, False): "BNs", (False, False): "BN0"}[tuple(trained)]
    return {nn.ReLU: "R"}[type(module)]


@pytest.mark.parametrize(("name", "part", "in_dim"), PLACEMENT)
def test_heads_place_their_norms_as_the_paper(name, part, in_dim):
    modules, out_dim, count = PLACEMENT[name, part, in_dim]
    with torch.device("meta"):
        head = {"projector": projector, "predictor": predictor}[part](name, in_dim)
    assert " ".join(map(spell, head)) == modules
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == count
    assert head(torch.zeros(3, in_dim, device="meta")).shape == (3, out_dim)


def test_every_head_is_in_the_table():
    assert {(name, part) for name, heads in HEADS.items() for part in heads} == {(name, part) for name, part, _ in PLACEMENT}


def test_moco_v3_head_sizes_of_the_facts():
    with torch.device("meta"):
        assert parameters(projector("moco_v3_vit", 384)) == 19_415_040


@torch.no_grad()
def test_head_equals_the_formula():
    head, h = randomise(projector("simclr_v1", 13, out_dim=5)), normal(17, 13)
    hidden, norm1, _, out, norm2 = head

    def normalised(x):
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    z = normalised(h @ hidden.weight.T) * norm1.weight + norm1.bias
    z = normalised(z.clamp(min=0) @ out.weight.T) * norm2.weight + norm2.bias
    assert_close(head(h), z, **EXACT)


def test_overrides_and_depths_of_heads():
    assert projector("simclr_v1", 13, out_dim=5, layers=1)(torch.zeros(3, 13)).shape == (3, 5)
    assert len(mlp_head(13, 7, 5, layers=0)) == 0
    widths = [m.weight.shape for m in mlp_head(13, 7, 5, layers=3) if isinstance(m, nn.Linear)]
    assert widths == [(7, 13), (7, 7), (5, 7)]


def test_heads_say_what_they_cannot_do():
    with pytest.raises(ValueError, match="no projector is called 'simclr_v3'; there are: simclr_v1"):
        projector("simclr_v3", 13)
    with pytest.raises(ValueError, match="no predictor is called 'simclr_v1'"):
        predictor("simclr_v1", 13)
    with pytest.raises(ValueError, match="a head has no depth"):
        projector("simclr_v1", 13, depth=2)
    with pytest.raises(ValueError, match="out_norm='ln'"):
        mlp_head(13, 7, 5, out_norm="ln")
    with pytest.raises(ValueError, match="layers=-1"):
        mlp_head(13, 7, 5, layers=-1)
