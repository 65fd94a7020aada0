"""kNN during training, and the seconds of training before each look: for comparisons at equal wall time."""

import time

from minivit.callbacks import DenseKNN
from minivit.engine import Loop


class TimedKNN(DenseKNN):
    """``seconds`` has a number for each look: how long `fit` had trained by then, looks not counted."""

    def on_start(self, loop: Loop) -> None:
        self.seconds: list[float] = []
        self.trained, self.since = 0.0, time.perf_counter()

    def after_step(self, loop: Loop) -> None:
        now = time.perf_counter()
        self.trained += now - self.since
        super().after_step(loop)
        if "knn" in loop.run.metrics[-1]:
            self.seconds.append(self.trained)
        self.since = time.perf_counter()
