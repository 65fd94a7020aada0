"""Signature figures for slides, each a pure function of stored data."""
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure

from minivit.course.claims import ROOT
from minivit.course.plots import ch00
from minivit.course.plots.style import save_slide, use_style
from minivit.datasets import load_data
from minivit.evaluate import extract_features, raw_pixels
from minivit.presets import preset
from minivit.runs import write_atomic

STORED = Path("data/runs/chapter_00/neighbours.json")
QUERY = 980  # a disc


def record_00(root: Path = ROOT) -> None:
    """Train chapter 00's live run and store who the query's neighbours are, before and after."""
    torch.set_num_threads(1)
    experiment = preset("simclr/pocket_live")
    train, test = experiment.load()
    untrained = experiment.build(len(train.classes), seed=0).backbone
    method, _ = experiment.fit(train, seed=0)
    found = {}
    for name, fn in (("raw pixels", raw_pixels), ("before training", untrained), ("after training", method.backbone)):
        bank, queries = (extract_features(fn, data, transform=method.recipe.eval)[0] for data in (train, test))
        found[name] = ch00.nearest(bank, queries[QUERY : QUERY + 1])[0].tolist()
    write_atomic(root / STORED, (json.dumps({"query": QUERY, "neighbours": found}) + "\n").encode())


def chapter_00(root: Path) -> tuple[Figure, str]:
    stored = json.loads((root / STORED).read_text())
    train, test = load_data("shapes"), load_data("shapes", "test")
    found = {name: torch.tensor(ids) for name, ids in stored["neighbours"].items()}
    figure = ch00.neighbours(train, test, stored["query"], found)
    return figure, ch00.neighbours_alt(train, test, stored["query"], found)


FIGURES = {"00": ("00_neighbours", chapter_00, record_00)}


def write(chapter: str, out: Path, *, record: bool = False, root: Path = ROOT) -> list[Path]:
    """Draw the signature figure of a chapter and write it as png, svg and pdf; ``record`` makes its data anew first."""
    if chapter not in FIGURES:
        raise ValueError(f"no signature figure for chapter {chapter!r} yet; there are {', '.join(FIGURES)}.")
    use_style()
    name, draw, make_data = FIGURES[chapter]
    if record:
        make_data(root)
    figure, alt = draw(root)
    return save_slide(figure, out / name, alt)
