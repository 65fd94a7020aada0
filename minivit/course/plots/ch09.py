"""Chapter 09: receptive fields, who pays for the stem, filters, runs at random rates and their distributions, P to C."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from minivit.course.plots.common import Scores, baseline_lines, draw_image, image_rows
from minivit.course.plots.style import BLUE, GREEN, GREY, ORANGE
from minivit.studies import behind_best, edf, edf_band

Curves = Mapping[str, Mapping[int, Sequence[float]]]  # of each stem, at each step, the seeds' values
LOOKS = {"P": (ORANGE, "s"), "C": (BLUE, "o"), "P + BN + ReLU": (GREEN, "D")}
DASHES = {"AdamW": "-", "SGD": "--"}
SKY, LIME, MAGENTA = "#40B0FF", "#80FF40", "#FF50E0"  # bright, for lines on a photograph


# ---------------------------------------------------------------------------------------------------- stems


def fields(layers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """After each (kernel, stride): the side of what one output sees, and how far apart two neighbours' fields are, both in pixels."""
    side, apart, found = 1, 1, []
    for kernel, stride in layers:
        side, apart = side + (kernel - 1) * apart, apart * stride
        found.append((side, apart))
    return found


def seen_by(stem: nn.Module, token: int, size: int = 32) -> tuple[int, int, int, int]:
    """Top, bottom, left and right pixel (inclusive) that a token's value depends on, by its gradient."""
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    stem.eval()(x)[0, token].sum().backward()
    rows, columns = (x.grad[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    return tuple(int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))


def receptive(image: Tensor, patch: int, layers: Sequence[tuple[int, int]], token: tuple[int, int]) -> Figure:
    """Left what P's token (row, column) sees, in the grid of patches. Right what C's sees after each convolution, thin the patch that the token
    stands for, and dashed its right neighbour's field."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 5.2))
    top, left = (patch * at for at in token)

    def square(ax: Axes, row: int, column: int, side: int, colour: str, width: float, name: str = "", style: str = "-") -> None:
        rim = [withStroke(linewidth=width + 2, foreground="black")]
        look = {"edgecolor": colour, "linewidth": width, "linestyle": style, "path_effects": rim, "label": f"{side} × {side}{name}"}
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, **look))

    for ax, title in zip(axes, ("P: one patch, once", "C: overlapping, layer by layer"), strict=True):
        draw_image(ax, image, title)
        for at in range(patch, image.shape[-1], patch):
            ax.axhline(at - 0.5, color="white", linewidth=0.7)
            ax.axvline(at - 0.5, color="white", linewidth=0.7)
    square(axes[0], top, left, patch, ORANGE, 4)
    seen = [side for side, _ in fields(layers)]
    square(axes[1], top - seen[-1] // 2, left + patch - seen[-1] // 2, seen[-1], MAGENTA, 3, ", its neighbour's", "--")
    square(axes[1], top, left, patch, "white", 1.5, ", its patch")
    for side, colour, width in zip(seen, ("white", LIME, SKY), (3, 3, 4), strict=False):
        square(axes[1], top - side // 2, left - side // 2, side, colour, width)
    for ax in axes:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, reverse=True)
    return figure


def swap(costs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """For each size and stem its multiply-adds, stem first, then each block, as a share of P's total: one block goes, the stem comes."""
    figure, axes = plt.subplots(1, len(costs), figsize=(4.1 * len(costs), 3.1), sharey=True, squeeze=False)
    for ax, (size, models) in zip(axes[0], costs.items(), strict=True):
        whole = sum(models["P"])
        for row, (name, parts) in enumerate(models.items()):
            start = 0.0
            for i, part in enumerate(parts):
                colour, hatch = (LOOKS[name][0], "") if i == 0 else ("#d9d9d9", "//" if i == len(parts) - 1 and name == "P" else "")
                ax.barh(row, part / whole, 0.6, left=start, color=colour, edgecolor="white" if not hatch else GREY, hatch=hatch)
                start += part / whole
            ax.text(start + 0.02, row, f"{sum(parts) / whole:.1%}", va="center", fontsize=11)
        ax.set(yticks=range(len(models)), yticklabels=list(models), xlim=(0, 1.28), xlabel="multiply-adds, P = 1", title=size.replace("gf", "GF"))
        ax.invert_yaxis()
    return figure


def kernels(rows: Mapping[str, Tensor]) -> Figure:
    """A labelled row of convolution kernels ``(n, 3, k, k)`` for each entry, each stretched to its own range; gray is zero."""
    return image_rows({name: [0.5 + 0.5 * kernel / kernel.abs().max() for kernel in of] for name, of in rows.items()}, size=0.68)


# ---------------------------------------------------------------------------------------------------- runs


def outcome(
    losses: Mapping[tuple[str, str], Sequence[float]],
    scores: Mapping[tuple[str, str], float],
    recorded: Mapping[tuple[str, str], Sequence[float]],
    lines: Mapping[str, float],
    *,
    guess: float | None = None,
) -> Figure:
    """Left: losses of every (stem, optimizer), averaged over nine steps. Right: accuracy of this run as bars, and mean and deviation of the recorded
    ones, of which some may have no bar; ``lines`` are chance and kNN accuracies, and say so."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.6))
    for (stem, optimizer), values in losses.items():
        smooth = np.convolve(values, np.ones(9) / 9, "valid")
        left.plot(range(4, 4 + len(smooth)), smooth, DASHES[optimizer], color=LOOKS[stem][0], label=f"{stem}, {optimizer}")
    left.axhline(np.log(10), color=GREY, linestyle=":", label=f"chance {np.log(10):.2f}")
    left.set(xlabel="step", ylabel="loss, mean of nine steps")
    names = list({**scores, **recorded})
    colours, hatches = [LOOKS[stem][0] for stem, _ in scores], ["" if optimizer == "AdamW" else "//" for _, optimizer in scores]
    right.bar(range(len(scores)), list(scores.values()), 0.7, color=colours, hatch=hatches, edgecolor="white")
    for at, name in enumerate(names):
        if name in recorded:
            spread = np.mean(recorded[name]), np.std(recorded[name], ddof=1)
            colour, label = LOOKS[name[0]][0] if name not in scores else "black", f"{len(recorded[name])} recorded seeds"
            right.errorbar(at, *spread, fmt="o", color=colour, capsize=5, label=label if at == 0 else None)
    baseline_lines(right, {name if name == "chance" else f"{name} (kNN)": value for name, value in lines.items()})
    if guess is not None:
        right.axhline(guess, color="black", linewidth=1, label=f"your guess {guess:.2f}")
    right.set_xticks(range(len(names)), ["\n".join(name).replace("P + BN + ReLU", "P + BN\n+ ReLU") for name in names], fontsize=11)
    right.set(ylabel="accuracy on new pictures", ylim=(0, 1))
    for ax in (left, right):
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3 if ax is left else 2)
    return figure


OVER = {"lr": "learning rate", "weight_decay": "weight decay", "lr × weight_decay": "learning rate × weight decay"}


def drawn(
    search: Mapping[str, Mapping],
    optimizers: Sequence[str] = ("AdamW", "SGD"),
    *,
    over: Sequence[str] = ("lr",),
    lines: Mapping[str, float] | None = None,
    bottom: float = 0,
) -> Figure:
    """Every run of a random search: a row for each setting of ``over`` (of `OVER`), a column for each optimizer; accuracy over the setting, as a
    multiple of that model's own good one, a line at 1; crosses diverged. Baselines are ``lines``, else chance; the axis begins at ``bottom``."""
    figure, axes = plt.subplots(len(over), len(optimizers), figsize=(6 * len(optimizers), 0.8 + 3.5 * len(over)), sharey=True, squeeze=False)
    for ax, (setting, optimizer) in zip(axes.flat, product(over, optimizers), strict=True):
        for stem, (colour, marker) in list(LOOKS.items())[:2]:
            found = search[f"{stem}, {optimizer}"]
            units = dict(zip(("lr", "weight_decay"), found["centre"], strict=True))
            multiples = np.prod([np.array(found[name], dtype=float) / units[name] for name in setting.split(" × ")], axis=0)
            scores = np.array(found["accuracy"], dtype=float)
            failed = np.isnan(scores)
            ax.plot(multiples[~failed], scores[~failed], marker, color=colour, markersize=7, label=stem, alpha=0.85)
            label = f"{stem}, diverged" if failed.any() else None
            ax.plot(multiples[failed], np.full(failed.sum(), bottom + 0.02), "x", color=colour, markersize=9, markeredgewidth=2, label=label)
        baseline_lines(ax, lines or {"chance": 0.1})
        ax.axvline(1, color=GREY, linewidth=0.8)
        ax.set_xscale("log", base=2)
        ticks = [(4.0 if " × " in setting else 2.0) ** power for power in range(-3, 3)]
        ax.set_xticks(ticks, [str(Fraction(tick)) for tick in ticks])
        ax.set(xlabel=f"{OVER[setting]}, in units of each model's good one")
    for ax, optimizer in zip(axes[0], optimizers, strict=True):
        ax.set_title(optimizer)
    for ax in axes[:, 0]:  # after all panels: they share it
        ax.set(ylabel="accuracy on new pictures", ylim=(bottom, None))
    entries = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=6, fontsize=10)
    return figure


