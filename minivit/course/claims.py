"""The ledger: each claim a comparison of two figures over seeds, each verdict computed from a study's log."""
import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from minivit.studies import failures, read_study, values

ROOT = Path(__file__).parents[2]


def verdict(differences: list[float]) -> str:
    """*holds* or *did not hold* by the sign of the mean difference; *inconclusive* under twice its standard error or with fewer than 3 seeds.
    NaN, of a run that diverged or could not tell, is no seed."""
    if not differences:
        return "not run"
    differences = told(differences)
    if len(differences) < 3:
        return "inconclusive"
    error = stdev(differences) / math.sqrt(len(differences))
    if abs(mean(differences)) < 2 * error:
        return "inconclusive"
    return "holds" if mean(differences) > 0 else "did not hold"


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
    if not found:
        return 0
    return -math.inf if any(map(math.isnan, found)) else mean(found)


def minus(more: list[float], less: list[float]) -> list[float]:
    """Seed by seed; nothing while one side has seeds that the other still lacks, as in a study that is being run."""
    return [a - b for a, b in zip(more, less, strict=True)] if len(more) == len(less) else []


def ledger(root: Path = ROOT, only: Collection[str] = (), chapter: str | None = None) -> list[dict[str, Any]]:
    """Every claim of ``data/claims.toml``, or those whose id is in ``only``, or of one chapter, with its differences and its verdict, per scale."""
    claims = tomllib.loads((root / "data" / "claims.toml").read_text())["claim"]
    claims = [claim for claim in claims if (not only or claim["id"] in only) and chapter in (None, claim["chapter"])]
    for claim in claims:
        claim["verdicts"], claim["differences"] = {}, {}
        for scale in ("pocket", "full"):
            test = claim.get(scale)
            differences = []
            if test:
                _, runs = read_study(root / "data" / "runs" / test["study"])
                if not failures(runs):  # else the two sides may have different seeds
                    differences = minus(*(side_of(runs, test[side]) for side in ("more", "less")))
            claim["differences"][scale], claim["verdicts"][scale] = differences, verdict(differences)
    return claims


def print_ledger(chapter: str | None = None, root: Path = ROOT) -> None:
    """One line for each claim: id, what is claimed, verdict at pocket and at full scale, mean difference and seeds."""
    for claim in ledger(root, chapter=chapter):
        print(f"{claim['id']}  {claim['claim']}  [{claim['source']}]")
        for scale, differences in claim["differences"].items():
            differences, shown = told(differences), ""
            if differences:
                gap = mean(differences)
                shown = f": {gap:{'+.2f' if abs(gap) >= 0.005 else '+.4f'}} over {len(differences)} seeds"
            print(f"    {scale}: {claim['verdicts'][scale]}{shown}")


def print_differences(words: Mapping[str, str], scale: str = "pocket", root: Path = ROOT) -> None:
    """For each claim's id a line in the given words: mean difference, deviation over the seeds (or draws), verdict."""
    claims = {claim["id"]: claim for claim in ledger(root, only=words)}
    for name, said in words.items():
        differences = told(claims[name]["differences"][scale])
        spread = f"{mean(differences):+.3f} ± {stdev(differences):.3f}, " if len(differences) > 1 else ""
        print(f"{said}: {spread}{claims[name]['verdicts'][scale]} ({name})")
