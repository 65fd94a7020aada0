"""A study: every cell with every seed, once; what failed is recorded and tried again."""
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import children
import pytest

from minivit import studies
from minivit.studies import draw, edf, failures, read_study, sweep, values

PLAN = """
question = "Does a sweep do what its plan says?"
seeds = [3, 5]

[cells.short]
preset = "simclr/pocket"
limit = 60
steps = 3
batch_size = 20
warmup = 1

[cells.broken]
preset = "simclr/pocket"
data = "shaeps"
"""


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch):
    """Workers that do not load torch again. They get their work as spawned ones do: pickled, by the names of our modules."""
    monkeypatch.setattr(studies, "get_context", {"spawn": children.CONTEXT}.__getitem__)


def test_a_sweep_goes_on_where_it_stopped_and_records_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "environment", lambda: {"runs_before": len(read_study(tmp_path)[1])})
    (tmp_path / "study.toml").write_text(PLAN)
    runs = sweep(tmp_path, workers=1)
    assert read_study(tmp_path)[1] == runs
    assert sorted((run["cell"], run["seed"]) for run in runs) == [("broken", 3), ("broken", 5), ("short", 3), ("short", 5)]
    assert all(("error" in run) == (run["cell"] == "broken") for run in runs)
    assert "did you mean 'shapes'" in next(run["error"] for run in runs if "error" in run)
    assert len(values(runs, "short", "knn")) == 2 and values(runs, "broken", "knn") == []
    good = next(run for run in runs if run["cell"] == "short")
    assert set(good["last_10"]) == {"loss", "accuracy", "z_spread"} and len(good["loss_every_10"]) == 2
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["threads_per_run"], card["runs_before"]) == (1, 0)  # the commit is that of the start, before the log has new lines
    with pytest.raises(ValueError, match="a worker and a thread, not 1 and 0"):
        sweep(tmp_path, workers=1, threads=0)
    again = sweep(tmp_path, workers=1, threads=2)
    assert json.loads((tmp_path / "card.json").read_text())["threads_per_run"] == 2
    assert [run["cell"] for run in again[4:]] == ["broken", "broken"]  # only what had failed was tried again
    assert failures(again) == {("broken", 3), ("broken", 5)}
    assert failures([*again, {"cell": "broken", "seed": 3, "diverged": ""}]) == {("broken", 5)}


SEARCH = """
seeds = [0, 1]

[cells.found]
preset = "supervised/pocket_p"
limit = 60
steps = 2
batch_size = 20
search = { lr = [1e-3, 1e-2], weight_decay = [0.01, 0.1] }

[cells.lost]
preset = "supervised/pocket_p"
limit = 60
steps = 4
batch_size = 20
warmup = 0
optimizer = "sgd_plain"
search = { lr = [1e30, 1e30] }
"""


def test_a_random_search_records_what_it_drew_and_what_diverged(tmp_path):
    (tmp_path / "study.toml").write_text(SEARCH)
    runs = sweep(tmp_path, workers=1)
    found, lost = ([run for run in runs if run["cell"] == cell] for cell in ("found", "lost"))
    for run in found:
        assert run["drawn"] == draw({"lr": [1e-3, 1e-2], "weight_decay": [0.01, 0.1]}, run["seed"]) and "final" in run
    assert all(run["drawn"] == {"lr": 1e30} and "the loss is" in run["diverged"] for run in lost)
    assert sweep(tmp_path, workers=1) == runs == read_study(tmp_path)[1]  # a diverged run is a result: nothing is tried again
    accuracies = values(runs, "found", "accuracy") + values(runs, "lost", "accuracy")
    assert [math.isnan(accuracy) for accuracy in accuracies] == [False, False, True, True]
    assert edf([1 - accuracy for accuracy in accuracies], [1.0]) == 0.5


def test_a_run_that_its_last_step_breaks_has_diverged():
    cell = {"preset": "supervised/pocket_p", "limit": 60, "steps": 1, "batch_size": 20, "warmup": 0, "optimizer": "sgd_plain", "lr": 1e38}
    run = studies._trial("a", cell, 0, studies.WATCH)
    assert "features are not finite" in run["diverged"] and "final" not in run


