"""Chapter 07: the loss corridor, every difference between SimCLR and MoCo v3 in one drawing, ablations beside the paper's."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from minivit.course.plots.style import BASELINES, BLUE, GREEN, GREY, ORANGE, PURPLE, RED

Curve = tuple[Sequence[int], Sequence[float]]
LOOKS = {0.1: (PURPLE, ":"), 0.2: (BLUE, "-"), 0.5: (GREEN, "--"), 1.0: (RED, "-.")}  # of a temperature
NOT_COMPARED = {"facecolor": "white", "edgecolor": GREY, "hatch": "///"}
Group = Mapping[str, Sequence[float]]  # the settings of one ablation: a figure for each seed, the default first


def corridor(batch: int, temperature: float) -> tuple[float, float]:
    """Where MoCo v3's loss starts and what it cannot fall below: 4τ ln B, and 4 less."""
    start = 4 * temperature * math.log(batch)
    return start, start - 4


def corridors(curves: Mapping[float, Curve], batch: int, *, live: Mapping[float, Curve] | None = None, known: bool = True) -> Figure:
    """The losses of several τ on one axis from 0, each in its corridor; beside it the share of the possible 4 that each has gone.

    Recorded curves are thin, ``live`` ones thick. ``known=False`` leaves out the corridors and the second panel: the question.
    """
    shape = {"ncols": 2, "figsize": (12.5, 4.9), "width_ratios": [1.15, 1]} if known else {"ncols": 1, "figsize": (8, 3.9)}
    figure, axes = plt.subplots(squeeze=False, **shape)
    left = axes[0, 0]
    looks = {t: LOOKS[t] for t in sorted(set(curves) | set(live or {}))}
    for temperature, (colour, style) in looks.items():
        start, floor = corridor(batch, temperature)
        if known:
            left.axhspan(max(floor, 0), start, color=colour, alpha=0.12, linewidth=0)
            left.axhline(start, color=colour, linewidth=1)
            left.axhline(max(floor, 0), color=colour, linewidth=1, linestyle=(0, (2, 4)))
            left.text(1.01, start, f"τ {temperature:g}", color=colour, transform=left.get_yaxis_transform(), va="center", fontsize=11)
        for drawn, width in ((curves, 1.3), (live or {}, 2.5)):
            if temperature in drawn:
                steps, losses = drawn[temperature]
                name = f"τ = {temperature:g}" + (", this run" if width > 2 else ", recorded" if live else "")
                line = {"color": colour, "linestyle": "-" if width > 2 else style, "linewidth": width, "label": name}
                left.plot(steps, losses, **line)
                if known:
                    axes[0, 1].plot(steps, [(start - loss) / 4 for loss in losses], **line)
    left.set(xlabel="step", ylabel="loss", ylim=(-0.2, 1.12 * max(corridor(batch, t)[0] for t in looks)), xlim=(0, None))
    if not known:
        left.legend(loc="center right")
    else:
        left.set_title("full line 4τ ln B, dotted 4 below it (or 0)", fontsize=12)
        right = axes[0, 1]
        right.axhline(1, color=GREY, linestyle=":", label="the floor")
        right.axhline(0, color=GREY, linewidth=1, label="the start")
        right.set(xlabel="step", ylabel="share of the possible 4", ylim=(-0.15, 1.08), xlim=(0, None), title="how much of its corridor each has used")
        right.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def corridors_alt(curves: Mapping[float, Curve], batch: int) -> str:
    """The figure in words."""
    said = []
    for temperature, (_, losses) in curves.items():
        start, floor = corridor(batch, temperature)
        said.append(f"τ {temperature:g}: from {start:.2f}, now {np.mean(losses[-2:]):.2f}, at least {max(floor, 0):.2f}")
    return f"Loss over steps, each temperature in its corridor. {'; '.join(said)}. Beside it the share of the possible 4 that each has gone."


# ---------------------------------------------------------------------------------------------------- the drawing


def _box(axes: Axes, x: float, y: float, text: str, colour: str, *, width: float = 1.15, hatch: str = "") -> None:
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "facecolor": "white", "edgecolor": colour, "linewidth": 2, "hatch": hatch}
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.36), width, 0.72, **style))
    axes.text(x, y, text, ha="center", va="center", fontsize=11, bbox={"facecolor": "white", "linewidth": 0, "pad": 1.5})


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "linestyle": style, "mutation_scale": 16})


