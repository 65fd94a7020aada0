"""LARS, LAMB and StableAdamW against their rules written out in NumPy; schedules."""
import numpy as np
import pytest
import torch
from randomise import normal
from torch import nn

from minivit import LAMB, LARS, StableAdamW, warmup_constant, warmup_cosine


def numpy_lars(w, gradients, lrs, *, wd, eta, m, in_buffer):
    """One tensor's path under the rule of the fact sheets (SimCLR §4.1, MoCo v3 §6.3), a step for each gradient."""
    w, v = w.copy(), np.zeros_like(w)
    for g, lr in zip(gradients, lrs, strict=True):
        g = g.copy()
        if w.ndim > 1:
            g = g + wd * w
            w_norm, g_norm = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
            g = g * (eta * w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0)
        if in_buffer:
            v = m * v + lr * g
            w = w - v
        else:
            v = m * v + g
            w = w - lr * v
    return w


@pytest.mark.parametrize("in_buffer", [False, True])
@pytest.mark.parametrize("start", ["random", "zero"])
def test_lars_equals_the_rule(in_buffer, start):
    shapes = [(5, 3), (7,), (3, 2, 3, 3)]
    lrs = [0.3, 1.1, 0.2, 0.7]  # a schedule: the two places of lr then differ
    values = [normal(*shape, seed=i) * (start == "random") for i, shape in enumerate(shapes)]
    weights = [nn.Parameter(value) for value in values]
    before = [w.detach().numpy().copy() for w in weights]
    gradients = [[normal(*shape, seed=10 * i + step) for step in range(4)] for i, shape in enumerate(shapes)]
    optimizer = LARS(weights, lr=1.0, momentum=0.8, weight_decay=0.03, eta=0.01, lr_in_buffer=in_buffer)
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g[step].clone()
        optimizer.step()
    for w, first, g in zip(weights, before, gradients, strict=True):
        expected = numpy_lars(first, [x.numpy() for x in g], lrs, wd=0.03, eta=0.01, m=0.8, in_buffer=in_buffer)
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_lars_leaves_a_weight_without_gradient_alone():
    w = nn.Parameter(normal(3, 3))
    before = w.detach().clone()
    LARS([w], lr=1.0, weight_decay=0.1).step()
    assert torch.equal(w, before)


