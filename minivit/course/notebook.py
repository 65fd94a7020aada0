"""Helpers of every chapter: set-up, the library's own source, bands, guesses, figures with alt text."""
import inspect
import io
import math
import re
import time
from pathlib import Path

import matplotlib.pyplot as plt
import PIL.Image
import torch
from matplotlib.figure import Figure

from minivit.course.plots.style import use_style
from minivit.datasets import ImageData
from minivit.presets import Preset, scale

_guesses: dict[str, float] = {}


def setup(chapter: str) -> None:
    """Make a chapter repeatable: one thread at pocket scale (the same bits on any number of cores), one style for all figures."""
    if scale() == "pocket":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    use_style()
    _guesses.clear()
    where = "one CPU thread" if scale() == "pocket" else ("GPU" if torch.cuda.is_available() else "CPU, all threads")
    print(f"Chapter {chapter}, {scale()} scale, {where}.")


def announce(experiment: Preset, train: ImageData, chapter: str) -> Path | None:
    """Say how long the live run takes, and return the folder to record it in.

    At pocket scale: about a minute, no folder. At full scale a few steps are timed first; the run is recorded and can be
    stopped and taken up again.
    """
    if scale() == "pocket":
        print("About a minute on one CPU thread.")
        return None
    began = time.perf_counter()
    experiment.fit(train, stop_after=5)
    hours = (time.perf_counter() - began) / 5 * experiment.total_steps(train) / 3600
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of GPU memory" if torch.cuda.is_available() else ""
    folder = Path("runs") / f"chapter_{chapter}_{experiment.method}"
    print(f"{experiment.total_steps(train)} steps of {experiment.batch_size} images: about {hours:.1f} hours on this machine{memory}.")
    print(f"Recorded in {folder}; stop it when you like and run the cell again to go on.")
    return folder


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its description for readers who cannot see it, then close it."""
    from IPython.display import Image, display

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=80)
    picture = PIL.Image.open(buffer).convert("RGB")
    picture.quantize(128).save(small, "png", optimize=True)  # a quarter of the bytes: notebooks stay under 500 KB
    display(Image(small.getvalue(), width=picture.width), metadata={"image/png": {"alt": alt, "width": picture.width}})
    plt.close(figure)


def show_source(thing: object, *, docstring: bool = False) -> None:
    """Print the library's own source of a function, class or method; without its docstring unless asked."""
    source = inspect.cleandoc("\n" + inspect.getsource(thing))
    if not docstring:
        source = re.sub(r'\n\s*"""(?:.|\n)*?"""\n', "\n", source, count=1)
    print(source)


def band(name: str, value: float, low: float, high: float) -> None:
    """Print whether a number of the live run lies where it should: the same line on every machine, unless something is wrong."""
    if scale() == "full":  # bands were measured at pocket scale
        print(f"{name}: {value:.3f}")
        return
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
