"""Chapter 01: what a vision transformer makes of the place of a patch, and who looks at whom."""
from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from minivit.course.plots import common
from minivit.course.plots.common import draw_image
from minivit.course.plots.style import BLUE, GREY, ORANGE, PURPLE

training = partial(common.training, measure="accuracy on test images", aside=True)  # of the classifier and of its features' neighbours


def tiles(image: Tensor, patch: int, *, gap: int = 2) -> Tensor:
    """A picture ``(3, H, W)`` in [0, 1] with white lines between its patches."""
    pieces = rearrange(image, "c (row p) (col q) -> row col c p q", p=patch, q=patch)
    pieces = F.pad(pieces, (0, gap, 0, gap), value=1.0)
    return rearrange(pieces, "row col c p q -> c (row p) (col q)")[:, :-gap, :-gap]


def shuffled(image: Tensor, moved_image: Tensor, patch: int, distance: Mapping[str, float]) -> Figure:
    """A picture, the same patches in another order, and how far the feature moved in each network, as a share of its length."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.7), width_ratios=[1, 1, 1.25])
    draw_image(left, tiles(image, patch), "a picture, cut into patches")
    draw_image(middle, tiles(moved_image, patch), "the same patches, shuffled")
    bars = right.barh(list(distance), list(distance.values()), color=[ORANGE, BLUE][: len(distance)], height=0.5)
    right.bar_label(bars, labels=[f"{value:.0e}" if value < 1e-4 else f"{value:.2f}" for value in distance.values()], padding=4)
    right.axvline(1e-5, color=GREY, linestyle=":")
    right.set_xscale("log")
    right.set_xlim(1e-8, 30)
    right.invert_yaxis()
    right.set_title("how far the feature moved", fontsize=12)
    right.set_xlabel("share of its length (dotted: 0.00001)")
    return figure


def shuffle(images: Tensor, order: Tensor, patch: int = 4) -> Tensor:
    """The patches of each image (B, 3, H, W) in another order, read row by row."""
    columns = images.shape[-1] // patch
    patches = rearrange(images, "b c (row p) (col q) -> b (row col) c p q", p=patch, q=patch)
    return rearrange(patches[:, order], "b (row col) c p q -> b c (row p) (col q)", col=columns)


def says(image: Tensor, moved_image: Tensor, answers: Mapping[str, tuple[Tensor, Tensor]], classes: Sequence[str]) -> Figure:
    """The picture and its shuffle, and beside them each network's class probabilities for both: ``{network: (whole, shuffled)}``."""
    figure = plt.figure(figsize=(12, 4.2))
    left, right = figure.subfigures(1, 2, width_ratios=[1, 3.4])
    for ax, shown, title in zip(left.subplots(2, 1), (image, moved_image), ("whole", "shuffled"), strict=True):
        draw_image(ax, shown, title)
    panels = right.subplots(1, len(answers), sharey=True, squeeze=False)[0]
    for ax, (name, pair) in zip(panels, answers.items(), strict=True):
        for shift, (probabilities, colour, label) in enumerate(zip(pair, (BLUE, ORANGE), ("whole", "shuffled"), strict=True)):
            at = [i + 0.38 * shift - 0.19 for i in range(len(classes))]
            ax.barh(at, probabilities.tolist(), 0.36, color=colour, label=label)
        ax.set_yticks(range(len(classes)), classes)
        ax.set(xlim=(0, 1), xlabel="probability", title=name)
        ax.legend(loc="lower right")
    panels[0].invert_yaxis()
    return figure


def says_alt(answers: Mapping[str, tuple[Tensor, Tensor]], classes: Sequence[str]) -> str:
    """The figure in words."""
    rows = []
    for name, (whole, mixed) in answers.items():
        named = int(whole.argmax())
        rows.append(f"{name}: {classes[named]} {whole[named]:.2f} for the whole picture, {mixed[named]:.2f} for the shuffled one")
    return "A picture, whole and with its patches shuffled, and the class probabilities of two trained networks. " + "; ".join(rows) + "."


def mark(axes: Axes, query: tuple[int, int], patch: int) -> None:
    """A frame around the patch in this row and column of the grid."""
    row, col = query
    for colour, width in (("black", 4), ("white", 2)):
        axes.add_patch(plt.Rectangle((col * patch - 0.5, row * patch - 0.5), patch, patch, fill=False, edgecolor=colour, linewidth=width))


