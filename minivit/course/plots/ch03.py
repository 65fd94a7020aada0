"""Chapter 03: the similarity matrix, the temperature, and what h keeps that z forgets."""
import copy
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivit.augment import Recipe, generator_of
from minivit.course.plots.common import Scores, baseline_lines, picture_of, scatter_axes
from minivit.course.plots.style import BASELINES, BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from minivit.datasets import ImageData
from minivit.methods import SimCLR

SHOWN = (2, 12, 7, 17, 4, 14, 0, 10)  # test images: two triangles, two crescents, two plus signs, two discs


def cosines(z: Tensor) -> Tensor:
    """All cosines of the vectors (2B, D_z): (2B, 2B)."""
    unit = F.normalize(z.float(), dim=1)
    return unit @ unit.T


def matrix_views(test: ImageData, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Two views of a batch of 160 test images (or all, if there are fewer) whose first eight are shown: two each of four classes."""
    shown = [i % len(test) for i in SHOWN]
    ids = torch.tensor([*shown, *(i for i in range(min(160, len(test))) if i not in shown)])
    images = test.images[ids].float() / 255
    return tuple(view(images, generator_of("matrix", i)) for i, view in enumerate(recipe.views))


def thumbnails(views: tuple[Tensor, Tensor], recipe: Recipe) -> Tensor:
    """The views that are shown, (16, 3, H, W) in [0, 1]: eight first ones, then eight second ones."""
    return torch.cat([view.unnormalise(x[: len(SHOWN)]) for view, x in zip(recipe.views, views, strict=True)])


@torch.no_grad()
def shown_cosines(method: SimCLR, views: tuple[Tensor, Tensor]) -> Tensor:
    """Cosines of the projections of the shown views, (16, 16), in train mode, as the loss sees them; ``method`` stays as it is."""
    copied = copy.deepcopy(method).cpu().train()
    z = copied.projector(copied.backbone(torch.cat(views))).unflatten(0, (2, -1))[:, : len(SHOWN)]
    return cosines(z.flatten(0, 1))


def matrix_axes(axes: Axes, matrix: Tensor, thumbnails: Tensor, title: str, *, colourbar: bool = True, left: bool = True) -> None:
    """Cosines (2B, 2B) of the first views, then of the second: the self-pairs gray, the positives framed, thumbnails along the edges."""
    side = len(matrix)
    shown = matrix.masked_fill(torch.eye(side, dtype=torch.bool), torch.nan).numpy()
    drawn = axes.imshow(shown, cmap=plt.get_cmap("cividis", 16), vmin=-1, vmax=1)
    for i in range(side):
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="#cccccc", edgecolor="white", hatch="///", linewidth=0))
        axes.add_patch(Rectangle(((i + side // 2) % side - 0.45, i - 0.45), 0.9, 0.9, fill=False, edgecolor=RED, linewidth=2))
    strip = np.concatenate([picture_of(image) for image in thumbnails])  # (2B · 32, 32, 3)
    if left:
        axes.inset_axes((-0.085, 0, 0.065, 1)).imshow(strip, aspect="auto")
    axes.inset_axes((0, -0.085, 1, 0.065)).imshow(np.concatenate([picture_of(image) for image in thumbnails], 1), aspect="auto")
    for ax in (axes, *axes.child_axes):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes.set_title(title)
    if colourbar:
        bar = axes.inset_axes((1.03, 0.1, 0.035, 0.8))
        plt.colorbar(drawn, cax=bar, ticks=[-1, 0, 1])
        bar.set_xlabel("cosine", fontsize=11, labelpad=6)


def similarity(matrix: Tensor, thumbnails: Tensor, title: str) -> Figure:
    """One matrix by itself."""
    figure, axes = plt.subplots(figsize=(6.4, 5.4))
    matrix_axes(axes, matrix, thumbnails, title)
    return figure


def question_axes(
    axes: Axes, scores: Mapping[str, float | Sequence[float]], lines: Mapping[str, float], title: str, *, guess: float | None = None
) -> None:
    """Bars for h and z, one figure or several seeds each, with the lines of the baselines."""
    for place, (name, colour) in enumerate((("h", BLUE), ("z", ORANGE))):
        seeds = np.atleast_1d(scores[name])
        whisker = seeds.std(ddof=1) if len(seeds) > 1 else None
        axes.bar(place, seeds.mean(), 0.6, color=colour, yerr=whisker, capsize=5)
        axes.text(place, 0.02, f"{seeds.mean():.2f}", ha="center", va="bottom", fontsize=13, color="white" if name == "h" else "black")
    for name, value in lines.items():
        colour, style = BASELINES[name]
        axes.axhline(value, color="black" if name == "random weights" else colour, linestyle=style, linewidth=1.6, label=f"{name} {value:.2f}")
    if guess is not None:
        axes.axhline(guess, color=PURPLE, linewidth=2, label=f"your guess for z {guess:.2f}")
    axes.set_xticks([0, 1], ["h", "z"], fontsize=14)
    axes.set(title=title, ylim=(0, 1), xlim=(-0.6, 1.6))
    axes.legend(fontsize=10, loc="upper center")


def signature(
    thumbnails: Tensor,
    before: Tensor,
    after: Tensor,
    classes: Mapping[str, float | Sequence[float]],
    class_lines: Mapping[str, float],
    turns: Mapping[str, float | Sequence[float]],
    turn_lines: Mapping[str, float],
    *,
    guess: float | None = None,
) -> Figure:
    """The similarity matrix before and after; which class, and how far turned, read from h and from z by a linear probe."""
    figure = plt.figure(figsize=(14, 4.8))
    axes = figure.subplots(1, 4, width_ratios=[1.2, 1.2, 0.75, 0.75])
    matrix_axes(axes[0], before, thumbnails, "before training", colourbar=False)
    matrix_axes(axes[1], after, thumbnails, "after training", left=False)
    question_axes(axes[2], classes, class_lines, "which class?")
    question_axes(axes[3], turns, turn_lines, "how far turned?", guess=guess)
    axes[2].set_ylabel("linear probe, accuracy")
    return figure


def signature_alt(classes: Mapping[str, float | Sequence[float]], turns: Mapping[str, float | Sequence[float]]) -> str:
    """The figure in words."""
    said = [f"{q}: {np.mean(s['h']):.2f} from h, {np.mean(s['z']):.2f} from z" for q, s in (("Which class", classes), ("How far turned", turns))]
    matrices = "Two similarity matrices: before training without order, after training brighter where two views are of one picture."
    return f"{matrices} {'; '.join(said)}."


# ---------------------------------------------------------------------------------------------------- temperature


def gradient_weights(similarities: Tensor, weights: Mapping[float, Tensor]) -> Figure:
    """For each temperature, which share of the push each negative gets; ``similarities`` are the negatives' cosines."""
    figure, axes = plt.subplots(1, len(weights), figsize=(11, 3.3), sharey=True)
    for ax, (temperature, share) in zip(axes, weights.items(), strict=True):
        bars = ax.bar(range(len(share)), share, color=BLUE, width=0.75)
        ax.bar_label(bars, labels=[f"{s:.0%}" if s >= 0.005 else "0" for s in share], fontsize=11, padding=2)
        ax.set_xticks(range(len(share)), [f"{s:.1f}" for s in similarities])
        ax.set(title=f"τ = {temperature:g}", ylim=(0, 1.12), xlabel="cosine of anchor and negative", yticks=[0, 0.5, 1])
    axes[0].set_ylabel("share of the push")
    return figure


# ---------------------------------------------------------------------------------------------------- h, z and the head


def h_and_z(panels: Mapping[str, Mapping[str, Scores]], lines: Mapping[str, Mapping[str, float]]) -> Figure:
    """A panel for each question; in it, for each length of training, the bars of h and z with whiskers over seeds."""
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.9), sharey=True)
    for ax, (question, groups) in zip(axes, panels.items(), strict=True):
        for shift, (name, colour) in enumerate((("h", BLUE), ("z", ORANGE))):
            at = [i + 0.4 * shift - 0.2 for i in range(len(groups))]
            seeds = [group[name] for group in groups.values()]
            ax.bar(at, [np.mean(s) for s in seeds], 0.36, yerr=[np.std(s, ddof=1) for s in seeds], capsize=4, color=colour, label=name)
            for x, found in zip(at, seeds, strict=True):
                ax.text(x, 0.02, f"{np.mean(found):.2f}", ha="center", va="bottom", color="white" if name == "h" else "black")
        for name, value in lines[question].items():
            colour, style = BASELINES[name]
            ax.axhline(value, color="black" if name == "random weights" else colour, linestyle=style, linewidth=1.5, label=f"{name} {value:.2f}")
        ax.set_xticks(range(len(groups)), list(groups))
        ax.set(title=question, ylim=(0, 1))
        ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    axes[0].set_ylabel("accuracy")
    return figure