def test_a_search_that_cannot_work_stops_before_any_run(tmp_path):
    (tmp_path / "study.toml").write_text(SEARCH.replace("[0.01, 0.1]", "[0.1, 0.01]"))
    with pytest.raises(ValueError, match="no interval"):
        sweep(tmp_path, workers=1)
    assert read_study(tmp_path)[1] == []


CELL = '[cells.a]\npreset = "supervised/pocket_p"\n'
BAD_PLANS = {
    "no seeds": (CELL, "a list of different numbers"),
    "one seed twice": ("seeds = [0, 0]\n" + CELL, "a list of different numbers"),
    "no list of seeds": ("seeds = 3\n" + CELL, "a list of different numbers"),
    "no cells": ("seeds = [0]", "tables of settings"),
    "cells are no table": ("seeds = [0]\ncells = [1]", "tables of settings"),
    "no TOML": ("seeds = [0", "study.toml: "),
    "a cell that is no table": ("seeds = [0]\n[cells]\na = 3", "cell 'a': "),
    "a cell without preset": ("seeds = [0]\n[cells.a]\nlr = 0.1", "cell 'a': a cell needs a preset"),
    "an unknown preset": ('seeds = [0]\n[cells.a]\npreset = "supervised/pocket_q"', "cell 'a': .*did you mean"),
    "an unknown setting": ("seeds = [0]\n" + CELL + "rate = 0.1", "cell 'a': a preset has no 'rate'"),
    "a search that is no table": ("seeds = [0]\n" + CELL + "search = [0.1, 1.0]", "cell 'a': search = .*a table of intervals is wanted"),
    "an interval that is a number": ("seeds = [0]\n" + CELL + "search = { lr = 0.1 }", "cell 'a': search = .*a table of intervals is wanted"),
    "an unknown setting is searched": ("seeds = [0]\n" + CELL + "search = { rate = [0.1, 1.0] }", "cell 'a': a preset has no 'rate'"),
    "a probe that never looks": ("seeds = [0]\nwatch = { probe = true }\n" + CELL, "watch.knn_every"),
}


