"""Exercises of chapter 02."""
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from minivit.augment import Operation, View
from minivit.course.exercises import Exercise


class Tag(Operation):
    """Changes nothing, but remembers a code ``(B, 3)`` in [0, 1] for each picture: its three channel sums, modulo 16."""

    def __call__(self, x: Tensor) -> Tensor:
        self.code = (x * 255).round().sum((2, 3)) % 16 / 15
        return x


class Stamp(Operation):
    """Writes the codes that ``tag`` remembered into the images, with the reader's ``stamp(x, code)``."""

    def __init__(self, tag: Tag, stamp: Callable[[Tensor, Tensor], Tensor]):
        self.tag, self.stamp = tag, stamp

    def __call__(self, x: Tensor) -> Tensor:
        return self.stamp(x, self.tag.code)


def stamped(view: View, stamp: Callable[[Tensor, Tensor], Tensor], *after: Operation) -> View:
    """``view`` with the code of each clean picture stamped into it at the end; then the operations ``after``."""
    tag = Tag()
    return View(tag, *view.operations, Stamp(tag, stamp), *after, mean=view.mean, std=view.std)


def _corners(images: Tensor) -> Tensor:
    return images.float()[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean(2)


def _stamped(x: Tensor, code: Tensor, rows: slice = slice(4), columns: slice = slice(4)) -> Tensor:
    x = x.clone()
    x[:, :, rows, columns] = code[:, :, None, None]
    return x


def _paired(a: list[float], b: list[float]) -> tuple[float, float]:
    d = np.subtract(a, b)
    return float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5)


def _unpaired(a: list[float], b: list[float]) -> tuple[float, float]:
    return float(np.mean(a) - np.mean(b)), float(((np.var(a, ddof=1) + np.var(b, ddof=1)) / len(a)) ** 0.5)


_x = (torch.arange(4 * 3 * 5 * 7).view(4, 3, 5, 7) * 37 % 101) / 100
_bytes = (torch.arange(12 * 3 * 5 * 7).view(12, 3, 5, 7) * 83 % 251).to(torch.uint8)
_code = torch.tensor([[0.0, 0.4, 0.8], [1.0, 0.2, 0.6], [0.3, 0.9, 0.1], [0.5, 0.7, 0.0]])

EXERCISES_02 = {
    "02.1": Exercise(
        cases=((_x,),),
        reference=lambda x: x.mean((2, 3)),
        mistakes=(
            (lambda x: x.mean((0, 2, 3)), "that is one colour for the whole batch; keep the axis of the pictures."),
            (lambda x: x.mean(1), "you averaged over the channels, which makes gray pictures; average over height and width."),
            (lambda x: x.mean((1, 2, 3)), "that is one brightness for each picture; keep the three channels apart."),
            (lambda x: x.sum((2, 3)), "that is the sum; pictures of another size would get other numbers. Divide by the number of pixels."),
        ),
        hints=("The answer has the shape (B, 3).", "`x.mean` takes a tuple of axes; the axes are 0 pictures, 1 channels, 2 rows, 3 columns."),
    ),
    "02.2": Exercise(
        cases=((_bytes,),),
        reference=lambda x: (_corners(x).amax(1) / 32).long(),
        mistakes=(
            (lambda x: _corners(x).amax(1), "that is the brightness itself; group it into eight steps of 32."),
            (lambda x: (_corners(x).mean(1) / 32).long(), "you averaged the channels; take the strongest one."),
            (lambda x: (x.float().mean((2, 3)).amax(1) / 32).long(), "you averaged over the whole picture, shape included; take the four corners."),
            (lambda x: (x.float()[:, :, 0, 0].amax(1) / 32).long(), "that is one corner; average all four, as a shape may cover one of them."),
            (lambda x: (_corners(x).amax(1) / 32).round(), "you rounded to the nearest step; round down, so that 0 to 31 is step 0."),
            (lambda x: _corners(x).argmax(1), "that says which channel is strongest; say how strong it is."),
        ),
        hints=(
            "The pixels are uint8: turn them into floats before you average.",
            "`images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]` are the four corners, with the shape (N, 3, 4).",
        ),
    ),
    "02.3": Exercise(
        cases=((_x, _code),),
        reference=_stamped,
        mistakes=(
            (lambda x, code: _stamped(x, code, slice(-4, None), slice(-4, None)), "that is the corner bottom right; stamp the one top left."),
            (lambda x, code: _stamped(x, code, slice(4), slice(None)), "you stamped the first four rows from left to right; stamp 4×4 pixels."),
            (lambda x, code: _stamped(x, code, slice(1), slice(1)), "that is one pixel; stamp 4×4 of them."),
            (lambda x, code: _stamped(x, code[:1].expand(len(x), -1)), "every picture got the code of the first one; then it tells nothing."),
            (lambda x, code: code, "return the pictures, with the code in their corner."),
        ),
        hints=("Work on a copy: `x = x.clone()`.", "`x[:, :, :4, :4]` has the shape (B, 3, 4, 4), and `code[:, :, None, None]` fits it."),
    ),
    "02.4": Exercise(
        cases=(([0.41, 0.48, 0.43], [0.30, 0.31, 0.35]), ([0.2, 0.25, 0.21, 0.28], [0.22, 0.24, 0.26, 0.21])),
        reference=_paired,
        mistakes=(
            (lambda a, b: (_paired(a, b)[0], _paired(a, b)[1] * len(a) ** 0.5), "that is the deviation of one run; divide it by √n."),
            (lambda a, b: (_paired(a, b)[0], float(np.std(np.subtract(a, b)) / len(a) ** 0.5)), "you divided by n in the deviation; use n − 1."),
            (_unpaired, "you compared two groups; the runs come in pairs with the same seed, so take the differences first."),
            (lambda a, b: (-_paired(a, b)[0], _paired(a, b)[1]), "the sign is turned round: first minus second."),
        ),
        hints=("First the differences seed by seed, then their mean.", "Standard error: their standard deviation (n − 1), divided by √n."),
    ),
}  # fmt: skip