def test_lars_resumes_bit_for_bit():
    def trained(steps, saved=None):
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        optimizer = LARS(net.parameters(), lr=0.1, lr_in_buffer=True)
        if saved:
            net.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        for step in steps:
            optimizer.zero_grad()
            net(torch.randn(7, 5, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()
        return {k: v.clone() for k, v in net.state_dict().items()}, optimizer.state_dict()

    whole, (half, state) = trained(range(6))[0], trained(range(3))
    resumed = trained(range(3, 6), (half, state))[0]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


# ---------------------------------------------------------------------------------------------------- LAMB


def numpy_lamb(w, gradients, lrs, *, wd, beta1, beta2, eps):
    """One tensor's path by algorithm 2 of You et al. 2020, with φ(x) = x; vectors get neither decay nor ratio."""
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        r = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        if w.ndim > 1:
            r = r + wd * w
            w_norm, r_norm = np.linalg.norm(w.ravel()), np.linalg.norm(r.ravel())
            r = r * (w_norm / r_norm if w_norm > 0 and r_norm > 0 else 1.0)
        w = w - lr * r
    return w


@pytest.mark.parametrize("start", ["random", "zero"])
def test_lamb_equals_the_algorithm(start):
    shapes, lrs = [(5, 3), (7,), (3, 2, 3, 3)], [0.3, 1.1, 0.2, 0.7]
    weights = [nn.Parameter(normal(*shape, seed=i) * (start == "random")) for i, shape in enumerate(shapes)]
    before = [w.detach().numpy().copy() for w in weights]
    gradients = [[normal(*shape, seed=10 * i + step) for step in range(4)] for i, shape in enumerate(shapes)]
    optimizer = LAMB(weights, lr=1.0, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.03)
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g[step].clone()
        optimizer.step()
    for w, first, g in zip(weights, before, gradients, strict=True):
        expected = numpy_lamb(first, [x.numpy() for x in g], lrs, wd=0.03, beta1=0.8, beta2=0.95, eps=1e-3)
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_lamb_without_ratio_and_decay_is_adam():
    """Vectors get Adam's step: PyTorch's own Adam says the same."""
    ours, peer = (nn.Parameter(normal(7)) for _ in range(2))
    optimizers = LAMB([ours], lr=0.01, eps=1e-8, weight_decay=0.5), torch.optim.Adam([peer], lr=0.01, eps=1e-8)
    for step in range(5):
        for w, optimizer in zip((ours, peer), optimizers, strict=True):
            w.grad = normal(7, seed=step)
            optimizer.step()
    np.testing.assert_allclose(ours.detach().numpy(), peer.detach().numpy(), rtol=1e-9)


def test_a_negative_setting_is_refused():
    for optimizer in (LARS, LAMB, StableAdamW):
        with pytest.raises(ValueError, match="weight_decay=-1 must not be negative"):
            optimizer([nn.Parameter(normal(3))], lr=0.1, weight_decay=-1)


# ---------------------------------------------------------------------------------------------------- StableAdamW


def numpy_stable_adamw(w, gradients, lrs, *, wd, beta1, beta2, eps):
    """One tensor's path, and its RMS at each step (facts/stability.md §1): lr / max(1, RMS) for step and decay alike."""
    w, m, v, ratios = w.copy(), np.zeros_like(w), np.zeros_like(w), []
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        unbiased = v / (1 - beta2**t)
        ratios.append(np.sqrt(np.mean(g * g / np.maximum(unbiased, eps**2))))
        lr = lr / max(1, ratios[-1])
        w = w - lr * wd * w - lr * (m / (1 - beta1**t)) / (np.sqrt(unbiased) + eps)
    return w, ratios


def stepped(optimizer, weights, gradients, lrs=None):
    for step in range(len(gradients[0])):
        optimizer.param_groups[0]["lr"] = lrs[step] if lrs else optimizer.param_groups[0]["lr"]
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g[step].clone()
        optimizer.step()
    return [w.detach().numpy() for w in weights]


def test_stable_adamw_equals_its_algorithm():
    shapes, lrs, sizes = [(5, 3), (7,), (3, 2, 3, 3)], [0.3, 1.1, 0.2, 0.7, 0.5], [1, 0.1, 5, 1, 30]  # v̂ lags behind at the third and fifth step
    weights = [nn.Parameter(normal(*shape, seed=i)) for i, shape in enumerate(shapes)]
    before = [w.detach().numpy().copy() for w in weights]
    gradients = [[size * normal(*shape, seed=10 * i + step) for step, size in enumerate(sizes)] for i, shape in enumerate(shapes)]
    found = stepped(StableAdamW(weights, lr=1.0, betas=(0.8, 0.95), eps=0.5, weight_decay=0.03), weights, gradients, lrs)
    for w, first, g in zip(found, before, gradients, strict=True):
        expected, ratios = numpy_stable_adamw(first, [x.numpy() for x in g], lrs, wd=0.03, beta1=0.8, beta2=0.95, eps=0.5)
        assert ratios[1] < 0.5 and ratios[2] > 1.2 and ratios[4] > 1.5
        np.testing.assert_allclose(w, expected, rtol=1e-10, atol=1e-12)


def test_stable_adamw_is_adamw_while_gradients_shrink():
    ours, peer = (nn.Parameter(normal(7, 3)) for _ in range(2))
    gradients = [[0.5**step * normal(7, 3).abs() for step in range(5)]]
    options = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-12, "weight_decay": 0.5}
    stepped(StableAdamW([ours], **options), [ours], gradients)
    stepped(torch.optim.AdamW([peer], **options), [peer], gradients)
    np.testing.assert_allclose(ours.detach().numpy(), peer.detach().numpy(), rtol=1e-9)


# ---------------------------------------------------------------------------------------------------- schedules


def test_the_constant_schedule_is_the_cosines_warm_up_and_then_one():
    constant, cosine = ([schedule(step, steps=9, warmup=4) for step in range(9)] for schedule in (warmup_constant, warmup_cosine))
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1] and cosine[:5] == constant[:5] and max(cosine[5:]) < 1
    assert warmup_constant(0, steps=9) == warmup_cosine(0, steps=9) == 1
