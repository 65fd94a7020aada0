"""The command line, and what the README tells people to type."""
import io
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import children
import pytest

import minivit
from minivit.__main__ import main
from minivit.doctor import doctor
from minivit.runs import Run, checkpoints

ROOT = Path(minivit.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def cli(*words: str) -> subprocess.CompletedProcess:
    """``python -m minivit WORDS``, but in this process: a new one takes seconds to load torch."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, typed = patch.object(sys, "argv", ["minivit", *words]), patch.object(sys, "orig_argv", ["python", "-m", "minivit", *words])
    with argv, typed, redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    if isinstance(code, str):
        err.write(code)
    return subprocess.CompletedProcess(words, int(bool(code)), out.getvalue(), err.getvalue())


def test_train_evaluate_and_go_on(tmp_path):
    words = ("train", "simclr/pocket", "--limit", "100", "--steps", "6", "--batch-size", "20", "--knn-every", "3", "--out", str(tmp_path / "run"))
    first = cli(*words)
    assert first.returncode == 0, first.stderr
    line = first.stdout.splitlines()[-1]
    assert re.fullmatch(r"kNN 0\.\d\d \(raw pixels 0\.\d\d, random weights 0\.\d\d, chance 0\.10\)", line)
    run = Run.load(tmp_path / "run")
    assert run.history("knn")[0] == [2, 5] and run.card["final"]["chance"] == 0.1 and "train simclr/pocket" in run.card["command"]
    checkpoints(tmp_path / "run")[-1].unlink()  # as if it had been stopped after the one before
    assert cli(*words).stdout.splitlines()[-1] == line
    again = cli("evaluate", str(tmp_path / "run"))
    assert again.stdout.splitlines()[-1] == line


def test_mistakes_on_the_command_line():
    for words, message in (
        (("trian",), "no command 'trian'; did you mean train?"),
        (("train", "simclr/pockte"), "did you mean simclr/pocket"),
        (("train", "simclr/pocket", "--data", "folder:/no/such/place"), "/no/such/place"),
        (("evaluate", "/no/such/run"), "is not a run"),
        (("study", "/no/such/study"), "is not a study"),
        (("figures", "77"), "no signature figure for chapter '77'"),
    ):
        result = cli(*words)
        assert result.returncode != 0 and message in result.stderr and "Traceback" not in result.stderr


def test_doctor_names_what_is_wrong(monkeypatch):
    facts, problems = doctor()
    assert problems == [] and any(fact.startswith("torch ") for fact in facts)
    import importlib.metadata

    real = importlib.metadata.version
    versions = {"einops": None, "torch": "2.1.0+cpu"}

    def fake(name):
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", fake)
    text = "\n".join(doctor()[1])
    assert "einops is not installed" in text and "torch 2.1.0+cpu is older than 2.6" in text


def test_claims_prints_the_ledger():
    result = children.module("minivit", "claims", "--chapter", "00")
    assert result.returncode == 0 and "simclr-1" in result.stdout and "full: not run" in result.stdout


SLIDES = {"00_neighbours": "nearest neighbours", "01_shuffled": "patches shuffled", "02_usefulness": "crop only: pretext accuracy",
          "03_similarity": "How far turned: "}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), SLIDES.items())
def test_figures_writes_slides(tmp_path, name, words):
    chapter = name[:2]
    result = cli("figures", chapter, "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {name + suffix for suffix in (".png", ".svg", ".pdf", ".txt")}
    assert words in (tmp_path / f"{name}.txt").read_text()


def test_the_readmes_python_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    result = children.python("import warnings\nwarnings.simplefilter('error')\n" + snippet, TQDM_DISABLE="1")
    assert result.returncode == 0, result.stderr
    assert re.search(r"kNN 0\.\d\d", result.stdout)


def test_the_readme_is_true():
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, re.M):
        assert f"\n{target[0] or target[1]}:" in (ROOT / "Makefile").read_text()
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"minivit train (\w+/\w+)", README):
        from minivit.presets import PRESETS

        assert name in PRESETS


def test_typed_shapes_are_checked_on_request():
    code = "import torch, minivit; minivit.nt_xent(torch.randn(5, 3), torch.randn(4, 3), temperature=0.5)"
    for value, expected in (("1", "TypeCheckError"), ("0", "ValueError")):
        result = children.python(code, MINIVIT_CHECK_SHAPES=value)
        assert expected in result.stderr


@pytest.mark.slow
def test_the_readmes_commands_in_a_fresh_clone(tmp_path):
    clone = tmp_path / "minivit"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    began = time.perf_counter()
    demo = subprocess.run(["make", "--no-print-directory", "demo"], cwd=clone, capture_output=True, text=True)
    assert demo.returncode == 0, demo.stderr[-2000:]
    assert re.fullmatch(r"kNN 0\.\d\d \(raw pixels 0\.\d\d, random weights 0\.\d\d, chance 0\.10\)", demo.stdout.splitlines()[-1])
    assert (clone / "demo.png").stat().st_size > 50_000
    print(f"make demo with installation took {time.perf_counter() - began:.0f} s: {demo.stdout.splitlines()[-1]}")
    flags = "LAB_FLAGS=--no-browser --allow-root --ServerApp.token= --port=18765 --ServerApp.port_retries=0"
    lab = subprocess.Popen(["make", "lab", flags], cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert _waits_for("http://127.0.0.1:18765/api/contents/00_start_here.ipynb")
    finally:
        os.killpg(lab.pid, 15)
        lab.wait()
    subprocess.run(["make", "clean"], cwd=clone, check=True, capture_output=True)
    assert not (clone / ".venv").exists() and not (clone / "demo.png").exists()
    shutil.rmtree(clone)


def _waits_for(url: str, seconds: int = 60) -> bool:
    for _ in range(seconds):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(1)
    return False
