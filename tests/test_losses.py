"""Losses against Python loops, hand-worked values and the official block form."""
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from randomise import normal
from torch.testing import assert_close

from minivit.losses import info_nce, margin_triplet, nt_logistic, nt_xent

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SIZES = [(2, 5, 0.5), (3, 7, 0.1), (11, 13, 0.07), (17, 2, 1.0)]  # B, D, temperature


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def loop_nt_xent(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's formula, one anchor at a time, on the paper's own order of pairs: (0, 1), (2, 3), …"""
    z = [row for pair in zip(z1, z2) for row in pair]
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        terms = [torch.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i]
        assert len(terms) == 1 + 2 * (len(z1) - 1)  # one positive, 2B − 2 negatives
        losses.append(-torch.log(torch.exp(cosine(z[i], z[j]) / temperature) / sum(terms)))
    return sum(losses) / len(losses)


def loop_info_nce(q: torch.Tensor, k: torch.Tensor, temperature: float, offset: int) -> torch.Tensor:
    losses = []
    for i in range(len(q)):
        terms = [torch.exp(cosine(q[i], key) / temperature) for key in k]
        losses.append(-torch.log(terms[offset + i] / sum(terms)))
    return sum(losses) / len(losses)


# ---------------------------------------------------------------------------------------------------- against the loops


@pytest.mark.parametrize(("batch", "dim", "temperature"), SIZES)
def test_nt_xent_equals_the_loop(batch, dim, temperature):
    z1, z2 = normal(batch, dim).requires_grad_(), (normal(batch, dim, seed=1) * 3).requires_grad_()
    ours, loop = nt_xent(z1, z2, temperature=temperature), loop_nt_xent(z1, z2, temperature)
    assert_close(ours, loop, **EXACT)
    assert_close(torch.autograd.grad(ours, (z1, z2)), torch.autograd.grad(loop, (z1, z2)), **EXACT)


@pytest.mark.parametrize(("batch", "dim", "temperature"), SIZES)
@pytest.mark.parametrize(("offset", "more"), [(0, 0), (0, 5), (3, 1)])
def test_info_nce_equals_the_loop(batch, dim, temperature, offset, more):
    q, k = normal(batch, dim).requires_grad_(), (normal(offset + batch + more, dim, seed=1) * 3).requires_grad_()
    ours, loop = info_nce(q, k, temperature=temperature, offset=offset), loop_info_nce(q, k, temperature, offset)
    assert_close(ours, loop, **EXACT)
    assert_close(torch.autograd.grad(ours, (q, k)), torch.autograd.grad(loop, (q, k)), **EXACT)


def semi_hard_of(similarity: torch.Tensor, i: int) -> list[int]:
    """The negative of anchor i that is the most similar of those less similar than its positive."""
    easier = [j for j in range(len(similarity)) if j != i and similarity[i, j] < similarity[i, i]]
    return [max(easier, key=lambda j: similarity[i, j].item())] if easier else []


def loop_pairwise(u, v, loss_of_pair, loss_of_positive, semi_hard: bool) -> torch.Tensor:
    similarity = torch.stack([torch.stack([cosine(a, b) for b in v]) for a in u])
    losses = []
    for i in range(len(u)):
        chosen = semi_hard_of(similarity, i) if semi_hard else [j for j in range(len(u)) if j != i]
        pairs = [loss_of_pair(similarity[i, i], similarity[i, j]) for j in chosen]
        losses.append(loss_of_positive(similarity[i, i]) + (sum(pairs) / len(pairs) if pairs else 0.0))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("semi_hard", [False, True])
@pytest.mark.parametrize(("batch", "dim", "temperature"), SIZES)
def test_nt_logistic_equals_the_loop(batch, dim, temperature, semi_hard):
    u, v = normal(batch, dim).requires_grad_(), (normal(batch, dim, seed=1) * 3).requires_grad_()
    ours = nt_logistic(u, v, temperature=temperature, semi_hard=semi_hard)
    ln_sigmoid = lambda x: -torch.log(1 + torch.exp(-x))  # noqa: E731
    loop = loop_pairwise(u, v, lambda _, n: -ln_sigmoid(-n / temperature), lambda p: -ln_sigmoid(p / temperature), semi_hard)
    assert_close(ours, loop, **EXACT)
    assert_close(torch.autograd.grad(ours, (u, v)), torch.autograd.grad(loop, (u, v)), **EXACT)


@pytest.mark.parametrize("semi_hard", [False, True])
@pytest.mark.parametrize(("batch", "dim", "margin"), [(2, 5, 0.4), (3, 7, 0.0), (11, 13, 0.8), (17, 2, 1.6)])
def test_margin_triplet_equals_the_loop(batch, dim, margin, semi_hard):
    u, v = normal(batch, dim).requires_grad_(), (normal(batch, dim, seed=1) * 3).requires_grad_()
    ours = margin_triplet(u, v, margin=margin, semi_hard=semi_hard)
    loop = loop_pairwise(u, v, lambda p, n: torch.clamp(n - p + margin, min=0), lambda p: 0 * p, semi_hard)
    assert_close(ours, loop, **EXACT)
    assert_close(torch.autograd.grad(ours, (u, v)), torch.autograd.grad(loop, (u, v)), **EXACT)


def test_only_nt_xent_weights_negatives_by_their_hardness():
    """The gradients of the paper's table 2, with respect to an anchor u of length 1 that is free to leave the sphere."""
    v, tau = F.normalize(normal(3, 5), dim=1), 0.3
    s = v @ F.normalize(normal(5, seed=2), dim=0)
    logits = s.clone().requires_grad_()
    (softmax_weights,) = torch.autograd.grad(F.cross_entropy(logits[None] / tau, torch.tensor([0])), logits)
    p = torch.exp(s / tau) / torch.exp(s / tau).sum()
    assert_close(softmax_weights, torch.cat([p[:1] - 1, p[1:]]) / tau, **EXACT)
    u, keys = normal(4, 5).requires_grad_(), normal(4, 5, seed=1)
    (gradient,) = torch.autograd.grad(nt_logistic(u, keys, temperature=tau), u)
    unit, others = F.normalize(u.detach(), dim=1), F.normalize(keys, dim=1)
    similarity = unit @ others.T
    towards = torch.stack([
        -torch.sigmoid(-similarity[i, i] / tau) / tau * others[i]
        + sum(torch.sigmoid(similarity[i, j] / tau) / tau * others[j] for j in range(4) if j != i) / 3
        for i in range(4)
    ])  # fmt: skip
    on_sphere = towards - (towards * unit).sum(1, keepdim=True) * unit  # normalising removes what points outwards
    assert_close(gradient, on_sphere / u.detach().norm(dim=1, keepdim=True) / 4, **EXACT)


def test_without_normalising_lengths_count():
    z1, z2 = normal(5, 3), normal(5, 3, seed=1)
    z = torch.cat([z1, z2])
    logits = (z @ z.T / 10.0).masked_fill(torch.eye(10, dtype=torch.bool), float("-inf"))
    assert_close(nt_xent(z1, z2, temperature=10.0, normalise=False), F.cross_entropy(logits, torch.arange(10).roll(5)), **EXACT)
    unit1, unit2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    assert_close(nt_xent(unit1, unit2, temperature=0.3, normalise=False), nt_xent(z1, z2, temperature=0.3), **EXACT)


def test_gradients_are_those_of_the_value():
    z1, z2 = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=0.3), (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a[:3], b, temperature=0.3, offset=2), (z1, z2))


