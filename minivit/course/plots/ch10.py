"""Chapter 10: windows and what a shift joins, costs, amplitudes by depth, biases beyond the window they were trained at."""
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivit.course.plots.common import Scores, baseline_lines, picture_of, points_axes
from minivit.course.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

TINTS = ("#cfe3f1", "#fbe3b3", "#cdebdf", "#f3dbe7")  # of BLUE, ORANGE, GREEN, PURPLE
LOOKS = {"pre": (RED, "-", "o"), "post": (GREEN, "--", "s"), "res-post": (BLUE, "-", "D"), "res-post, zero start": (PURPLE, ":", "^")}


# ---------------------------------------------------------------------------------------------------- biases


def extended(rows: Mapping[str, Mapping[int, Tensor | None]], *, trained: int = 4, one_scale: bool = False) -> Figure:
    """A row for each way, a column for each window: the bias of every offset, 0 in the middle. The frame holds the trained offsets; None: hatched.

    A row has colours of its own, unless ``one_scale``: then all have the first row's.
    """
    windows = list(next(iter(rows.values())))
    figure, axes = plt.subplots(len(rows), len(windows), figsize=(3.1 * len(windows) + 1.6, 2.7 * len(rows) + 0.3), squeeze=False)
    limit = 0.0
    for row, (line, (name, maps)) in enumerate(zip(axes, rows.items(), strict=True)):
        if row == 0 or not one_scale:
            limit = max(float((m - maps[trained].mean()).abs().max()) for m in maps.values() if m is not None)
        for ax, (window, bias) in zip(line, maps.items(), strict=True):
            reach = window - 0.5
            if bias is None:
                bias = torch.full((2 * window - 1, 2 * window - 1), math.nan)
                ax.add_patch(Rectangle((-reach, -reach), 2 * reach, 2 * reach, facecolor="white", edgecolor=GREY, hatch="//", linewidth=0, zorder=-1))
                inner = maps[trained] - maps[trained].mean()
                edge = window - trained
                bias[edge : edge + len(inner), edge : edge + len(inner)] = inner
            else:
                bias = bias - maps[trained].mean()
            drawn = ax.imshow(bias.numpy(), cmap="PuOr_r", vmin=-limit, vmax=limit, extent=(-reach, reach, reach, -reach))
            if window != trained:
                near = trained - 0.5
                ax.add_patch(Rectangle((-near, -near), 2 * near, 2 * near, fill=False, edgecolor="black", linewidth=1.8))
            ax.set(xticks=[1 - window, 0, window - 1], yticks=[1 - window, 0, window - 1])
            if row == 0:
                ax.set_title(f"window {window}" + (" (trained)" if window == trained else ""))
        line[0].set_ylabel(name)
        figure.colorbar(drawn, ax=line, shrink=0.8, label="bias")
    return figure


def coordinates(curves: Mapping[str, Sequence[float]], *, trained: int, larger: int) -> Figure:
    """What the meta network is told of an offset, by offset: the trained reach is tinted, beyond it lies what a larger window asks for."""
    figure, axes = plt.subplots(figsize=(8.6, 4.2))
    axes.axvspan(0, trained - 1, color=TINTS[0], label=f"offsets of window {trained}")
    for (name, values), (colour, style) in zip(curves.items(), ((RED, "-"), (BLUE, "-"), (GREEN, "--"), (PURPLE, ":")), strict=False):
        axes.plot(range(larger), values, style, color=colour, marker="o", markersize=4, label=name)
    axes.set(xlabel="offset in tokens", ylabel="coordinate", xlim=(0, larger - 1), ylim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# ---------------------------------------------------------------------------------------------------- windows


def _map(axes: Axes, regions: np.ndarray, lines: Sequence[float], title: str) -> None:
    """A map of tokens tinted by region, with window borders."""
    side = len(regions)
    for y, x in np.ndindex(side, side):
        tint = TINTS[regions[y, x] % 4]
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=tint, edgecolor="white", linewidth=0.8))
    for name in np.unique(regions):
        rows, cols = np.nonzero(regions == name)
        axes.text(cols.mean() + 0.5, rows.mean() + 0.5, chr(ord("A") + name), ha="center", va="center", fontsize=14, fontweight="bold")
    for at in lines:
        axes.plot([at, at], [0, side], [0, side], [at, at], color="black", linewidth=2)
    axes.set(xlim=(-0.05, side + 0.05), ylim=(side + 0.05, -0.05), aspect="equal", xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)


