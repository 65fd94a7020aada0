"""Grids of runs and random searches: described in a file, resumable, one line in one log for each run."""
import json
import math
import os
import signal
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod
from multiprocessing import get_context, parent_process
from pathlib import Path
from statistics import mean
from threading import Thread
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from minivit.augment import generator_of
from minivit.callbacks import Callback, DenseKNN
from minivit.monitor import GradientMonitor, stability_report
from minivit.presets import Preset, changed_by_environment, preset, train_and_judge
from minivit.runs import Run, environment, write_atomic

Numbers = Sequence[float] | np.ndarray
WATCH = {"gradients": False, "knn_every": 0, "probe": False, "keep": ()}  # what a plan's ``watch`` may ask for


def read_study(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A study's plan, ``study.toml``, and its runs so far, ``runs.jsonl``; a last line that was cut off while it was written is left out.

    Raises FileNotFoundError where there is no plan, ValueError, naming file and line, where plan or log cannot be read.
    """
    folder = Path(folder)
    if not (folder / "study.toml").is_file():
        raise FileNotFoundError(f"{folder} is not a study: it has no study.toml.")
    try:
        plan = tomllib.loads((folder / "study.toml").read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{folder / 'study.toml'}: {error}") from None
    log, runs = folder / "runs.jsonl", []
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) or line.endswith("\n"):
                raise ValueError(f"{log}, line {number}, is no run: {error}") from None
    return plan, runs


def chosen(settings: Mapping[str, Any], seed: int) -> tuple[Preset, dict[str, float]]:
    """What a cell of a plan trains with this seed, and what of it was drawn; ValueError or TypeError for settings that cannot work."""
    settings = dict(settings)
    if "preset" not in settings:
        raise ValueError("a cell needs a preset.")
    search = settings.pop("search", {})
    if not (isinstance(search, dict) and all(isinstance(interval, list) for interval in search.values())):
        raise ValueError(f"search = {search!r}: a table of intervals is wanted, {{ lr = [1e-4, 1e-2] }}.")
    drawn = draw(search, seed)
    return preset(settings.pop("preset"), **{**settings, **drawn}), drawn


def checked_study(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """`read_study` and the plan's ``watch``, whole; ValueError, naming file and cell, for a plan that cannot work, or one that would not
    draw what the log has."""
    plan, runs = read_study(folder)
    where, seeds, cells = Path(folder) / "study.toml", plan.get("seeds"), plan.get("cells")
    if changed := changed_by_environment():
        raise ValueError(f"{' and '.join(changed)} would change what the cells of {where} mean: a study's plan says all. Unset that.")
    if not (isinstance(seeds, list) and isinstance(cells, dict) and seeds and cells and len(set(seeds)) == len(seeds)):
        raise ValueError(f"{where}: a study needs a list of different numbers, seeds = [0, 1, 2], and tables of settings, [cells.NAME].")
    watch = {**WATCH, **plan.get("watch", {})}
    for unknown in set(watch) - set(WATCH):
        raise ValueError(f"{where}: watch has no {unknown!r}; it has {', '.join(WATCH)}.")
    if watch["probe"] and not watch["knn_every"]:
        raise ValueError(f"{where}: watch.probe looks when watch.knn_every says, and that is not given.")
    for cell, settings in cells.items():
        try:
            chosen(settings, seeds[0])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}, cell {cell!r}: {error}") from None
    for run in runs:
        if run["cell"] in cells and run.get("drawn", {}) != draw(cells[run["cell"]].get("search", {}), run["seed"]):
            raise ValueError(f"{where}: cell {run['cell']!r} now draws other values than its recorded runs have; another search is another study.")
    return plan, runs, watch


def failures(runs: Sequence[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Cells and seeds that were tried and have no result yet; a diverged run is a result."""
    tried, done = ({(run["cell"], run["seed"]) for run in runs if ("error" in run) == failed} for failed in (True, False))
    return tried - done


def sweep(folder: str | Path, *, workers: int = 2, threads: int = 1) -> list[dict[str, Any]]:
    """Run what ``study.toml`` asks for and ``runs.jsonl`` does not have yet; returns all runs.

    The plan names ``seeds`` and a table of ``cells``, each a preset and its overrides; a cell with a ``search`` table is a random
    search, one draw for each seed (see `draw`). Workers are processes of ``threads`` threads each; with one, a run gives the same
    bits whatever runs beside it. A run whose loss is not finite is recorded as ``diverged``, a result like others. A run that
    fails otherwise is recorded with its error and tried again next time; the others go on.
    ``watch`` in the plan says what to look at in every run (`watched`).

    Raises ValueError, before the first run, for a plan that cannot work, and where MINIVIT_SCALE, _DATA or _LIMIT would change it;
    OSError when a worker was killed. What had been recorded stays.
    """
    if min(workers, threads) < 1:
        raise ValueError(f"a study needs a worker and a thread, not {workers} and {threads}.")
    folder = Path(folder)
    plan, runs, watch = checked_study(folder)
    log_file = folder / "runs.jsonl"
    if log_file.is_file() and not log_file.read_text().endswith("\n"):  # the last line was cut off, or lacks its end
        write_atomic(log_file, "".join(json.dumps(run) + "\n" for run in runs).encode())
    done = {(run["cell"], run["seed"]) for run in runs if "error" not in run}
    todo = [(cell, seed) for seed in plan["seeds"] for cell in plan["cells"] if (cell, seed) not in done]
    began, where = time.perf_counter(), environment()  # now, as the log's new lines would make the commit "dirty"
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_worker, initargs=(threads,)) as pool,
        open(log_file, "a") as log,
    ):
        jobs = [pool.submit(_trial, cell, plan["cells"][cell], seed, watch) for cell, seed in todo]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc=folder.name, unit="run"):
                runs.append(job.result())
                log.write(json.dumps(runs[-1]) + "\n")
                log.flush()
        except BrokenProcessPool:
            raise OSError(f"a worker of {folder} was killed, perhaps for want of memory; start again, with fewer workers.") from None
        finally:  # after Ctrl-C, or when there is no space left: what has not begun does not begin
            pool.shutdown(wait=False, cancel_futures=True)
    if todo:
        card = {**where, "threads_per_run": threads, "workers": workers, "wall_seconds": round(time.perf_counter() - began)}
        write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return runs


