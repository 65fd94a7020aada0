"""Exercises that answer: not attempted, pass, or the named mistake with hints of growing strength."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Exercise:
    """``reference`` gives the right answer for each of ``cases``; ``mistakes`` are wrong functions with the sentence that names them."""

    cases: tuple[tuple, ...]
    reference: Callable[..., Any]
    mistakes: tuple[tuple[Callable[..., Any], str], ...]
    hints: tuple[str, ...]


def _sample_std(values):
    return float(np.mean(values)), float(np.std(values, ddof=1))


EXERCISES = {
    "00.1": Exercise(
        cases=(([{"step": 0, "loss": 5.0}, {"step": 9, "knn": 0.31}, {"step": 19, "knn": 0.58}, {"step": 29, "knn": 0.55}],),),
        reference=lambda metrics: [line["knn"] for line in metrics if "knn" in line][-1],
        mistakes=(
            (lambda metrics: max(line.get("knn", 0) for line in metrics), "you took the best step, chosen on the test set; take the last."),
            (lambda metrics: [line["knn"] for line in metrics if "knn" in line][0], "you took the first measurement, not the last."),
        ),
        hints=("Not every line of the log has a kNN figure.", "Collect the lines that have one, and take the last."),
    ),
    "00.2": Exercise(
        cases=(([0.52, 0.58, 0.55],), ([0.6, 0.5, 0.7, 0.55, 0.65],)),
        reference=_sample_std,
        mistakes=(
            (lambda v: (float(np.mean(v)), float(np.std(v))), "you divided by n; the spread of a few seeds is estimated with n − 1."),
            (lambda v: (float(np.mean(v)), float(np.var(v, ddof=1))), "that is the variance; take its square root."),
            (lambda v: (float(np.median(v)), float(np.std(v, ddof=1))), "that is the median; the course reports means."),
        ),
        hints=("Return two numbers: mean, standard deviation.", "Look up the argument ddof of numpy.std."),
    ),
}  # fmt: skip

_attempts: dict[str, int] = {}


def check(name: str, fn: Callable[..., Any]) -> None:
    """Print *not attempted*, *pass*, or what is wrong with ``fn``; each further failure adds a hint."""
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(EXERCISES)}.")
    exercise = EXERCISES[name]
    try:
        answers = [fn(*case) for case in exercise.cases]
    except Exception as error:
        answers = [error]
    if all(answer is None or answer is ... for answer in answers):
        print(f"{name}: not attempted")
        return
    if isinstance(answers[0], Exception):
        print(f"{name}: your function stopped with {type(answers[0]).__name__}: {answers[0]}")
    elif _same(answers, [exercise.reference(*case) for case in exercise.cases]):
        print(f"{name}: pass")
        return
    else:
        named = (text for wrong, text in exercise.mistakes if _same(answers, [wrong(*case) for case in exercise.cases]))
        print(f"{name}: not yet: {next(named, f'got {answers[0]} for {exercise.cases[0]}.')}")
    _attempts[name] = _attempts.get(name, 0) + 1
    for hint in exercise.hints[: _attempts[name]]:
        print(f"  hint: {hint}")


def _same(a: list, b: list) -> bool:
    try:
        return all(np.allclose(np.asarray(x, dtype=float), np.asarray(y, dtype=float), atol=1e-9) for x, y in zip(a, b, strict=True))
    except (TypeError, ValueError):
        return False
