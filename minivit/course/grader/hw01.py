"""Homework 01, the teacher's half: what each student is asked, and the right answers, on plain Python numbers.

Everything here is a loop over numbers. It shares no code with the library or the solution, a copy of it in hw01.py would
let no gradient flow, and it takes complex numbers, too: with one entry z + ih the imaginary part of the loss is h times the
derivative by that entry, exact to the last digit for h = 1e-30. That is where the right gradients come from.
"""
import cmath
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from minivit.course.grader.draw import Draw
from minivit.course.grader.marking import Call, Check, Numbers, tensor

LAYOUTS = {
    "interleaved": "the two views of image k are the neighbouring rows 2k and 2k+1",
    "stacked": "first all first views, then all second views: rows i and i+B",
}
VARIANTS = {
    "own side": "the denominator holds the positive and the B−1 other rows of the anchor's own view",
    "own temperature": "anchor i has its own temperature τ_i; the denominator holds the positive and all 2B−2 negatives",
    "decoupled": "the denominator holds the 2B−2 negatives only; the positive is left out of it",
}
WEIGHTS = (0.2, 0.3, 0.4)
NAMES = ("right", "doubled", "summed", "self pair", "no positive", "one view", "not normalised", "multiplied", "wrong pairs")


@dataclass(frozen=True)
class Rule:
    """One version of the loss, right or wrong. ``tau`` says whose temperature a logit takes."""

    layout: str
    negatives: str = "both"  # views that negatives come from: both, own, other
    positive_counts: bool = True
    self_counts: bool = False
    unit: bool = True
    divides: bool = True
    tau: str = "row"
    reduce: str = "mean"
    pairs: str = ""  # a layout, where positives are looked up by another one

    def positive(self, i: int, rows: int) -> int:
        return i ^ 1 if (self.pairs or self.layout) == "interleaved" else (i + rows // 2) % rows

    def image(self, i: int, rows: int) -> int:
        return i // 2 if self.layout == "interleaved" else i % (rows // 2)

    def view(self, i: int, rows: int) -> int:
        return i % 2 if self.layout == "interleaved" else i // (rows // 2)

    def counts(self, i: int, k: int, rows: int) -> bool:
        """Whether row k is in the denominator of anchor i."""
        if k == i:
            return self.self_counts
        if k == self.positive(i, rows):
            return self.positive_counts
        same = self.view(i, rows) == self.view(k, rows)
        return self.negatives == "both" or same == (self.negatives == "own")


@functools.cache
def denominators(rule: Rule, rows: int) -> list[list[int]]:
    """The rows in the denominator of each anchor."""
    return [[k for k in range(rows) if rule.counts(i, k, rows)] for i in range(rows)]


def variant_rule(layout: str, variant: str) -> Rule:
    return Rule(layout, negatives="own" if variant == "own side" else "both", positive_counts=variant != "decoupled")


def logits_of(rule: Rule, z: Numbers, tau: Numbers) -> Numbers:
    """s(i,k)/τ for all rows; ``tau`` is a number or a list with one for each row."""
    n = len(z)
    taus = tau if isinstance(tau, list) else [tau] * n
    if rule.tau == "mean":
        taus = [sum(taus) / n] * n
    lengths = [sum(x * x for x in row) ** 0.5 if rule.unit else 1 for row in z]
    s = [[sum(a * b for a, b in zip(z[i], z[k])) / (lengths[i] * lengths[k]) for k in range(n)] for i in range(n)]
    of = [[taus[k] if rule.tau == "column" else taus[i] for k in range(n)] for i in range(n)]
    return [[s[i][k] / of[i][k] if rule.divides else s[i][k] * of[i][k] for k in range(n)] for i in range(n)]


def loss(rule: Rule, z: Numbers, tau: Numbers, weight: Callable[[int, int], float] = lambda i, k: 1.0) -> Numbers:
    """The mean over all anchors of −s(i,j)/τ + log Σ_k w(i,k) exp(s(i,k)/τ), with a loop for each sign."""
    n, total = len(z), 0
    logits = logits_of(rule, z, tau)
    for i in range(n):
        top = max(logits[i], key=lambda x: complex(x).real)
        inside = sum(weight(i, k) * cmath.exp(logits[i][k] - top) for k in denominators(rule, n)[i])
        total += cmath.log(inside) + top - logits[i][rule.positive(i, n)]
    value = total / {"mean": n, "sum": 1, "views": n / 2}[rule.reduce]
    return value if any(isinstance(x, complex) for row in logits for x in row) else value.real


def gradient(value: Callable[[Numbers], Numbers], at: Numbers) -> Numbers:
    """The derivative of a loss by every number in ``at`` (a list of numbers, or of rows), by the complex step."""
    h = 1e-30
    if isinstance(at[0], list):
        return [gradient(lambda row, r=r: value([*at[:r], row, *at[r + 1 :]]), at[r]) for r in range(len(at))]
    return [value([*at[:c], at[c] + 1j * h, *at[c + 1 :]]).imag / h for c in range(len(at))]


def pulls(rule: Rule, z: Numbers, tau: Numbers, *, by: str = "cosine", sign: int = 1, target: int = 1) -> Numbers:
    """∂ℓ_i/∂s(i,k) for every anchor i and row k: p(i,k)/τ_i, less 1/τ_i at the positive."""
    n = len(z)
    taus = tau if isinstance(tau, list) else [tau] * n
    out = []
    for i, row in enumerate(logits_of(rule, z, tau)):
        counted = denominators(rule, n)[i]
        top = max(row[k] for k in counted)
        total = sum(math.exp(row[k] - top) for k in counted)
        p = [math.exp(row[k] - top) / total if k in counted else 0.0 for k in range(n)]
        p[rule.positive(i, n)] -= target
        out.append([sign * x / {"cosine": taus[i], "logit": 1, "mean": n * taus[i]}[by] for x in p])
    return out


# ---- what is asked


def describe(draw: Draw) -> dict[str, str]:
    """The student's own task, in words."""
    layout, variant = draw.pick("layout", [*LAYOUTS]), draw.pick("variant", [*VARIANTS])
    return {"layout": f"{layout}: {LAYOUTS[layout]}", "variant": f"{variant}: {VARIANTS[variant]}"}


@functools.cache
def checks(draw: Draw) -> dict[str, list[Check]]:
    """The checks of each part, in the order in which they open one another."""
    layout, variant = draw.pick("layout", [*LAYOUTS]), draw.pick("variant", [*VARIANTS])
    rule = variant_rule(layout, variant)
    return {"A": part_a(draw, Rule(layout)), "B": part_b(draw, rule, variant), "C": part_c(draw, rule, variant),
            "D": part_d(draw, Rule(layout)), "E": part_e(draw)}  # fmt: skip


def other(layout: str) -> str:
    return "stacked" if layout == "interleaved" else "interleaved"


def part_a(draw: Draw, rule: Rule) -> list[Check]:
    sizes = [draw.pick("A small", [2, 3]), draw.pick("A large", [5, 6, 7])]

    def pair(r: Rule) -> list:
        return [[r.positive(i, 2 * b) for i in range(2 * b)] for b in sizes]

    def mask(keep: Callable[[int, int, int], bool]) -> list:
        return [[[keep(i, k, 2 * b) for k in range(2 * b)] for i in range(2 * b)] for b in sizes]

    def apart(i: int, k: int, n: int) -> bool:
        return rule.image(i, n) != rule.image(k, n)

    swapped = replace(rule, layout=other(rule.layout))
    return [
        Check("positives", tuple(Call("positive_of", (b,)) for b in sizes), lambda: pair(rule), dtypes=("int64",), mistakes=(
            (lambda: pair(swapped), f"those are the positives of {swapped.layout} views; yours are {rule.layout}."),
            (lambda: [list(range(2 * b)) for b in sizes], "that is the row itself; its positive is the other view of its image."),
            (lambda: [[rule.image(i, 2 * b) for i in range(2 * b)] for b in sizes], "that numbers the images; give the row of the other view."),
            (lambda: [p[:b] for p, b in zip(pair(rule), sizes)], "that covers the first B rows only; every one of the 2B rows is an anchor."),
        )),
        Check("negatives", tuple(Call("is_negative", (b,)) for b in sizes), lambda: mask(apart),
              dtypes=("bool",), mistakes=(
            (lambda: mask(lambda i, k, n: k != i), "the positive is among the negatives; take it out."),
            (lambda: mask(lambda i, k, n: k != rule.positive(i, n)), "each row is its own negative; take the diagonal out."),
            (lambda: mask(lambda i, k, n: k in (i, rule.positive(i, n))), "that is the opposite: True must stand where a row is a negative."),
            (lambda: mask(lambda i, k, n: k not in (i, swapped.positive(i, n))), f"those pairs are {swapped.layout}; yours are {rule.layout}."),
            (lambda: mask(lambda i, k, n: apart(i, k, n) and rule.view(i, n) == rule.view(k, n)), "you left out the other view's rows."),
            (lambda: mask(lambda i, k, n: apart(i, k, n) and rule.view(i, n) != rule.view(k, n)), "you left out the rows of the anchor's own view."),
        )),
    ]  # fmt: skip


def wrong_rules(rule: Rule, variant: str) -> list[tuple[Rule, str]]:
    """Versions of the loss that people write in place of ``rule``, with a sentence for each."""
    wrong = [
        (replace(rule, self_counts=True), "the self pair is still in the denominator: mask the diagonal before the sum, not after."),
        (replace(rule, unit=False), "the vectors are not normalised: s is the cosine, so divide each row by its length first."),
        (replace(rule, divides=False), "you multiply by the temperature; divide by it."),
        (replace(rule, layout=other(rule.layout)), f"the rows are paired as {other(rule.layout)} views; yours are {rule.layout}."),
        (replace(rule, reduce="sum"), "that is the sum over the anchors; take the mean."),
        (replace(rule, reduce="views"), "that is twice the loss: the sum over the two views, as in the official log; take the mean over 2B anchors."),
        (replace(rule, positive_counts=not rule.positive_counts),
         "the positive is in the denominator; your variant leaves it out." if variant == "decoupled" else
         "the positive is missing from the denominator; only the self pair leaves it."),
    ]  # fmt: skip
    if variant == "own side":
        wrong += [
            (replace(rule, negatives="both"), "negatives come from both views; your variant takes those of the anchor's own view only."),
            (replace(rule, negatives="other"), "negatives come from the other view; your variant takes those of the anchor's own view."),
        ]
    else:
        wrong += [
            (replace(rule, negatives="own"), "negatives come from one view only, the anchor's own; take those of both."),
            (replace(rule, negatives="other"), "negatives come from one view only, the other one; take those of both."),
        ]
    if variant == "own temperature":
        wrong += [
            (replace(rule, tau="column"), "each column is divided by its temperature; τ_i belongs to the anchor, that is to row i."),
            (replace(rule, tau="mean"), "you use one mean temperature; anchor i has its own."),
        ]
    return wrong


def temperatures(draw: Draw, variant: str, name: str, batch: int, low: float, high: float) -> Numbers:
    """One temperature, or one for each anchor where the variant has it so."""
    if variant == "own temperature":
        return draw.numbers(f"{name} tau", [2 * batch], low, high)
    return draw.numbers(f"{name} tau", [1], low, high)[0]


def given(tau: Numbers, dtype: str = "float64") -> dict | float:
    return tensor(tau, dtype) if isinstance(tau, list) else tau


def cases_of(draw: Draw, part: str, variant: str, low: float, high: float) -> list[tuple]:
    """Two batches of different sizes with their temperatures."""
    sizes = ((draw.pick(f"{part} B", [3, 4]), draw.pick(f"{part} D", [5, 7])), (draw.pick(f"{part} B2", [5, 6]), draw.pick(f"{part} D2", [2, 3])))
    cases = [(draw.numbers(f"{part} z{b}", [2 * b, d], -2, 2), temperatures(draw, variant, f"{part}{b}", b, low, high)) for b, d in sizes]
    if high < 0.1:  # three rows of one direction: their cosine is 1, and the exponential of 1/τ overflows in float32
        cases = [([z[0], *([m * x for x in z[0]] for m in (2, 3)), *z[3:]], tau) for z, tau in cases]
    return cases


def part_b(draw: Draw, rule: Rule, variant: str) -> list[Check]:
    cases, cold = cases_of(draw, "B", variant, 0.2, 0.8), cases_of(draw, "B cold", variant, 0.006, 0.009)
    z, own = cases[0][0], variant == "own temperature"

    def calls(cases: list[tuple], dtype: str = "float64", grad: tuple[int, ...] = ()) -> tuple[Call, ...]:
        return tuple(Call("variant_loss", (tensor(z, dtype), given(tau, dtype)), grad) for z, tau in cases)

    def both(z: Numbers, tau: Numbers) -> Numbers:
        by_z = gradient(lambda x: loss(rule, x, tau), z)
        return [by_z, gradient(lambda t: loss(rule, z, t), tau)] if own else by_z

    def bad_tau(value: float) -> dict | float:
        return given([0.5] * (len(z) - 1) + [value]) if own else value

    bad = [(z[:2], given([0.5] * 2 if own else 0.5)), (z[:5], given([0.5] * 5 if own else 0.5)), (z, bad_tau(0.0)), (z, bad_tau(-0.1))]
    wrong = tuple((lambda r=r: [loss(r, *case) for case in cases], text) for r, text in wrong_rules(rule, variant))
    return [
        Check("value", calls(cases), lambda: [loss(rule, *case) for case in cases], wrong),
        Check("gradient", calls(cases[:1], grad=(0, 1) if own else (0,)), lambda: [both(*case) for case in cases[:1]], look="grads",
              advice="The value is right, so some path to it is cut (a detach, a max or a length taken without gradient)."),
        Check("small temperature", calls(cold, "float32"), lambda: [loss(rule, *case) for case in cold], tolerance=1e-3,
              advice="At τ < 0.01 exp(s/τ) does not fit into float32: use logsumexp."),
        Check("bad input", tuple(Call("variant_loss", (tensor(x), tau)) for x, tau in bad), list, look="error"),
    ]  # fmt: skip


def part_c(draw: Draw, rule: Rule, variant: str) -> list[Check]:
    cases, cold = cases_of(draw, "C", variant, 0.2, 0.8), cases_of(draw, "C cold", variant, 0.006, 0.009)

    def calls(cases: list[tuple], dtype: str = "float64") -> tuple[Call, ...]:
        return tuple(Call("similarity_gradient", (tensor(z, dtype), given(tau, dtype))) for z, tau in cases)

    def answers(r: Rule, **how: object) -> Callable[[], list]:
        return lambda: [pulls(r, *case, **how) for case in cases]

    return [
        Check("value", calls(cases), answers(rule), (
            (answers(rule, by="logit"), "that is the derivative by s/τ; one factor 1/τ is missing."),
            (answers(rule, by="mean"), "that is the derivative of the mean over the anchors; give each anchor's own ℓ_i, without 1/(2B)."),
            (answers(rule, sign=-1), "the sign is turned round: the loss falls when the positive comes nearer, so its entry is negative."),
            (answers(rule, target=0), "those are the weights of the denominator; the positive also gets −1/τ from the numerator."),
            *((answers(r), text) for r, text in wrong_rules(rule, variant)),
        )),
        Check("small temperature", calls(cold, "float32"), lambda: [pulls(rule, *case) for case in cold], tolerance=1e-3,
              advice="At τ < 0.01 exp(s/τ) does not fit into float32: use softmax, which takes the largest out first."),
    ]  # fmt: skip


def part_d(draw: Draw, rule: Rule) -> list[Check]:
    w = draw.pick("D weight", list(WEIGHTS))
    cases = [(*case, draw.numbers(f"D y{len(case[0])}", [len(case[0]) // 2], 0, 3, whole=True), weight)
             for case, weight in zip(cases_of(draw, "D", "", 0.2, 0.8), (w, 0.0))]  # fmt: skip
    cases = [(z, tau, [y[0], *y[:-1]], weight) for z, tau, y, weight in cases]  # at least one pair of images of one class
    alone = (*cases[0][:2], [1] * (len(cases[0][0]) // 2), 0.0)

    def call(case: tuple, grad: tuple[int, ...] = ()) -> Call:
        z, tau, labels, weight = case
        return Call("label_aware_loss", (tensor(z), tensor(labels, "int64"), tau, weight), grad)

    def value(z: Numbers, tau: float, labels: list, weight: float, wrong: str = "") -> Numbers:
        n = len(z)
        by = replace(rule, layout=other(rule.layout)) if wrong == "order" else rule

        def of(i: int, k: int) -> float:
            same = (labels[by.image(i, n)] == labels[by.image(k, n)]) != (wrong == "reversed")
            kept = k == rule.positive(i, n) and wrong != "positive" or wrong == "ignored"
            return 1.0 if kept or not same else max(weight, 1e-300)  # log(0) does not exist; this is nothing beside the positive

        return loss(rule, z, tau, of)

    def named(wrong: str) -> Callable[[], list]:
        return lambda: [value(*case, wrong=wrong) for case in cases]

    return [
        Check("value", tuple(map(call, cases)), named(""), advice="The positive counts in full, whatever the weight.", mistakes=(
            (named("positive"), "the positive has its image's class, too, and you weigh it down; it must count in full."),
            (named("order"), f"the labels are repeated in the order of {other(rule.layout)} views; yours are {rule.layout}."),
            (named("reversed"), "you weigh the other classes down; weigh down those of the anchor's own class."),
            (named("ignored"), "the labels change nothing: that is plain NT-Xent."),
            *((lambda r=r: [loss(r, *case[:2]) for case in cases], text) for r, text in wrong_rules(rule, "")),
        )),
        Check("gradient", (call(cases[1], (0,)),), lambda: [gradient(lambda x: value(x, *cases[1][1:]), cases[1][0])], look="grads",
              advice="The value is right, so some path to it is cut."),
        Check("nobody to push", (call(alone, (0,)),), lambda: [[[0.0] * len(row) for row in alone[0]]], look="grads",
              advice="All images are of one class and weight = 0: only the positive is left, the loss is 0 and so is every gradient."),
    ]  # fmt: skip


def readings(name: str, batch: int, tau: float) -> tuple[float, float, float]:
    """What an implementation with this mistake gives for collapsed vectors, for orthogonal images, and for those of twice the length."""
    right = Rule("stacked")
    rule = {
        "right": right, "doubled": replace(right, reduce="views"), "summed": replace(right, reduce="sum"),
        "self pair": replace(right, self_counts=True), "no positive": replace(right, positive_counts=False),
        "one view": replace(right, negatives="other"), "not normalised": replace(right, unit=False),
        "multiplied": replace(right, divides=False), "wrong pairs": replace(right, pairs="interleaved"),
    }[name]  # fmt: skip
    spread = [[float(i % batch == c) for c in range(batch)] for i in range(2 * batch)]
    longer = [[2 * x for x in row] for row in spread]
    return loss(rule, [[1.0]] * 2 * batch, tau), loss(rule, spread, tau), loss(rule, longer, tau)


def part_e(draw: Draw) -> list[Check]:
    settings = list(zip((draw.pick("E B", [4, 5, 6]), draw.pick("E B2", [7, 8, 9])), (draw.pick("E tau", [0.25, 0.3, 0.4]), 0.6)))

    def check(title: str, names: tuple[str, ...], blind: str) -> Check:
        asked = [(name, b, tau) for b, tau in settings for name in names]
        calls = tuple(Call("diagnose", (b, tau, *readings(name, b, tau))) for name, b, tau in asked)
        return Check(title, calls, lambda: [name for name, _, _ in asked], mistakes=((lambda: ["right"] * len(asked), blind),))

    return [
        check("one reading", NAMES[1:6], "you call everything right; compare the first reading with ln(2B−1)."),
        check("all readings", (NAMES[0], *NAMES[6:]), "a right first reading is not enough; use the other two."),
    ]