def draw(search: Mapping[str, Sequence[float]], seed: int) -> dict[str, float]:
    """One point of a random search, ``{setting: (low, high)}``: each setting log-uniform in its interval, then rounded to four digits.

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
    """One figure of one cell over its seeds, in the order of the seeds; NaN where the run diverged or has none to tell (null). Runs that failed
    otherwise are left out.

    "accuracy" is a final figure, "last_10.accuracy" one of the last training steps, "monitor.ratio_stem" one of the `stability_report`;
    "near_best.accuracy" is `near_best` of the final ones. Raises ValueError for a figure that a run was not asked for.
    """
    block, _, name = figure.rpartition(".")
    if block == "near_best":
        return near_best(values(runs, cell, name)).tolist()
    good = [run for run in runs if run["cell"] == cell and "error" not in run]
    found = []
    for run in sorted(good, key=lambda run: run["seed"]):
        figures = {name: None} if "diverged" in run else run.get(block or "final", {})
        if name not in figures:
            raise ValueError(f"cell {cell!r} has no figure {figure!r}; of {block or 'final'!r} it has {', '.join(figures) or 'nothing'}.")
        found.append(figures[name])
    return [math.nan if value is None else value for value in found]


def behind_best(scores: Numbers) -> np.ndarray:
    """How far each run of a model is behind its best run, ``max(scores) − score``, to twelve digits; NaN for a diverged one.

    Rounded, because 0.61 − 0.6 is a little more than 0.01 in a computer, and a run that is exactly so far behind would not count.
    """
    return np.round(np.fmax.reduce(scores, initial=-np.inf) - np.asarray(scores), 12)


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


def watchers(experiment: Preset, watch: dict[str, Any]) -> list[Callback]:
    """What looks on while a run of the study trains: ``gradients = true`` a `GradientMonitor`, ``knn_every = 20`` a `DenseKNN`, with
    ``probe = true`` one that probes as well."""
    looking: list[Callback] = [GradientMonitor()] if watch["gradients"] else []
    return looking + ([DenseKNN(*experiment.load(), every=watch["knn_every"], probe=watch["probe"])] if watch["knn_every"] else [])


def watched(run: Run, experiment: Preset, watch: dict[str, Any]) -> dict[str, Any]:
    """What they saw: the `stability_report` as ``monitor``; as ``series`` every value of the figures that ``keep`` names: "grad/stem", "knn", …"""
    kept = {name: [float(f"{value:.4g}") for value in run.history(name)[1]] for name in watch["keep"]}
    seen: dict[str, Any] = {"series": kept} if kept else {}
    return seen | ({"monitor": stability_report(run, warmup=experiment.warmup)} if watch["gradients"] else {})


def last_figures(run: Run, count: int = 10) -> dict[str, float]:
    """The mean of every logged training figure over the last steps: contrastive accuracy, spread, … Not those of single layers."""
    names = [name for name in run.metrics[0] if name not in ("step", "knn", "probe") and "/" not in name]
    return {name: round(mean(run.history(name)[1][-count:]), 4) for name in names}


def _worker(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # the sweep's own bar is enough
    Thread(target=_end_with_the_study, daemon=True).start()


def _end_with_the_study() -> None:
    parent_process().join()  # a study that is killed cannot stop its workers
    os._exit(1)


def _trial(cell: str, settings: dict[str, Any], seed: int, watch: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    experiment, drawn = chosen(settings, seed)
    try:
        _, run = train_and_judge(experiment, seed=seed, callbacks=watchers(experiment, watch))
        steps, losses = run.history("loss")
        curve = [round(loss, 4) for step, loss in zip(steps, losses, strict=True) if step % 10 == 0 or step == steps[-1]]
        outcome = {"final": run.card["final"], "last_10": last_figures(run), "loss_every_10": curve, "data": run.config["data"]}
        outcome |= watched(run, experiment, watch)
    except FloatingPointError as error:
        outcome = {"diverged": str(error)}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return {"cell": cell, "seed": seed, **({"drawn": drawn} if drawn else {}), **outcome, "seconds": round(time.perf_counter() - began, 1)}
