"""What windows, checkpointing and sequential attention cost and save: ``python -m bench.swin_memory``.

First the milliseconds of global and of windowed attention on maps of growing size; then, for one forward and backward pass of Swin V2-T, the
peak of what PyTorch holds beyond weights and images (gradients are in it), and seconds.
"""
import time
from collections.abc import Callable
from itertools import accumulate

import torch
from einops import rearrange
from torch.profiler import ProfilerActivity, profile

from bench.pairs import CORES, in_turn, stopwatch, threads
from minivit import create_model
from minivit.layers.attention import Attention
from minivit.layers.window import WindowAttention, partition

SETTINGS = {
    "as it is": {},
    "checkpointing": {"checkpoint": True},
    "sequential, 1 window": {"sequential": 1},
    "sequential, 4 windows": {"sequential": 4},
    "both, 1 window": {"checkpoint": True, "sequential": 1},
}


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


def peak_bytes(step: Callable[[], object]) -> int:
    """The most that was held at a time during ``step``, beyond what was held before: the running sum of all that is taken and given back."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = sorted((e.start_ns(), e.nbytes()) for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]")
    return max(accumulate((size for _, size in events), initial=0))


def peak_memory(name: str = "swin_v2_t", *, images: int = 4, **settings: object) -> dict[str, tuple[float, float]]:
    """MiB and seconds of one forward and backward pass, by setting."""
    device, found = "cuda" if torch.cuda.is_available() else "cpu", {}
    with threads(CORES):
        for key, more in SETTINGS.items():
            model = create_model(name, **{**settings, **more}).to(device)
            x = torch.randn(images, 3, model.image_size, model.image_size, device=device)

            def step(model=model, x=x) -> None:
                model.zero_grad()
                model(x).square().mean().backward()
                torch.cuda.synchronize() if device == "cuda" else None

            memory = peak_bytes(step)  # and a warm-up
            start = time.perf_counter()
            step()
            found[key] = memory / 2**20, time.perf_counter() - start
    return found


def main() -> None:
    print(f"{'tokens':>8} {'global ms':>10} {'windows ms':>11}")
    for row in attention_curve():
        print(f"{row['tokens']:>8} {row['global']:>10.2f} {row['windows']:>11.2f}", flush=True)
    for sizes in ({"images": 8}, {"images": 1, "image_size": 512, "window": 32}):
        print(f"\nswin_v2_t, {sizes}\n{'':<24} {'MiB':>8} {'s':>7}")
        for key, (memory, seconds) in peak_memory(**sizes).items():
            print(f"{key:<24} {memory:>8.0f} {seconds:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
