"""What the comparisons share: all sides run in turn in one process, and a speed is a median over rounds.

A busy machine slows every side of a round alike, so a ratio within a round holds where an absolute time does not.
"""
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median

import torch

from minivit.engine import keep_memory

OURS, CORES = "minivit", 2


@dataclass(frozen=True)
class Row:
    """Our time and a peer's in milliseconds, medians; ``speeds``: the peer's time over ours in each round, from low to high.

    A peer that is not installed has no time and no speeds.
    """

    what: str
    ours_ms: float
    peer: str
    peer_ms: float | None = None
    speeds: tuple[float, ...] = ()

    @property
    def speed(self) -> float | None:
        """The median: at 2, ours needs half the time of the peer."""
        return median(self.speeds) if self.speeds else None


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def limit_numpy(count: int) -> AbstractContextManager:
    """threadpoolctl comes with scikit-learn."""
    if not installed("threadpoolctl"):
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(count, user_api="blas")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch, and NumPy's linear algebra where scikit-learn is installed, compute on ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with limit_numpy(count):
            yield
    finally:
        torch.set_num_threads(before)


def in_turn(sides: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round. A side runs once and says how long it took; every other round goes backwards."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            times[name].append(sides[name]())
    return times


def stopwatch(step: Callable[[], object], repeats: int = 1) -> Callable[[], float]:
    """A side for `in_turn`: the mean seconds of one of ``repeats`` steps."""

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return (time.perf_counter() - start) / repeats

    return seconds


def compare(
    what: str, sides: dict[str, Callable[[], object]], *, rounds: int = 9, repeats: int = 1, absent: tuple[str, ...] = ()
) -> list[Row]:
    """Ours (`OURS`) against every other side, after a warm-up; a line without figures for each peer that is ``absent``."""
    keep_memory()  # as `fit` does
    with threads(CORES):
        for step in sides.values():
            stopwatch(step, min(repeats, 3))()
        times = in_turn({name: stopwatch(step, repeats) for name, step in sides.items()}, rounds=rounds)
    ours = times.pop(OURS)
    mine = 1000 * median(ours)
    rows = []
    for peer, theirs in times.items():
        speeds = sorted(their / our for our, their in zip(ours, theirs, strict=True))
        rows.append(Row(what, mine, peer, 1000 * median(theirs), tuple(speeds)))
    return rows + [Row(what, mine, peer) for peer in absent]


def agree(what: str, gap: float, tolerance: float) -> None:
    """Sides that compute different things must not be compared. ValueError, with the gap between them."""
    if not gap <= tolerance:
        raise ValueError(f"{what}: the sides differ by {gap:.1e}, more than {tolerance:.0e}; their times say nothing.")


LINE = "{:<46} {:>9}  {:<44} {:>9}  {}"
HEADER = LINE.format("what", "ours ms", "peer", "peer ms", "speed (lowest … highest)")


def line(row: Row) -> str:
    """One line of the table."""
    ours = f"{row.ours_ms:.2f}"
    if row.speed is None:
        return LINE.format(row.what, ours, row.peer, "–", "not installed: left out")
    return LINE.format(row.what, ours, row.peer, f"{row.peer_ms:.2f}", f"{row.speed:.2f} ({row.speeds[0]:.2f} … {row.speeds[-1]:.2f})")


def show(rows: list[Row]) -> None:
    """The table of one comparison."""
    print(HEADER, *map(line, rows), sep="\n")
