"""Running medians, spikes, dips, leads: against series worked by hand."""
import math

import numpy as np
import pytest

from minivit import series


def noise(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_running_median_is_of_the_steps_before():
    x = np.array([3.0, 1, 2, 10, 4])
    assert series.running(x, window=3).tolist() == [3, 3, 2, 2, 2]  # of 3 | 3 | 3 1 | 3 1 2 | 1 2 10
    assert series.running(x, window=1).tolist() == [3, 3, 1, 2, 10]
    assert series.running(x, window=2, of=np.mean).tolist() == [3, 3, 2, 1.5, 6]
    assert series.over_median(x, window=3).tolist() == [1, 1 / 3, 1, 5, 2]
    assert series.over_median(np.array([0.0, 0, 5]), window=3).tolist() == [1, 1, 1]  # nothing to compare with


def test_a_trend_is_no_spike():
    """A gradient that shrinks by a factor of 50: one median for the whole run would find a spike of 7 at its start, and none at step 150."""
    x = 0.98 ** np.arange(200.0)
    x[150] *= 5
    assert series.spikes(x).tolist() == [150] and (x / np.median(x)).argmax() == 0
    assert x[0] / np.median(x) > 7 and x[150] / np.median(x) < 2


def test_steps_close_to_each_other_are_one_event():
    flags = np.isin(np.arange(30), [0, 3, 6, 7, 20, 24])
    assert series.onsets(flags, apart=3).tolist() == [0, 20, 24]
    assert series.onsets(flags, apart=4).tolist() == [0, 20]
    assert series.onsets(np.zeros(5, dtype=bool)).tolist() == []


def test_spikes_stand_out_of_their_own_past():
    x = np.array([1.0, 1, 2, 1, 7, 8, 1, 2, 1, 1, 5])  # medians of the three before: 1 1 1 1 1 2 7 7 2 1 1
    assert series.spikes(x, factor=3, window=3, apart=2).tolist() == [4, 10]
    assert series.spikes(x, factor=6, window=3, apart=2).tolist() == [4]


def test_a_loss_spike_is_told_by_deviations_from_its_running_mean():
    loss = 10 + 0.1 * (-1.0) ** np.arange(40)  # mean 10, deviation 0.1
    assert series.loss_spikes(loss, window=10).tolist() == []
    loss[25] = 10.31
    assert series.loss_spikes(loss, window=10).tolist() == []
    loss[25] = 10.33
    assert series.loss_spikes(loss, window=10).tolist() == [25]
    loss[5] = 99  # too early to know what is normal
    assert series.loss_spikes(loss, window=10).tolist() == [25]


def test_dips_fall_below_their_own_past():
    accuracy = np.array([0.2, 0.3, 0.4, 0.5, 0.5, 0.46, 0.5, 0.3, 0.3, 0.5])
    assert series.dips(accuracy, drop=0.05, window=3).tolist() == [7]
    assert series.dips(accuracy, drop=0.03, window=3).tolist() == [5]  # and what follows within two measurements
    assert series.dips(accuracy, drop=0.03, window=3, apart=1).tolist() == [5, 7]


def test_events_are_laid_over_each_other():
    x = np.arange(10.0)
    assert series.aligned(x, np.array([1, 4, 6, 7]), before=2, after=3).tolist() == [[2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9]]
    assert series.aligned(x, np.array([0]), before=2, after=3).shape == (0, 6)
    mean, low, high = series.band(np.array([[1.0, 2], [3, 6]]))
    assert mean.tolist() == [2, 4] and low == pytest.approx([0, 0]) and high == pytest.approx([4, 8])


@pytest.mark.parametrize("delay", [0, 7, -11])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_delay_is_found_with_its_sign(delay, runs):
    first = noise(runs, 500, seed=1)
    second = np.roll(first, delay, axis=1) + noise(runs, 500, seed=2)
    found = series.lead(first if runs > 1 else first[0], second if runs > 1 else second[0], draws=200)
    assert (found.steps, found.low, found.high) == (delay, delay, delay)
    assert found.correlation == pytest.approx(0.5**0.5, abs=0.15)


def test_a_lead_is_the_largest_sum_of_products():
    x, y = noise(2, 61, seed=3)
    best = series.lead(x, y, most=5, block=17, draws=10)
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    sums = {k: sum(x[t] * y[t + k] for t in range(5, 5 + 3 * 17)) / (3 * 17) for k in range(-5, 6)}
    assert best.steps == max(sums, key=sums.get) and best.correlation == pytest.approx(max(sums.values()), rel=1e-12)


def test_what_does_not_follow_has_a_wide_interval():
    found = series.lead(noise(600, seed=4), noise(600, seed=5), draws=200)
    assert found.high - found.low > 20 and found == series.lead(noise(600, seed=4), noise(600, seed=5), draws=200)


def test_a_cause_comes_before_its_event_and_chance_is_told():
    events, causes = np.array([3, 4, 11, 12, 28, 29]), np.array([3, 20])  # steps 4–11 and 21–28 have a cause
    assert series.preceded(events, causes, steps=40, within=8) == (0.5, 0.4)
    assert series.preceded(events[:0], causes, steps=40) == (None, 0.4)


def test_lr_sensitivity_is_the_mean_above_the_best():
    assert series.lr_sensitivity([1.0, 0.5, math.nan, 7.0], start=2.0) == pytest.approx((1 + 0.5 + 2 + 2) / 4 - 0.5)
    assert series.lr_sensitivity([0.7, 0.7], start=2.0) == 0
