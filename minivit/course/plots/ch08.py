"""Chapter 08: every layer's gradient over its running median, step by step; Adam's memory; what cures do, at which rate."""
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from minivit import series
from minivit.course.claims import verdict
from minivit.course.plots.common import baseline_lines, points_axes
from minivit.course.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

Curve = tuple[Sequence[int], Sequence[float]]
Table = Mapping[str, Mapping[str, Sequence[float]]]  # line, setting -> a figure for each seed
Layers = Mapping[str, np.ndarray]  # layer, from the pixels on -> its figure at every step
ARMS = {"learned": (RED, "-", "o"), "frozen": (BLUE, "--", "s"), "conv stem": (GREEN, "-.", "D")}
DEPTH = {"first": (RED, "-"), "second": (ORANGE, "--"), "third": (BLUE, "-."), "fourth": (PURPLE, ":")}


def name_of(layer: str) -> str:
    """"stem" → "patch projection", "block0" → "block 1", others as they are."""
    if layer.startswith("block"):
        return f"block {int(layer.removeprefix('block')) + 1}"
    return {"stem": "patch projection", "norm": "last norm"}.get(layer, layer)


def ratios_of(norms: Mapping[str, Sequence[float] | np.ndarray]) -> dict[str, np.ndarray]:
    """Each layer's gradient over its running median."""
    return {layer: series.over_median(np.asarray(values)) for layer, values in norms.items()}


def unrest(ratios: Layers, *, since: int) -> dict[str, float]:
    """Deviation of the logarithm of each layer's ratio: 0.1 for swings of a tenth, 0.7 for halves and doubles. Steadier than a largest value."""
    return {layer: float(np.log(values[since:]).std()) for layer, values in ratios.items()}


def told(runs: Sequence[dict], cell: str, figure: str) -> list[float]:
    """One figure of a cell, seed by seed: "knn", "rms_stem", "unrest_stem" where its gradients were kept, or "front", the larger of stem's and
    first block's ratio. NaN of a run that diverged, [] where a layer has none."""
    found = [run for run in sorted(runs, key=lambda run: run["seed"]) if run["cell"] == cell and "error" not in run]
    if figure == "front":
        return [math.nan if "diverged" in run else max(run["monitor"].get("ratio_stem", 0), run["monitor"]["ratio_block0"]) for run in found]
    if figure.startswith("unrest_"):
        layer = f"grad/{figure.removeprefix('unrest_')}"
        kept = [run for run in found if "diverged" in run or run.get("series", {}).get(layer)]
        return [math.nan if "diverged" in run else unrest(ratios_of({layer: run["series"][layer]}), since=30)[layer] for run in kept]
    reports = [{figure: math.nan} if "diverged" in run else run["final"] | run["monitor"] for run in found]
    return [report[figure] for report in reports if figure in report]


def question(curves: Mapping[str, Curve], chance: float) -> Figure:
    """Two losses without their names' secret: which of them is in trouble?"""
    figure, axes = plt.subplots(figsize=(8.5, 3.6))
    for (name, (steps, losses)), (colour, style, _) in zip(curves.items(), ARMS.values(), strict=False):
        axes.plot(steps, losses, color=colour, linestyle=style, linewidth=1.5, label=name)
    axes.axhline(chance, color=GREY, linestyle=":", label=f"start {chance:.2f}")
    axes.set(xlabel="step", ylabel="loss", xlim=(0, None))
    axes.legend(loc="upper right", ncols=3)
    return figure


def heat(arms: Mapping[str, Layers], knn: Mapping[str, Curve], lines: Mapping[str, float], *, guess: float | None = None, top: float = 5) -> Figure:
    """Below, steps × layers, dark where a gradient is far above its running median; above it kNN on the same time axis."""
    figure, axes = plt.subplots(2, len(arms), figsize=(12.5, 6), height_ratios=[1, 1.6], squeeze=False, sharex="col")
    layers = list(dict.fromkeys(layer for norms in arms.values() for layer in norms))
    layers = ["stem", *(layer for layer in layers if layer != "stem")]
    for (name, ratios), (above, below) in zip(arms.items(), axes.T, strict=True):
        steps = len(next(iter(ratios.values())))
        blank = np.full(steps, np.nan)
        image = np.array([ratios.get(layer, blank) for layer in layers])
        drawn = below.imshow(image, aspect="auto", norm=LogNorm(1, top), cmap="YlOrBr", extent=(0, steps, len(layers), 0), interpolation="none")
        for row, layer in enumerate(layers):
            if layer not in ratios:
                below.axhspan(row, row + 1, facecolor="white", edgecolor=GREY, hatch="//")
                below.text(steps / 2, row + 0.5, "frozen: no gradient", ha="center", va="center", bbox={"facecolor": "white", "linewidth": 0})
        below.set_yticks([row + 0.5 for row in range(len(layers))], [name_of(layer) for layer in layers], fontsize=11)
        below.set(xlabel="step")
        above.plot([step + 1 for step in knn[name][0]], knn[name][1], "o-", color=ARMS[name][0], markersize=4)
        baseline_lines(above, lines)
        above.set(ylim=(0, 0.6), title=name)
    if guess is not None:
        axes[1, 0].text(2, 0.5, f"your guess: {guess:g}", va="center", fontsize=11)
    axes[0, 0].set(ylabel="kNN accuracy")
    axes[0, -1].legend(fontsize=9, loc="upper right", ncols=3, handlelength=1.6, columnspacing=1)
    bar = figure.colorbar(drawn, ax=axes[1], label="over its running median", ticks=[1, 2, 3, top], format="%g", extend="max")
    bar.ax.minorticks_off()
    return figure