def distributions(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    mine: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    *,
    title: str = "",
    reach: float = 0.4,
) -> Figure:
    """For each optimizer and stem the share of runs at most so far behind that model's best (diverged runs are of the number), with its 95 %
    bootstrap band, up to ``reach`` behind. ``mine`` are further runs, which are no part of the curve: marks on the axis, as far behind the best of
    ``scores`` as they are."""
    levels = np.linspace(0, reach, 401)
    figure, axes = plt.subplots(1, len(scores), figsize=(6 * len(scores), 4.5), sharey=True, squeeze=False)
    for ax, (optimizer, models) in zip(axes[0], scores.items(), strict=True):
        left = -4.0 if mine else -1.0
        for stem, accuracies in models.items():
            colour, marker = LOOKS[stem]
            behind = behind_best(accuracies)
            ax.fill_between(100 * levels, *edf_band(behind, levels, draws=500), color=colour, alpha=0.2, linewidth=0)
            ax.plot(100 * levels, edf(behind, levels), "-" if stem == "C" else "--", color=colour, label=f"{stem}, {len(accuracies)} draws")
            if own := (mine or {}).get(optimizer, {}).get(stem):
                further = 100 * (np.nanmax(accuracies) - np.array(own, dtype=float))
                left = np.nanmin([left, *(further - 2)])
                dots = {"color": colour, "markeredgecolor": "black", "markersize": 9, "linestyle": "", "label": f"{stem}, your runs"}
                ax.plot(further, np.zeros(len(own)), marker, zorder=3, clip_on=False, **dots)
        ax.set(xlabel="points of accuracy behind that model's best draw", title=optimizer, xlim=(left, 100 * levels[-1]), ylim=(0, 1.02))
        ax.legend(fontsize=10, loc="lower right")
    axes[0, 0].set_ylabel("share of the runs")
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def distributions_alt(
    scores: Mapping[str, Mapping[str, Sequence[float]]], mine: Mapping[str, Mapping[str, Sequence[float]]] | None = None, *, within: float = 0.1
) -> str:
    """The figure in words: the shares ``within`` so far of the best."""
    said = []
    for optimizer, models in scores.items():
        shares = {stem: edf(behind_best(accuracies), [within])[0] for stem, accuracies in models.items()}
        said.append(f"{optimizer}: " + ", ".join(f"{stem} {share:.0%}" for stem, share in shares.items()))
    marks = " Marks on the axis are your own runs, measured from the same best; those left of 0 are better than it." if mine else ""
    words = f"Share of runs within {100 * within:g} points of their model's best: {'; '.join(said)}"
    return f"Distributions of runs at random rates, with bands. {words}.{marks}"


