"""Seconds that ``import minivit`` adds beyond ``import torch``, each time in a fresh process: ``python -m bench.import_time``."""
import subprocess
import sys
from functools import partial
from statistics import median

from bench.pairs import in_turn

CODE = "import time, torch; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
STATEMENTS = {
    "import_minivit": "import minivit",
    "first_model": "import minivit; minivit.create_model",  # names are looked up when they are first used
    "first_method": "import minivit; minivit.SimCLR",
}


def seconds(statement: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(statement=statement)], capture_output=True, text=True, check=True, timeout=120
    )
    return float(done.stdout)


def main(*, rounds: int = 5) -> dict[str, float]:
    """Medians over ``rounds``, after a process that fills the disk cache."""
    seconds(STATEMENTS["first_method"])
    times = in_turn({name: partial(seconds, statement) for name, statement in STATEMENTS.items()}, rounds=rounds)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    print("seconds beyond `import torch`, medians over fresh processes in turn")
    for name, value in main().items():
        print(f"{name:16} {value:.3f}")
