"""What an exercise is; chapter 03's are in ex03.py, and so on."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """``reference`` gives the right answer for each of ``cases``; ``mistakes`` are wrong functions with the sentence that names them."""

    cases: tuple[tuple, ...]
    reference: Callable[..., Any]
    mistakes: tuple[tuple[Callable[..., Any], str], ...]
    hints: tuple[str, ...]