def differences() -> Figure:
    """SimCLR and MoCo v3 as two flows of the same shape; the numbers are those of the chapter's table."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), width_ratios=[1, 1.25])
    for ax, title, limit in ((left, "SimCLR", 6.4), (right, "MoCo v3", 8.0)):
        ax.set(xlim=(0, limit), ylim=(-0.7, 5), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=15)
        for y, name in ((3.6, "$x_1$"), (1.2, "$x_2$")):
            ax.text(0.3, y, name, fontsize=15, ha="center", va="center")
    _box(left, 2, 2.4, "backbone f", BLUE, width=1.5)
    _box(left, 3.9, 2.4, "projector g", BLUE, width=1.5)
    for y, z in ((3.6, "$z_1$"), (1.2, "$z_2$")):
        _arrow(left, (0.5, y), (1.2, 2.4 + (y - 2.4) * 0.22), BLUE)
        _arrow(left, (4.7, 2.4 + (y - 2.4) * 0.22), (5.5, y), BLUE)
        left.text(5.75, y, z, fontsize=15, ha="center", va="center")
    _arrow(left, (2.78, 2.4), (3.12, 2.4), BLUE)
    left.text(2.95, 3.25, "one network, one pass of 2B views,\na gradient from both sides", ha="center", fontsize=11)
    left.text(3.2, 0.1, "table 2B × 2B, mean over 2B anchors:\n1 positive, 2B − 2 negatives from both views", ha="center", va="center", fontsize=11)
    for y, parts, colour in ((3.6, ("f", "g", "P"), BLUE), (1.2, ("$f_ξ$", "$g_ξ$"), ORANGE)):
        for i, part in enumerate(parts):
            _arrow(right, (0.5 if i == 0 else 1.5 * i + 0.55, y), (1.5 * i + 0.98, y), colour)
            _box(right, 1.5 * i + 1.5, y, part, colour, width=0.95, hatch="" if colour == BLUE else "//")
    _arrow(right, (5.05, 3.6), (5.6, 3.6), BLUE)
    _arrow(right, (3.55, 1.2), (5.6, 1.2), ORANGE)
    for y, name, x in ((3.6, "$p_1$", 1.5), (1.2, "$z_2$", 3.0)):
        right.text(5.85, y, name, fontsize=15, ha="center", va="center")
        _arrow(right, (x, 3.18), (x, 1.62), GREY, ":")
    right.text(2.25, 2.4, "EMA", ha="center", va="center", fontsize=12)
    right.plot([4.5, 4.5], [0.85, 1.55], color=RED, linewidth=4)
    right.text(4.5, 0.5, "no gradient", color=RED, ha="center", fontsize=11)
    _arrow(right, (5.95, 3.25), (6.55, 2.8), BLUE)
    _arrow(right, (5.95, 1.55), (6.55, 2.0), ORANGE)
    right.text(7.2, 2.4, "2τ · table B × B\n1 positive,\nB − 1 negatives", ha="center", va="center", fontsize=11)
    right.text(4, -0.35, "then once more with $x_2$ above and $x_1$ below; the two losses are added", ha="center", va="center", fontsize=11)
    right.text(2.2, 4.45, "trained: one pass for each view", color=BLUE, ha="center", fontsize=11)
    right.text(2.2, 0.3, "a slow average of f and g", color="#8a5f00", ha="center", fontsize=11)
    places = ((2.25, 2.85), (4.5, 4.25), (4.5, 1.85), (7.2, 1.55), (7.2, 3.25), (0.4, 4.45), (7.7, -0.35), (3.0, 4.25), (0.3, 2.4), (1.5, 4.25))
    for number, (x, y) in enumerate(places, 1):
        disc = {"boxstyle": "circle,pad=0.25", "facecolor": "black"}
        right.text(x, y, str(number), ha="center", va="center", fontsize=10, color="white", bbox=disc)
    return figure


def tables(batch: int = 4) -> Figure:
    """Which pairs are compared: SimCLR's 2B × 2B table, and MoCo v3's two B × B tables in the same places."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.9))
    side = 2 * batch
    sides = [[f"${letter}_{view}$ of {i + 1}" for view in (1, 2) for i in range(batch)] for letter in "zp"]
    for ax, title, rows in zip(axes, ("SimCLR", "MoCo v3"), sides, strict=True):
        for i in range(side):
            for j in range(side):
                same_view, partner = i // batch == j // batch, (i - j) % batch == 0
                unused = i == j if title == "SimCLR" else same_view
                look = {"facecolor": BLUE if partner else "#f6d9a8", "edgecolor": "white"}
                ax.add_patch(Rectangle((j, i), 1, 1, linewidth=0.6, **(NOT_COMPARED if unused else look)))
        ax.set(xlim=(0, side), ylim=(side, 0), aspect="equal", title=title)
        ax.set_xticks([i + 0.5 for i in range(side)], sides[0], rotation=60, ha="right", rotation_mode="anchor", fontsize=11)
        ax.set_yticks([i + 0.5 for i in range(side)], rows, fontsize=11)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    kinds = {"positive": {"facecolor": BLUE}, "negative": {"facecolor": "#f6d9a8"}, "not compared": NOT_COMPARED}
    handles = [Rectangle((0, 0), 1, 1, label=kind, **look) for kind, look in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


# ---------------------------------------------------------------------------------------------------- the moving average, ablations


def memory(kept: Mapping[str, Sequence[float]]) -> Figure:
    """What share of the random first weights is still in the key encoder, over the steps; names ending in "rising" are dashed."""
    figure, axes = plt.subplots(figsize=(9.5, 3.7))
    colours = dict(zip(dict.fromkeys(name.split(",")[0] for name in kept), (GREEN, BLUE, PURPLE, RED), strict=False))
    for name, shares in kept.items():
        axes.plot(shares, color=colours[name.split(",")[0]], linestyle="--" if name.endswith("rising") else "-", label=name)
    axes.axhline(0.5, color=GREY, linestyle=":", label="one half")
    axes.set(xlabel="step", ylabel="share of the first weights", ylim=(0, 1.02), xlim=(0, None))
    axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def ablations(ours: Mapping[str, Group], paper: Mapping[str, Mapping[str, float] | str], lines: Mapping[str, float], *, measure: str) -> Figure:
    """A row for each ablation: our bars with whiskers over seeds and baselines, beside them the paper's table, or what its text says.

    Blue are the settings whose names end with "(default)", and the paper's setting of the same name as its best one.
    """
    heights = [len(group) for group in ours.values()]
    size = (12.5, 0.36 * sum(heights) + 0.62 * len(ours) + 0.5)
    figure, axes = plt.subplots(len(ours), 2, figsize=size, height_ratios=heights, squeeze=False)
    tables = {name: {} if isinstance(table := paper[name], str) else table for name in ours}
    low = min([value for table in tables.values() for value in table.values()], default=0)
    for (left, right), (name, group) in zip(axes, ours.items(), strict=True):
        for ax, shown, text in ((left, group, "%.2f"), (right, tables[name], "%.1f")):
            means, spread = [np.mean(v) for v in shown.values()], [np.std(v, ddof=1) if np.size(v) > 1 else 0 for v in shown.values()]
            blue = [setting.endswith("(default)") if ax is left else value == max(means) for setting, value in zip(shown, means, strict=True)]
            colours = [BLUE if default else ORANGE for default in blue]
            bars = ax.barh(list(shown), means, xerr=spread if ax is left else None, capsize=3, color=colours, height=0.7)
            ax.bar_label(bars, fmt=text, padding=5, fontsize=11)
            ax.invert_yaxis()
            ax.tick_params(labelbottom=ax in axes[-1], labelsize=11)
        for baseline, value in lines.items():
            colour, style = BASELINES[baseline]
            colour = "black" if baseline == "random weights" else colour
            left.axvline(value, color=colour, linestyle=style, linewidth=1.3, label=f"{baseline} {value:.2f}")
        left.set(xlim=(0, 1))
        right.set(xlim=(math.floor(low / 5) * 5 - 5, 80))
        left.set_title(name, fontsize=12, loc="left")
        if not tables[name]:
            right.text(0.02, 0.5, paper[name], transform=right.transAxes, va="center", fontsize=12)
            right.axis("off")
    axes[-1, 0].set_xlabel(f"ours, shapes: {measure}")
    axes[-1, 1].set_xlabel("the paper: ImageNet, linear probe in %, axis cut")
    axes[0, 0].legend(fontsize=10, loc="lower center", bbox_to_anchor=(0.5, 1.2), ncols=3)
    return figure
