"""The one training loop."""
from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from minivit import distributed
from minivit.augment import Batch, Recipe, generator_of, seed_of
from minivit.callbacks import Callback, Checkpoints, Progress
from minivit.datasets import ImageData
from minivit.methods.base import Method
from minivit.monitor import first_nonfinite
from minivit.optim import ADAMW, warmup_cosine
from minivit.runs import Run, checkpoints, load_checkpoint


def batch_ids(count: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Ids of the images of one step: each epoch is a permutation, a function of (seed, epoch); a short last batch is dropped."""
    epoch, place = divmod(step, count // batch_size)
    order = torch.randperm(count, generator=generator_of("order", seed, epoch))
    return order[place * batch_size : (place + 1) * batch_size]


def make_batch(data: ImageData, recipe: Recipe, ids: Tensor, *, seed: int, step: int, device: torch.device) -> Batch:
    """Load the images of this process and make the recipe's views of them.

    Parameters are drawn for the joined batch of all processes, as a function of (seed, step), and sliced: however many
    processes share the batch, every image is augmented alike.
    """
    generator = generator_of("views", seed, step)
    local = slice(distributed.rank(), None, distributed.world_size())
    mine = ids[local]
    images = data.images[mine.to(data.images.device)].to(device, non_blocking=True).float() / 255
    views = []
    for view in recipe.views:
        draws = view.draw(len(ids), *images.shape[-2:], generator)
        views.append(view.apply(images, [{name: values[local] for name, values in drawn.items()} for drawn in draws]))
    return Batch(tuple(views), data.labels[mine.to(data.labels.device)].to(device), mine)


class Loop:
    """The state of a training run, as callbacks see it."""

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, run: Run, *, steps: int, batch_size: int, clip: Mapping[str, float] | None = None
    ):
        self.method, self.optimizer, self.run, self.steps, self.batch_size = method, optimizer, run, steps, batch_size
        self.step, self.loss, self.figures = 0, float("nan"), {}
        self.spent, self.began = 0.0, time.perf_counter()
        self.clip = _checked_clip(method, clip or {})

    def seconds(self) -> float:
        """Time spent in this run, what was spent before it was resumed included."""
        return round(self.spent + time.perf_counter() - self.began, 1)

    def use_half(self, device: torch.device, half: bool) -> None:
        """bfloat16 on a GPU that has it, else float16 with a scaled loss; float32 on a CPU."""
        half = half and device.type == "cuda"
        kind = torch.float16 if half and not torch.cuda.is_bf16_supported(including_emulation=False) else torch.bfloat16
        self.autocast = partial(torch.autocast, device.type, dtype=kind, enabled=half)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half and kind == torch.float16)

    def state_dict(self) -> dict:
        parts = {name: getattr(self, name).state_dict() for name in ("method", "optimizer", "scaler")}
        return {**parts, "seconds": self.seconds()}

    def load_state_dict(self, state: dict) -> None:
        for name in ("method", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.spent = state["step"], state["seconds"]


def fit(
    method: Method,
    data: ImageData,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.05,
    warmup: int = 0,
    schedule: Callable[..., float] = warmup_cosine,
    clip: Mapping[str, float] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = ADAMW,
    seed: int = 0,
    device: torch.device | str | None = None,
    half: bool = True,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    config: dict | None = None,
    callbacks: Sequence[Callback] = (),
    stop_after: int | None = None,
) -> Run:
    """Train ``method`` on ``data`` for ``steps``, or ``epochs``, and return the `Run`.

    ``batch_size`` counts images, joined over all processes. ``lr`` is the peak as used (see `scale_lr`): linear over
    ``warmup`` steps, then half a cosine to zero, or what ``schedule(step, steps=…, warmup=…)`` makes of it. ``clip`` bounds the norm
    of the gradient of parts of the method, by name: ``{"backbone.stem": 0.1}``; "" is all of it. ``optimizer(groups, lr=lr)``
    gets the method's parameter groups, with ``weight_decay`` on matrices only. ``half=True`` computes in bfloat16 on a GPU (float16
    with loss scaling where the GPU has no bfloat16), never on a CPU. With a ``folder`` the run is recorded there, checkpointed every
    ``checkpoint_every`` steps, and **goes on from the last checkpoint** if there is one; a resumed run ends with the
    weights of an uninterrupted one, bit for bit on one machine. ``stop_after`` ends early on the same schedule.

    Raises ValueError for settings that cannot work, before any work is done; FloatingPointError, naming step and layer,
    when the loss is not finite: weights are then as they were before that step, checkpoints untouched.
    """
    steps = _checked_steps(data, steps, epochs, batch_size, lr, folder, checkpoint_every)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu":
        keep_memory()
    method.to(device).train()
    main = distributed.rank() == 0
    run = Run(folder if main else None)
    loop = Loop(method, optimizer(method.param_groups(weight_decay), lr=lr), run, steps=steps, batch_size=batch_size, clip=clip)
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "seed": seed}
    loop.run.config = {**(config or {}), "fit": settings, "landmarks": method.landmarks(batch_size)}
    loop.use_half(device, half)
    resume(loop, folder)
    model = DistributedDataParallel(method, broadcast_buffers=False) if distributed.world_size() > 1 else method
    data = data.to(device)
    looking = [*([Progress()] if main else []), *callbacks]
    looking += [Checkpoints(checkpoint_every or max(steps // 10, 1))] if folder and main else []
    loop.run.start(loop.step)
    loop.began = time.perf_counter()
    try:
        _notify(looking, "on_start", loop)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for step in range(loop.step, min(steps, stop_after or steps)):
                loop.step = step
                torch.manual_seed(seed_of("model", seed, step))  # drop path: a function of (seed, step), too
                for group in loop.optimizer.param_groups:
                    group["lr"] = lr * schedule(step, steps=steps, warmup=warmup) * group.get("lr_scale", 1.0)
                ids = batch_ids(len(data), batch_size, seed=seed, step=step)
                batch = make_batch(data, method.recipe, ids, seed=seed, step=step, device=device)
                take_step(loop, model, batch, looking)
                _notify(looking, "after_step", loop)
    finally:
        _notify(looking, "on_end", loop)
        loop.run.flush()
    loop.run.card["train_seconds"] = loop.seconds()
    method.eval()
    return loop.run


def keep_memory() -> None:
    """What tensors free stays with this process, for its next step: a step of ViT-S on a CPU takes 5 to 20 % less, a pocket model's 2 %.

    glibc, the C library of most Linux systems, hands large blocks back to the system and gets them again page by page. Elsewhere: nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
        mallopt(-3, 2**30) or mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: larger blocks are mapped one by one; old versions take no more than 2²⁵


