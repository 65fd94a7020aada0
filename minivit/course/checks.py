"""Exercises that answer: not attempted, pass, or the named mistake with hints of growing strength."""
from collections.abc import Callable
from typing import Any

import numpy as np

from minivit.course.ex00 import EXERCISES_00
from minivit.course.ex01 import EXERCISES_01
from minivit.course.ex02 import EXERCISES_02
from minivit.course.ex03 import EXERCISES_03
from minivit.course.ex05 import EXERCISES_05
from minivit.course.ex07 import EXERCISES_07
from minivit.course.ex08 import EXERCISES_08
from minivit.course.ex09 import EXERCISES_09
from minivit.course.ex10 import EXERCISES_10

EXERCISES = (
    EXERCISES_00 | EXERCISES_01 | EXERCISES_02 | EXERCISES_03 | EXERCISES_05 | EXERCISES_07 | EXERCISES_08 | EXERCISES_09 | EXERCISES_10
)
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
