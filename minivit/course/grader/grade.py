"""Grading: the parent works out what is right and judges; a child process, which knows nothing of it, runs the student's functions."""
import atexit
import csv
import functools
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import minivit
from minivit.course.grader.draw import Draw
from minivit.course.grader.marking import Check, Mark, PartMark, judge
from minivit.course.grader.source import Refused, label, piece, read, search

HERE = Path(__file__).parent
PLACEHOLDER = "your id"
TOO_SLOW = "it did not finish within {:g} s: is there a loop that never ends?"
CRASHED = "its process ended without an answer, as after os._exit or a crash."
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
_failures: dict[tuple[str, str], int] = {}  # this session's failed attempts at a part; each shows one hint more


@dataclass(frozen=True)
class Homework:
    """The spec of one homework and the module that knows its answers."""

    key: str
    spec: dict

    @classmethod
    def load(cls, key: str, spec: Path | None = None) -> "Homework":
        known = sorted(path.stem for path in HERE.glob("*.toml"))
        if key not in known:
            raise ValueError(f"there is no homework {key!r}; there is {', '.join(known)}.")
        return cls(key, tomllib.loads((spec or HERE / f"{key}.toml").read_text(encoding="utf-8")))

    def draw(self, student: str, salt: str | None) -> Draw:
        return Draw(student, salt or self.spec["salt"], self.key)

    def describe(self, draw: Draw) -> dict[str, str]:
        return self._answers().describe(draw)

    def checks(self, draw: Draw) -> dict[str, list[Check]]:
        return self._answers().checks(draw)

    def _answers(self):  # noqa: ANN202
        return importlib.import_module(f"minivit.course.grader.{self.key}")


class Children:
    """Runs jobs in child processes (see child.py). On Linux one process loads torch and forks; elsewhere each job starts afresh."""

    def __init__(self, *, fork: bool = sys.platform == "linux"):
        self.fork, self.server = fork, None
        self.folder = tempfile.TemporaryDirectory(prefix="minivit-grade-", ignore_cleanup_errors=True)
        environment = {k: os.environ[k] for k in ENVIRONMENT if k in os.environ} | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.how = {"cwd": self.folder.name, "encoding": "utf-8", "start_new_session": True, "stderr": subprocess.DEVNULL, "env": environment}
        self.command = [sys.executable, "-BP", str(HERE / "child.py")]

    def ask(self, job: dict) -> dict:
        """The reply to one job; whatever happens to the child, a dictionary."""
        line = json.dumps(job) + "\n"
        try:
            text = (self._served(line) if self.fork else self._once(line, job["seconds"])).strip()
            reply = {"refused": TOO_SLOW.format(job["seconds"])} if text == "too slow" else json.loads(text)
            return reply if isinstance(reply, dict) else {"refused": CRASHED}
        except ValueError:
            return {"refused": CRASHED}

    def _served(self, line: str) -> str:
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **self.how)
        self.server.stdin.write(line)
        self.server.stdin.flush()
        reply = self.server.stdout.readline()
        if not reply:
            raise OSError(f"the grader's child process does not start; see what `{' '.join(self.command)}` says.")
        return reply

    def _once(self, line: str, seconds: float) -> str:
        try:  # a minute more, to load torch
            return subprocess.run([*self.command, "--once"], input=line, stdout=subprocess.PIPE, timeout=seconds + 60, **self.how).stdout
        except subprocess.TimeoutExpired:
            return "too slow"

    def close(self) -> None:
        if self.server:
            self.server.stdin.close()
            self.server.stdout.close()
            self.server.wait()
        self.folder.cleanup()


@functools.cache
def children() -> Children:
    """The children of this session."""
    pool = Children()
    atexit.register(pool.close)
    return pool


