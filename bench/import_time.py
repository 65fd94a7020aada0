"""Seconds that ``import minivit`` adds beyond ``import torch``, each time in a fresh process: ``python -m bench.import_time``."""
import subprocess
import sys
from statistics import median

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


def main(*, repeats: int = 5) -> dict:
    """Medians over ``repeats`` fresh processes, after one that fills the disk cache."""
    seconds(STATEMENTS["first_method"])
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(repeats):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    return {"what": f"seconds beyond `import torch`, median of {repeats} processes"} | {
        name: round(median(values), 3) for name, values in times.items()
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:16} {value}")