def attention(rows: Sequence[tuple[Tensor, tuple[int, int], Mapping[str, Tensor]]], *, size: float = 1.7) -> Figure:
    """One row for each ``(image, query, maps)``: the picture with its query patch framed, then each map ``(rows, columns)`` on the picture.

    Yellow: much attention, dark blue: little. Each map has its own scale, up to the largest weight written below it.
    """
    columns = 1 + max(len(maps) for _, _, maps in rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=(size * columns, (size + 0.3) * len(rows) + 0.3), squeeze=False)
    for number, (line, (image, query, maps)) in enumerate(zip(axes, rows, strict=True)):
        patch = image.shape[-1] // next(iter(maps.values())).shape[-1]
        draw_image(line[0], image, "query" if number == 0 else "")
        mark(line[0], query, patch)
        for ax, (name, weights) in zip(line[1:], maps.items(), strict=True):
            ax.imshow(image.float().mean(0).numpy(), cmap="gray")
            ax.imshow(weights.repeat_interleave(patch, 0).repeat_interleave(patch, 1).numpy(), cmap="viridis", alpha=0.75, vmin=0)
            mark(ax, query, patch)
            ax.set(xticks=[], yticks=[], xlabel=f"up to {weights.max():.2f}")
            ax.set_title(name if number == 0 else "", fontsize=11)
            for spine in ax.spines.values():
                spine.set_visible(False)
    return figure


def position_maps(code: Tensor, grid: tuple[int, int], at: Sequence[tuple[int, int]], *, title: str = "") -> Figure:
    """The code as a table, and for some tokens the cosine of their code with that of every other token, on the grid."""
    rows, columns = grid
    figure, axes = plt.subplots(1, 1 + len(at), figsize=(3.4 + 2.1 * len(at), 3), width_ratios=[1.5] + [1] * len(at))
    axes[0].imshow(code.T.numpy(), aspect="auto", cmap="PuOr", vmin=-1, vmax=1)
    axes[0].set(xlabel="token (row by row)", ylabel="channel", title=title)
    unit = F.normalize(code, dim=1)
    cosines = (unit @ unit.T).view(rows, columns, rows, columns)
    for ax, (row, col) in zip(axes[1:], at, strict=True):
        drawn = ax.imshow(cosines[row, col].numpy(), cmap="viridis", vmin=float(cosines.min()), vmax=1)
        mark(ax, (row, col), 1)
        ax.set(xticks=[], yticks=[], title=f"row {row}, column {col}")
    figure.colorbar(drawn, ax=axes[-1], shrink=0.7, label="cosine")
    return figure


def judged(scores: Mapping[str, Mapping[str, tuple[float, float]]], *, chance: float) -> Figure:
    """Grouped bars with whiskers: for each feature the (mean, deviation over seeds) of its kNN, its probe and, where there is one, its classifier."""
    figure, axes = plt.subplots(figsize=(10, 4))
    for shift, (measure, colour) in enumerate((("kNN", BLUE), ("linear probe", ORANGE), ("its own classifier", PURPLE))):
        places = [(i + 0.27 * (shift - 1), row[measure]) for i, row in enumerate(scores.values()) if measure in row]
        if not places:
            continue
        at, pairs = zip(*places, strict=True)
        drawn = axes.bar(at, [m for m, _ in pairs], 0.25, color=colour, yerr=[s for _, s in pairs], capsize=3, label=measure)
        axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=10)
    axes.axhline(chance, color=GREY, linestyle=":", label=f"chance {chance:.2f}")
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set(ylabel="accuracy", ylim=(0, 1.12))
    axes.legend(loc="upper left", ncols=4, fontsize=10)
    return figure


def flops_by_tokens(tokens: Sequence[int], parts: Mapping[str, Sequence[float]], *, width: int) -> Figure:
    """Multiply-adds of one block against the number of tokens, by part; both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for (name, values), colour, style in zip(parts.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        axes.loglog(tokens, values, color=colour, linestyle=style, label=name)
    axes.axvline(6 * width, color=GREY, linestyle=":", label=f"N = 6D = {6 * width}")
    axes.set(xlabel="tokens N", ylabel="multiply-adds of one block")
    axes.legend(loc="upper left")
    return figure
