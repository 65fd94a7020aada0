"""Chapter 05: the queue as a strip of pictures, how stale its keys are, and what BatchNorm gives away."""
import copy
from collections import deque
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivit.augment import Recipe
from minivit.callbacks import Callback
from minivit.course.plots.common import loss_axes
from minivit.course.plots.style import BASELINES, BLUE, GREEN, GREY, PURPLE, RED
from minivit.datasets import ImageData
from minivit.engine import batch_ids, make_batch
from minivit.layers.norm import set_batch_norm
from minivit.methods import MoCo

LOOKS = {"m = 0.99": (BLUE, "o"), "m = 0.9": (GREEN, "D"), "m = 0": (PURPLE, "s")}
AGES = plt.get_cmap("cividis")

# ---------------------------------------------------------------------------------------------------- the queue


def made_at(after: int, blocks: int) -> list[int | None]:
    """For each block of the ring, the step (from 0) that wrote it, once ``after`` steps are done; None: still the random vectors."""
    return [(after - 1 - block) // blocks * blocks + block if after > block else None for block in range(blocks)]


def key_views(data: ImageData, recipe: Recipe, blocks: int, batch_size: int, shown: int = 3) -> tuple[dict[int, Tensor], range]:
    """For each step that the strip shows, a few of the pictures whose keys a training with seed 0 makes; and the numbers of steps done."""
    after, views = range(max(blocks - 3, 0), blocks + 3), {}
    for step in range(after[-1]):
        ids = batch_ids(len(data), batch_size, seed=0, step=step)[:shown]
        batch = make_batch(data, recipe, ids, seed=0, step=step, device=torch.device("cpu"))
        views[step] = recipe.views[1].unnormalise(batch.views[1])
    return views, after


def strip_axes(axes: Axes, views: Mapping[int, Tensor], after: Sequence[int], blocks: int) -> None:
    """A row for each number of steps done: the queue's blocks, each with a few of its pictures ``(n, 3, H, W)`` and tinted by age."""
    count = len(next(iter(views.values())))
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for row, done in enumerate(after):
        for block, step in enumerate(made_at(done, blocks)):
            tint = GREY if step is None else AGES(1 - (done - step) / (blocks + 1))
            for i, image in enumerate(noise if step is None else views[step]):
                left = block * (count + 0.35) + i
                shown = image.permute(1, 2, 0).clamp(0, 1).numpy()
                axes.imshow(shown, extent=(left, left + 1, row + 0.92, row + 0.08), aspect="auto", alpha=0.45 if step is None else 1)
            x = block * (count + 0.35)
            axes.add_patch(Rectangle((x, row + 0.08), count, 0.84, facecolor=(*plt.matplotlib.colors.to_rgb(tint), 0.3), edgecolor=tint, linewidth=3))
            box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": tint, "linewidth": 1.5}
            axes.text(x + 0.1, row + 0.5, "random" if step is None else f"{done - step}", ha="left", va="center", fontsize=11, bbox=box)
        axes.plot(done % blocks * (count + 0.35) + count / 2, row + 0.02, "v", color=RED, markersize=8, clip_on=False)
        axes.text(-0.25, row + 0.5, f"after step {done}", ha="right", va="center", fontsize=12)
    axes.set(xlim=(-0.05, blocks * (count + 0.35)), ylim=(len(after), -0.15), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def strip(views: Mapping[int, Tensor], after: Sequence[int], blocks: int) -> Figure:
    """The queue over some steps, by itself."""
    figure, axes = plt.subplots(figsize=(12, 0.62 * len(after) + 0.2))
    strip_axes(axes, views, after, blocks)
    return figure


# ---------------------------------------------------------------------------------------------------- staleness


class KeyAge(Callback):
    """How alike a stored key is to a fresh key of the same view, for each age in steps; and to fresh keys of other images."""

    def __init__(self, *, every: int):
        self.every = every
        self.log: dict[str, list] = {"steps": [], "same": [], "other": []}

    def on_start(self, loop) -> None:
        blocks = loop.method.queue_size // (loop.batch_size * (1 + loop.method.symmetric))
        self.views: deque[Tensor] = deque(maxlen=blocks)  # of which the queue holds the keys
        self.hook = loop.method.register_forward_pre_hook(lambda method, inputs: self.views.append(inputs[0].views[1]))

    @torch.no_grad()
    def after_step(self, loop) -> None:
        blocks = self.views.maxlen
        if (loop.step + 1) % self.every or len(self.views) < blocks:
            return
        method, same, other = copy.deepcopy(loop.method), [], []  # a look must not move BatchNorm's statistics
        for age, view in enumerate(reversed(self.views), 1):  # averages of the momentum encoder since the key was made
            fresh = F.normalize(method.keys(view), dim=1)
            block = method.queue.unflatten(0, (blocks, -1))[(loop.step + 1 - age) % blocks]
            stored = block[-len(fresh) :]  # where both views are queries, view 2's keys are the last
            same.append(round((fresh * stored).sum(1).mean().item(), 4))
            other.append(round((fresh * stored.roll(1, 0)).sum(1).mean().item(), 4))
        for name, value in (("steps", loop.step + 1), ("same", same), ("other", other)):
            self.log[name].append(value)

    def on_end(self, loop) -> None:
        self.hook.remove()


def by_age(log: Mapping[str, list], what: str = "same") -> np.ndarray:
    """The mean over the looks at each age, (ages,)."""
    return np.mean(log[what], axis=0)


def age_axes(left: Axes, right: Axes, found: Mapping[str, Sequence[Mapping[str, list]]]) -> None:
    """Left: similarity of stored and fresh keys by age. Right: of the oldest keys over the training. Whiskers over seeds, if there are several."""
    for name, logs in found.items():
        colour, marker = LOOKS[name]
        for what, style in (("same", "-"), ("other", ":")):
            each = np.stack([by_age(log, what) for log in logs])
            ages, label = range(1, each.shape[1] + 1), name if what == "same" else None
            spread = each.std(0, ddof=1) if len(each) > 1 else None
            marks = {"color": colour, "linestyle": style, "marker": marker if what == "same" else None, "label": label}
            left.errorbar(ages, each.mean(0), spread, capsize=3, **marks)
            right.plot(logs[0]["steps"], np.mean([[ages[-1] for ages in log[what]] for log in logs], axis=0), **marks)
    left.plot([], [], color=GREY, linestyle=":", label="with other pictures' keys")
    left.set(xlabel="age of the key, in steps", ylabel="cosine, stored · fresh", title="by age, mean over the training")
    right.set(xlabel="step", title="the oldest keys")
    for ax in (left, right):
        ax.set(ylim=(min(0, ax.get_ylim()[0]), 1.03))
    left.legend(fontsize=10, loc="lower left", bbox_to_anchor=(0, 0.18))


def signature(views: Mapping[int, Tensor], after: Sequence[int], blocks: int, found: Mapping[str, Sequence[Mapping[str, list]]]) -> Figure:
    """The queue as a strip; below it how stale its keys are, for several m."""
    figure = plt.figure(figsize=(12, 7.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.05, 1])
    strip_axes(top.subplots(), views, after, blocks)
    age_axes(*bottom.subplots(1, 2, sharey=True), found)
    return figure


def signature_alt(found: Mapping[str, Sequence[Mapping[str, list]]]) -> str:
    """The figure in words."""
    oldest = {name: np.mean([by_age(log)[-1] for log in logs]) for name, logs in found.items()}
    said = "; ".join(f"{name}: {value:.2f}" for name, value in oldest.items())
    return (
        "Six rows of the queue as blocks of pictures, each with its age: random vectors leave, then the oldest block is overwritten. Below, "
        f"the cosine of stored and fresh keys falls with age; of the oldest keys it is, {said}."
    )


# ---------------------------------------------------------------------------------------------------- averages, the short cut


def followers(path: Tensor, slow: Mapping[str, Tensor]) -> Figure:
    """One weight θ over steps, and its moving averages."""
    figure, axes = plt.subplots(figsize=(10, 3.6))
    axes.plot(path, color=GREY, linewidth=1, label="θ, the trained weight")
    for (name, values), colour in zip(slow.items(), (PURPLE, GREEN, BLUE), strict=True):
        axes.plot(values, color=colour, linestyle="--" if name == "m = 0" else "-", linewidth=2.2, label=f"ξ, {name}")
    axes.set(xlabel="step", ylabel="value of one weight")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def encoded(method: MoCo, x: Tensor, groups: int, order: Tensor | None = None) -> Tensor:
    """z (B, D_z) in train mode with BatchNorm in ``groups``, the rows shuffled by ``order`` and brought back; ``method`` stays as it is."""
    copied = set_batch_norm(copy.deepcopy(method), groups=groups).train()
    with torch.no_grad():
        return copied.projector(copied.backbone(x)) if order is None else encoded(method, x[order], groups)[order.argsort()]


def signatures(q: Tensor, k: Tensor) -> Tensor:
    """What n queries and n keys of one and the same picture have in common besides the picture: cosines (n, n) without their means."""
    return F.normalize(q - q.mean(0), dim=1) @ F.normalize(k - k.mean(0), dim=1).T


def short_cut(parts: Sequence[tuple[Tensor, Tensor]], matrices: Mapping[str, Tensor], labels: Sequence[str]) -> Figure:
    """Above: which part of the batch normalises each row, for queries and keys. Below: the signature matrices of the same arrangements."""
    figure, axes = plt.subplots(2, len(matrices), figsize=(11.5, 5), height_ratios=[1, 3.2])
    limit = max(float(matrix.abs().max()) for matrix in matrices.values())
    for (top, bottom), of_rows, (name, matrix), label in zip(axes.T, parts, matrices.items(), labels, strict=True):
        top.imshow(torch.stack(of_rows), cmap="tab20b", aspect="auto", vmin=0, vmax=19)
        top.axhline(0.5, color="white", linewidth=4)
        top.set(title=name, xticks=[], yticks=[0, 1], yticklabels=["queries", "keys"], xlabel="place in the batch")
        drawn = bottom.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit)
        bottom.set(xticks=[], yticks=[], xlabel=f"key's {label}", ylabel=f"query's {label}")
    figure.colorbar(drawn, ax=axes[1, -1], label="cosine")
    return figure


def outcome(
    losses: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    forecast: Sequence[float],
    chance: float,
    scores: Mapping[str, Mapping[str, float]],
    lines: Mapping[str, Mapping[str, float]],
    *,
    guess: float | None = None,
) -> Figure:
    """Left: losses, and what an untrained network's must be while random keys leave the queue. Right: kNN and probe beside their baselines."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.3), width_ratios=[1.25, 1])
    loss_axes(left, losses, chance=chance)
    left.plot(forecast, color="black", linestyle="--", linewidth=1.8, label="forecast, no training")
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    judges = {"knn": "kNN", "probe": "linear probe"}
    for shift, (name, found) in enumerate(scores.items()):
        right.bar([i + 0.4 * shift - 0.2 for i in range(2)], [found[j] for j in judges], 0.36, color=LOOKS[name][0], label=name)
        for i, judged in enumerate(judges):
            x, colour = i + 0.4 * shift - 0.2, "white" if shift == 0 else "black"
            right.text(x, 0.02, f"{found[judged]:.2f}", ha="center", fontsize=12, color=colour)
    for place, judged in enumerate(judges):
        for name, value in lines[judged].items():
            colour, style = BASELINES[name]
            colour, label = "black" if name == "random weights" else colour, name if place == 0 else None
            right.hlines(value, place - 0.45, place + 0.45, color=colour, linestyle=style, linewidth=2, label=label)
    if guess is not None:
        right.hlines(guess, -0.45, 0.45, color=GREEN, linewidth=2.5, label=f"your guess {guess:.2f}")
    right.set_xticks(range(2), list(judges.values()), fontsize=12)
    right.set(ylim=(0, 0.6), ylabel="accuracy")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, fontsize=10)
    return figure
