"""Planted bugs of homework 01. Each is a piece of one function of solution.py, what stands there instead, the part that must
lose points for it, and words of the sentence that must name it. To add one, add a line."""
from typing import NamedTuple


class Bug(NamedTuple):
    """``only``: variants that the bug exists in; none named means all."""

    part: str
    function: str
    old: str
    new: str
    says: str
    only: tuple[str, ...] = ()


EYE = "torch.eye(len(z), dtype=torch.bool)"
LOSS, PULL, LABEL, NAME = ("B", "variant_loss"), ("C", "similarity_gradient"), ("D", "label_aware_loss"), ("E", "diagnose")
OWN, TAU, DECOUPLED = ("own side",), ("own temperature",), ("decoupled",)
S = "logits = cosines(z) / column(temperature, z)"
LSE = "logits.masked_fill(~keep, -math.inf).logsumexp(1)"
OTHER = "(torch.arange(len(z)) ^ 1 if LAYOUT != 'interleaved' else torch.arange(len(z)).roll(len(z) // 2))"
VIEW = '(torch.arange(len(z)) % 2 if LAYOUT == "interleaved" else torch.arange(len(z)) * 2 // len(z))'
POSITIVE = "torch.nn.functional.one_hot(partner(len(z) // 2), len(z)).bool()"
WEIGHED = "logits + torch.where(same, math.log(weight) if weight else -math.inf, 0.0).to(z.dtype)"
OTHER_IMAGE = "torch.arange(2 * batch) % batch if LAYOUT == 'interleaved' else torch.arange(2 * batch) // 2"
REST = "rest = logits.masked_fill(~negative, -math.inf).logsumexp(1)\n    return (torch.logaddexp(positive, rest) - positive).mean()"
TYPE = "try: check(z, temperature)\n    except ValueError as error: raise TypeError(error)"
ASSERT = "assert len(z) >= 4 and len(z) % 2 == 0 and bool((torch.as_tensor(temperature) > 0).all())"

