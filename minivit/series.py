"""Reading a series of steps: what stands out of it, what follows what, and by how many steps. Everything is an array over steps."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Steps = Float[np.ndarray, "steps"]
Events = Int[np.ndarray, "events"]


def running(x: Steps, *, window: int = 30, of: Callable[[np.ndarray], float] = np.median) -> Steps:
    """A statistic of the up to ``window`` steps **before** each step, by default the median: what was normal until now.

    The step itself is left out, so a spike does not lift its own yardstick. The first step has only itself.
    """
    if window < 1:
        raise ValueError(f"window={window}: at least one step.")
    return np.array([of(x[max(step - window, 0) : max(step, 1)]) for step in range(len(x))], dtype=float)


def over_median(x: Steps, *, window: int = 30) -> Steps:
    """x over its `running` median: 1 where nothing happens, and where that is 0. One median for the whole run would call every trend a spike."""
    median = running(x, window=window)
    return np.divide(x, median, out=np.ones(len(x)), where=median > 0)


def onsets(outside: Bool[np.ndarray, "steps"], *, apart: int = 10) -> Events:
    """The first step of each event; steps outside that follow the last one within ``apart`` belong to the same event."""
    steps = np.flatnonzero(outside)
    return steps[np.diff(steps, prepend=-apart - 1) > apart]


def spikes(x: Steps, *, factor: float = 3.0, window: int = 30, apart: int = 10) -> Events:
    """Where a positive series rises above ``factor`` times its running median."""
    return onsets(over_median(x, window=window) > factor, apart=apart)


def loss_spikes(loss: Steps, *, deviations: float = 3.2, window: int = 30, apart: int = 10) -> Events:
    """Where a loss, whose zero means nothing, rises above its running mean by so many running standard deviations.

    Source: Wortsman et al. 2023, "Stable and low-precision training", whose figures are these; the window is ours.
    Steps before ``window`` do not count.
    """
    high = loss - running(loss, window=window, of=np.mean) > deviations * running(loss, window=window, of=np.std)
    return onsets(high & (np.arange(len(loss)) >= window), apart=apart)


def dips(accuracy: Steps, *, drop: float = 0.03, window: int = 5, apart: int = 2) -> Events:
    """Where an accuracy falls by more than ``drop`` below its running median; steps are those of its measurements."""
    return onsets(running(accuracy, window=window) - accuracy > drop, apart=apart)


def aligned(x: Steps, events: Events, *, before: int = 10, after: int = 30) -> Float[np.ndarray, "whole length"]:
    """The stretches of x around the events, one in each row, the event in column ``before``; those that the ends cut off are left out."""
    rows = [x[step - before : step + after + 1] for step in events if before <= step < len(x) - after]
    return np.array(rows, dtype=float).reshape(-1, before + 1 + after)


def band(rows: Float[np.ndarray, "rows length"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of `aligned` rows, of one run or of several, and its lower and upper edge: two standard errors away."""
    if len(rows) < 2:
        raise ValueError(f"a band needs two events or more, not {len(rows)}.")
    mean, error = rows.mean(0), rows.std(0, ddof=1) / len(rows) ** 0.5
    return mean, mean - 2 * error, mean + 2 * error


class Lead(NamedTuple):
    """By how many steps one series is ahead of another, a 95 % interval of that, and their correlation at that distance."""

    steps: int
    low: int
    high: int
    correlation: float


def lead(
    first: Float[np.ndarray, "*runs steps"],
    second: Float[np.ndarray, "*runs steps"],
    *,
    most: int = 40,
    block: int = 50,
    draws: int = 1000,
    seed: int = 0,
) -> Lead:
    """The distance k in −most … most at which Σₜ first[t]·second[t+k] of the standardised series is largest: positive where ``first`` is ahead.

    The interval is of a bootstrap over ``block``s of consecutive steps, which keeps what neighbouring steps have in common; runs may be stacked
    in rows. Give it `over_median` of the gradients: trends would correlate at every distance.
    Raises ValueError for runs too short for two blocks, and for a constant series.
    """
    blocks = (first.shape[-1] - 2 * most) // block
    if blocks < 2:
        raise ValueError(f"{first.shape[-1]} steps are too few for two blocks of {block} and {most} steps at either end.")
    x, y = (np.atleast_2d(part) - np.mean(part, axis=-1, keepdims=True) for part in (first, second))
    if not min(x.std(axis=1).min(), y.std(axis=1).min()) > 0:
        raise ValueError("a series that never changes, or is not finite, is ahead of nothing.")
    x, y = (part / part.std(axis=1, keepdims=True) for part in (x, y))
    middle = np.arange(most, most + blocks * block)
    distances = np.arange(-most, most + 1)
    products = np.stack([x[:, middle] * y[:, middle + k] for k in distances])  # (distances, runs, steps)
    sums = products.reshape(len(distances), -1, block).mean(2)  # a column for each block of each run
    count = sums.shape[1]
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=draws) @ sums.T  # how often each block is drawn
    low, high = np.percentile(distances[drawn.argmax(1)], [2.5, 97.5], method="nearest")
    correlation = sums.mean(1)
    return Lead(int(distances[correlation.argmax()]), int(low), int(high), float(correlation.max()))


def preceded(events: Events, causes: Int[np.ndarray, "causes"], *, steps: int, within: int = 8) -> tuple[float | None, float]:
    """The share of events with a cause in the ``within`` steps before them (None without events), and that of all steps: chance."""
    near = np.zeros(steps, dtype=bool)
    for step in causes:
        near[step + 1 : step + 1 + within] = True
    return float(near[events].mean()) if len(events) else None, float(near.mean())


def lr_sensitivity(losses: Sequence[float], *, start: float) -> float:
    """How far final losses over a range of learning rates lie above the best of them, on average; a run that diverged (NaN) or ended above
    ``start``, where an untrained net stands, counts as ``start``. Errors, 1 − accuracy, do as well.

    Source: Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training instabilities". Space the rates evenly in their logarithm.
    """
    kept = np.fmin(losses, start)  # fmin passes over NaN
    return float(kept.mean() - kept.min())