def heads(widths: Sequence[int], h: Mapping[str, Sequence[Sequence[float]]], z: Mapping[str, Sequence[Sequence[float]]],
          none: Sequence[float], lines: Mapping[str, float]) -> Figure:  # fmt: skip
    """Probe accuracy of h (full lines) and of z (dashed) over the width of the head's output; without a head, h is what the loss sits on."""
    figure, axes = plt.subplots(figsize=(10, 4.4))
    for (name, seeds), colour, marker in zip(h.items(), (BLUE, PURPLE), "os", strict=True):
        for part, style, label in ((seeds, "-", f"h, {name} head"), (z[name], "--", f"z, {name} head")):
            means, spread = [np.mean(s) for s in part], [np.std(s, ddof=1) for s in part]
            look = {"color": colour, "marker": marker, "markerfacecolor": colour if style == "-" else "white", "linestyle": style}
            axes.errorbar(range(1, 1 + len(widths)), means, spread, capsize=4, label=label, **look)
    axes.errorbar([0], np.mean(none), np.std(none, ddof=1), color=GREEN, marker="D", capsize=4, linestyle="none", label="h, no head")
    baseline_lines(axes, lines)
    axes.set_xticks(range(1 + len(widths)), ["no head", *map(str, widths)])
    axes.set(xlabel="width $D_z$ of the head's output", ylabel="linear probe, accuracy", ylim=(0, 1))
    axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def reading_a_map(truth: Tensor, made_map: Tensor, groups: Sequence[str], feature_map: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Three groups of made-up points as they are and on a t-SNE map; then the map of real features, coloured by class."""
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.3), width_ratios=[1, 1, 1.05])
    of_group = torch.arange(len(groups)).repeat_interleave(len(truth) // len(groups))
    for ax, points, title in ((axes[0], truth, "made-up points, as they are"), (axes[1], made_map, "the same points, t-SNE")):
        for kind, (name, colour, marker) in enumerate(zip(groups, (RED, BLUE, GREEN), "osD", strict=True)):
            ax.scatter(*points[of_group == kind].T, s=14, color=colour, marker=marker, label=name, linewidths=0)
        ax.set(xticks=[], yticks=[], title=title, aspect="equal")
    axes[0].legend(fontsize=10, loc="upper left")
    scatter_axes(axes[2], feature_map, labels, classes, legend=True)
    axes[2].set_title("h of 500 test pictures, t-SNE")
    return figure


# ---------------------------------------------------------------------------------------------------- labels, losses, length, photographs


def label_curve(
    curves: Mapping[str, Mapping[int, Sequence[float]]], lines: Mapping[str, float], paper: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Accuracy over the number of labels, both axes shared by all curves; the paper's three shares of ImageNet's labels beside it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.9), width_ratios=[1.5, 1])
    looks = ((BLUE, "o", "-"), (GREEN, "D", "-"), (PURPLE, "s", "-"), (PURPLE, "s", ":"), (RED, "^", "-."))
    for (name, cells), (colour, marker, style) in zip(curves.items(), looks, strict=False):
        means, spread = [np.mean(v) for v in cells.values()], [np.std(v, ddof=1) for v in cells.values()]
        left.errorbar(list(cells), means, spread, color=colour, marker=marker, linestyle=style, capsize=3, label=name)
    left.set_xscale("log")
    counts = sorted({count for cells in curves.values() for count in cells})
    left.set_xticks(counts, [f"{count:,}" for count in counts])
    left.minorticks_off()
    for name, value in lines.items():
        left.axhline(value, color=BASELINES[name][0], linestyle=":", label=f"{name} {value:.2f}")
    left.set(xlabel="labelled pictures", ylabel="accuracy", ylim=(0, 1), title="ours, shapes")
    for (name, cells), colour, marker in zip(paper.items(), (BLUE, PURPLE), "os", strict=True):
        right.plot(list(cells), list(cells.values()), color=colour, marker=marker, label=name)
    right.set(xlabel="share of ImageNet's labels", ylabel="top-1 in %", ylim=(0, 100), title="the paper, ResNet-50")
    for ax in (left, right):
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def loss_bars(ours: Scores, lines: Mapping[str, float], paper: Mapping[str, float]) -> Figure:
    """The same losses, ours with whiskers over seeds and the paper's, as bars side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 3.9), width_ratios=[1.25, 1])
    for ax, names, heights, spread in (
        (left, ours, [np.mean(v) for v in ours.values()], [np.std(v, ddof=1) for v in ours.values()]),
        (right, paper, list(paper.values()), None),
    ):
        bars = ax.barh(list(names), heights, xerr=spread, capsize=3, color=[BLUE if "NT-Xent" in name else ORANGE for name in names], height=0.65)
        ax.bar_label(bars, fmt="%.2f" if ax is left else "%.1f", padding=6, fontsize=11)
        ax.invert_yaxis()
    for name, value in lines.items():
        colour, style = BASELINES[name]
        left.axvline(value, color="black" if name == "random weights" else colour, linestyle=style, linewidth=1.5, label=f"{name} {value:.2f}")
    left.set(xlim=(0, 1), xlabel="linear probe, accuracy", title="ours, shapes")
    right.set(xlim=(0, 80), xlabel="top-1 in %", title="the paper, ImageNet, table 4")
    left.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return figure


def shares_of_chance(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], floors: Mapping[str, float]) -> Figure:
    """Losses as shares of their own chance levels, each with its floor, over the share of training done."""
    figure, axes = plt.subplots(figsize=(9, 3.9))
    for (name, (steps, shares)), colour in zip(curves.items(), (BLUE, PURPLE, GREEN), strict=False):
        axes.plot(np.asarray(steps) / max(steps), shares, color=colour, linewidth=1.3, label=name)
        if name in floors:
            axes.axhline(floors[name], color=colour, linestyle="--", linewidth=1, label=f"its floor {floors[name]:.2f}")
    axes.axhline(1, color=GREY, linestyle=":", label="chance, ln(2B − 1)")
    axes.set(xlabel="share of training done", ylabel="loss, as a share of chance", ylim=(0, 1.2), xlim=(0, 1))
    axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
