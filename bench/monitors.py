"""What `GradientMonitor` costs: a step of MoCo v3 with it against the same step without: ``python -m bench.monitors``.

Ours: the loop's own step (forward, logged figures, backward, AdamW, momentum encoder) with the monitor looking on; the peer: without. A speed of 0.97
is a cost of 3 %.
"""
import torch

from bench.pairs import OURS, Row, agree, compare, show
from minivit import GradientMonitor, preset
from minivit.callbacks import Callback
from minivit.engine import Loop, make_batch, take_step
from minivit.runs import Run

PEER = "the step alone"


class Step:
    """One more training step on the same images at each call."""

    def __init__(self, callbacks: list[Callback], *, images: int, **settings: object):
        chosen = preset("moco_v3/pocket_instability", limit=2 * images, batch_size=images, **settings)
        data, _ = chosen.load()
        self.method, self.callbacks, cpu = chosen.build(10), callbacks, torch.device("cpu")
        optimizer = torch.optim.AdamW(self.method.param_groups(chosen.weight_decay), lr=chosen.lr)
        self.loop = Loop(self.method, optimizer, Run(), steps=10**6, batch_size=images)
        self.loop.use_half(cpu, False)
        self.batch = make_batch(data, self.method.recipe, torch.arange(images), seed=0, step=0, device=cpu)
        for callback in callbacks:
            callback.on_start(self.loop)

    def __call__(self) -> None:
        take_step(self.loop, self.method, self.batch, self.callbacks)
        for callback in self.callbacks:
            callback.after_step(self.loop)
        self.loop.step += 1


def main(*, images: int = 256, rounds: int = 9, repeats: int = 1, **settings: object) -> list[Row]:
    watched, alone = Step([GradientMonitor()], images=images, **settings), Step([], images=images, **settings)
    watched(), alone()
    agree("weights", max((a - b).abs().max().item() for a, b in zip(watched.method.parameters(), alone.method.parameters(), strict=True)), 0)
    return compare(f"MoCo v3 step with GradientMonitor, {images} images", {OURS: watched, PEER: alone}, rounds=rounds, repeats=repeats)


if __name__ == "__main__":
    show(main())
