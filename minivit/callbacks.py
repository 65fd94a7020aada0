"""What may look on while `fit` trains. A callback overrides any of four moments; none of them may change the training."""
from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from minivit.datasets import ImageData
from minivit.evaluate import extract_features, knn_accuracy, linear_probe
from minivit.runs import save_checkpoint

if TYPE_CHECKING:
    from minivit.engine import Loop


class Callback:
    """``loop`` holds everything: method, optimizer, run, step (0-based, of the step just taken), steps, loss, figures."""

    def on_start(self, loop: Loop) -> None: ...

    def after_backward(self, loop: Loop) -> None:
        """Gradients are there, not yet clipped; weights have not moved yet."""

    def after_step(self, loop: Loop) -> None: ...

    def on_end(self, loop: Loop) -> None: ...


class Progress(Callback):
    """A bar with loss and chance level. ``TQDM_DISABLE=1`` switches it off."""

    def on_start(self, loop: Loop) -> None:
        file = sys.stdout if "ipykernel" in sys.modules else None  # JupyterLab paints stderr red, as if something were wrong
        self.bar = tqdm(total=loop.steps, initial=loop.step, desc=type(loop.method).__name__, unit="step", leave=False, file=file)

    def after_step(self, loop: Loop) -> None:
        self.bar.update()
        if loop.step % 10 == 0:
            self.bar.set_postfix_str(f"loss {loop.loss:.3f}", refresh=False)

    def on_end(self, loop: Loop) -> None:
        self.bar.close()


class DenseKNN(Callback):
    """kNN accuracy of the backbone every ``every`` steps, and after the last; logged as ``knn``. With ``probe`` also the linear probe's,
    as ``probe``."""

    def __init__(self, train: ImageData, test: ImageData, *, every: int, probe: bool = False):
        self.train, self.test, self.every, self.probe = train, test, every, probe

    def after_step(self, loop: Loop) -> None:
        if (loop.step + 1) % self.every == 0 or loop.step + 1 == loop.steps:
            parts = [extract_features(loop.method.backbone, d, transform=loop.method.recipe.eval) for d in (self.train, self.test)]
            loop.run.log(loop.step, knn=knn_accuracy(*parts[0], *parts[1]))
            if self.probe:
                loop.run.log(loop.step, probe=linear_probe(*parts[0], *parts[1]))


class Checkpoints(Callback):
    """Save all that a resumed run needs, every ``every`` steps and at the end; the newest two are kept. `fit` puts it last."""

    def __init__(self, every: int):
        self.every = every

    def after_step(self, loop: Loop) -> None:
        if (loop.step + 1) % self.every == 0 or loop.step + 1 == loop.steps:
            loop.run.flush()
            save_checkpoint(loop.run.folder, loop.step + 1, loop.state_dict())


class Clock(Callback):
    """Images per second, logged every ``every`` steps as ``images_per_second``; evaluation in between counts, too."""

    def __init__(self, every: int = 50):
        self.every = every

    def on_start(self, loop: Loop) -> None:
        self.since, self.steps = time.perf_counter(), 0

    def after_step(self, loop: Loop) -> None:
        self.steps += 1
        if self.steps == self.every:
            now = time.perf_counter()
            loop.run.log(loop.step, images_per_second=round(self.steps * loop.batch_size / (now - self.since), 1))
            self.since, self.steps = now, 0
