"""Your own tests: ``pytest -k part_a`` and so on. Each message names the likely mistake. The grader asks more than this file does."""
import math

import hw01
import pytest
import torch

from minivit import nt_xent
from minivit.course.grader import variant

MINE = variant(hw01.__file__)
INTERLEAVED = MINE["layout"] == "interleaved"
B, TAU = 4, 0.5


def rows(seed: int = 0, batch: int = B, dim: int = 7) -> torch.Tensor:
    """Random vectors (2B, D_z) in float64."""
    return torch.randn(2 * batch, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arranged(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """Two views (B, D_z) each, in the order of your layout."""
    return torch.stack([z1, z2], dim=1).flatten(0, 1) if INTERLEAVED else torch.cat([z1, z2])


def temperature(value: float, batch: int = B):
    return torch.full((2 * batch,), value, dtype=torch.float64) if MINE["variant"] == "own temperature" else value


# ---- part A


def test_part_a_positives():
    j = hw01.positive_of(B)
    assert j.shape == (2 * B,), f"shape {tuple(j.shape)}: every one of the 2B rows is an anchor, those of the second view, too"
    r = torch.arange(2 * B)
    assert (j != r).all(), "a row is its own positive"
    assert (j[j] == r).all(), "the positive of the positive must be the row itself"
    assert j[0] == (1 if INTERLEAVED else B), f"row 0's other view stands elsewhere in {MINE['layout']} views"


def test_part_a_negatives():
    m = hw01.is_negative(B)
    assert m.dtype == torch.bool and m.shape == (2 * B, 2 * B), "a (2B, 2B) tensor of bool, please"
    assert not m.diagonal().any(), "a row is its own negative: take the diagonal out"
    assert (m.sum(1) == 2 * B - 2).all(), f"an anchor has 2B−2 = {2 * B - 2} negatives, of both views; you have {m.sum(1).tolist()}"
    assert (m == m.T).all(), "if k is a negative of i, then i is one of k"


# ---- part B


def test_part_b_collapse():
    """All vectors equal: every term of the denominator counts 1, so the loss is the logarithm of how many there are."""
    many = {"own side": B, "own temperature": 2 * B - 1, "decoupled": 2 * B - 2}[MINE["variant"]]
    loss = hw01.variant_loss(torch.ones(2 * B, 3, dtype=torch.float64), temperature(TAU))
    assert loss.shape == (), "return one number: the mean over the anchors"
    terms = math.exp(float(loss))
    assert abs(terms - many) < 1e-6, f"the denominator seems to have {terms:.4g} terms; it should have {many}. Is the self pair out? The positive?"


def test_part_b_length_and_temperature():
    z = rows()
    once, longer = hw01.variant_loss(z, temperature(TAU)), hw01.variant_loss(3 * z, temperature(TAU))
    assert torch.allclose(once, longer), "three times longer vectors change the loss: s is the cosine, so normalise each row"
    assert once.dtype == torch.float64, "float64 in, float64 out"
    close = arranged(*[torch.eye(B, dtype=torch.float64)] * 2)
    assert hw01.variant_loss(close, temperature(0.1)) < hw01.variant_loss(close, temperature(1.0)), (
        "perfect pairs must cost less at a small temperature: divide by τ, and check which rows are pairs"
    )


def test_part_b_gradient_and_limits():
    z = rows().requires_grad_()
    hw01.variant_loss(z, temperature(TAU)).backward()
    assert z.grad is not None and z.grad.abs().max() > 0, "no gradient reaches z: is there a detach, .item() or NumPy on the way?"
    assert z.grad.mul(z).sum(1).abs().max() < 1e-9, "the gradient changes the length of a row, which s does not see: is the length detached?"
    cold = hw01.variant_loss(torch.ones(2 * B, 3), temperature(0.006))
    assert torch.isfinite(cold), "exp(1/0.006) does not fit into float32: use logsumexp"
    for bad, tau in ((z[:2], temperature(TAU, 1)), (z, temperature(0.0)), (z, temperature(-1.0))):
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            hw01.variant_loss(bad, tau)


# ---- part C


def test_part_c_sums():
    g = hw01.similarity_gradient(rows(), temperature(TAU))
    assert g.shape == (2 * B, 2 * B), "one row for each anchor, one column for each row of z"
    assert g.diagonal().abs().max() == 0, "ℓ_i does not see the anchor's similarity with itself"
    assert g.sum(1).abs().max() < 1e-9, "each row sums to 0: what the positive pulls, the others push together"
    negative = (g < 0).sum(1)
    assert (negative == 1).all(), "exactly one entry of each row is negative: the positive's. Is the sign turned round?"


def test_part_c_is_what_happens_to_the_loss():
    """Move one row a little: the loss changes by Σ_ik g(i,k)·ds(i,k) / (2B). Needs part B."""
    z, h = rows(), 1e-6
    moved = z.clone()
    moved[0, 0] += h
    unit, unit_moved = (torch.nn.functional.normalize(x, dim=1) for x in (z, moved))
    ds = unit_moved @ unit_moved.T - unit @ unit.T
    change = hw01.variant_loss(moved, temperature(TAU)) - hw01.variant_loss(z, temperature(TAU))
    predicted = (hw01.similarity_gradient(z, temperature(TAU)) * ds).sum() / (2 * B)
    assert abs(change - predicted) < 1e-4 * abs(change), f"the loss changed by {change:.3e}, your derivative says {predicted:.3e}: a factor τ or 2B?"


# ---- part D


def test_part_d_weight_one_is_nt_xent():
    z1, z2 = rows()[:B], rows()[B:]
    ours = hw01.label_aware_loss(arranged(z1, z2), torch.tensor([0, 1, 1, 0]), TAU, 1.0)
    assert torch.allclose(ours, nt_xent(z1, z2, temperature=TAU)), "with weight = 1 this is plain NT-Xent, minivit.nt_xent(z1, z2)"


def test_part_d_labels():
    z = arranged(rows()[:B], rows()[B:])
    apart, pair = torch.arange(B), torch.tensor([0, 0, 2, 3])
    plain = hw01.label_aware_loss(z, apart, TAU, 1.0)
    assert torch.allclose(hw01.label_aware_loss(z, apart, TAU, 0.0), plain), "no two images share a class here, so weight must change nothing"
    assert hw01.label_aware_loss(z, pair, TAU, 0.0) < plain, "with fewer negatives the loss falls"
    together = rows().requires_grad_()
    loss = hw01.label_aware_loss(together, torch.zeros(B, dtype=torch.int64), TAU, 0.0)
    loss.backward()
    assert abs(loss) < 1e-9, "one class and weight = 0: only the positive is left in the sum, so the loss is 0; does it count in full?"
    assert torch.isfinite(together.grad).all(), "a NaN in the gradient: the logsumexp of nothing but −∞ has none; keep the positive in the same sum"


# ---- part E


@pytest.mark.parametrize(("collapsed", "name"), [(math.log(8), "self pair"), (2 * math.log(7), "doubled"), (math.log(4), "one view")])
def test_part_e_collapse(collapsed, name):
    spread = math.log(1 + 6 * math.exp(-1 / TAU))
    said = hw01.diagnose(4, TAU, collapsed, spread, spread)
    assert said in hw01.NAMES, f"{said!r} is none of NAMES"
    assert said == name, f"e to the first reading is {math.exp(collapsed):.4g}; how many terms would a right denominator have for B = 4?"


def test_part_e_right():
    spread = math.log(1 + 6 * math.exp(-1 / TAU))
    assert hw01.diagnose(4, TAU, math.log(7), spread, spread) == "right", "these are the values of the right loss for B = 4"
    longer = math.log(1 + 6 * math.exp(-4 / TAU))
    assert hw01.diagnose(4, TAU, math.log(7), spread, longer) == "not normalised", "the length of a vector must not matter"
