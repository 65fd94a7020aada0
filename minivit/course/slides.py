"""Signature figures for slides, each a pure function of stored data."""
import json
from pathlib import Path

import torch

from minivit.course.claims import ROOT
from minivit.course.plots import ch00
from minivit.course.plots.style import save_slide, use_style
from minivit.datasets import load_data


def chapter_00(root: Path):
    stored = json.loads((root / "data" / "runs" / "chapter_00.json").read_text())
    train, test = load_data("shapes"), load_data("shapes", "test")
    found = {name: torch.tensor(ids) for name, ids in stored["neighbours"].items()}
    figure = ch00.neighbours(train, test, stored["query"], found)
    return figure, ch00.neighbours_alt(train, test, stored["query"], found)


FIGURES = {"00": ("00_neighbours", chapter_00)}


def write(chapter: str, out: Path, root: Path = ROOT) -> list[Path]:
    """Draw the signature figure of a chapter and write it as png, svg and pdf."""
    if chapter not in FIGURES:
        raise ValueError(f"no signature figure for chapter {chapter!r} yet; there are {', '.join(FIGURES)}.")
    use_style()
    name, draw = FIGURES[chapter]
    figure, alt = draw(root)
    return save_slide(figure, out / name, alt)
