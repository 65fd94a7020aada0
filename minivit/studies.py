"""Grids of runs and random searches: described in a file, resumable, one line in one log for each run."""
import json
import math
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partialmethod
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from minivit.augment import generator_of
from minivit.callbacks import Callback, DenseKNN
from minivit.monitor import GradientMonitor, stability_report
from minivit.presets import Preset, preset, train_and_judge
from minivit.runs import Run, environment, write_atomic

Numbers = Sequence[float] | np.ndarray
WATCH = {"gradients": False, "knn_every": 0, "probe": False, "keep": ()}  # what a plan's ``watch`` may ask for


def read_study(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A study's plan, ``study.toml``, and its runs so far, ``runs.jsonl``."""
    folder = Path(folder)
    if not (folder / "study.toml").is_file():
        raise FileNotFoundError(f"{folder} is not a study: it has no study.toml.")
    plan = tomllib.loads((folder / "study.toml").read_text())
    log = folder / "runs.jsonl"
    return plan, [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def sweep(folder: str | Path, *, workers: int = 2, threads: int = 1) -> list[dict[str, Any]]:
    """Run what ``study.toml`` asks for and ``runs.jsonl`` does not have yet; returns all runs.

    The plan names ``seeds`` and a table of ``cells``, each a preset and its overrides; a cell with a ``search`` table is a random
    search, one draw for each seed (see `draw`). Workers are processes of ``threads`` threads each; with one, a run gives the same
    bits whatever runs beside it. A run whose loss is not finite is recorded as ``diverged``, a result like others. A run that
    fails otherwise is recorded with its error and tried again next time; the others go on.
    ``watch`` in the plan says what to look at in every run (`watched`).
    """
    if min(workers, threads) < 1:
        raise ValueError(f"a study needs a worker and a thread, not {workers} and {threads}.")
    folder = Path(folder)
    plan, runs = read_study(folder)
    watch = {**WATCH, **plan.get("watch", {})}
    for unknown in set(watch) - set(WATCH):
        raise ValueError(f"{folder / 'study.toml'}: watch has no {unknown!r}; it has {', '.join(WATCH)}.")
    done = {(run["cell"], run["seed"]) for run in runs if "error" not in run}
    todo = [(cell, seed) for seed in plan["seeds"] for cell in plan["cells"] if (cell, seed) not in done]
    for settings in plan["cells"].values():
        draw(settings.get("search", {}), seed=0)  # an interval that is none stops the study before its first run
    began = time.perf_counter()
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet, initargs=(threads,)) as pool,
        open(folder / "runs.jsonl", "a") as log,
    ):
        jobs = [pool.submit(_trial, cell, plan["cells"][cell], seed, watch) for cell, seed in todo]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=folder.name, unit="run"):
            runs.append(job.result())
            log.write(json.dumps(runs[-1]) + "\n")
            log.flush()
    if todo:
        card = {**environment(), "threads_per_run": threads, "workers": workers, "wall_seconds": round(time.perf_counter() - began)}
        write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return runs


def draw(search: Mapping[str, Sequence[float]], seed: int) -> dict[str, float]:
    """One point of a random search, ``{setting: (low, high)}``: each setting log-uniform in its interval, to four digits.

    A function of the seed and the setting's name: one seed takes the same place in whatever interval a cell has, so that
    cells can be compared draw by draw. Raises ValueError unless 0 < low ≤ high.
    Source: Xiao et al. 2021, §5.3, whose intervals reach from 1/8 to 4 times a good value.
    """
    drawn = {}
    for name, interval in search.items():
        if len(interval) != 2 or not 0 < interval[0] <= interval[1] < math.inf:
            raise ValueError(f"search: {name} = {list(interval)} is no interval [low, high] with 0 < low ≤ high.")
        low, high = interval
        place = torch.rand((), generator=generator_of("search", name, seed), dtype=torch.float64).item()
        drawn[name] = float(f"{low * (high / low) ** place:.4g}")
    return drawn


def values(runs: list[dict[str, Any]], cell: str, figure: str) -> list[float]:
    """One figure of one cell over its seeds, in the order of the seeds; NaN where the run diverged or has none to tell (null).

    "accuracy" is a final figure, "last_10.accuracy" one of the last training steps, "monitor.ratio_stem" one of the `stability_report`;
    "near_best.accuracy" is `near_best` of the final ones.
    """
    block, _, name = figure.rpartition(".")
    if block == "near_best":
        return near_best(values(runs, cell, name)).tolist()
    good = [run for run in runs if run["cell"] == cell and "error" not in run]
    found = [None if "diverged" in run else run[block or "final"][name] for run in sorted(good, key=lambda run: run["seed"])]
    return [math.nan if value is None else value for value in found]


