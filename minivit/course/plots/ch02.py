"""Chapter 02: which puzzle teaches? Pretext accuracy against usefulness, operations, crops, colour histograms, two grids."""
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivit.course.plots.common import draw_image, knn_axes
from minivit.course.plots.style import BASELINES, BLUE, GREEN, GREY, ORANGE, PURPLE, RED

Point = tuple[float, float]
RECIPES = {"crop only": PURPLE, "crop and colour": BLUE}


def usefulness(
    starts: Mapping[str, Point], ends: Mapping[str, Mapping[str, Point]], baselines: Mapping[str, float], *, guess: float | None = None
) -> Figure:
    """Pretext accuracy (x) against kNN (y): for each recipe an arrow from its random weights to each of its trained states.

    ``ends`` maps a length of training, "120 steps, this run", to the end of each recipe's arrow; the last one is drawn thickest.
    """
    figure, axes = plt.subplots(figsize=(10.5, 5.4))
    lengths = list(ends)
    for recipe, start in starts.items():
        colour, tips = RECIPES[recipe], [ends[length][recipe] for length in lengths]
        for at, tip in enumerate(tips):
            last = at == len(tips) - 1
            style = {"arrowstyle": "-|>", "color": colour, "lw": 3 if last else 1.8, "alpha": 1 if last else 0.6, "shrinkA": 5, "shrinkB": 0}
            axes.annotate("", tip, start, arrowprops={**style, "mutation_scale": 20})
        axes.plot(*start, "o", color=colour, markersize=9, label=f"random weights: {recipe}")
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "linewidth": 0}
        if max(y for _, y in tips) - min(y for _, y in tips) < 0.1:  # one text for all
            axes.text(tips[-1][0] + 0.015, tips[-1][1], "\n".join([recipe, *lengths]), va="center", fontsize=11, bbox=box)
        else:
            for (x, y), length in zip(tips, lengths, strict=True):
                axes.text(max(x - 0.12, 0.01), y + 0.02, f"{recipe}\n{length}", va="bottom", fontsize=11, bbox=box)
    _baselines(axes, baselines)
    if guess is not None:
        axes.axhline(guess, color="black", linewidth=1, label=f"your guess for crop only {guess:.2f}")
    axes.set(xlabel="pretext accuracy: how often the partner view is found", ylabel="kNN accuracy: how useful the features are")
    axes.set(xlim=(0, 1.27), ylim=(0, 1), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.legend(loc="upper right", fontsize=10)
    return figure


def _baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    for name, value in baselines.items():
        colour, style = BASELINES[name]
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.5, label=f"{name} {value:.2f}")