def shifting(side: int, window: int, shift: int) -> Figure:
    """Windows; shifted windows, smaller ones at the border; and the map rolled, where windows are whole again and hold strangers."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.5))
    plain = np.arange(side) // window
    cut = (np.arange(side) + window - shift) // window
    whole, pieces = (line[:, None] * (line.max() + 1) + line[None] for line in (plain, cut))
    tints = {name: place for place, name in enumerate(np.unique(pieces))}
    _map(axes[0], whole, range(0, side + 1, window), "windows")
    _map(axes[1], pieces, [0, *range(shift, side, window), side], f"shifted by {shift}: {len(tints)} pieces")
    _map(axes[2], np.roll(pieces, (-shift, -shift), (0, 1)), range(0, side + 1, window), "rolled: whole windows again")
    return figure


def masks(allowed: Tensor) -> Figure:
    """Who may look at whom, a panel for each window: rows ask, columns are asked; orange is forbidden."""
    count, tokens = len(allowed), allowed.shape[1]
    figure, axes = plt.subplots(1, count, figsize=(3.1 * count, 3.5))
    for i, (ax, mask) in enumerate(zip(axes, allowed, strict=True)):
        colours = np.where(mask[..., None], np.array([[[207, 227, 241]]]), np.array([[[230, 159, 0]]])).astype(np.uint8)
        ax.imshow(colours)
        ax.set(title=f"window {i + 1}: {int((~mask).sum())} forbidden", xticks=[0, tokens - 1], yticks=[0, tokens - 1])
        ax.set(xticklabels=[1, tokens], yticklabels=[1, tokens])
    axes[0].set(ylabel="query", xlabel="key")
    return figure


def on_photo(photo: Tensor, boxes: Mapping[str, tuple[int, int, int]]) -> Figure:
    """A square photograph ``(3, H, W)`` with windows on it: title -> (tokens a side, window, shift)."""
    figure, axes = plt.subplots(1, len(boxes), figsize=(3.1 * len(boxes), 3.3), squeeze=False)
    height, width = photo.shape[1:]
    for ax, (name, (tokens, window, shift)) in zip(axes[0], boxes.items(), strict=True):
        ax.imshow(picture_of(photo))
        step, size = height / tokens, window * height / tokens
        for i in range(tokens + 1):
            ax.axhline(i * step, color="white", linewidth=0.35), ax.axvline(i * step, color="white", linewidth=0.35)
        for at in {0, height, *(shift * step + size * i for i in range(-1, round(tokens / window) + 1))}:
            if 0 <= at <= height:
                ax.axhline(at, color=ORANGE, linewidth=2.2), ax.axvline(at, color=ORANGE, linewidth=2.2)
        ax.set(title=name, xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return figure


# ---------------------------------------------------------------------------------------------------- costs, amplitudes, attention


def costs(counted: Mapping[str, Mapping[int, float]], seconds: Mapping[str, Mapping[int, float]]) -> Figure:
    """Multiply-adds by formula and milliseconds by the clock, against tokens, on logarithmic axes."""
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.2))
    for ax, panel, label in ((axes[0], counted, "multiply-adds"), (axes[1], seconds, "milliseconds, this machine")):
        for (name, line), (colour, style, marker) in zip(panel.items(), ((RED, "-", "o"), (BLUE, "--", "s"), (GREEN, ":", "^")), strict=False):
            ax.loglog(list(line), list(line.values()), style, color=colour, marker=marker, label=name)
        ax.set(xlabel="tokens of the image", ylabel=label)
        ax.set_xticks(list(line), [f"{n:,}" for n in line])
        ax.minorticks_off()
        ax.legend()
    return figure


def amplitudes(panels: Mapping[str, Mapping[str, np.ndarray]], *, guess: float | None = None) -> Figure:
    """A panel for each title: amplitude after every block, ``(seeds, blocks)`` or ``(blocks,)`` for each norm; a tint holds all seeds."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels) + 0.8, 4.2), squeeze=False, sharey=True)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, values in curves.items():
            values = np.atleast_2d(values)
            colour, style, marker = LOOKS[name]
            blocks = np.arange(1, values.shape[1] + 1)
            ax.fill_between(blocks, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
            ax.plot(blocks, values.mean(0), style, color=colour, marker=marker, markevery=max(len(blocks) // 6, 1), label=name)
        ax.set(title=title, xlabel="block", yscale="log")
    if guess is not None:
        axes[0, -1].axhline(guess, color="black", linewidth=1, label="your guess")
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100, 500, 1000]
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_yticks([t for t in ticks if low <= t <= high], [f"{t:g}" for t in ticks if low <= t <= high])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylabel("amplitude of the main branch")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def louder(maps: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """One head's map for inputs of growing size: a row for each kind of attention, a column for each size, with its mean largest weight."""
    rows, columns = len(maps), len(next(iter(maps.values())))
    figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns + 1, 3.1 * rows), squeeze=False)
    for line, (kind, by_size) in zip(axes, maps.items(), strict=True):
        for ax, (size, weights) in zip(line, by_size.items(), strict=True):
            drawn = ax.imshow(weights.numpy(), cmap="cividis", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], title=f"{size}, largest {weights.amax(-1).mean():.2f}")
        line[0].set_ylabel(f"{kind}\nquery")
        line[0].set_xlabel("key")
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="weight")
    return figure


def at_windows(live: Mapping[str, Scores], recorded: Mapping[str, Scores], lines: Mapping[str, float], *, guess: float | None = None) -> Figure:
    """Accuracy by window: this run as lines, the recorded seeds' mean ± deviation as bars of the same colours, baselines and the reader's guess."""
    figure, axes = plt.subplots(figsize=(9, 4.2))
    for (name, cells), colour in zip(recorded.items(), (BLUE, PURPLE), strict=False):
        means, spread = [np.mean(v) for v in cells.values()], [np.std(v, ddof=1) for v in cells.values()]
        axes.errorbar(list(cells), means, spread, fmt="none", ecolor=colour, elinewidth=9, alpha=0.35, label=f"{name}, recorded")
    points_axes(axes, live)
    baseline_lines(axes, lines)
    if guess is not None:
        axes.axhline(guess, color="black", linewidth=1, label="your guess")
    axes.set(xlabel="window in tokens; the picture grows with it", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
