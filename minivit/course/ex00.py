"""Exercises of chapter 00: reading a log, and the spread of a few seeds."""
import numpy as np

from minivit.course.exercises import Exercise


def _sample_std(values):
    return float(np.mean(values)), float(np.std(values, ddof=1))


EXERCISES_00 = {
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
        cases=(([0.52, 0.58, 0.55],), ([0.6, 0.5, 0.7, 0.54, 0.65],)),
        reference=_sample_std,
        mistakes=(
            (lambda v: (float(np.mean(v)), float(np.std(v))), "you divided by n; the spread of a few seeds is estimated with n − 1."),
            (lambda v: (float(np.mean(v)), float(np.var(v, ddof=1))), "that is the variance; take its square root."),
            (lambda v: (float(np.median(v)), float(np.std(v, ddof=1))), "that is the median; the course reports means."),
        ),
        hints=("Return two numbers: mean, standard deviation.", "Look up the argument ddof of numpy.std."),
    ),
}  # fmt: skip
