"""A run is a folder: what was asked (config.json), what happened (metrics.jsonl), what came out (card.json), and checkpoints."""
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, flush it to disk, rename: a reader sees the old file or the new one, whole.

    Raises OSError, with the path and what to do, when the disk is full; the old file then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        message = f"could not write {path} ({error.strerror}): free some space and run again; what was there before is kept"
        raise OSError(error.errno, message) from error


class Run:
    """What one training run leaves behind. Without a folder it lives in memory only.

    ``metrics`` is a list with a dict for each step; ``history("loss")`` gives two lists for plotting.
    """

    def __init__(self, folder: str | Path | None = None, config: dict[str, Any] | None = None):
        self.folder = Path(folder) if folder else None
        self.config: dict[str, Any] = config or {}
        self.metrics: list[dict[str, float]] = []
        self.card: dict[str, Any] = {}
        self._written = 0

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Read a recorded run. Raises FileNotFoundError where there is none."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a run: it has no config.json.")
        run = cls(folder, json.loads((folder / "config.json").read_text()))
        run.metrics = _read_lines(folder / "metrics.jsonl")
        if (folder / "card.json").is_file():
            run.card = json.loads((folder / "card.json").read_text())
        return run

    def start(self, step: int) -> None:
        """Begin the log at ``step``: lines from there on, written before a kill, are cut off."""
        self.metrics = [line for line in self.metrics if line["step"] < step]
        if self.folder:
            lines = [line for line in _read_lines(self.folder / "metrics.jsonl") if line["step"] < step]
            self.metrics = lines
            write_atomic(self.folder / "config.json", (json.dumps(self.config, indent=1) + "\n").encode())
            write_atomic(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
            self._written = len(lines)

    def log(self, step: int, **figures: Any) -> None:
        """Add figures to this step's line, which goes to disk when the next step begins or at `flush`."""
        if self.metrics and self.metrics[-1]["step"] == step:
            self.metrics[-1] |= figures
        else:
            self.flush()
            self.metrics.append({"step": step, **figures})

    def flush(self) -> None:
        """Append what is new to the log file."""
        if self.folder:
            with open(self.folder / "metrics.jsonl", "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in self.metrics[self._written :])
            self._written = len(self.metrics)

    def history(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged figure, where it was logged."""
        rows = [(line["step"], line[name]) for line in self.metrics if name in line]
        return [step for step, _ in rows], [value for _, value in rows]

    def write_card(self, **figures: Any) -> None:
        """Complete ``card.json``: hardware, versions, commit, and these figures."""
        self.card |= {"config_hash": config_hash(self.config), **environment(), **figures}
        if self.folder:
            write_atomic(self.folder / "card.json", (json.dumps(self.card, indent=1) + "\n").encode())

    def diagnose(self) -> str:
        """One sentence: is this loss normal?"""
        _, losses = self.history("loss")
        if not losses:
            return "Nothing has been logged yet."
        landmarks = self.config.get("landmarks", {})
        chance, floor = landmarks.get("chance"), landmarks.get("floor", 0.0)
        last = sum(losses[-10:]) / len(losses[-10:])
        if chance is None:
            return f"The loss went from {losses[0]:.2f} to {last:.2f}; this method has no chance level to compare with."
        if len(losses) < 20:
            return f"Too early to say after {len(losses)} steps: the loss is {last:.2f}, its chance level {chance:.2f}."
        if last < floor:
            return f"Impossible: the loss of {last:.2f} is below its floor of {floor:.2f}; were the keys of the whole batch compared?"
        share = (last - floor) / (chance - floor)
        _, spreads = self.history("z_spread")
        if spreads and spreads[-1] < 0.3:
            return f"Collapsing: the projections hardly differ (spread {spreads[-1]:.2f}; healthy is near 1), whatever the loss of {last:.2f} says."
        if share > 0.97:
            return f"Not learning: the loss is still {last:.2f}, at its chance level of {chance:.2f}; check the learning rate and the pairs."
        moved = "fell" if last < losses[0] else "rose"  # MoCo's rises at first, while random keys leave its queue
        where = f"{share:.0%} of the way from its floor of {floor:.2f} up to chance" if floor else f"{share:.0%} of chance"
        return f"Normal: the loss {moved} from {losses[0]:.2f} (chance {chance:.2f}) to {last:.2f}, {where}."


def _read_lines(path: Path) -> list[dict]:
    """All whole lines; a last line torn by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def config_hash(config: dict) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def environment() -> dict[str, Any]:
    """Machine, versions and commit: what a reader needs in order to compare."""
    import torchvision

    root = Path(__file__).parent.parent
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or "unknown"
    except OSError:
        commit = "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    command = " ".join(["python", *sys.orig_argv[1:]])
    where = {"hardware": device, "system": platform.system(), "threads": torch.get_num_threads()}
    return {**where, "versions": versions, "commit": commit, "command": command, "date": time.strftime("%Y-%m-%d")}


# ---------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``step-XXXXXXXX.pt`` and keep the newest two. In memory first, so that a full disk costs nothing."""
    buffer = io.BytesIO()
    torch.save({**state, "step": step}, buffer)
    path = folder / f"step-{step:08d}.pt"
    write_atomic(path, buffer.getvalue())
    for old in checkpoints(folder)[:-2]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint without unpickling code. ValueError where it is damaged, naming the one before it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        others = [p.name for p in checkpoints(path.parent) if p != path]
        way = f"delete it and run again to go on from {others[-1]}" if others else "there is no other: start anew in an empty folder"
        raise ValueError(f"{path} is not a whole checkpoint ({type(error).__name__}); {way}.") from error
