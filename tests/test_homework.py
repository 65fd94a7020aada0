"""Homework and its grader: starter 0, solution 100, bugs found and named, hostile files get a clear zero, marks for a class."""
import csv
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_cli import cli

import minivit
from minivit.course.grader import hw01
from minivit.course.grader.draw import Draw
from minivit.course.grader.source import piece

ROOT = Path(minivit.__file__).parents[1]
HANDOUT = ROOT / "homework" / "hw01_contrastive"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(f"of_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grading = importlib.import_module("minivit.course.grader.grade")  # the package has a function of this name, too
teacher = load(ROOT / "homework" / "teacher" / "check.py")


@pytest.fixture(scope="module")
def bench():
    os.environ["SECRET_OF_THE_TEACHER"] = "42"  # before the first child starts
    yield teacher.Bench(seconds=2)
    del os.environ["SECRET_OF_THE_TEACHER"]


def messages(part: dict) -> str:
    return " ".join((part["message"], *(check["message"] for check in part["checks"])))


# ---- points


def test_the_starter_earns_nothing_and_says_why(bench):
    report = bench.grade(bench.starter, "ada")
    assert report["points"] == 0 and report["of"] == 100
    assert [part["status"] for part in report["parts"]] == ["not attempted"] * 5


@pytest.mark.parametrize("student", teacher.STUDENTS[:2])
def test_the_solution_earns_everything(bench, student):
    report = bench.grade(bench.solved(student), student)
    assert report["points"] == 100, "\n".join(grading.lines(report, bench.homework))


@pytest.mark.parametrize("name", ["positive kept", "self pair", "detached", "exp overflows", "another error", "sign", "nobody left", "always right"])
def test_a_planted_bug_costs_its_part_and_is_named(bench, name):
    student = bench.students_for(bench.bugs[name].only)[-1]
    assert teacher.problem_with_bug(bench, name, student, bench.bugs[name].part) == ""


def test_half_a_part_earns_the_checks_before_the_mistake(bench):
    b = bench.grade(bench.planted("exp overflows", "ada"), "ada", "B")["parts"][0]
    assert [check["status"] for check in b["checks"]] == ["pass", "pass", "not yet", "waits"] and b["points"] == 18


def test_printing_rubbish_costs_nothing(bench):
    text = bench.with_hostile("check(z, temperature); print('{\"answers\": []}' * 1000)", "ada")
    assert "print" in text and bench.grade(text, "ada", "B")["points"] == 30


# ---- hostile files


@pytest.mark.parametrize("name", load(HANDOUT.parent / "teacher" / HANDOUT.name / "hostile.py").FILES)
def test_a_hostile_file_gets_a_zero_that_says_why(bench, name):
    assert teacher.problem_with_hostile(bench, name, "ada", "AB" if name == "loops for ever" else "B") == ""


def run_in_child(bench, body: str, **limits) -> dict:
    source = f"import torch\ndef f(z):\n    {body}\n    return z"
    call = {"function": "f", "args": [{"tensor": [1.0], "shape": [1], "dtype": "float64"}], "grad": []}
    job = {"source": source, "file": "hw01.py", "calls": [call], "seconds": 5, "memory_mb": 512, "imports": ["torch", "minivit"]}
    return bench.pool.ask(job | limits)


@pytest.mark.parametrize("name", load(HANDOUT.parent / "teacher" / HANDOUT.name / "hostile.py").PAST_THE_SEARCH)
def test_what_slips_through_the_search_is_stopped_in_the_child(bench, name):
    body, says = bench.hostile.PAST_THE_SEARCH[name]
    here = str(Path(grading.__file__).parent)
    assert says in run_in_child(bench, body.replace("{here!r}", repr(here))).get("refused", "no zero")
    assert "answers" in run_in_child(bench, "pass"), "the next job must not notice"


def test_the_child_has_neither_the_answers_nor_our_environment(bench):
    mine = "str([m for m in torch.sys.modules if m.split('.')[0] == 'minivit'])"
    answer = run_in_child(bench, f"return {mine} + str(torch.os.environ.get('SECRET_OF_THE_TEACHER')) + torch.os.getcwd()")["answers"][0]
    said = answer["value"]["text"]
    assert said.startswith("[]None") and "minivit-grade-" in said


def test_a_loop_is_killed_with_its_process(bench):
    assert run_in_child(bench, "while True: pass", seconds=0.5)["refused"] == grading.TOO_SLOW.format(0.5)
    children = subprocess.run(["ps", "-o", "stat=", "--ppid", str(bench.pool.server.pid)], capture_output=True, text=True).stdout.split()
    assert children == []


def test_rubbish_instead_of_answers_is_a_zero(bench, monkeypatch):
    checks = bench.homework.checks(bench.homework.draw("ada", None))["E"]
    for answers in ([], 3, None, [{}] * 99, [{"value": None}] * 99, [{"value": {"text": 3}}] * 99, [{"value": {"tensor": "x", "shape": []}}] * 99):
        monkeypatch.setattr(grading.Children, "ask", lambda self, job, answers=answers: {"answers": answers})
        assert grading.grade_part(bench.solved("ada"), "E", checks, bench.homework, bench.pool).points == 0


# ---- the piece of a file that a part needs


def test_a_part_is_cut_out_with_what_it_needs_and_on_its_old_lines():
    text = "import os\nimport torch as t\nK = 3\ndef help_b():\n    return os\n@t.no_grad()\ndef a():\n    return K\ndef b():\n    help_b()\na()\n"
    a, _ = piece(text, ["a"])
    assert a.split("\n") == ["", "import torch as t", "K = 3", "", "", "@t.no_grad()", "def a():", "    return K", *[""] * 4]
    assert "import os" in piece(text, ["b"])[0]


def test_a_forbidden_import_at_the_top_costs_only_who_uses_it(bench):
    text = "from minivit import nt_xent\nprint(1 / 0)\n" + bench.with_hostile("nt_xent", "ada")
    points = {part["part"]: part["points"] for part in bench.grade(text, "ada")["parts"]}
    assert points == {"A": 15, "B": 0, "C": 20, "D": 20, "E": 15}


# ---- draws and right answers


def test_a_draw_is_the_same_everywhere():
    draw = Draw("ada", "minivit", "hw01")
    assert draw == Draw("ada", "minivit", "hw01") and hw01.describe(Draw(" Ada", "minivit", "hw01")) == hw01.describe(draw)
    assert [draw.pick("x", list(range(100))) for _ in "ab"] == GOLDEN_PICKS and draw.numbers("z", [2, 2], -2, 2) == GOLDEN_NUMBERS
    drawn = {tuple(hw01.describe(Draw(f"s{i}", "minivit", "hw01")).values()) for i in range(60)}
    assert len(drawn) == 6
    assert hw01.describe(Draw("s1", "a", "hw01")) != hw01.describe(Draw("s1", "d", "hw01"))


GOLDEN_PICKS, GOLDEN_NUMBERS = [1, 1], [[1.6533203125, -1.4287109375], [1.990234375, 0.951171875]]


@pytest.mark.parametrize("layout", hw01.LAYOUTS)
def test_the_loops_agree_with_the_library_where_it_has_the_loss(layout):
    draw, batch, tau = Draw("ada", "minivit", "hw01"), 5, 0.3
    z = draw.numbers("test", [2 * batch, 3], -2, 2)
    rows = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    z1, z2 = (rows[0::2], rows[1::2]) if layout == "interleaved" else (rows[:batch], rows[batch:])
    rule = hw01.Rule(layout)
    ours = minivit.nt_xent(z1, z2, temperature=tau)
    ours.backward()
    assert abs(hw01.loss(rule, z, tau) - ours.item()) < 1e-12
    by_loops = torch.tensor(hw01.gradient(lambda x: hw01.loss(rule, x, tau), z), dtype=torch.float64)
    assert (by_loops - rows.grad).abs().max() < 1e-13
    one_view = (minivit.info_nce(z1, z2, temperature=tau) + minivit.info_nce(z2, z1, temperature=tau)) / 2
    assert abs(hw01.loss(hw01.Rule(layout, negatives="other"), z, tau) - one_view.item()) < 1e-12


@pytest.mark.parametrize("variant", hw01.VARIANTS)
def test_the_pulls_are_the_derivative_by_the_cosine(variant):
    n, taus = 6, [0.2, 0.3, 0.5, 0.4, 0.25, 0.6]
    z = Draw("ada", "minivit", "hw01").numbers("test", [n, 3], -2, 2)
    rule = hw01.variant_rule("stacked", variant)
    unit = torch.nn.functional.normalize(torch.tensor(z, dtype=torch.float64), dim=1)
    s = (unit @ unit.T).requires_grad_()
    logits = s / torch.tensor(taus, dtype=torch.float64)[:, None]
    keep = torch.tensor([[rule.counts(i, k, n) for k in range(n)] for i in range(n)])
    positive = torch.tensor([rule.positive(i, n) for i in range(n)])
    (logits.masked_fill(~keep, float("-inf")).logsumexp(1) - logits[range(n), positive]).sum().backward()
    assert (torch.tensor(hw01.pulls(rule, z, taus), dtype=torch.float64) - s.grad).abs().max() < 1e-13


def test_the_readings_tell_all_mistakes_apart():
    for batch in (4, 6, 9):
        for tau in (0.25, 0.6):
            values = [hw01.readings(name, batch, tau) for name in hw01.NAMES]
            gaps = [max(abs(x - y) for x, y in zip(a, b)) for i, a in enumerate(values) for b in values[:i]]
            assert min(gaps) > 1e-3
            first = [round(value[0], 6) for value in values]
            assert len(set(first[:6])) == 6 and {first[0]} == set(first[6:])


# ---- papers of the handout


def test_the_handout_says_what_the_spec_says(bench):
    spec, readme = bench.homework.spec, (HANDOUT / "README.md").read_text(encoding="utf-8")
    for key, part in spec["parts"].items():
        total = sum(part["points"].values())
        assert re.search(rf"# ---- Part {key}: .* \({total} points\)", bench.starter)
        assert re.search(rf"\| {key} \|.*\| {total} \|", readme)
    assert f"{spec['minutes']} minutes" in readme and all(f"`{name}`" in readme for name in spec["imports"])
    assert load(HANDOUT / "hw01.py").NAMES == hw01.NAMES
    assert [n for n in vars(load(HANDOUT / "hw01.py")) if n in sum((p["functions"] for p in spec["parts"].values()), [])]


def test_nothing_of_the_teachers_is_in_the_handout():
    assert {path.name for path in HANDOUT.iterdir()} - {"__pycache__", ".pytest_cache", ".ipynb_checkpoints"} == {
        "README.md", "AGENTS.md", "hw01.py", "hw01.ipynb", "test_hw01.py"}  # fmt: skip
    text = "".join(path.read_text(encoding="utf-8") for path in HANDOUT.iterdir() if path.is_file())
    assert "teacher/" not in text and "logsumexp(1) - positive" not in text


# ---- the command line


def test_grade_on_the_command_line(bench, tmp_path):
    file = tmp_path / "hw01.py"
    file.write_text(bench.solved("ada").replace('STUDENT = "your id"', 'STUDENT = "ada"'), encoding="utf-8")
    result = cli("grade", str(file), "--part", "AE", "--report", str(tmp_path / "report.json"))
    assert result.stdout.splitlines()[-2] == "30 of 30 points", result.stdout + result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["student"] == "ada" and report["variant"]["layout"].startswith(bench.variant("ada")["layout"])
    shown = cli("grade", str(HANDOUT / "hw01.py"), "--show").stdout
    assert "layout: " in shown and "write your student id" in shown
    for words, message in (
        ((str(tmp_path),), "add --all"),
        ((str(tmp_path / "none.py"),), "there is no file"),
        ((str(file), "--part", "Z"), "has the parts A, B, C, D, E"),
        ((str(file), "--homework", "hw99"), "there is no homework 'hw99'"),
        ((str(tmp_path / "nobody"), "--all"), "there is no folder"),
    ):
        wrong = cli("grade", *words)
        assert wrong.returncode and message in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_class_is_marked_and_one_bad_file_stops_nobody(bench, tmp_path):
    (tmp_path / "ada.py").write_text(bench.solved("ada"), encoding="utf-8")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "hw01.py").write_text(bench.solved("bob").replace('"your id"', '"ada"'), encoding="utf-8")
    (tmp_path / "broken.py").write_text("def (:", encoding="utf-8")
    (tmp_path / "bytes.py").write_bytes(b"\x00\xff\xfe")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "gone").mkdir()
    (tmp_path / "other.py").write_text(bench.solved("ada").replace('"minivit"', '"elsewhere"'), encoding="utf-8")
    assert cli("grade", str(tmp_path), "--all", "--csv", str(tmp_path / "marks.csv")).returncode == 0
    rows = {row["student"]: row for row in csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines())}
    assert [rows[name]["points"] for name in sorted(rows)] == ["100", "100", "0", "0", "0", "0", rows["other"]["points"]]
    assert "STUDENT = 'ada', graded as 'bob'" in rows["bob"]["notes"] and "COURSE = 'elsewhere'" in rows["other"]["notes"]
    assert "line 1: Python cannot read this" in rows["broken"]["notes"] and "there is no file" in rows["gone"]["notes"]
    assert "not Python text" in rows["bytes"]["notes"] and "there is no function positive_of" in rows["empty"]["notes"]


