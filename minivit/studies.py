"""Grids of runs: described in a file, resumable, one line in one log for each run."""
import json
import math
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partialmethod
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

from minivit.callbacks import Callback, DenseKNN
from minivit.monitor import GradientMonitor, stability_report
from minivit.presets import Preset, preset, train_and_judge
from minivit.runs import Run, environment, write_atomic

WATCH = {"gradients": False, "knn_every": 0, "keep": ()}  # what a plan's ``watch`` may ask for


def read_study(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A study's plan, ``study.toml``, and its runs so far, ``runs.jsonl``."""
    folder = Path(folder)
    if not (folder / "study.toml").is_file():
        raise FileNotFoundError(f"{folder} is not a study: it has no study.toml.")
    plan = tomllib.loads((folder / "study.toml").read_text())
    log = folder / "runs.jsonl"
    return plan, [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def sweep(folder: str | Path, *, workers: int = 2) -> list[dict[str, Any]]:
    """Run what ``study.toml`` asks for and ``runs.jsonl`` does not have yet; returns all runs.

    The plan names ``seeds`` and a table of ``cells``, each a preset and its overrides. Workers are processes of one thread
    each, so a run gives the same bits whatever runs beside it. A run that fails is recorded with its error and tried again
    next time; the others go on. ``watch`` in the plan says what to look at in every run (`watched`).
    """
    folder = Path(folder)
    plan, runs = read_study(folder)
    watch = {**WATCH, **plan.get("watch", {})}
    for unknown in set(watch) - set(WATCH):
        raise ValueError(f"{folder / 'study.toml'}: watch has no {unknown!r}; it has {', '.join(WATCH)}.")
    done = {(run["cell"], run["seed"]) for run in runs if "error" not in run}
    todo = [(cell, seed) for seed in plan["seeds"] for cell in plan["cells"] if (cell, seed) not in done]
    began = time.perf_counter()
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
        open(folder / "runs.jsonl", "a") as log,
    ):
        jobs = [pool.submit(_trial, cell, plan["cells"][cell], seed, watch) for cell, seed in todo]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=folder.name, unit="run"):
            runs.append(job.result())
            log.write(json.dumps(runs[-1]) + "\n")
            log.flush()
    if todo:
        card = {**environment(), "threads_per_run": 1, "workers": workers, "wall_seconds": round(time.perf_counter() - began)}
        write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return runs


def values(runs: list[dict[str, Any]], cell: str, figure: str) -> list[float]:
    """One figure of one cell over its seeds, in the order of the seeds: a final one, or "last_10.accuracy" for a training figure. NaN where
    a run has none to tell (null)."""
    block, _, name = figure.rpartition(".")
    good = [run for run in runs if run["cell"] == cell and "error" not in run]
    found = [run[block or "final"][name] for run in sorted(good, key=lambda run: run["seed"])]
    return [math.nan if value is None else value for value in found]


def watchers(chosen: Preset, watch: dict[str, Any]) -> list[Callback]:
    """What looks on while a run of the study trains: ``gradients = true`` a `GradientMonitor`, ``knn_every = 20`` a `DenseKNN`."""
    looking: list[Callback] = [GradientMonitor()] if watch["gradients"] else []
    return looking + ([DenseKNN(*chosen.load(), every=watch["knn_every"])] if watch["knn_every"] else [])


def watched(run: Run, chosen: Preset, watch: dict[str, Any]) -> dict[str, Any]:
    """What they saw: the `stability_report` as ``monitor``; as ``series`` every value of the figures that ``keep`` names: "grad/stem", "knn", …"""
    kept = {name: [float(f"{value:.4g}") for value in run.history(name)[1]] for name in watch["keep"]}
    seen: dict[str, Any] = {"series": kept} if kept else {}
    return seen | ({"monitor": stability_report(run, warmup=chosen.warmup)} if watch["gradients"] else {})


def last_figures(run: Run, count: int = 10) -> dict[str, float]:
    """The mean of every logged training figure over the last steps: contrastive accuracy, spread, … Not those of single layers."""
    names = [name for name in run.metrics[0] if name not in ("step", "knn") and "/" not in name]
    return {name: round(mean(run.history(name)[1][-count:]), 4) for name in names}


def _one_thread() -> None:
    torch.set_num_threads(1)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # the sweep's own bar is enough


def _trial(cell: str, settings: dict[str, Any], seed: int, watch: dict[str, Any]) -> dict[str, Any]:
    settings = dict(settings)
    began = time.perf_counter()
    try:
        chosen = preset(settings.pop("preset"), **settings)
        _, run = train_and_judge(chosen, seed=seed, callbacks=watchers(chosen, watch))
        steps, losses = run.history("loss")
        curve = [round(loss, 4) for step, loss in zip(steps, losses, strict=True) if step % 10 == 0 or step == steps[-1]]
        outcome = {"final": run.card["final"], "last_10": last_figures(run), "loss_every_10": curve, "data": run.config["data"]}
        outcome |= watched(run, chosen, watch)
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return {"cell": cell, "seed": seed, **outcome, "seconds": round(time.perf_counter() - began, 1)}