def pairs(pictures: Tensor, puzzles: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """A row of pictures ``(n, 3, H, W)``, and for each puzzle its two rows of views."""
    rows = {"picture": pictures, **{f"{name}\nview {i + 1}": views for name, both in puzzles.items() for i, views in enumerate(both)}}
    figure, axes = plt.subplots(len(rows), len(pictures), figsize=(0.85 * len(pictures) + 1.6, 0.85 * len(rows) + 0.2))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            draw_image(ax, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    return figure


def operations(columns: Mapping[str, Sequence[Tensor]]) -> Figure:
    """A column for each operation, titled, with one image for each picture it was applied to."""
    count = max(map(len, columns.values()))
    figure, axes = plt.subplots(count, len(columns), figsize=(0.88 * len(columns), 0.87 * count + 0.4), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            draw_image(axes[row, column], image, name if row == 0 else "")
    return figure


# ---------------------------------------------------------------------------------------------------- crops


def accepted(area: np.ndarray, ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> np.ndarray:
    """Probability that a box of this share of a square image fits, its ratio log-uniform and symmetric about 1: min(1, −ln a / ln r_max)."""
    return np.minimum(1, -np.log(area) / math.log(ratio[1]))


def mean_area(low: float, high: float = 1.0) -> float:
    """Mean share of the image that a crop covers, after boxes that do not fit were drawn again."""
    area = np.linspace(low, high, 100_001)
    return float(np.average(area, weights=accepted(area)))


def crop_statistics(area: Tensor, ratio: Tensor, *, low: float) -> Figure:
    """Histograms of drawn crops: their share of the image and their ratio width/height, with the laws before and after rejection."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    grid = np.linspace(low, 1, 501)
    left.hist(area.numpy(), bins=46, range=(low, 1), density=True, color=BLUE, alpha=0.35, label="drawn")
    left.plot([low, low, 1, 1], [0, 1 / (1 - low), 1 / (1 - low), 0], color=GREY, linestyle=":", label="asked for: uniform")
    left.plot(grid, accepted(grid) / (accepted(grid).mean() * (1 - low)), color=RED, label="law after rejection")
    left.axvline(mean_area(low), color=GREEN, linestyle="--", label=f"mean {mean_area(low):.2f}")
    left.set(xlabel="area, as a share of the image", ylabel="density", xlim=(0, 1.02))
    left.legend(loc="lower left", fontsize=10)
    top = math.log(4 / 3)
    log = np.linspace(-top, top, 501)
    density = np.clip(np.exp(-np.abs(log)) - low, 0, None)  # areas up to exp(−|log ratio|) fit
    right.hist(ratio.log().numpy(), bins=40, range=(-top, top), density=True, color=BLUE, alpha=0.35, label="drawn")
    right.plot([-top, -top, top, top], [0, 0.5 / top, 0.5 / top, 0], color=GREY, linestyle=":", label="asked for: uniform in the logarithm")
    right.plot(log, density / (density.mean() * 2 * top), color=RED, label="law after rejection")
    right.set(xlabel="ratio width / height, logarithmic axis", ylabel="density", xticks=[-top, 0, top], xticklabels=["3 : 4", "1 : 1", "4 : 3"])
    right.legend(loc="lower center", fontsize=10)
    return figure


# ---------------------------------------------------------------------------------------------------- histograms


def histograms(crops: Mapping[str, Mapping[str, Sequence[Tensor]]], counts: Mapping[str, Mapping[str, Sequence[Tensor]]]) -> Figure:
    """For each row, "no jitter" say, and each image: its two crops, and the histogram ``(bins,)`` of each of them."""
    figure, axes = plt.subplots(
        len(crops), 6, figsize=(10.5, 1.9 * len(crops) + 0.3), squeeze=False, width_ratios=[1, 1, 2, 1, 1, 2], sharey=False
    )
    for line, (row, images) in zip(axes, crops.items(), strict=True):
        for place, (image, views) in enumerate(images.items()):
            thumbnails, panel = line[3 * place : 3 * place + 2], line[3 * place + 2]
            for i, (ax, view) in enumerate(zip(thumbnails, views, strict=True)):
                draw_image(ax, view, f"crop {i + 1}")
            for i, (count, colour) in enumerate(zip(counts[row][image], (BLUE, ORANGE), strict=True)):
                panel.stairs(count.numpy(), np.linspace(0, 1, len(count) + 1), color=colour, linewidth=1.6, label=f"crop {i + 1}")
            panel.set(yticks=[], xlim=(0, 1), xlabel="intensity", ylim=(0, 1.25 * panel.get_ylim()[1]))
            panel.legend(fontsize=9, loc="upper center", ncols=2)
            panel.set_title(f"{image}: histograms", fontsize=11)
        line[0].set_ylabel(row, rotation=0, ha="right", va="center", fontsize=12)
    return figure


def strength_curve(strengths: Sequence[float], found: Mapping[str, Sequence[float]], *, chance: float) -> Figure:
    """How often the histogram finds the partner, over the strength of the colour operations."""
    figure, axes = plt.subplots(figsize=(8.5, 3.8))
    for (name, shares), colour in zip(found.items(), (BLUE, ORANGE), strict=False):
        axes.plot(range(len(strengths)), shares, "o-", color=colour, label=name)
    axes.axhline(chance, color=GREY, linestyle=":", label=f"chance {chance:.2f}")
    axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    axes.set(xlabel="strength s of the colour operations", ylabel="partner found", ylim=(0, 1.03))
    axes.legend()
    return figure


# ---------------------------------------------------------------------------------------------------- the two runs


def race(
    pretext: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    knn: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    baselines: Mapping[str, float],
    *,
    pretext_chance: float,
    guess: float | None = None,
) -> Figure:
    """Left: pretext accuracy over steps. Right: kNN accuracy at the looks of the judge, with its baselines."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for recipe, (steps, values) in pretext.items():
        left.plot(steps, values, color=RECIPES[recipe], linewidth=1.4, label=recipe)
    left.axhline(pretext_chance, color=GREY, linestyle=":", label=f"chance {pretext_chance:.3f}")
    left.set(xlabel="step", ylabel="pretext accuracy", ylim=(0, 1.03), xlim=(0, None), title="the puzzle")
    left.legend(loc="center right")
    knn_axes(right, {}, baselines, guess=guess)
    for recipe, (steps, values) in knn.items():
        right.plot([0, *(step + 1 for step in steps)], [baselines["random weights"], *values], "o-", color=RECIPES[recipe], label=recipe)
    right.set(title="the judge", xlim=(0, left.get_xlim()[1]))
    right.legend(loc="upper left", fontsize=10)
    return figure


# ---------------------------------------------------------------------------------------------------- the grid


def read_table(path: Path) -> list[dict[str, str]]:
    """A csv of ``data/papers`` as dicts."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def paper_grid(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Tensor:
    """Top-1 in per cent, ``(7, 7)``: row = first operation, column = second."""
    values = {(row["first"], row["second"]): float(row["top1"]) for row in rows}
    return torch.tensor([[values[a, b] for b in names] for a in names])


def _heat(axes: Axes, values: Tensor, names: Sequence[str], texts: Sequence[Sequence[str]], title: str, *, hatched: bool) -> None:
    shown = torch.cat([values, values.mean(1, keepdim=True)], 1)
    low, high = float(values.min()), float(values.max())
    axes.imshow(shown, cmap=plt.get_cmap("cividis", 16), vmin=low, vmax=high, aspect="auto")
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            dark = float(shown[i, j]) < low + 0.55 * (high - low)
            box = {"boxstyle": "square,pad=0.1", "facecolor": "black" if dark else "white", "alpha": 0.45, "linewidth": 0} if hatched else None
            axes.text(j, i, text, ha="center", va="center", fontsize=9.5, color="white" if dark else "black", linespacing=0.95, bbox=box)
    if hatched:
        height, width = shown.shape
        axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, hatch="/", edgecolor="white", alpha=0.5, linewidth=0))
    axes.axvline(len(names) - 0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(names) + 1), [*names, "mean"], rotation=45, ha="right", fontsize=11)
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.set_title(title, fontsize=12)
    axes.set(xlabel="second operation", ylabel="first operation")
    axes.spines[:].set_visible(False)


def grids(ours: Tensor, spread: Tensor, paper: Tensor, names: Sequence[str], *, seeds: int) -> Figure:
    """Two heat maps with their row means: kNN of ours, mean and standard deviation over seeds; top-1 of the paper, hatched: from memory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.6, 5.1))
    texts = [[f"{m:.2f}\n±{s:.2f}" for m, s in zip(*line, strict=True)] + [f"{line[0].mean():.2f}"] for line in zip(ours, spread, strict=True)]
    _heat(left, ours, names, texts, f"ours: kNN accuracy on shapes, {seeds} seeds", hatched=False)
    texts = [[f"{value:.1f}" for value in line] + [f"{line.mean():.1f}"] for line in paper]
    _heat(right, paper, names, texts, "the paper: ImageNet top-1 in %, values from memory (hatched)", hatched=True)
    return figure


def all_cells(pretext: Tensor, knn: Tensor, names: Sequence[str], baselines: Mapping[str, float]) -> Figure:
    """Every cell of the grid: pretext accuracy (x) against kNN (y), marked by what takes colour away in it."""
    figure, axes = plt.subplots(figsize=(10.5, 5))
    marks = {"crop and color": (BLUE, "*", 160), "color, no crop": (ORANGE, "o", 45), "sobel, no color": (GREEN, "^", 45), "neither": (GREY, "s", 30)}
    for kind, (colour, marker, size) in marks.items():
        at = [(i, j) for i, a in enumerate(names) for j, b in enumerate(names) if kind_of(a, b) == kind]
        x, y = zip(*[(float(pretext[i, j]), float(knn[i, j])) for i, j in at], strict=True)
        axes.scatter(x, y, c=colour, marker=marker, s=size, label=kind, linewidths=0, alpha=0.85)
    _baselines(axes, baselines)
    axes.set(xlabel="pretext accuracy, mean of the last ten steps", ylabel="kNN accuracy", xlim=(0, 1.03), ylim=(0, None))
    axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def kind_of(first: str, second: str) -> str:
    """What takes colour away in this cell of the grid: color with crop, color, sobel, or nothing."""
    operations = {first, second}
    if "color" in operations:
        return "crop and color" if "crop" in operations else "color, no crop"
    return "sobel, no color" if "sobel" in operations else "neither"


def colour_strength(
    ours: Mapping[str, Mapping[str, Sequence[float]]], baselines: Mapping[str, float], paper: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Probe accuracy over the strength of colour, without and with labels: ours with whiskers over seeds, beside the paper's table."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.7))
    for (name, cells), colour, marker in zip(ours.items(), (BLUE, PURPLE), "os", strict=True):
        means, deviations = [np.mean(v) for v in cells.values()], [np.std(v, ddof=1) for v in cells.values()]
        left.errorbar(range(len(cells)), means, deviations, color=colour, marker=marker, capsize=4, label=name)
        left.set_xticks(range(len(cells)), list(cells))
    _baselines(left, baselines)
    left.set(xlabel="strength s", ylabel="linear probe, accuracy", ylim=(0, 1), title="ours, shapes, 250 steps")
    left.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    for (name, cells), colour, marker in zip(paper.items(), (BLUE, PURPLE), "os", strict=True):
        right.plot(range(len(cells)), list(cells.values()), color=colour, marker=marker, label=name)
        right.set_xticks(range(len(cells)), list(cells))
    right.set(xlabel="strength s", ylabel="top-1 in %", ylim=(50, 85), xlim=(-0.2, len(cells) - 0.7), title="the paper, ImageNet, table 1")
    right.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    return figure