def heat_alt(arms: Mapping[str, Layers], knn: Mapping[str, Curve]) -> str:
    """The figure in words."""
    said = []
    for name, ratios in arms.items():
        peaks = {layer: values[len(values) // 6 :].max() for layer, values in ratios.items()}
        layer = max(peaks, key=peaks.__getitem__)
        said.append(f"{name}: at the most {peaks[layer]:.1f} times the median, in {name_of(layer)}; kNN ends at {knn[name][1][-1]:.2f}")
    return f"Heat maps of steps by layers, of each gradient over its running median, kNN above. {'; '.join(said)}."


def memory(jumps: Mapping[float, np.ndarray], rms: Mapping[float, np.ndarray], before: int) -> Figure:
    """A gradient that grows tenfold at step 0: what Adam does then, for several β₂. Left RMS, right the length of the step over lr."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4))
    for ax, curves, title in ((axes[0], rms, "RMS: gradient over what Adam takes it for"), (axes[1], jumps, "length of Adam's step, in units of lr")):
        for (beta, values), (colour, style) in zip(curves.items(), DEPTH.values(), strict=False):
            ax.plot(np.arange(len(values)) - before, values, color=colour, linestyle=style, label=f"β₂ = {beta:g}")
        ax.axhline(1, color=GREY, linewidth=1)
        ax.set(xlabel="steps since the gradient grew tenfold", title=title, ylim=(0, None))
    axes[0].axhline(2.3, color=GREY, linestyle=":", label="2.3, the rule of thumb")
    axes[0].legend()
    axes[1].legend()
    return figure


def traces(runs: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float = 2.3) -> Figure:
    """Of each run the RMS of a layer over the steps, on a logarithmic axis; lines thin for recorded seeds, thick for ``this run``."""
    figure, axes = plt.subplots(1, len(runs), figsize=(12, 3.8), squeeze=False, sharey=True)
    for ax, (title, curves) in zip(axes[0], runs.items(), strict=True):
        for name, values in curves.items():
            live = name.startswith("this run")
            ax.plot(values, color="black" if live else ORANGE, linewidth=2 if live else 1, label=name if live or name == "recorded" else None)
        ax.axhline(threshold, color=RED, linestyle=":", label=f"{threshold}, the rule of thumb")
        ax.axhline(1, color=GREY, linewidth=1)
        ax.set(xlabel="step", title=title, yscale="log", ylim=(0.2, 6))
        ax.minorticks_off()
        ax.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
    axes[0, 0].set(ylabel="RMS")
    axes[0, -1].legend(fontsize=10)
    return figure


def events(rows: Mapping[str, np.ndarray], before: int, *, at: str, lag: series.Lead | None = None) -> Figure:
    """Mean with a band of two standard errors of each layer's ratio around the events, which are at 0."""
    figure, axes = plt.subplots(figsize=(10, 4.2))
    for (layer, found), (colour, style) in zip(rows.items(), DEPTH.values(), strict=False):
        mean, low, high = series.band(found)
        steps = np.arange(len(mean)) - before
        axes.plot(steps, mean, color=colour, linestyle=style, label=f"{name_of(layer)}")
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.axvline(0, color=GREY, linestyle=":")
    axes.axhline(1, color=GREY, linewidth=1)
    title = f"{len(next(iter(rows.values())))} events: {at} at 0"
    if lag is not None:
        title += f"; first ahead of last by {lag.steps} steps (95 %: {lag.low} to {lag.high})"
    axes.set(xlabel="steps after the event", ylabel="over its running median", title=title)
    axes.legend()
    return figure


def depth(profiles: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A figure of each layer, front to back, a line for each arm, whiskers over seeds; a quarter's lines are thin."""
    figure, axes = plt.subplots(figsize=(9.5, 3.9))
    layers = list(next(iter(profiles.values())))
    for name, found in profiles.items():
        colour, style, marker = ARMS[name.split(",")[0]]
        at, width = [layers.index(layer) for layer in found], 1 if "," in name else 2.2
        means, spread = [np.mean(v) for v in found.values()], [np.std(v, ddof=1) for v in found.values()]
        axes.errorbar(at, means, spread, color=colour, linestyle=style, marker=marker, linewidth=width, capsize=3, label=name)
    axes.set_xticks(range(len(layers)), [name_of(layer) for layer in layers])
    axes.set(ylabel="unrest", ylim=(0, None))
    axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def dense(curves: Mapping[str, Curve], dips: Sequence[int], lines: Mapping[str, float]) -> Figure:
    """One accuracy as two rhythms of looking see it; below it arrows to the dips of the first."""
    figure, axes = plt.subplots(figsize=(11, 4))
    for (name, (steps, values)), (colour, style, marker) in zip(curves.items(), ARMS.values(), strict=False):
        axes.plot(steps, values, color=colour, linestyle=style, marker=marker, markersize=3 if style == "-" else 5, linewidth=1.3, label=name)
    steps, values = next(iter(curves.values()))
    for dip in dips:
        axes.annotate("", (steps[dip], values[dip] - 0.005), (steps[dip], values[dip] - 0.05), arrowprops={"arrowstyle": "-|>", "color": "black"})
    baseline_lines(axes, lines)
    axes.set(xlabel="step", ylabel="kNN accuracy", ylim=(0, 0.8))
    axes.legend(fontsize=10, ncols=3, loc="upper left")
    return figure


def by_rate(panels: Mapping[str, Table], *, ylabel: str, lines: Mapping[str, float], log: bool = False) -> Figure:
    """A panel for each optimizer: a measure against the learning rate, a line for each stem; a diverged run leaves a gap. Whiskers: deviation over
    seeds, on a logarithmic axis from the smallest to the largest."""
    figure, axes = plt.subplots(1, len(panels), figsize=(min(3.2 * len(panels) + 1.5, 13), 4.2), squeeze=False, sharey=True)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, cells in curves.items():
            colour, style, marker = ARMS[name]
            means = [np.mean(v) for v in cells.values()]
            ends = [(m - min(v), max(v) - m) if log else [np.std(v, ddof=1)] * 2 for m, v in zip(means, cells.values(), strict=True)]
            spread = np.transpose(ends)
            ax.errorbar(list(cells), means, spread, color=colour, linestyle=style, marker=marker, capsize=3, label=name)
        baseline_lines(ax, lines) if not log else ax.axhline(3, color=GREY, linestyle=":", label="3: a spike")
        ax.set(xlabel="learning rate", title=title)
        ax.tick_params(axis="x", labelrotation=35, labelsize=10)
    axes[0, 0].set(ylabel=ylabel, **({"yscale": "log"} if log else {"ylim": (0, 0.7)}))
    if log:
        axes[0, 0].minorticks_off()
        axes[0, 0].set_yticks([1, 2, 3, 5, 10, 30, 100, 300], ["1", "2", "3", "5", "10", "30", "100", "300"])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=10)
    return figure


def cures(measures: Mapping[str, Mapping[str, Sequence[float]]], marks: Mapping[str, float]) -> Figure:
    """A panel for each measure, a bar for each cure with whiskers over seeds; the first bar is the patient; ``marks`` are lines to compare with."""
    figure, axes = plt.subplots(1, len(measures), figsize=(13, 5), sharey=True, squeeze=False)
    for ax, (title, rows) in zip(axes[0], measures.items(), strict=True):
        means, spread = [np.mean(v) if len(v) else 0 for v in rows.values()], [np.std(v, ddof=1) if len(v) else 0 for v in rows.values()]
        bars = ax.barh(list(rows), means, xerr=spread, capsize=3, height=0.7, color=[RED, *[ORANGE] * (len(rows) - 1)])
        labels = [f"{m:.1f}" if m >= 1 else f"{m:.2f}" if m else "frozen: none" for m in means]
        if title in marks:
            ax.axvline(marks[title], color=GREY, linestyle=":")
        ax.bar_label(bars, labels, padding=6, fontsize=11, bbox={"facecolor": "white", "linewidth": 0, "pad": 1})
        ax.set(title=title, xlim=(0, 1.35 * max(m + s for m, s in zip(means, spread, strict=True))))
    axes[0, 0].invert_yaxis()
    return figure


def against(measures: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The same in words: each cure's mean difference from the first row, seed by seed, and "more", "less" or "=", which cannot be told."""
    word = {"holds": "more", "did not hold": "less", "inconclusive": "="}
    first, *others = next(iter(measures.values()))
    lines = [f"against {first}".ljust(26) + "".join(f"{title:>18s}" for title in measures)]
    for name in others:
        gaps = [[a - b for a, b in zip(rows[name], rows[first], strict=True)] if rows[name] else [] for rows in measures.values()]
        told = [f"{np.mean(gap):+.2f} {word[verdict(gap)]:4s}" if gap else "–     " for gap in gaps]
        lines.append(name.ljust(26) + "".join(f"{figure:>18s}" for figure in told).rstrip())
    return "\n".join(lines)


def paper(panels: Mapping[str, Mapping[str, Mapping[str, float]]], ylim: tuple[float, float]) -> Figure:
    """The paper's tables, a panel each: linear probe in % against what was varied."""
    figure, axes = plt.subplots(1, len(panels), figsize=(12.5, 3.9), sharey=True)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        points_axes(ax, {name: {at: [value] for at, value in cells.items()} for name, cells in curves.items()})
        ax.set(title=title, ylim=ylim)
        if len(curves) > 1:
            ax.legend(fontsize=10, loc="lower center")
    axes[0].set(ylabel="linear probe, %")
    return figure
