"""What the gradient monitor logs, against gradients and second moments kept by hand; and what is made of its log."""

import numpy as np
import pytest
import torch
from test_engine import DATA, same, settings, tiny, weights

from minivit import GradientMonitor, fit, stability_report
from minivit.callbacks import Callback
from minivit.monitor import layer_of, logged
from minivit.optim import LAMB, StableAdamW
from minivit.runs import Run

PREFIXES = {
    "stem": "backbone.stem.", "positions": "backbone.positions.", "block0": "backbone.blocks.0.", "block1": "backbone.blocks.1.",
    "norm": "backbone.norm.", "classifier": "classifier.",
}  # fmt: skip


class ByHand(Callback):
    """Every layer's gradient as one float64 vector, and Adam's second moment of it."""

    def __init__(self, beta: float, eps: float):
        self.beta, self.eps, self.v, self.lines, self.given = beta, eps, {}, [], []

    def vectors(self, loop) -> dict[str, torch.Tensor]:
        named = [(name, p.grad.double().flatten()) for name, p in loop.method.named_parameters() if p.grad is not None]
        return {layer: torch.cat([g for name, g in named if name.startswith(prefix)]) for layer, prefix in PREFIXES.items()}

    def after_backward(self, loop) -> None:
        line = {}
        for layer, g in self.vectors(loop).items():
            self.v[layer] = self.beta * self.v.get(layer, 0) + (1 - self.beta) * g**2
            unbiased = self.v[layer] / (1 - self.beta ** (loop.step + 1))
            ratio = g**2 / unbiased.clamp(min=self.eps**2)
            line[layer] = {"grad": g.square().sum().sqrt(), "grad_max": g.abs().max(), "rms": ratio.mean().sqrt()}
        self.lines.append({layer: {name: value.item() for name, value in figures.items()} for layer, figures in line.items()})

    def after_step(self, loop) -> None:
        self.given.append({layer: g.norm().item() for layer, g in self.vectors(loop).items()})


@pytest.mark.parametrize(("optimizer", "beta", "eps"), [(torch.optim.AdamW, 0.999, 1e-8), (LAMB, 0.999, 1e-6), (StableAdamW, 0.99, 1e-6)])
def test_norms_and_rms_of_each_layer_are_those_worked_by_hand(optimizer, beta, eps):
    by_hand = ByHand(beta, eps)
    run = fit(tiny(), DATA, **settings(steps=5, lr=0.01), optimizer=optimizer, callbacks=[GradientMonitor(), by_hand])
    assert len({line["stem"]["rms"] for line in by_hand.lines}) == 5  # else any constant would do
    for figure in ("grad", "grad_max", "rms"):
        found = logged(run, figure)
        assert list(found) == list(PREFIXES)  # front to back
        for layer, values in found.items():
            assert values == pytest.approx([line[layer][figure] for line in by_hand.lines], rel=2e-4), (layer, figure)


def test_an_optimizer_without_second_moment_has_no_rms():
    run = fit(tiny(), DATA, **settings(steps=2), optimizer=torch.optim.SGD, callbacks=[GradientMonitor()])
    assert logged(run, "rms") == {} and len(logged(run, "grad")["stem"]) == 2
    assert not any(name.startswith("rms") for name in stability_report(run))


def test_watching_changes_nothing():
    watched, alone = tiny(), tiny()
    fit(watched, DATA, **settings(steps=4), callbacks=[GradientMonitor()])
    fit(alone, DATA, **settings(steps=4))
    assert same(weights(watched), weights(alone))


def test_the_monitor_sees_the_gradient_before_it_is_clipped():
    by_hand = ByHand(0.999, 1e-8)
    run = fit(tiny(), DATA, **settings(steps=3, lr=0.01), clip={"backbone.blocks.1": 1e-5}, callbacks=[GradientMonitor(), by_hand])
    assert logged(run, "grad")["block1"][1:].min() > 1e-4
    assert [given["block1"] for given in by_hand.given[1:]] == pytest.approx([1e-5] * 2, rel=0.02)
    assert all(given["block0"] == pytest.approx(line["block0"]["grad"]) for given, line in zip(by_hand.given, by_hand.lines, strict=True))


