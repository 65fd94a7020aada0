"""Figures that several chapters use."""
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivit.course.plots.style import BASELINES, BLUE, GREEN, GREY, ORANGE, PURPLE

Scores = Mapping[str, Sequence[float]]  # a point or bar: its figures over seeds


def picture_of(image: Tensor) -> np.ndarray:
    """``(3, H, W)`` uint8, or float in [0, 1], to the ``(H, W, 3)`` that matplotlib draws."""
    return rearrange(image.float() / 255 if image.dtype == torch.uint8 else image.clamp(0, 1), "c h w -> h w c").numpy()


def draw_image(axes: Axes, image: Tensor, title: str = "", colour: str | None = None) -> None:
    axes.imshow(picture_of(image))
    axes.set(xticks=[], yticks=[])
    if title:
        axes.set_title(title, fontsize=11)
    for spine in axes.spines.values():
        spine.set(visible=colour is not None, color=colour or "none", linewidth=3)


def image_rows(rows: Mapping[str, Sequence[Tensor]], *, size: float = 1.1) -> Figure:
    """One labelled row of images for each entry."""
    columns = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(len(rows), columns, figsize=(size * columns + 1.2, size * len(rows) + 0.2), squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=False):
            draw_image(ax, image)
        for ax in line[len(images) :]:
            ax.axis("off")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    return figure


def loss_axes(axes: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], *, chance: float, floor: float | None = None) -> None:
    """Loss over steps, thin and as drawn, with the chance level it has to leave and, if known, the floor it cannot go below."""
    for (name, (steps, values)), colour in zip(curves.items(), (BLUE, PURPLE, GREEN), strict=False):
        axes.plot(steps, values, color=colour, linewidth=1.2, label=name)
    axes.axhline(chance, color=GREY, linestyle=":", label=f"chance {chance:.2f}")
    if floor is not None:
        axes.axhline(floor, color=GREY, linestyle="--", label=f"floor {floor:.2f}")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()


def knn_axes(
    axes: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], baselines: Mapping[str, float], *, guess: float | None = None
) -> None:
    """kNN accuracy over steps, with its three baselines and the reader's guess, if there is one."""
    for (name, (steps, values)), colour in zip(curves.items(), (BLUE, PURPLE, GREEN), strict=False):
        axes.plot([step + 1 for step in steps], values, "o-", color=colour, label=name)
    for name, value in baselines.items():
        colour, style = BASELINES[name]
        axes.axhline(value, color=colour, linestyle=style, label=f"{name} {value:.2f}")
    if guess is not None:
        axes.axhline(guess, color="black", linewidth=1, label=f"your guess {guess:.2f}")
    axes.set(xlabel="step", ylabel="kNN accuracy", ylim=(0, 1), xlim=(0, None))
    axes.legend(loc="upper left", fontsize=10)


def training(
    losses: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    scores: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    baselines: Mapping[str, float],
    *,
    chance_loss: float,
    floor_loss: float | None = None,
    guess: float | None = None,
    measure: str = "kNN accuracy",
    aside: bool = False,
) -> Figure:
    """Left: the loss leaves its chance line. Right: a score and its baselines; ``aside`` puts the legend beside it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12 if aside else 11, 4))
    loss_axes(left, losses, chance=chance_loss, floor=floor_loss)
    knn_axes(right, scores, baselines, guess=guess)
    right.set(ylabel=measure)
    if aside:
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return figure


def points_axes(axes: Axes, curves: Mapping[str, Scores], *, dashed: Sequence[str] = ()) -> None:
    """Means with whiskers (one deviation over seeds) against the names of the settings, a line for each curve."""
    for (name, cells), colour, marker in zip(curves.items(), (BLUE, PURPLE, GREEN, ORANGE), "osD^", strict=False):
        colour, marker = (GREEN, "D") if name in dashed else (colour, marker)
        means = [np.mean(v) for v in cells.values()]
        deviations = [np.std(v, ddof=1) if np.size(v) > 1 else 0 for v in cells.values()]
        axes.errorbar(list(cells), means, deviations, color=colour, marker=marker, capsize=4, linestyle="--" if name in dashed else "-", label=name)


def baseline_lines(axes: Axes, lines: Mapping[str, float]) -> None:
    """A line for each of chance, random weights, raw pixels; what stands in brackets behind the name goes to the label only."""
    for name, value in lines.items():
        colour, style = BASELINES[name.split(" (")[0]]
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.5, label=f"{name} {value:.2f}")


def beside(
    ours: Mapping[str, Scores],
    lines: Mapping[str, float],
    paper: Mapping[str, Scores],
    *,
    xlabels: tuple[str, str],
    titles: tuple[str, str],
    dashed: Sequence[str] = (),
    percent: tuple[float, float] = (0, 100),
) -> Figure:
    """Our curves with whiskers and baselines on the left, the paper's table on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6))
    points_axes(left, ours, dashed=dashed)
    baseline_lines(left, lines)
    left.set(xlabel=xlabels[0], ylabel="accuracy", ylim=(0, 1), title=titles[0])
    points_axes(right, paper, dashed=dashed)
    right.set(xlabel=xlabels[1], ylabel="per cent", ylim=percent, title=titles[1])
    for ax in (left, right):
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def tsne(features: Tensor, *, seed: int = 0) -> Tensor:
    """Two coordinates for each of at most 500 feature vectors ``(N, D) -> (N, 2)``, cosine distances (van der Maaten & Hinton 2008)."""
    from sklearn.manifold import TSNE

    if len(features) > 500:
        raise ValueError(f"t-SNE of {len(features)} points takes too long here: 500 at most.")
    unit = torch.nn.functional.normalize(features, dim=1).numpy()
    return torch.from_numpy(TSNE(perplexity=30, init="pca", random_state=seed).fit_transform(unit))


def scatter_axes(axes: Axes, points: Tensor, labels: Tensor, classes: Sequence[str], *, legend: bool = False) -> None:
    """Points coloured by class; a t-SNE has no units, so there are no ticks."""
    colours = plt.get_cmap("tab10").colors
    markers = "os^DPX*<vd"
    for kind, name in enumerate(classes):
        at = labels == kind
        axes.scatter(*points[at].T, s=14, color=colours[kind % 10], marker=markers[kind % 10], label=name, linewidths=0)
    axes.set(xticks=[], yticks=[])
    if legend:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, markerscale=1.5)
