"""Grids of runs: described in a file, resumable, one line in one log for each run."""
import json
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

from minivit.presets import preset, train_and_judge
from minivit.runs import Run, environment, write_atomic


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
    next time; the others go on.
    """
    folder = Path(folder)
    plan, runs = read_study(folder)
    done = {(run["cell"], run["seed"]) for run in runs if "error" not in run}
    todo = [(cell, seed) for seed in plan["seeds"] for cell in plan["cells"] if (cell, seed) not in done]
    began = time.perf_counter()
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
        open(folder / "runs.jsonl", "a") as log,
    ):
        jobs = [pool.submit(_trial, cell, plan["cells"][cell], seed) for cell, seed in todo]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=folder.name, unit="run"):
            runs.append(job.result())
            log.write(json.dumps(runs[-1]) + "\n")
            log.flush()
    if todo:
        card = {**environment(), "threads_per_run": 1, "workers": workers, "wall_seconds": round(time.perf_counter() - began)}
        write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return runs


def values(runs: list[dict[str, Any]], cell: str, figure: str) -> list[float]:
    """One figure of one cell over its seeds, in the order of the seeds: a final one, or "last_10.accuracy" for a training figure."""
    block, _, name = figure.rpartition(".")
    good = [run for run in runs if run["cell"] == cell and "error" not in run]
    return [run[block or "final"][name] for run in sorted(good, key=lambda run: run["seed"])]


def last_figures(run: Run, count: int = 10) -> dict[str, float]:
    """The mean of every logged training figure over the last steps: contrastive accuracy, spread, …"""
    names = [name for name in run.metrics[0] if name not in ("step", "knn")]
    return {name: round(mean(run.history(name)[1][-count:]), 4) for name in names}


def _one_thread() -> None:
    torch.set_num_threads(1)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # the sweep's own bar is enough


def _trial(cell: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    settings = dict(settings)
    began = time.perf_counter()
    try:
        chosen = preset(settings.pop("preset"), **settings)
        _, run = train_and_judge(chosen, seed=seed)
        steps, losses = run.history("loss")
        curve = [round(loss, 4) for step, loss in zip(steps, losses, strict=True) if step % 10 == 0 or step == steps[-1]]
        outcome = {"final": run.card["final"], "last_10": last_figures(run), "loss_every_10": curve, "data": run.config["data"]}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return {"cell": cell, "seed": seed, **outcome, "seconds": round(time.perf_counter() - began, 1)}