@pytest.mark.parametrize(("plan", "words"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_a_plan_that_cannot_work_stops_before_any_run(tmp_path, plan, words):
    (tmp_path / "study.toml").write_text(plan)
    with pytest.raises(ValueError, match=words) as caught:
        sweep(tmp_path)
    assert str(tmp_path / "study.toml") in str(caught.value) and not (tmp_path / "runs.jsonl").exists()


@pytest.mark.parametrize("setting", ["MINIVIT_SCALE=full", "MINIVIT_DATA=folder:photos", "MINIVIT_LIMIT=200"])
def test_the_environment_may_not_change_what_a_study_records(tmp_path, monkeypatch, setting):
    (tmp_path / "study.toml").write_text(PLAN)
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(ValueError, match=f"{setting.partition('=')[0]} would change what the cells"):
        sweep(tmp_path)


def test_runs_of_another_search_are_refused(tmp_path):
    (tmp_path / "study.toml").write_text("seeds = [0]\n" + CELL + "search = { lr = [0.1, 0.2] }")
    (tmp_path / "runs.jsonl").write_text(json.dumps({"cell": "a", "seed": 0, "drawn": {"lr": 5.0}, "final": {}}) + "\n")
    with pytest.raises(ValueError, match="cell 'a' now draws other values"):
        sweep(tmp_path)


RUN = {"cell": "a", "seed": 0, "final": {"knn": 0.3}}


@pytest.mark.parametrize("tail", ["", "\n", '\n{"cell": "a", "se'])
def test_a_log_that_was_cut_off_goes_on(tmp_path, monkeypatch, tail):
    (tmp_path / "study.toml").write_text("seeds = [0, 1]\n" + CELL)
    (tmp_path / "runs.jsonl").write_text(json.dumps(RUN) + tail)
    assert read_study(tmp_path)[1] == [RUN]
    monkeypatch.setattr(studies, "_trial", quick)
    runs = sweep(tmp_path, workers=1)
    assert runs == read_study(tmp_path)[1] and [run["seed"] for run in runs] == [0, 1]


def test_a_log_with_a_broken_line_in_its_middle_is_named(tmp_path):
    (tmp_path / "study.toml").write_text("seeds = [0, 1]\n" + CELL)
    (tmp_path / "runs.jsonl").write_text('{"cell": \n' + json.dumps(RUN) + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 1, is no run"):
        read_study(tmp_path)


def quick(cell: str, settings: dict, seed: int, watch: dict) -> dict:
    return {"cell": cell, "seed": seed, "final": {"knn": 0.2}}


def noted(cell: str, settings: dict, seed: int, watch: dict) -> dict:
    Path(settings["data"], str(seed)).touch()
    time.sleep(0.1)
    return quick(cell, settings, seed, watch)


def killed(cell: str, settings: dict, seed: int, watch: dict) -> dict:
    return quick(cell, settings, seed, watch) if seed == 0 else os._exit(9)


def test_when_the_log_cannot_be_written_no_further_run_begins(tmp_path, monkeypatch):
    (tmp_path / "study.toml").write_text(f"seeds = {[*range(20)]}\n{CELL}data = '{tmp_path}'")
    monkeypatch.setattr(studies, "_trial", noted)
    monkeypatch.setattr(studies.json, "dumps", full)
    with pytest.raises(OSError, match="No space left"):
        sweep(tmp_path, workers=1)
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) < 10


def full(*_) -> str:
    raise OSError("No space left on device")


def test_a_killed_worker_is_said_and_what_was_recorded_stays(tmp_path, monkeypatch):
    (tmp_path / "study.toml").write_text("seeds = [0, 1, 2]\n" + CELL)
    monkeypatch.setattr(studies, "_trial", killed)
    with pytest.raises(OSError, match="was killed, perhaps for want of memory"):
        sweep(tmp_path, workers=1)
    assert [run["seed"] for run in read_study(tmp_path)[1]] == [0]


HOLDER = """
import fcntl, sys, time
from multiprocessing import get_context
from minivit.studies import _worker

def hold(path):
    _worker(1)
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", file=lock, flush=True)
        time.sleep(60)

if __name__ == "__main__":
    child = get_context("spawn").Process(target=hold, args=(sys.argv[1],))
    child.start()
    child.join()
"""


@pytest.mark.slow
def test_the_workers_of_a_killed_study_end(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "holder.py").write_text(HOLDER)
    (tmp_path / "lock").touch()
    study = subprocess.Popen([sys.executable, tmp_path / "holder.py", tmp_path / "lock"], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    until(lambda: (tmp_path / "lock").read_text() == "held\n", seconds=60)
    study.kill()
    study.wait()

    def free() -> bool:
        with open(tmp_path / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    until(free, seconds=10)


def until(true, *, seconds: float) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


def test_values_names_the_figures_there_are():
    with pytest.raises(ValueError, match="cell 'a' has no figure 'acc'; of 'final' it has knn"):
        values([RUN], "a", "acc")
    with pytest.raises(ValueError, match="has no figure 'monitor.acc'; of 'monitor' it has nothing"):
        values([RUN], "a", "monitor.acc")


def test_what_a_study_watches_is_in_its_log():
    cell = {"preset": "moco_v3/pocket_instability", "limit": 60, "steps": 4, "batch_size": 20, "warmup": 1, "model_args": {"dim": 8, "depth": 2}}
    cell |= {"optimizer": "stable_adamw", "optimizer_args": {"betas": [0.9, 0.95]}, "clip": {"backbone.stem": 0.1}}  # as TOML has it
    run = studies._trial("a", cell, 0, {"gradients": True, "knn_every": 2, "probe": True, "keep": ["grad/stem", "knn", "probe"]})
    assert [len(values) for values in run["series"].values()] == [4, 2, 2]
    assert all(run["series"][name][1] == pytest.approx(run["final"][name], abs=1e-4) for name in ("knn", "probe"))
    assert {"ratio_stem", "ratio_block1", "rms_stem", "spikes_projector", "loss_spikes", "knn_dips", "dips_chance", "preceded"} <= set(run["monitor"])
    assert not any("/" in name for name in run["last_10"])
    assert values([run], "a", "monitor.rms_stem") == [run["monitor"]["rms_stem"]]
    run["monitor"]["preceded"] = None
    assert math.isnan(values([run], "a", "monitor.preceded")[0])


def test_a_study_that_watches_what_cannot_be_watched(tmp_path):
    (tmp_path / "study.toml").write_text("watch = { gradient = true }\n" + PLAN)
    with pytest.raises(ValueError, match="watch has no 'gradient'; it has gradients, knn_every, probe, keep"):
        sweep(tmp_path)


def test_reading_what_is_no_study(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a study"):
        read_study(tmp_path)