def curves(runs: Sequence[Mapping], cells: Mapping[str, str], figure: str, *, every: int) -> Curves:
    """Of each cell, by the name that it is to have: what its runs kept of a figure, looked at every so many steps."""
    kept = {name: [run["series"][figure] for run in sorted(runs, key=lambda run: run["seed"]) if run["cell"] == cell] for name, cell in cells.items()}
    return {name: {every * look: seeds for look, seeds in enumerate(zip(*series, strict=True), 1)} for name, series in kept.items()}


def without_labels(long: Curves, short: Curves, live: Mapping[str, Mapping[int, float]], lines: Sequence[Mapping[str, float]]) -> Figure:
    """SimCLR over its steps. Left kNN of long trainings, right the linear probe of short ones, mean and deviation over seeds, and on it the one
    ``live`` run of each stem as large marks; ``lines`` are the two judges' baselines."""
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.6))
    for ax, recorded, baselines, judge in zip(axes, (long, short), lines, ("kNN", "linear probe"), strict=True):
        for stem, at in recorded.items():
            colour, marker = LOOKS[stem]
            spread = np.mean([*at.values()], axis=1), np.std([*at.values()], axis=1, ddof=1)
            ax.errorbar([*at], *spread, color=colour, marker=marker, capsize=3, label=f"{stem}, recorded")
        baseline_lines(ax, baselines)
        ax.set(ylim=(0, 0.8), xlim=(0, None), xlabel="steps", ylabel="accuracy", title=judge)
    for stem, at in live.items():
        colour, marker = LOOKS[stem]
        look = {"color": colour, "markeredgecolor": "black", "markersize": 12, "linestyle": "", "zorder": 3, "label": f"{stem}, this run"}
        axes[1].plot([*at], [*at.values()], marker, **look)
    for ax in axes:
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def panels(
    drawn: Sequence[tuple[str, Mapping[str, Scores], Mapping[str, float]]], *, xlabel: str, ylabels: Sequence[str], top: float = 1
) -> Figure:
    """Side by side: title, curves with whiskers over seeds, baselines. Names that begin with P or C have those models' colours; panels of an
    accuracy reach from 0 to ``top``."""
    figure, axes = plt.subplots(1, len(drawn), figsize=(6.3 * len(drawn), 4.6), squeeze=False)
    for ax, (title, curves, lines), ylabel in zip(axes[0], drawn, ylabels, strict=True):
        for name, cells in curves.items():
            colour, marker = LOOKS.get(name[0], (GREEN, "D"))
            dash = "--" if any(word in name for word in ("SGD", "frozen", "1GF")) else "-"
            spread = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in cells.values()]
            looks = {"color": colour, "marker": marker, "linestyle": dash, "capsize": 4, "label": name}
            ax.errorbar(list(cells), [np.mean(v) for v in cells.values()], spread, **looks)
        baseline_lines(ax, lines)
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel, **({"ylim": (0, top)} if "accuracy" in ylabel else {}))
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=3.2)
    return figure
