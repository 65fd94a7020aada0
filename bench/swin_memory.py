"""What windows, checkpointing and sequential attention cost and save: ``python -m bench.swin_memory``.

First the milliseconds of global and of windowed attention on maps of growing size; then the peak memory and the seconds of one training
step, each in a process of its own, above what that process needed before the step.
"""
import json
import subprocess
import sys

import torch
from einops import rearrange

from bench.pairs import CORES, in_turn, stopwatch, threads
from minivit.layers.attention import Attention
from minivit.layers.window import WindowAttention, partition

SETTINGS = {
    "as it is": {},
    "checkpointing": {"checkpoint": True},
    "sequential, 1 window": {"sequential": 1},
    "sequential, 4 windows": {"sequential": 4},
    "both": {"checkpoint": True, "sequential": 1},
}
STEP = """
import json, resource, sys, time, torch
from minivit import create_model
name, images, settings = json.loads(sys.argv[1])
torch.manual_seed(0), torch.set_num_threads({cores})
cuda = torch.cuda.is_available()
model = create_model(name, **settings).to("cuda" if cuda else "cpu")
x = torch.randn(images, 3, model.image_size, model.image_size, device="cuda" if cuda else "cpu")
def peak():
    return torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for step in range(2):  # the second is timed: the first loads kernels
    model.zero_grad()
    start = time.perf_counter()
    model(x).square().mean().backward()
    if cuda: torch.cuda.synchronize()
print(json.dumps([(peak() - before) / 2**20, time.perf_counter() - start]))
"""


def attention_curve(*, sides: tuple[int, ...] = (16, 32, 64, 96), window: int = 8, dim: int = 96, heads: int = 3, rounds: int = 5) -> list[dict]:
    """Milliseconds, medians, of one attention over maps of side² tokens: among all of them, and in windows."""
    everywhere, windowed, rows = Attention(dim, heads), WindowAttention(dim, heads, window), []
    with threads(CORES), torch.no_grad():
        for side in sides:
            x = torch.randn(1, side, side, dim)
            timed = {
                "global": stopwatch(lambda x=x: everywhere(rearrange(x, "b h w d -> b (h w) d"))),
                "windows": stopwatch(lambda x=x: windowed(partition(x, window))),
            }
            times = in_turn(timed, rounds=rounds + 1)  # the first round warms up
            rows.append({"tokens": side**2} | {name: 1000 * sorted(values[1:])[rounds // 2] for name, values in times.items()})
    return rows


def peak_memory(name: str = "swin_v2_t", *, images: int = 4, **settings: object) -> dict[str, list[float]]:
    """MiB above the start, and seconds, of one forward and backward pass, by setting."""
    found = {}
    for key, more in SETTINGS.items():
        argument = json.dumps([name, images, {**settings, **more}])
        result = subprocess.run([sys.executable, "-c", STEP.format(cores=CORES), argument], capture_output=True, text=True, check=True)
        found[key] = json.loads(result.stdout)
    return found


def main() -> None:
    print(f"{'tokens':>8} {'global ms':>10} {'windows ms':>11}")
    for row in attention_curve():
        print(f"{row['tokens']:>8} {row['global']:>10.2f} {row['windows']:>11.2f}")
    for sizes in ({"images": 8}, {"images": 1, "image_size": 512, "window": 32}):
        print(f"\nswin_v2_t, {sizes}\n{'':<24} {'MiB':>8} {'s':>7}")
        for key, (memory, seconds) in peak_memory(**sizes).items():
            print(f"{key:<24} {memory:>8.0f} {seconds:>7.2f}")


if __name__ == "__main__":
    main()