def test_gather_lets_one_process_stand_in_for_two():
    z1, z2 = normal(6, 7), normal(6, 7, seed=1)
    everyone = torch.stack([F.normalize(z1, dim=-1), F.normalize(z2, dim=-1)])
    parts = [
        nt_xent(z1[at : at + 3], z2[at : at + 3], temperature=0.3, gather=lambda local, at=at: (everyone, at)) for at in (0, 3)
    ]
    assert_close(sum(parts) / 2, loop_nt_xent(z1, z2, 0.3), **EXACT)


# ---------------------------------------------------------------------------------------------------- known values


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_values_worked_by_hand(temperature):
    batch = 7
    basis = torch.linalg.qr(normal(2 * batch, 2 * batch)).Q  # random orthogonal rows
    aligned = -1 / temperature + math.log(math.exp(1 / temperature) + 2 * batch - 2)  # positives 1, negatives 0
    assert_close(nt_xent(basis[:batch], basis[:batch], temperature=temperature).item(), aligned, **EXACT)
    # all vectors orthogonal, or all the same: nothing tells the positive from the negatives
    assert_close(nt_xent(basis[:batch], basis[batch:], temperature=temperature).item(), math.log(2 * batch - 1), **EXACT)
    same = basis[:1].expand(batch, -1)
    assert_close(nt_xent(same, same, temperature=temperature).item(), math.log(2 * batch - 1), **EXACT)
    # InfoNCE sees the keys only: B of them
    aligned = -1 / temperature + math.log(math.exp(1 / temperature) + batch - 1)
    assert_close(info_nce(basis[:batch], basis[:batch], temperature=temperature).item(), aligned, **EXACT)
    assert_close(info_nce(same, same, temperature=temperature).item(), math.log(batch), **EXACT)