# ---- slow: everything, elsewhere, and in the notebook


@pytest.mark.slow
def test_make_teacher():
    command = [sys.executable, str(ROOT / "homework" / "teacher" / "check.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "all as it should be" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_without_fork_each_part_has_a_process_of_its_own(bench):
    pool = grading.Children(fork=False)
    draw = bench.homework.draw("ada", None)
    assert grading.grade_text(bench.solved("ada"), bench.homework, draw, parts="AB", pool=pool)["points"] == 45
    assert pool.ask({"source": "def f():\n    while True: pass", "file": "x", "calls": [{"function": "f", "args": [], "grad": []}],
                     "seconds": -55, "memory_mb": 512, "imports": []})["refused"].startswith("it did not finish")  # fmt: skip
    pool.close()
    assert not Path(pool.folder.name).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("filled", "points"), [(False, 0), (True, 100)])
def test_the_playground_runs(bench, tmp_path, monkeypatch, filled, points):
    """The committed notebook is empty; with the starter it says what is missing, with the solution it shows everything."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(HANDOUT / "hw01.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert max(len(line) for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()) <= 100
    text = bench.solved("ada") if filled else bench.starter
    (tmp_path / "hw01.py").write_text(text.replace('"your id"', '"ada"'), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert f"{points} of 100 points" in "".join(o.get("text", "") for o in outputs)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == (3 if filled else 0)
    assert json.loads((tmp_path / "report.json").read_text())["points"] == points


@pytest.mark.slow
@pytest.mark.parametrize("student", ["bug0", "bug1", "bug2", "student0"])
def test_the_students_tests_pass_on_the_solution_and_fail_on_the_starter(bench, tmp_path, student):
    shutil.copy(HANDOUT / "test_hw01.py", tmp_path)
    for text, code in ((bench.solved(student), 0), (bench.starter, 1)):
        (tmp_path / "hw01.py").write_text(text.replace('"your id"', f'"{student}"'), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == code and (code == 0) == (" failed" not in done.stdout), done.stdout[-3000:]
        assert code == 0 or " passed" not in done.stdout


@pytest.mark.slow
def test_grade_works_offline_from_an_installed_package_elsewhere(bench, tmp_path):
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "data", "notebooks", "homework", "build", "*.egg-info"))
    tool = ["uv", "pip", "install", "--python", sys.executable] if shutil.which("uv") else [sys.executable, "-m", "pip", "install"]
    isolated = [] if importlib.util.find_spec("setuptools") is None else ["--no-build-isolation"]
    install = [*tool, "--quiet", "--no-deps", *isolated, "--target", str(tmp_path / "site"), str(copy)]
    subprocess.run(install, check=True, capture_output=True)
    shutil.rmtree(copy)
    work = tmp_path / "work"
    work.mkdir()
    (work / "hw01.py").write_text(bench.solved("ada").replace('"your id"', '"ada"'), encoding="utf-8")
    no_network = ["unshare", "-rn"] if shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"]).returncode == 0 else []
    code = "import minivit, sys; sys.stderr.write(minivit.__file__); from minivit.__main__ import main; main()"
    command = [*no_network, sys.executable, "-c", code, "grade", "hw01.py", "--report", "report.json"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert str(tmp_path / "site") in done.stderr and "100 of 100 points" in done.stdout, done.stdout + done.stderr
    assert json.loads((work / "report.json").read_text())["points"] == 100