def test_what_is_frozen_is_not_logged():
    method = tiny()
    method.backbone.stem.requires_grad_(False)
    run = fit(method, DATA, **settings(steps=2), callbacks=[GradientMonitor()])
    assert list(logged(run, "grad")) == [layer for layer in PREFIXES if layer != "stem"]


def test_parameters_belong_to_layers():
    layers = {
        "backbone.stem.layers.0.weight": "stem", "backbone.blocks.11.attn.to_qkv.bias": "block11", "backbone.stages.2.0.conv1.weight": "stage2",
        "backbone.cls_token": "cls_token", "backbone.norm.bias": "norm", "projector.4.weight": "projector", "prototypes": "prototypes",
    }  # fmt: skip
    assert {name: layer_of(name) for name in layers} == layers


def recorded(steps: int, **figures: np.ndarray) -> Run:
    """A run with this log; "grad__stem" stands for "grad/stem"."""
    run = Run()
    for step in range(steps):
        run.log(step, **{name.replace("__", "/"): float(values[step]) for name, values in figures.items()})
    return run


def test_the_report_of_a_run_worked_by_hand():
    steps, warmup = 100, 10
    flat = np.ones(steps)
    stem, block, rms = flat.copy(), 2 * flat, flat.copy()
    stem[[5, 60, 62, 80]] = 9, 4, 5, 3.5  # the first is in the warm-up; two are one event
    block[63] = 5
    rms[[20, 57]] = 2.3, 3.1  # steps 21–28 and 58–65 follow
    loss = 3 + 0.01 * (-1.0) ** np.arange(steps)
    loss[[58, 66]] = 4
    run = recorded(steps, loss=loss, grad__stem=stem, grad_max__stem=stem / 2, rms__stem=rms, grad__block0=block, grad_max__block0=flat)
    assert stability_report(run, warmup=warmup) == {
        "ratio_stem": 5, "ratio_block0": 2.5, "ratio_max_stem": 5, "ratio_max_block0": 1, "rms_stem": 3.1, "spikes_stem": 2, "spikes_block0": 0,
        "loss_spikes": 1, "preceded": 1, "preceded_chance": round(16 / 90, 4),
    }  # fmt: skip


def test_the_report_of_a_long_run_tells_which_layer_comes_first():
    rng = np.random.default_rng(0)
    stem, other = 1 + rng.random((2, 700))
    last = np.roll(stem, 12) + 0.3 * other
    log = {"loss": other, "grad__stem": stem, "grad__block0": other, "grad__block3": last, "grad__projector": np.roll(stem, -5)}
    report = stability_report(recorded(700, **log), warmup=20)
    assert report["lead"] == 12
    assert "lead" not in stability_report(recorded(500, **{name: x[:500] for name, x in log.items()}), warmup=20)


def test_dips_of_the_dense_knn_are_laid_beside_the_spikes():
    stem = np.ones(100)
    stem[[43, 70]] = 9  # steps 44–53 and 71–80 follow within two measurements
    run = recorded(100, loss=np.ones(100), grad__stem=stem)
    for step in range(4, 100, 5):
        run.metrics[step]["knn"] = 0.2 if step in (49, 89) else 0.4
    report = stability_report(run)
    assert (report["knn_dips"], report["dips_preceded"], report["dips_chance"]) == (2, 0.5, 0.2)
    quiet = stability_report(recorded(8, loss=np.ones(8), grad__stem=np.ones(8), knn=np.ones(8)))
    assert (quiet["knn_dips"], quiet["dips_preceded"], quiet["dips_chance"]) == (0, None, 0)


def test_a_run_without_gradients_is_not_reported():
    with pytest.raises(ValueError, match="has no gradients"):
        stability_report(recorded(3, loss=np.ones(3)))
    assert logged(Run(), "grad") == {}


def test_a_run_that_ends_in_its_warm_up_is_reported_by_its_last_step():
    report = stability_report(recorded(3, loss=np.ones(3), grad__stem=np.array([1.0, 1, 2])), warmup=20)
    assert report == {"ratio_stem": 2, "spikes_stem": 0, "loss_spikes": 0}