@pytest.mark.parametrize("batch", [64, 256])
def test_chance_level(batch):
    """facts/simclr.md §9 item 1: ln(2B−1), and 1/(2 D τ²) more for vectors that point anywhere."""
    z1, z2 = normal(batch, 128), normal(batch, 128, seed=1)
    expected = math.log(2 * batch - 1) + 1 / (2 * 128 * 0.5**2)
    standard_error = 1 / (0.5 * math.sqrt(128 * batch))  # of the mean positive
    assert nt_xent(z1, z2, temperature=0.5).item() == pytest.approx(expected, abs=4 * standard_error)


@pytest.mark.parametrize(("batch", "dim", "temperature"), SIZES)
def test_half_of_the_official_block_form(batch, dim, temperature):
    """facts/simclr.md §2.2, §9 item 2: loss_a + loss_b of the TF code is twice ours; a (2B) × (2B−1) cross-entropy is ours."""
    z1, z2 = normal(batch, dim), normal(batch, dim, seed=1)
    a, b = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    aa, bb, ab, ba = a @ a.T, b @ b.T, a @ b.T, b @ a.T
    hide, label = 1e9 * torch.eye(batch, dtype=a.dtype), torch.arange(batch)
    loss_a = F.cross_entropy(torch.cat([ab, aa - hide], 1) / temperature, label)
    loss_b = F.cross_entropy(torch.cat([ba, bb - hide], 1) / temperature, label)
    assert_close(nt_xent(z1, z2, temperature=temperature), (loss_a + loss_b) / 2, **EXACT)
    z = torch.cat([a, b])
    off_diagonal = ~torch.eye(2 * batch, dtype=torch.bool)
    logits = (z @ z.T)[off_diagonal].view(2 * batch, 2 * batch - 1) / temperature
    # without its own column, the partner of row i < B has moved one to the left
    label = torch.cat([label + batch - 1, label])
    assert_close(nt_xent(z1, z2, temperature=temperature), F.cross_entropy(logits, label), **EXACT)


# ---------------------------------------------------------------------------------------------------- properties

sizes = {"batch": st.integers(2, 9), "dim": st.integers(2, 7), "temperature": st.floats(0.05, 2.0), "seed": st.integers(0, 99)}


