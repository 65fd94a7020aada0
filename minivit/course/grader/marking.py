"""What a check asks and how its answers are judged: right, or the likely mistake by name."""
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Numbers = Any  # a number, a list of numbers, a list of such lists; in "one of" checks a text


@dataclass(frozen=True)
class Call:
    """One call of a student's function. ``grad`` numbers the arguments whose gradient is wanted."""

    function: str
    args: tuple
    grad: tuple[int, ...] = ()


@dataclass(frozen=True)
class Check:
    """Some calls, the right answers, and wrong answers whose cause is known.

    ``look`` is what is compared: "value", "grads", or "error" (every call must raise ValueError with a sentence).
    ``right`` and the functions in ``mistakes`` give one answer per call; they are worked out only when needed.
    """

    name: str
    calls: tuple[Call, ...]
    right: Callable[[], list[Numbers]]
    mistakes: tuple[tuple[Callable[[], list[Numbers]], str], ...] = ()
    look: str = "value"
    dtypes: tuple[str, ...] = ()  # allowed types of the answer; otherwise that of the first floating-point argument
    tolerance: float = 1e-7
    advice: str = ""


@dataclass
class Mark:
    """What one check came to. ``status`` is pass, not yet, waits, not attempted or zero."""

    name: str
    of: int
    points: int = 0
    status: str = "waits"
    message: str = ""


@dataclass
class PartMark:
    """What one part came to."""

    part: str
    title: str
    of: int
    points: int = 0
    status: str = "not yet"
    message: str = ""
    checks: list[Mark] = field(default_factory=list)


def tensor(values: Numbers, dtype: str = "float64") -> dict:
    """Nested lists as the child takes them."""
    shape, inner = [], values
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0]
    return {"tensor": flat(values), "shape": shape, "dtype": dtype}


def flat(values: Numbers) -> list:
    return [x for inner in values for x in flat(inner)] if isinstance(values, list) else [values]


def shape(values: Numbers) -> list[int]:
    return [len(values), *shape(values[0])] if isinstance(values, list) else []


def judge(check: Check, answers: list[dict]) -> str:
    """The empty string if the answers are right, else one sentence."""
    if check.look == "error":
        return next((text for call, answer in zip(check.calls, answers) if (text := _accepted(call, answer))), "")
    right = check.right()
    problems = (_form(check, call, answer, value) for call, answer, value in zip(check.calls, answers, right, strict=True))
    if problem := next(filter(None, problems), ""):
        return problem
    given = [_content(check, answer) for answer in answers]
    if _same(given, right, check.tolerance):
        return ""
    for wrong, text in check.mistakes:
        if _same(given, wrong(), check.tolerance):
            return text
    return _difference(check, given, right)


def _accepted(call: Call, answer: dict) -> str:
    """Why bad input was not refused as it should be."""
    if answer.get("error") == "ValueError" and len(answer.get("text", "")) >= 10:
        return ""
    if answer.get("error") == "ValueError":
        return "you raise ValueError, but without a sentence that says what is wrong."
    did = f"stops with {answer['error']}" if "error" in answer else "gives an answer"
    return f"{call.function}({', '.join(map(_short, call.args))}) {did}; it must raise ValueError with one sentence."


def _form(check: Check, call: Call, answer: dict, right: Numbers) -> str:
    """What is wrong with kind, shape or type of an answer."""
    if "error" in answer:
        where = f" (line {answer['line']})" if isinstance(answer.get("line"), int) else ""
        return f"{call.function} stopped with {answer['error']}: {answer.get('text', '')}{where}"
    if check.look == "grads" and not all("tensor" in gradient for gradient in answer["grads"] or [{}]):
        return "no gradient reaches the arguments: is there a detach, .item(), no_grad or new tensor made from numbers on the way?"
    content = _content(check, answer)
    if not isinstance(content, list) and not isinstance(content, str) or "other" in answer["value"]:
        return f"{call.function} returned {answer['value'].get('other', 'something else')}; see its docstring for what it must return."
    if isinstance(right, str):
        return "" if isinstance(content, str) else f"{call.function} must return a text."
    if "number" in answer["value"]:
        return f"{call.function} returned a Python number; return a tensor, so that a gradient can flow."
    if check.look == "value" and answer["value"].get("shape") != shape(right):
        return f"{call.function} returned the shape {tuple(answer['value'].get('shape', ()))}; it must be {tuple(shape(right))}."
    return "" if check.look == "grads" else _dtype(check, call, answer, content)


def _dtype(check: Check, call: Call, answer: dict, content: list) -> str:
    given, wanted = answer["value"]["dtype"], next((a["dtype"] for a in call.args if isinstance(a, dict)), None)
    if check.dtypes and given not in check.dtypes:
        return f"{call.function} returned a tensor of {given}; it must be {' or '.join(check.dtypes)}."
    if not check.dtypes and given != wanted:
        return f"the input is {wanted}, so the answer must be, too; you returned {given}."
    if not all(math.isfinite(x) for x in content):
        return f"there is an infinity or a NaN in the answer. {check.advice}".strip()
    return ""


def _content(check: Check, answer: dict) -> list | str | None:
    if check.look == "grads":
        return [x for gradient in answer["grads"] for x in (gradient.get("tensor") or [])]
    value = answer["value"]
    return value.get("tensor") if "tensor" in value else [value["number"]] if "number" in value else value.get("text")


def _same(given: list, right: list[Numbers], tolerance: float) -> bool:
    return all(_close(g, r if isinstance(r, str) else flat(r), tolerance) for g, r in zip(given, right, strict=True))


def _close(given: list | str, right: list | str, tolerance: float) -> bool:
    if isinstance(given, str) or isinstance(right, str):
        return given == right
    allowed = tolerance * max(1, *map(abs, right))
    return len(given) == len(right) and all(abs(g - r) <= allowed for g, r in zip(given, right))


def _difference(check: Check, given: list, right: list[Numbers]) -> str:
    """The first wrong number beside the right one."""
    wrong = (not _close(g, r if isinstance(r, str) else flat(r), check.tolerance) for g, r in zip(given, right))
    call, g, r = next(case for case, differs in zip(zip(check.calls, given, right), wrong) if differs)
    if isinstance(r, str):
        return f"{call.function}({', '.join(map(_short, call.args))}) returned {g!r}; right is {r!r}."
    r = flat(r)
    if len(g) != len(r):
        return f"{call.function}: {len(g)} numbers came back, not {len(r)}."
    at = max(range(len(r)), key=lambda i: abs(g[i] - r[i]))
    what = "a gradient" if check.look == "grads" else "number" if len(r) == 1 else f"entry {at}, counted row by row,"
    return f"{call.function}({', '.join(map(_short, call.args))}): {what} is {g[at]:.6g}; right is {r[at]:.6g}. {check.advice}".strip()


def _short(arg: object) -> str:
    if isinstance(arg, dict):
        return f"<tensor {tuple(arg['shape'])}>" if len(arg["tensor"]) > 6 else str(arg["tensor"])
    return f"{arg:.5g}" if isinstance(arg, float) else str(arg)
