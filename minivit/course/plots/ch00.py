"""Chapter 00: who are the nearest neighbours of a picture, before and after training?"""
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from minivit.course.plots.common import draw_image, loss_axes, scatter_axes
from minivit.course.plots.common import training as training
from minivit.course.plots.style import BLUE, GREEN, GREY, ORANGE, RED
from minivit.datasets import ImageData


def nearest(bank: Tensor, queries: Tensor, *, k: int = 5) -> Tensor:
    """Ids of the k most similar rows of ``bank`` for each query, by cosine: ``(Q, k)``."""
    return (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).topk(k).indices


def neighbours(train: ImageData, test: ImageData, query: int, found: Mapping[str, Tensor]) -> Figure:
    """The query picture, and in each row its five nearest training pictures; a green frame: the same class."""
    figure, axes = plt.subplots(len(found), 6, figsize=(7.4, 1.35 * len(found) + 0.2), squeeze=False)
    for row, (line, (name, ids)) in enumerate(zip(axes, found.items(), strict=True)):
        draw_image(line[0], test.images[query], "query" if row == 0 else "")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=13)
        for ax, i in zip(line[1:], ids.tolist(), strict=True):
            same = bool(train.labels[i] == test.labels[query])
            draw_image(ax, train.images[i], train.classes[train.labels[i]], GREEN if same else RED)
    return figure


def neighbours_alt(train: ImageData, test: ImageData, query: int, found: Mapping[str, Tensor]) -> str:
    """The figure in words."""
    right = {name: int((train.labels[ids] == test.labels[query]).sum()) for name, ids in found.items()}
    rows = "; ".join(f"{name}: {count} of {len(found[name])} of the same class" for name, count in right.items())
    return f"A query picture, a {test.classes[test.labels[query]]}, and its nearest neighbours. {rows}."


def bars(scores: Mapping[str, Mapping[str, float]], *, chance: float, errors: Mapping[str, Mapping[str, float]] | None = None) -> Figure:
    """Grouped bars: for each feature its kNN and linear-probe accuracy, above the chance line; whiskers are one deviation over seeds."""
    figure, axes = plt.subplots(figsize=(9, 4))
    for shift, (measure, colour) in enumerate((("knn", BLUE), ("probe", ORANGE))):
        at = [i + 0.4 * shift - 0.2 for i in range(len(scores))]
        heights = [figures[measure] for figures in scores.values()]
        whiskers = [errors[name][measure] for name in scores] if errors else None
        label = {"knn": "kNN", "probe": "linear probe"}[measure]
        drawn = axes.bar(at, heights, 0.36, color=colour, yerr=whiskers, capsize=4, label=label)
        axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=11)
    axes.axhline(chance, color=GREY, linestyle=":", label=f"chance {chance:.2f}")
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set(ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="upper left", ncols=3)
    return figure


def demo(
    views: Sequence[Sequence[Tensor]],
    losses: tuple[Sequence[int], Sequence[float]],
    chance_loss: float,
    points: Mapping[str, Tensor],
    labels: Tensor,
    train: ImageData,
    test: ImageData,
    query: int,
    found: Mapping[str, Tensor],
) -> Figure:
    """All of SimCLR on one page: augmented views, loss, t-SNE before and after, nearest neighbours before and after."""
    figure = plt.figure(figsize=(13, 11))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.15, 1.6, 1.25])
    left, right = top.subfigures(1, 2, width_ratios=[1.2, 1])
    left.suptitle("Two random views of each image: the pairs it learns to match", fontsize=13)
    for line, row, name in zip(left.subplots(len(views), len(views[0])), views, ("image", "view 1", "view 2"), strict=True):
        for ax, image in zip(line, row, strict=True):
            draw_image(ax, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    axes = right.subplots()
    loss_axes(axes, {"loss": losses}, chance=chance_loss)
    axes.set_title("The loss leaves its chance level")
    middle.suptitle("500 test images, placed by t-SNE of their features; colours are the classes, which training never saw", fontsize=13)
    panels = middle.subplots(1, len(points))
    for ax, (name, xy) in zip(panels, points.items(), strict=True):
        scatter_axes(ax, xy, labels, test.classes, legend=ax is panels[-1])
        ax.set_title(name)
    bottom.suptitle("Nearest neighbours of one test image; green frame: same class", fontsize=13)
    grid = bottom.subplots(len(found), 7)
    for row, (line, (name, ids)) in enumerate(zip(grid, found.items(), strict=True)):
        draw_image(line[0], test.images[query], "query" if row == 0 else "")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, i in zip(line[1:], ids.tolist(), strict=True):
            draw_image(ax, train.images[i], "", GREEN if train.labels[i] == test.labels[query] else RED)
    return figure


def pick_query(bank: Mapping[str, Tensor], labels: Tensor, queries: Mapping[str, Tensor], query_labels: Tensor, *, before: str, after: str) -> int:
    """The first test image with few right neighbours before and all right after: chosen to show, and said so in the chapter."""
    right = {name: (labels[nearest(bank[name], queries[name])] == query_labels[:, None]).sum(1) for name in bank}
    gain = right[after] - right[before]
    return int(torch.argmax(gain))