@given(**sizes, scales=st.lists(st.floats(1e-3, 1e3), min_size=18, max_size=18))
@settings(max_examples=30, deadline=None)
def test_lengths_of_vectors_do_not_matter(batch, dim, temperature, seed, scales):
    z1, z2 = normal(batch, dim, seed=seed), normal(batch, dim, seed=seed + 100)
    first, second = torch.tensor(scales, dtype=torch.float64).view(2, 9, 1)[:, :batch]
    for loss in (nt_xent, info_nce):
        value = loss(z1, z2, temperature=temperature)
        assert_close(loss(z1 * first, z2 * second, temperature=temperature), value, **EXACT)


@given(**sizes)
@settings(max_examples=30, deadline=None)
def test_views_may_be_swapped_and_images_reordered(batch, dim, temperature, seed):
    z1, z2, order = normal(batch, dim, seed=seed), normal(batch, dim, seed=seed + 100), normal(batch, seed=seed).argsort()
    value = nt_xent(z1, z2, temperature=temperature)
    assert_close(nt_xent(z2, z1, temperature=temperature), value, **EXACT)
    assert_close(nt_xent(z1[order], z2[order], temperature=temperature), value, **EXACT)
    assert value > 0
    value = info_nce(z1, z2, temperature=temperature)
    assert_close(info_nce(z1[order], z2[order], temperature=temperature), value, **EXACT)


@given(**sizes)
@settings(max_examples=30, deadline=None)
def test_bounds(batch, dim, temperature, seed):
    z1, z2 = normal(batch, dim, seed=seed), normal(batch, dim, seed=seed + 100)
    value = nt_xent(z1, z2, temperature=temperature).item()
    assert math.log1p((2 * batch - 2) * math.exp(-2 / temperature)) - 1e-9 <= value
    assert value <= math.log1p((2 * batch - 2) * math.exp(2 / temperature)) + 1e-9


# ---------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    z1, z2 = normal(11, 13).to(dtype), normal(11, 13, seed=1).to(dtype)
    value = loss(z1, z2, temperature=0.1)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(z1.float(), z2.float(), temperature=0.1))
    assert_close(value.double(), loss(z1.double(), z2.double(), temperature=0.1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(loss, dtype):
    z1, z2 = normal(11, 13).to(dtype), normal(11, 13, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(z1, z2, temperature=0.1)
    assert value.dtype == dtype
    assert torch.equal(value, loss(z1, z2, temperature=0.1))


def test_sharp_temperatures_stay_finite():
    z = normal(5, 7).float().requires_grad_()
    loss = nt_xent(z, -z, temperature=1e-3)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_losses_say_what_they_cannot_take(loss):
    loss = inspect.unwrap(loss)  # its own message, not that of the shape checker
    with pytest.raises(ValueError, match="at least 2"):
        loss(normal(1, 7), normal(1, 7), temperature=0.1)
    with pytest.raises(ValueError, match=r"\(5, 7\) and \(5, 3\)"):
        loss(normal(5, 7), normal(5, 3), temperature=0.1)
    with pytest.raises(ValueError, match=r"\(5, 7, 3\)"):
        loss(normal(5, 7, 3), normal(5, 7, 3), temperature=0.1)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature={temperature}"):
            loss(normal(5, 7), normal(5, 7), temperature=temperature)


def test_nt_xent_refuses_views_of_different_batches():
    with pytest.raises(ValueError, match=r"\(5, 7\) and \(3, 7\)"):
        inspect.unwrap(nt_xent)(normal(5, 7), normal(3, 7), temperature=0.1)


@pytest.mark.parametrize("offset", [-7, -5, -3, -1, 7, 11])
def test_info_nce_refuses_positives_outside_the_keys(offset):
    with pytest.raises(ValueError, match=f"offset={offset}: the positives of 5 queries .* 11 rows"):
        info_nce(normal(5, 3), normal(11, 3), temperature=0.1, offset=offset)