BUGS = {
    # A: rows and pairs
    "other layout": Bug("A", "positive_of", '== "interleaved"', '!= "interleaved"', "those are the positives of"),
    "itself": Bug("A", "positive_of", "rows = ", "return ", "that is the row itself"),
    "index as float": Bug("A", "positive_of", "torch.arange(2 * batch)", "torch.arange(2.0 * batch); return rows", "must be int64"),
    "0 and 1": Bug("A", "is_negative", "return keep", "return keep.long()", "must be bool"),
    "positive kept": Bug("A", "is_negative", "keep[torch.arange(2 * batch), partner(batch)] = False", "pass", "the positive is among"),
    "diagonal kept": Bug("A", "is_negative", "~torch.eye(2 * batch, dtype=torch.bool)", "torch.ones(2 * batch, 2 * batch) > 0", "its own negative"),
    "opposite": Bug("A", "is_negative", "return keep", "return ~keep", "the opposite"),
    # B: the loss
    "self pair": Bug(*LOSS, "~keep,", f"~(keep | {EYE}),", "the self pair is still"),
    "self pair counts as 1": Bug(*LOSS, LSE, f"logits.masked_fill({EYE}, 0).masked_fill(~(keep | {EYE}), -math.inf).logsumexp(1)", "right is"),
    "not normalised": Bug(*LOSS, "cosines(z)", "(z @ z.T)", "not normalised"),
    "normalised over the batch": Bug(*LOSS, "cosines(z)", "((z / z.norm(dim=0)) @ (z / z.norm(dim=0)).T)", "right is"),
    "multiplied": Bug(*LOSS, "cosines(z) / ", "cosines(z) * ", "you multiply by the temperature"),
    "sum": Bug(*LOSS, ".mean()", ".sum()", "take the mean"),
    "doubled": Bug(*LOSS, ".mean()", ".mean() * 2", "twice the loss"),
    "other pairs": Bug(*LOSS, "partner(len(z) // 2)", OTHER, "right is", OWN),
    "other pairs, both views": Bug(*LOSS, "partner(len(z) // 2)", OTHER, "the rows are paired", TAU),
    "one number for each anchor": Bug(*LOSS, ".mean()", "", "returned the shape"),
    "positive left out": Bug(*LOSS, "~keep,", f"~keep | {POSITIVE},", "the positive is missing", OWN + TAU),
    "positive kept in": Bug(*LOSS, "~keep,", f"~(keep | {POSITIVE}),", "your variant leaves it out", DECOUPLED),
    "both views": Bug(*LOSS, "~keep,", f"{EYE},", "negatives come from both views", OWN),
    "the other view": Bug(*LOSS, "~keep,", f"({VIEW}[:, None] == {VIEW}),", "negatives come from the other view", OWN),
    "one view": Bug(*LOSS, "~keep,", f"~(keep & ({VIEW}[:, None] == {VIEW}) | {POSITIVE}),", "negatives come from one view only", TAU),
    "temperature of the column": Bug(*LOSS, "column(temperature, z)", "column(temperature, z).T", "belongs to the anchor", TAU),
    "mean temperature": Bug(*LOSS, "column(temperature, z)", "column(temperature, z).mean()", "one mean temperature", TAU),
    "detached": Bug(*LOSS, "cosines(z)", "cosines(z.detach())", "gradient"),
    "length detached": Bug(*LOSS, "cosines(z)", "((z / z.norm(dim=1, keepdim=True).detach()) @ (z / z.norm(dim=1, keepdim=True).detach()).T)", "cut"),
    "a Python number": Bug(*LOSS, "- positive).mean()", "- positive).mean().item()", "return a tensor"),
    "float32 always": Bug(*LOSS, "keep = ", "z = z.float(); keep = ", "the input is float64"),
    "exp overflows": Bug(*LOSS, LSE, "(logits.exp() * keep).sum(1).log()", "use logsumexp"),
    "no checks": Bug(*LOSS, "check(z, temperature)", "pass", "it must raise ValueError"),
    "asserts": Bug(*LOSS, "check(z, temperature)", ASSERT, "AssertionError"),
    "no sentence": Bug(*LOSS, "check(z, temperature)", "try: check(z, temperature)\n    except ValueError: raise ValueError", "without a sentence"),
    "another error": Bug(*LOSS, "check(z, temperature)", TYPE, "stops with TypeError"),
    # C: its derivative
    "no 1/τ": Bug(*PULL, "(weights - target) / column(temperature, z)", "weights - target", "one factor 1/τ"),
    "of the mean": Bug(*PULL, "(weights - target) /", "(weights - target) / len(z) /", "without 1/(2B)"),
    "sign": Bug(*PULL, "(weights - target)", "(target - weights)", "the sign"),
    "weights only": Bug(*PULL, "(weights - target)", "weights", "the weights of the denominator"),
    "exp in C": Bug(*PULL, "weights = ", "e = logits.exp() * counted(len(z) // 2); weights = e / e.sum(1, keepdim=True); logits = ", "use softmax"),
    "self pair in C": Bug(*PULL, "~counted(len(z) // 2)", f"~(counted(len(z) // 2) | {EYE})", "the self pair is still"),
    "autograd": Bug(*PULL, "target = ", "torch.autograd.forward_ad; target = ", "it uses autograd"),
    # D: labels
    "positive weighed down": Bug(*LABEL, " & negative", "", "count"),
    "order of labels": Bug(*LABEL, "image_and_view(batch)[0]", OTHER_IMAGE, "order of"),
    "reversed": Bug(*LABEL, "(label[:, None] == label)", "(label[:, None] != label)", "weigh down those of the anchor's own class"),
    "labels ignored": Bug(*LABEL, "& negative", "& False", "the labels change nothing"),
    "weighs the logit": Bug(*LABEL, WEIGHED, "torch.where(same, weight * logits, logits)", "right is"),
    "nobody left": Bug(*LABEL, "return (logits.logsumexp(1) - positive).mean()", REST, "only the positive is left"),
    # E: names
    "first reading only": Bug(*NAME, "if not near(spread, longer)", 'return "right"\n    if not near(spread, longer)', "use the other two"),
    "second reading wrong": Bug(*NAME, "math.exp(-temperature)", "math.exp(-2 * temperature)", "right is 'multiplied'"),
    "always right": Bug(*NAME, "chance = ", 'return "right"; chance = ', "compare the first reading"),
    "2B−1 negatives": Bug(*NAME, 'math.log(2 * batch - 2)', "math.log(2 * batch - 3)", "right is 'no positive'"),
}  # fmt: skip
