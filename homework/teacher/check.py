"""make teacher: the starter earns 0, the solution 100 on ten ids, every planted bug costs its own part and is named, every
hostile file gets a zero that says why. Not for handing out: this folder holds the solutions."""
import importlib.util
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from minivit.course.grader.grade import Homework, children, grade_text
from minivit.course.grader.source import label

HERE = Path(__file__).resolve().parent
STUDENTS = [f"student{number}" for number in range(10)]


def load(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"teacher_{path.stem}", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Bench:
    """One homework on the bench: its starter, its solution, its bugs."""

    def __init__(self, key: str = "hw01", seconds: float | None = None):
        self.homework = Homework.load(key)
        if seconds:
            self.homework = replace(self.homework, spec=self.homework.spec | {"seconds": seconds})
        folder = HERE / self.homework.spec["name"]
        self.starter = (HERE.parent / folder.name / f"{key}.py").read_text(encoding="utf-8")
        self.solution = (folder / "solution.py").read_text(encoding="utf-8")
        self.bugs = load(folder / "bugs.py").BUGS
        self.hostile = load(folder / "hostile.py")
        self.pool = children()

    def variant(self, student: str) -> dict[str, str]:
        """The short names of a student's variant, such as {"layout": "stacked"}."""
        return {key: text.split(":")[0] for key, text in self.homework.describe(self.homework.draw(student, None)).items()}

    def solved(self, student: str) -> str:
        """The solution with this student's variant filled in."""
        text = self.solution
        for key, value in self.variant(student).items():
            text, count = re.subn(rf'^{key.upper()} = ".*"$', f'{key.upper()} = "{value}"', text, flags=re.M)
            assert count == 1, f"solution.py has {count} lines {key.upper()} = …"
        return text

    def grade(self, text: str, student: str, parts: str | None = None) -> dict:
        return grade_text(text, self.homework, self.homework.draw(student, None), parts=parts, pool=self.pool)

    def students_for(self, only: tuple[str, ...]) -> list[str]:
        """One student for each variant that a bug exists in."""
        found = {}
        for number in range(200):
            found.setdefault(self.variant(f"bug{number}")["variant"], f"bug{number}")
        return [who for variant, who in found.items() if not only or variant in only]

    def planted(self, name: str, student: str) -> str:
        """The solution with a bug in it."""
        bug, text = self.bugs[name], self.solved(student)
        begin = text.index(f"def {bug.function}(")
        end = text.find("\n\n\n", begin) if "\n\n\n" in text[begin:] else len(text)
        function = text[begin:end]
        assert function.count(bug.old) == 1, f"{name}: {bug.old!r} occurs {function.count(bug.old)} times in {bug.function}"
        return text[:begin] + function.replace(bug.old, bug.new) + text[end:]

    def with_hostile(self, snippet: str, student: str) -> str:
        return self.solved(student).replace("    check(z, temperature)\n", f"    {snippet}\n", 1)


def problem_with_bug(bench: Bench, name: str, student: str, parts: str | None = None) -> str:
    """Empty if the bug costs its part, and only that, and is named."""
    bug = bench.bugs[name]
    parts = bench.grade(bench.planted(name, student), student, parts)["parts"]
    for part in parts:
        lost = part["points"] < part["of"]
        if lost != (part["part"] == bug.part):
            return f"{name} ({student}): part {part['part']} earns {part['points']} of {part['of']}"
    said = " ".join(text for part in parts for text in (part["message"], *(check["message"] for check in part["checks"])) if text)
    return "" if bug.says in said else f"{name} ({student}): {bug.says!r} is not in {said!r}"


def problem_with_hostile(bench: Bench, name: str, student: str, parts: str | None = None) -> str:
    """Empty if a hostile file gets 0 in part B, all points elsewhere, and the right sentence."""
    snippet, says = bench.hostile.FILES[name]
    report = bench.grade(bench.with_hostile(snippet, student), student, parts)
    points = {part["part"]: part["points"] for part in report["parts"]}
    b = next(part for part in report["parts"] if part["part"] == "B")
    said = " ".join((b["message"], *(check["message"] for check in b["checks"])))
    fine = points["B"] == 0 and report["points"] == report["of"] - b["of"] and says in said
    return "" if fine else f"{name}: {points}, {said!r}"


def main() -> None:
    began, bench, problems = time.perf_counter(), Bench(seconds=5), []
    assert label(bench.starter, "STUDENT") == "your id"
    for student in STUDENTS:
        if points := bench.grade(bench.starter, student)["points"]:
            problems.append(f"the starter earns {points} as {student}")
        report = bench.grade(bench.solved(student), student)
        if report["points"] != report["of"] or report["of"] != 100:
            problems.append(f"the solution earns {report['points']} of {report['of']} as {student}")
    cases = [(name, student) for name, bug in bench.bugs.items() for student in bench.students_for(bug.only)]
    problems += filter(None, (problem_with_bug(bench, *case) for case in cases))
    problems += filter(None, (problem_with_hostile(bench, name, "student0") for name in bench.hostile.FILES))
    print(f"{len(STUDENTS)} ids, {len(cases)} planted bugs ({len(bench.bugs)} kinds), {len(bench.hostile.FILES)} hostile files")
    print("\n".join(problems) or "all as it should be", f"\n{time.perf_counter() - began:.0f} s")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