def behind_best(scores: Numbers) -> np.ndarray:
    """How far each run of a model is behind its best run, ``max(scores) − score``; NaN for a diverged one."""
    return np.fmax.reduce(scores, initial=-np.inf) - np.asarray(scores)


def near_best(scores: Numbers, span: float = 0.1) -> np.ndarray:
    """1 for the best run, falling to 0 for runs that are ``span`` or more behind it, and 0 for diverged ones.

    The mean is the area under ``edf(behind_best(scores), at)`` from 0 to ``span``, divided by ``span``: one number for "easy to tune".
    """
    return 1 - np.nan_to_num(behind_best(scores), nan=span).clip(max=span) / span


def edf(errors: Numbers, at: Numbers) -> np.ndarray:
    """Empirical distribution function: the share of all runs whose error is at most each level of ``at``, ``F(e) = |{i : eᵢ ≤ e}| / n``.

    ``errors`` ``(n,)`` in the unit of ``at``; a diverged run is NaN, which is below no level and still one of n. Errors of
    several models are compared as distances to each one's own best (`behind_best`). Raises ValueError where there are no runs.
    Source: Xiao et al. 2021, §5.3, and the ≤ of their code; the formula is usually given with <, which differs only at the eᵢ.
    """
    if len(errors) == 0:
        raise ValueError("edf of no errors: it needs at least one run.")
    return (np.asarray(errors, dtype=float)[:, None] <= np.asarray(at)).mean(axis=0)


def edf_band(
    errors: Numbers, at: Numbers, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the bootstrap band of `edf`: at each level, ``level`` of the curves of runs drawn again, with replacement."""
    generator = np.random.default_rng(seed)
    curves = [edf(generator.choice(errors, len(errors)), at) for _ in range(draws)]
    low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def watchers(chosen: Preset, watch: dict[str, Any]) -> list[Callback]:
    """What looks on while a run of the study trains: ``gradients = true`` a `GradientMonitor`, ``knn_every = 20`` a `DenseKNN`, with
    ``probe = true`` one that probes as well."""
    looking: list[Callback] = [GradientMonitor()] if watch["gradients"] else []
    return looking + ([DenseKNN(*chosen.load(), every=watch["knn_every"], probe=watch["probe"])] if watch["knn_every"] else [])


def watched(run: Run, chosen: Preset, watch: dict[str, Any]) -> dict[str, Any]:
    """What they saw: the `stability_report` as ``monitor``; as ``series`` every value of the figures that ``keep`` names: "grad/stem", "knn", …"""
    kept = {name: [float(f"{value:.4g}") for value in run.history(name)[1]] for name in watch["keep"]}
    seen: dict[str, Any] = {"series": kept} if kept else {}
    return seen | ({"monitor": stability_report(run, warmup=chosen.warmup)} if watch["gradients"] else {})


def last_figures(run: Run, count: int = 10) -> dict[str, float]:
    """The mean of every logged training figure over the last steps: contrastive accuracy, spread, … Not those of single layers."""
    names = [name for name in run.metrics[0] if name not in ("step", "knn", "probe") and "/" not in name]
    return {name: round(mean(run.history(name)[1][-count:]), 4) for name in names}


def _quiet(threads: int) -> None:
    torch.set_num_threads(threads)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # the sweep's own bar is enough


def _trial(cell: str, settings: dict[str, Any], seed: int, watch: dict[str, Any]) -> dict[str, Any]:
    settings = dict(settings)
    drawn = draw(settings.pop("search", {}), seed)
    began = time.perf_counter()
    try:
        chosen = preset(settings.pop("preset"), **{**settings, **drawn})
        _, run = train_and_judge(chosen, seed=seed, callbacks=watchers(chosen, watch))
        steps, losses = run.history("loss")
        curve = [round(loss, 4) for step, loss in zip(steps, losses, strict=True) if step % 10 == 0 or step == steps[-1]]
        outcome = {"final": run.card["final"], "last_10": last_figures(run), "loss_every_10": curve, "data": run.config["data"]}
        outcome |= watched(run, chosen, watch)
    except FloatingPointError as error:
        outcome = {"diverged": str(error)}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return {"cell": cell, "seed": seed, **({"drawn": drawn} if drawn else {}), **outcome, "seconds": round(time.perf_counter() - began, 1)}
