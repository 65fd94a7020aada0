"""The ledger: each claim a comparison of two figures over seeds, each verdict computed from a study's log."""
import math
import tomllib
from pathlib import Path
from typing import Any

from minivit.studies import read_study, values

ROOT = Path(__file__).parents[2]


def verdict(differences: list[float]) -> str:
    """*holds* or *did not hold* by the sign of the mean difference; *inconclusive* under twice its standard error or with fewer than 3 seeds.
    NaN, of a run that diverged or could not tell, is no seed."""
    if not differences:
        return "not run"
    differences = told(differences)
    n = len(differences)
    if n < 3:
        return "inconclusive"
    mean = sum(differences) / n
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    if abs(mean) < 2 * error:
        return "inconclusive"
    return "holds" if mean > 0 else "did not hold"


def told(differences: list[float]) -> list[float]:
    """Those of the seeds that had the figures to compare."""
    return [difference for difference in differences if not math.isnan(difference)]


def side_of(runs: list[dict[str, Any]], words: str | float) -> list[float]:
    """One side of a claim, over the seeds: "cell:figure"; "cell|cell:figure", the cell with the best mean (each method at its own
    best setting); "cell&cell:figure", the mean of the cells; a difference of two such, "a:figure - b:figure"; or a number, a
    threshold that was fixed before the runs."""
    if not isinstance(words, str):
        return [float(words)] * len({run["seed"] for run in runs if "error" not in run})
    first, _, second = words.partition(" - ")
    if second:
        return minus(side_of(runs, first), side_of(runs, second))
    cells, figure = words.split(":")
    if "&" in cells:
        return [sum(seed) / len(seed) for seed in zip(*(values(runs, cell, figure) for cell in cells.split("&")), strict=False)]
    return max((values(runs, cell, figure) for cell in cells.split("|")), key=_mean)


def _mean(found: list[float]) -> float:
    """0 of nothing; a cell with a diverged run comes last."""
    mean = sum(found) / max(len(found), 1)
    return -math.inf if math.isnan(mean) else mean


def minus(more: list[float], less: list[float]) -> list[float]:
    """Seed by seed; nothing while one side has seeds that the other still lacks, as in a study that is being run."""
    return [a - b for a, b in zip(more, less, strict=True)] if len(more) == len(less) else []


def ledger(root: Path = ROOT) -> list[dict[str, Any]]:
    """Every claim of ``data/claims.toml`` with its differences and its verdict, per scale."""
    claims = tomllib.loads((root / "data" / "claims.toml").read_text())["claim"]
    for claim in claims:
        claim["verdicts"], claim["differences"] = {}, {}
        for scale in ("pocket", "full"):
            test = claim.get(scale)
            differences = []
            if test:
                _, runs = read_study(root / "data" / "runs" / test["study"])
                differences = minus(*(side_of(runs, test[side]) for side in ("more", "less")))
            claim["differences"][scale], claim["verdicts"][scale] = differences, verdict(differences)
    return claims


def print_ledger(chapter: str | None = None, root: Path = ROOT) -> None:
    """One line for each claim: id, what is claimed, verdict at pocket and at full scale, mean difference and seeds."""
    for claim in ledger(root):
        if chapter is None or claim["chapter"] == chapter:
            print(f"{claim['id']}  {claim['claim']}  [{claim['source']}]")
            for scale, differences in claim["differences"].items():
                differences = told(differences)
                mean = sum(differences) / max(len(differences), 1)
                shown = f": {mean:{'+.2f' if abs(mean) >= 0.005 else '+.4f'}} over {len(differences)} seeds" if differences else ""
                print(f"    {scale}: {claim['verdicts'][scale]}{shown}")
