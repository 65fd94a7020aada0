"""Exercises of chapter 05: a ring that does not divide, who shares statistics, v1 to v2 as four edits, the age of a key."""
import math

import torch
from torch import Tensor

from minivit.course.exercises import Exercise
from minivit.presets import Preset, preset


def _rows(oldest: int, batch: int, size: int) -> Tensor:
    return (torch.arange(batch) + oldest) % size


def _shared(order: Tensor, groups: int) -> float:
    """Share of images whose query and key are normalised in the same part; place i of the key batch holds image order[i]."""
    part = torch.arange(len(order)) * groups // len(order)
    return (part == part[order.argsort()]).double().mean().item()


def _interleaved(order: Tensor, groups: int) -> float:
    part = torch.arange(len(order)) % groups
    return (part == part[order.argsort()]).double().mean().item()


def measured(made: Preset) -> tuple[float, ...]:
    """What tells MoCo v1 from v2, as numbers: linear layers of the head, τ, operations of a view, odds of the jitter, and the rest of it."""
    view = made.recipe().views[0]
    jitter = next(operation for operation in view.operations if type(operation).__name__ == "ColorJitter")
    head = {"moco_v1": 1, "moco_v2": 2}.get(made.head, 0)
    rest = made.batch_size, made.lr, made.weight_decay, made.method_args.get("momentum", 0.999), made.method_args.get("queue_size", 65536)
    return head, made.method_args.get("temperature", 0.2), len(view.operations), jitter.p, *rest


def _edited(*left_out: str) -> tuple[float, ...]:
    edits = {"head": "moco_v2", "view": "moco_v2", "method_args": {"temperature": 0.2}}
    return measured(preset("moco_v1/imagenet_resnet50", **{name: value for name, value in edits.items() if name not in left_out}))


def _steps(epoch: int, epochs: int, peak: float) -> float:
    return peak * 0.1 ** sum(epoch >= share * epochs for share in (0.6, 0.8))


def _cosine(epoch: float, epochs: int, peak: float) -> float:
    return peak * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _oldest(size: int, batch: int, momentum: float) -> tuple[float, float]:
    return size / batch, 1 - momentum ** (size / batch)


_ORDERS = tuple(torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for seed, n in enumerate((24, 24, 64)))

EXERCISES_05 = {
    "05.1": Exercise(
        cases=((0, 4, 10), (8, 4, 10), (7, 3, 10), (9, 7, 10)),
        reference=_rows,
        mistakes=(
            (lambda oldest, batch, size: torch.arange(batch) + oldest, "some of your rows lie beyond the end: after row K − 1 comes row 0."),
            (lambda oldest, batch, size: (torch.arange(batch) + oldest).clamp(max=size - 1), "the last row is written over and over: go on at 0."),
            (lambda oldest, batch, size: (torch.arange(batch) + oldest) % (size - 1), "there are K rows, so go on after K of them, not K − 1."),
            (lambda oldest, batch, size: torch.arange(batch) + (oldest if oldest + batch <= size else 0), "you start over at 0; the oldest stay."),
        ),
        hints=("Write down the rows for K = 10, B = 4 and the oldest key in row 8: 8, 9, and then?", "The remainder of a division by K."),
    ),
    "05.2": Exercise(
        cases=((torch.arange(24), 4), (_ORDERS[0], 4), (_ORDERS[1], 8), (_ORDERS[2], 8)),
        reference=_shared,
        mistakes=(
            (_interleaved, "that is for parts of every g-th image; here part 0 is the first B/g places, part 1 the next, and so on."),
            (lambda order, groups: 1 / groups, "that is what to expect on average; count it for this order."),
            (lambda order, groups: 1 - _shared(order, groups), "you counted those in different parts."),
            (lambda order, groups: _shared(order, groups) * len(order), "that is their number; give the share."),
        ),
        hints=(
            "Which part does place i belong to? `i * groups // B`, rounded down.",
            "Image n is a query at place n and a key at place `order.argsort()[n]`; or go by places: the key at place i is image `order[i]`.",
        ),
    ),
    "05.3a": Exercise(
        cases=((),),
        reference=_edited,
        mistakes=(
            (lambda: _edited("head"), "the head is still v1's single linear layer."),
            (lambda: _edited("view"), "the views are still v1's: no blur, and the jitter always on."),
            (lambda: _edited("method_args"), "τ is still 0.07."),
            (lambda: _edited("head", "view", "method_args"), "that is v1 itself."),
            (lambda: measured(preset("moco_v2/cifar10")), "that is the CIFAR-10 demo; start from moco_v1/imagenet_resnet50 and change three fields."),
        ),
        hints=("Three of the four edits are fields: head, view, method_args.", 'preset("moco_v1/imagenet_resnet50", head="moco_v2", …)'),
    ),
    "05.3b": Exercise(
        cases=((0, 200, 0.03), (100, 200, 0.03), (120, 200, 0.03), (199, 200, 0.3), (80, 100, 1.0)),
        reference=lambda *a: (_steps(*a), _cosine(*a)),
        mistakes=(
            (lambda *a: (_cosine(*a), _steps(*a)), "the two are exchanged: v1 goes in steps, v2 along a cosine."),
            (lambda *a: (_steps(*a), 2 * _cosine(*a)), "the cosine starts at the peak: half of 1 + cos."),
            (lambda *a: (_steps(*a), a[2] * math.cos(math.pi * a[0] / a[1] / 2)), "that is a quarter of a period; take a half."),
            (lambda e, n, p: (p * 0.1 ** sum(e > s * n for s in (0.6, 0.8)), _cosine(e, n, p)), "the first drop comes at epoch 120, not after."),
            (
                lambda e, n, p: (p * 0.1 ** sum(e >= s for s in (120, 160)), _cosine(e, n, p)),
                "the drops come at 60 and 80 % of the training, not always at 120 and 160.",
            ),
        ),
        hints=("v1: × 0.1 from 60 % of the epochs on, and once more from 80 %.", "v2: peak · (1 + cos(π · epoch / epochs)) / 2."),
    ),
    "05.4": Exercise(
        cases=((65536, 256, 0.999), (1024, 128, 0.99), (1024, 128, 0.0), (4096, 512, 0.9)),
        reference=_oldest,
        mistakes=(
            (lambda size, batch, m: (size / batch, m ** (size / batch)), "that is what is left of the old weights; how much has been replaced?"),
            (lambda size, batch, m: (size / batch, (1 - m) * size / batch), "shares do not add up so: each step takes 1 − m of what is left."),
            (lambda size, batch, m: (size, 1 - m**size), "B keys are replaced in each step."),
            (lambda size, batch, m: (size / batch - 1, 1 - m ** (size / batch - 1)), "count the step in which the key was made, too."),
        ),
        hints=("In how many steps is the whole queue overwritten?", "After one average m of the old weights is left, after two m²."),
    ),
}  # fmt: skip