def take_step(loop: Loop, model: torch.nn.Module, batch: Batch, looking: Sequence[Callback]) -> None:
    """Forward, backward, optimizer, then what the method does after a step; figures go to the log."""
    progress = loop.step / loop.steps
    with loop.autocast():
        loss, loop.figures = model(batch, progress)
    loop.loss = distributed.mean(loss.detach()).item()
    if not math.isfinite(loop.loss):
        where = first_nonfinite(loop.method, batch, progress)
        raise FloatingPointError(f"the loss is {loop.loss} at step {loop.step}: the first number that is not finite is in {where}.")
    loop.optimizer.zero_grad(set_to_none=True)
    loop.scaler.scale(loss).backward()
    loop.scaler.unscale_(loop.optimizer)
    _notify(looking, "after_backward", loop)
    for part, norm in loop.clip.items():
        torch.nn.utils.clip_grad_norm_(loop.method.get_submodule(part).parameters(), norm)
    loop.scaler.step(loop.optimizer)
    loop.scaler.update()
    loop.method.after_step(progress)
    figures = {name: round(distributed.mean(value).item(), 6) for name, value in loop.figures.items()}
    loop.run.log(loop.step, loss=loop.loss, **figures)


def resume(loop: Loop, folder: str | Path | None) -> None:
    """Take up the newest checkpoint in the folder, if there is one; refuse one of another configuration."""
    saved = checkpoints(Path(folder)) if folder else []
    if not saved:
        return
    before = Run.load(folder).config
    changed = [key for key in loop.run.config if before.get(key) != loop.run.config[key]]
    if changed:
        raise ValueError(f"{folder} holds a run with other settings ({', '.join(changed)}); give this one a folder of its own.")
    loop.load_state_dict(load_checkpoint(saved[-1]))


def _notify(looking: Sequence[Callback], moment: str, loop: Loop) -> None:
    for callback in looking:
        getattr(callback, moment)(loop)


def _checked_steps(data, steps, epochs, batch_size, lr, folder, checkpoint_every) -> int:
    world = distributed.world_size()
    if (steps is None) == (epochs is None):
        raise ValueError("give either steps or epochs.")
    if not 2 <= batch_size <= len(data):
        raise ValueError(f"batch_size={batch_size}: from 2 to the {len(data)} images of {data.name}.")
    if batch_size % world:
        raise ValueError(f"batch_size={batch_size} cannot be shared evenly by {world} processes.")
    if not lr > 0:
        raise ValueError(f"lr={lr} must be positive.")
    if checkpoint_every is not None and (folder is None or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every={checkpoint_every} needs a folder and at least one step.")
    steps = steps if steps is not None else int(epochs * (len(data) // batch_size))
    if steps < 1:
        raise ValueError(f"steps={steps}: train for at least one.")
    return steps


def _checked_clip(method: Method, clip: Mapping[str, float]) -> Mapping[str, float]:
    for part, norm in clip.items():
        if part not in dict(method.named_modules()):
            raise ValueError(f"clip: {type(method).__name__} has no part called {part!r}; name one, such as 'backbone', or '' for all of it.")
        if not norm >= 0:
            raise ValueError(f"clip: the norm of {part!r} must not be negative, and is {norm}.")
    return clip
