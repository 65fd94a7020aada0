"""Audit a recorded run: train its first steps again on this machine and lay them over its log."""
from dataclasses import replace
from pathlib import Path

import torch

from minivit.datasets import load_data
from minivit.presets import Preset
from minivit.runs import Run


def replay(folder: str | Path, *, steps: int = 20, data: str | None = None, tolerance: float = 0.01) -> tuple[bool, list[tuple[int, float, float]]]:
    """Re-run the first steps of a recorded run. Returns whether they agree, and (step, recorded loss, loss here) for each.

    They agree where every loss is within ``tolerance``, as a share of the recorded one: other machines and thread counts
    round differently and the differences grow with the steps. ``data`` names the images if they lie elsewhere here.
    Raises ValueError where the images are not those of the recorded run.
    """
    recorded = Run.load(folder)
    settings = Preset(**recorded.config["preset"])
    chosen = replace(settings, data=data or settings.data)
    train = load_data(chosen.data, "train", size=chosen.data_size, limit=chosen.limit)
    expected = recorded.config["data"]["checksum"]
    if train.checksum() != expected:
        raise ValueError(f"the images of {chosen.data} (checksum {train.checksum()}) are not those of the run ({expected}).")
    threads = torch.get_num_threads()
    torch.set_num_threads(min(recorded.card.get("threads", threads), threads))
    try:
        _, run = chosen.fit(train, seed=recorded.config["fit"]["seed"], stop_after=steps)
    finally:
        torch.set_num_threads(threads)
    rows = list(zip(*recorded.history("loss"), run.history("loss")[1], strict=False))
    return all(abs(new - old) <= tolerance * abs(old) for _, old, new in rows), rows