def grade_text(text: str, homework: Homework, draw: Draw, *, parts: str | None = None, pool: Children | None = None) -> dict:
    """The report on a submission, or on some parts of it, as plain data."""
    wanted = [p for p in homework.spec["parts"] if parts is None or p in parts.upper()]
    if not wanted:
        raise ValueError(f"part={parts!r}: {homework.key} has the parts {', '.join(homework.spec['parts'])}.")
    checks = homework.checks(draw)
    marks = [grade_part(text, part, checks[part], homework, pool or children()) for part in wanted]
    return {
        "homework": homework.spec["name"], "student": draw.student, "salt": draw.salt, "variant": homework.describe(draw),
        "points": sum(m.points for m in marks), "of": sum(m.of for m in marks), "parts": [asdict(m) for m in marks],
        "minivit": minivit.__version__, "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }  # fmt: skip


def grade_part(text: str, part: str, checks: list[Check], homework: Homework, pool: Children) -> PartMark:
    """Cut out what the part needs, search it, run it in a child, judge what comes back."""
    spec = homework.spec
    about = spec["parts"][part]
    mark = PartMark(part, about["title"], sum(about["points"].values()))
    mark.checks = [Mark(check.name, about["points"][check.name]) for check in checks]
    try:
        source, nodes = piece(text, about["functions"])
        search(nodes, spec["imports"], spec["forbidden"] + about.get("forbidden", []))
    except Refused as refusal:
        return _zero(mark, str(refusal))
    calls = [{"function": c.function, "args": c.args, "grad": c.grad} for check in checks for c in check.calls]
    job = {"source": source, "file": f"{homework.key}.py", "calls": calls, "seconds": spec["seconds"], "memory_mb": spec["memory_mb"]}
    reply = pool.ask(job | {"imports": spec["imports"]})
    if "refused" in reply:
        return _zero(mark, str(reply["refused"])[:300])
    try:
        return _judged(mark, checks, reply["answers"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return _zero(mark, "its answer cannot be read.")


def _zero(mark: PartMark, why: str) -> PartMark:
    mark.status, mark.message = "zero", why
    return mark


def _judged(mark: PartMark, checks: list[Check], answers: list[dict]) -> PartMark:
    """Each check opens the next: a loss with a wrong value earns nothing for refusing bad input."""
    if len(answers) != sum(len(check.calls) for check in checks):
        raise ValueError("one answer for each call")
    rest = iter(answers)
    for check, result in zip(checks, mark.checks, strict=True):
        mine = [next(rest) for _ in check.calls]
        if all(a.get("error") == "NotImplementedError" for a in mine):
            result.status = "not attempted"
        elif problem := judge(check, mine):
            result.status, result.message = "not yet", problem
        else:
            result.status, result.points = "pass", result.of
        if result.status != "pass":
            break
    mark.points = sum(result.points for result in mark.checks)
    mark.status = "pass" if mark.points == mark.of else mark.checks[0].status if mark.checks[0].status == "not attempted" else "not yet"
    return mark


def lines(report: dict, homework: Homework) -> Iterator[str]:
    """A report for a person. Hints grow with the failed attempts of this session."""
    yield f"{report['homework']}, student {report['student']!r}, course {report['salt']!r}"
    for part in report["parts"]:
        yield f"  {part['part']}  {part['points']:3d} of {part['of']:2d}  {part['status']:13s}  {part['title']}"
        if part["message"]:
            yield f"       {part['message']}"
        for check in part["checks"] if part["status"] == "not yet" else []:
            yield f"       {check['name']}: {check['status']}{': ' * bool(check['message'])}{check['message']}"
        if part["status"] in ("not yet", "zero"):
            key = (report["student"], part["part"])
            _failures[key] = _failures.get(key, 0) + 1
        if part["status"] == "not yet" and part["checks"][0]["status"] != "pass":  # the hints are about the first check
            yield from (f"       hint: {hint}" for hint in homework.spec["parts"][part["part"]]["hints"][: _failures[key]])
    yield f"{report['points']} of {report['of']} points"


def identify(text: str, homework: Homework, student: str | None, salt: str | None) -> tuple[Draw, list[str]]:
    """Whose variant to grade by, and what a person should know about it. What is given goes before what the file says."""
    stated, course = label(text, "STUDENT"), label(text, "COURSE")
    draw = homework.draw(student or stated or PLACEHOLDER, salt or course)
    notes = []
    if draw.student == PLACEHOLDER:
        notes.append('note: write your student id into the line STUDENT = "…" of the file; it decides your variant.')
    for name, used, says in (("STUDENT", draw.student, stated), ("COURSE", draw.salt, course)):
        if says not in (None, used, PLACEHOLDER) and used != PLACEHOLDER:
            notes.append(f"note: the file says {name} = {says!r}, graded as {used!r}.")
    return draw, notes


def variant(path: Path | str = "hw01.py", *, homework: str = "hw01") -> dict[str, str]:
    """The short names of what is drawn for the file's STUDENT, such as {"layout": "stacked"}: for tests and notebooks."""
    chosen = Homework.load(homework)
    draw, _ = identify(read(Path(path)), chosen, None, None)
    return {key: text.split(":")[0] for key, text in chosen.describe(draw).items()}


def show(path: Path | str = "hw01.py", *, homework: str = "hw01", student: str | None = None, salt: str | None = None) -> None:
    """Print whose file it is and which variant that gives."""
    chosen = Homework.load(homework)
    draw, notes = identify(read(Path(path)), chosen, student, salt)
    print("\n".join([f"student {draw.student!r}, course {draw.salt!r}", *(f"  {k}: {v}" for k, v in chosen.describe(draw).items()), *notes]))


def grade(
    path: Path | str = "hw01.py", part: str | None = None, *, report: Path | str | None = None, homework: str = "hw01",
    student: str | None = None, salt: str | None = None, spec: Path | None = None,
) -> dict:  # fmt: skip
    """Grade one file, or one part of it, and print what came out; ``report`` is a JSON file to write."""
    chosen, text = Homework.load(homework, spec), read(Path(path))
    draw, notes = identify(text, chosen, student, salt)
    result = grade_text(text, chosen, draw, parts=part)
    print("\n".join([*notes, *lines(result, chosen)]))
    if report:
        Path(report).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {report}")
    return result


def grade_all(folder: Path, table: Path, *, homework: str = "hw01", salt: str | None = None, spec: Path | None = None) -> list[dict]:
    """Grade ``ID.py`` and ``ID/hw01.py`` of a folder into a CSV file, a line each. The name is the id; one bad submission stops nobody."""
    chosen = Homework.load(homework, spec)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    found = [(path.stem, path) for path in folder.glob("*.py")] + [(path.name, path / f"{homework}.py") for path in folder.iterdir() if path.is_dir()]
    found = sorted((who, path) for who, path in found if not who.startswith((".", "_")))
    if not found:
        raise FileNotFoundError(f"{folder} has neither ID.py files nor ID/{homework}.py.")
    rows = []
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["student", "points", *chosen.spec["parts"], "notes"], restval=0)
        writer.writeheader()
        for who, path in found:
            rows.append(_row(who, path, chosen, salt))
            writer.writerow(rows[-1])
            file.flush()
            print(f"{who}: {rows[-1]['points']}")
    return rows


def _row(who: str, path: Path, chosen: Homework, salt: str | None) -> dict:
    try:
        text = read(path)
        draw, notes = identify(text, chosen, who, salt or chosen.spec["salt"])
        report = grade_text(text, chosen, draw)
    except Exception as error:
        return {"student": who, "points": 0, "notes": str(error)}
    notes += [f"{part['part']}: {part['message']}" for part in report["parts"] if part["message"]]
    return {"student": who, "points": report["points"], "notes": " ".join(notes)} | {p["part"]: p["points"] for p in report["parts"]}
