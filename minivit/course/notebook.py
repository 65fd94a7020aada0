"""Helpers of every chapter: set-up, the library's own source, bands, guesses, figures with alt text."""
import inspect
import math
import os
import re

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from minivit.course.plots.style import use_style

_guesses: dict[str, float] = {}


def setup(chapter: str) -> None:
    """Make a chapter repeatable: one thread at pocket scale (the same bits on any number of cores), one style for all figures."""
    scale = os.environ.get("MINIVIT_SCALE", "pocket")
    if scale == "pocket":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    use_style()
    _guesses.clear()
    where = "one CPU thread" if scale == "pocket" else ("GPU" if torch.cuda.is_available() else "CPU, all threads")
    print(f"Chapter {chapter}, {scale} scale, {where}.")


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its description for readers who cannot see it, then close it."""
    from IPython.display import display

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def show_source(thing: object, *, docstring: bool = False) -> None:
    """Print the library's own source of a function, class or method; without its docstring unless asked."""
    source = inspect.cleandoc("\n" + inspect.getsource(thing))
    if not docstring:
        source = re.sub(r'\n\s*"""(?:.|\n)*?"""\n', "\n", source, count=1)
    print(source)


def band(name: str, value: float, low: float, high: float) -> None:
    """Print whether a number of the live run lies where it should: the same line on every machine, unless something is wrong."""
    inside = math.isfinite(value) and low <= value <= high
    print(f"{name} lies between {low:g} and {high:g}: {'yes' if inside else 'no'}")


def predict(name: str, guess: float | None) -> None:
    """Write your guess down before you look. It is drawn into the figure that answers it; None draws nothing."""
    _guesses.pop(name, None)
    if guess is None:
        print(f"No guess for {name!r} yet: replace None by a number and run this cell again.")
        return
    _guesses[name] = float(guess)
    print(f"Your guess for {name!r}: {guess}")


def guess(name: str) -> float | None:
    """The reader's guess, or None."""
    return _guesses.get(name)
