"""The training loop: repeatable, resumable after any interruption, honest about what went wrong."""
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import children
import pytest
import torch

from minivit import DenseKNN, Supervised, create_model, fit, load_data, preset
from minivit.augment import Recipe, evaluation, supervised
from minivit.engine import batch_ids, make_batch
from minivit.runs import Run, checkpoints, load_checkpoint, write_atomic

DATA = load_data("shapes", limit=130)


def tiny(seed: int = 0) -> Supervised:
    """A net with everything that has state: BatchNorm buffers, drop path, weights."""
    torch.manual_seed(seed)
    backbone = create_model("vit_pocket_conv8", dim=16, depth=2, drop_path=0.2)
    return Supervised(backbone, num_classes=10, recipe=Recipe((supervised(32),), eval=evaluation(32)))


def settings(**changes) -> dict:
    return {"steps": 11, "batch_size": 13, "lr": 1e-3, "warmup": 2, "seed": 3, **changes}


def weights(method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_runs_are_equal_and_another_seed_is_not():
    first, second, third = tiny(), tiny(), tiny()
    fit(first, DATA, **settings())
    fit(second, DATA, **settings())
    fit(third, DATA, **settings(seed=4))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))


def test_the_users_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    method = tiny()
    torch.manual_seed(5)
    fit(method, DATA, **settings(steps=2))
    assert torch.equal(torch.rand(3), expected)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole, part, rest = tiny(), tiny(), tiny(seed=9)
    run = fit(whole, DATA, **settings())
    fit(part, DATA, **settings(), folder=tmp_path, checkpoint_every=4, stop_after=6)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004.pt"]
    resumed = fit(rest, DATA, **settings(), folder=tmp_path, checkpoint_every=4)
    assert same(weights(whole), weights(rest))
    assert resumed.metrics == run.metrics == Run.load(tmp_path).metrics
    assert [line["step"] for line in resumed.metrics] == list(range(11))


def test_two_checkpoints_are_kept(tmp_path):
    fit(tiny(), DATA, **settings(), folder=tmp_path, checkpoint_every=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000010.pt", "step-00000011.pt"]


def test_an_epoch_visits_every_image_once():
    seen = torch.cat([batch_ids(130, 13, seed=1, step=step) for step in range(10)])
    assert sorted(seen.tolist()) == list(range(130))
    again = torch.cat([batch_ids(130, 13, seed=1, step=step) for step in range(10, 20)])
    assert sorted(again.tolist()) == list(range(130)) and not torch.equal(seen, again)


def test_views_are_a_function_of_seed_and_step():
    recipe = preset("simclr/pocket").recipe()
    ids, cpu = torch.arange(7), torch.device("cpu")
    a, b, c = (make_batch(DATA, recipe, ids, seed=1, step=step, device=cpu) for step in (5, 5, 6))
    assert torch.equal(a.views[0], b.views[0]) and not torch.equal(a.views[0], c.views[0])
    assert not torch.equal(a.views[0], a.views[1])
    assert torch.equal(a.labels, DATA.labels[ids])


def test_learning_rate_follows_warmup_and_cosine():
    seen = []

    class Watch(DenseKNN):
        def __init__(self): ...

        def after_step(self, loop):
            seen.append(loop.optimizer.param_groups[0]["lr"])

    fit(tiny(), DATA, **settings(steps=4, warmup=2, lr=1.0, weight_decay=0.0), callbacks=[Watch()])
    assert seen == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_another_schedule_takes_the_place_of_the_cosine():
    from minivit import warmup_constant

    methods = tiny(), tiny(), tiny()
    fit(methods[0], DATA, **settings(steps=4), schedule=warmup_constant)
    fit(methods[1], DATA, **settings(steps=4), schedule=lambda step, steps, warmup: (0.5, 1, 1, 1)[step])
    fit(methods[2], DATA, **settings(steps=4))
    assert same(weights(methods[0]), weights(methods[1])) and not same(weights(methods[0]), weights(methods[2]))


def test_a_part_whose_gradient_is_clipped_to_nothing_moves_by_decay_alone():
    """AdamW divides a gradient by its own size: only a clip that ε hides is like freezing, and decay goes on."""
    method = tiny()
    before = weights(method)
    fit(method, DATA, **settings(steps=3, warmup=1, lr=0.01, weight_decay=0.1), clip={"backbone.stem": 0.0}, schedule=lambda *_, **__: 1.0)
    after = weights(method)
    torch.testing.assert_close(after["backbone.stem.layers.0.weight"], before["backbone.stem.layers.0.weight"] * (1 - 1e-3) ** 3)
    assert (after["backbone.blocks.0.mlp.0.weight"] - before["backbone.blocks.0.mlp.0.weight"]).abs().max() > 5e-3


def test_dense_knn_is_logged_and_leaves_no_trace():
    watched, alone = tiny(), tiny()
    run = fit(watched, DATA, **settings(), callbacks=[DenseKNN(DATA, load_data("shapes", "test", limit=50), every=5, probe=True)])
    fit(alone, DATA, **settings())
    assert run.history("knn")[0] == run.history("probe")[0] == [4, 9, 10]
    assert same(weights(watched), weights(alone))


class Poison(Supervised):
    """Puts an infinite weight into the net when the loss of a given step has been computed."""

    def after_step(self, progress: float) -> None:
        if abs(progress - 5 / 11) < 1e-9:
            with torch.no_grad():
                self.backbone.blocks[1].mlp[0].weight[0, 0] = float("inf")


def test_a_loss_that_is_not_finite_stops_and_names_step_and_layer(tmp_path):
    torch.manual_seed(0)
    method = Poison(create_model("vit_pocket_conv8", dim=16, depth=2), num_classes=10)
    with pytest.raises(FloatingPointError, match=r"step 6.*weight backbone\.blocks\.1\.mlp\.0\.weight"):
        fit(method, DATA, **settings(), folder=tmp_path, checkpoint_every=5)
    state = load_checkpoint(checkpoints(tmp_path)[-1])
    assert state["step"] == 5 and all(value.isfinite().all() for value in state["method"].values())


def test_an_activation_that_is_not_finite_is_named():
    method = tiny()
    with torch.no_grad():
        method.backbone.blocks[0].norm1.weight.fill_(1e38)
    with pytest.raises(FloatingPointError, match=r"step 0.*output of backbone\.blocks\.0\.(norm1|attn)"):
        fit(method, DATA, **settings())


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_kept(tmp_path):
    whole, method = tiny(), tiny()
    fit(whole, DATA, **settings())
    fit(method, DATA, **settings(), folder=tmp_path, checkpoint_every=4, stop_after=9)
    good, bad = checkpoints(tmp_path)
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf"{bad.name} is not a whole checkpoint.*delete it.*{good.name}"):
        fit(tiny(), DATA, **settings(), folder=tmp_path, checkpoint_every=4)
    bad.unlink()
    rest = tiny(seed=8)
    fit(rest, DATA, **settings(), folder=tmp_path, checkpoint_every=4)
    assert same(weights(whole), weights(rest))


def test_a_checkpoint_that_carries_code_is_refused(tmp_path):
    fit(tiny(), DATA, **settings(steps=2), folder=tmp_path)
    torch.save({"step": 3, "method": Path("x")}, tmp_path / "step-00000003.pt")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        fit(tiny(), DATA, **settings(steps=2), folder=tmp_path)


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    fit(tiny(), DATA, **settings(steps=2), folder=tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(fit\)"):
        fit(tiny(), DATA, **settings(steps=2, lr=2e-3), folder=tmp_path)


TRAIN = """
from test_engine import DATA, fit, settings, tiny
fit(tiny(seed={seed}), DATA, **settings(steps={steps}), folder={folder!r}, checkpoint_every=7)
"""


def start(folder: Path, steps: int, *, seed: int) -> children.BaseProcess:
    """Begin or go on with a training run in a process of its own, with weights of that seed if it has none to take up."""
    return children.start(TRAIN.format(seed=seed, steps=steps, folder=str(folder)))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_with_the_same_weights(tmp_path, kills):
    steps, chance, whole = 60 * kills, random.Random(kills), tiny(seed=0)
    run = fit(whole, DATA, **settings(steps=steps), folder=tmp_path / "whole", checkpoint_every=7)
    pace = run.card["train_seconds"] / steps
    folder = tmp_path / "killed"
    for kill in range(kills):
        before = {p.name for p in checkpoints(folder)}
        process = start(folder, steps, seed=kill)  # only the first begins as `whole` did: the others must take up its weights
        while process.is_alive() and not {p.name for p in checkpoints(folder)} - before:  # it is training by now
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 3 * 7 * pace))  # anywhere in the next three rounds of checkpoints
        assert process.is_alive(), "finished before it could be killed: train for longer"
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = start(folder, steps, seed=kills)
    process.join()
    assert process.exitcode == 0
    assert same(weights(whole), load_checkpoint(checkpoints(folder)[-1])["method"])
    assert Run.load(folder).metrics == run.metrics
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


@contextmanager
def no_file_larger_than(size: int):
    """As on a full disk, writing fails inside."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_gives_a_clear_error_and_keeps_the_last_checkpoint(tmp_path):
    whole, rest = tiny(), tiny(seed=9)
    fit(whole, DATA, **settings())
    fit(tiny(), DATA, **settings(), folder=tmp_path, checkpoint_every=5, stop_after=6)
    (good,) = checkpoints(tmp_path)
    message = r"could not write .*step-00000010\.pt.*free some space and run again"
    with no_file_larger_than(good.stat().st_size // 2), pytest.raises(OSError, match=message):
        fit(tiny(), DATA, **settings(), folder=tmp_path, checkpoint_every=5)
    assert checkpoints(tmp_path) == [good] and load_checkpoint(good)["step"] == 5
    assert not list(tmp_path.glob("*.tmp"))
    fit(rest, DATA, **settings(), folder=tmp_path, checkpoint_every=5)  # with room again it goes on
    assert same(weights(whole), weights(rest))


def test_a_file_that_finds_no_room_leaves_the_old_one_whole(tmp_path):
    path = tmp_path / "config.json"
    write_atomic(path, b"old")
    with no_file_larger_than(100), pytest.raises(OSError, match="could not write"):
        write_atomic(path, bytes(200))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_half_precision_leaves_the_loss_in_float32():
    method = preset("simclr/pocket").build(10)
    batch = make_batch(DATA, method.recipe, torch.arange(8), seed=0, step=0, device=torch.device("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert method.backbone(batch.views[0]).dtype in (torch.bfloat16, torch.float32)
        loss, _ = method(batch, 0.0)
    assert loss.dtype == torch.float32 and loss.isfinite()


@pytest.mark.parametrize(
    ("losses", "spread", "landmarks", "expected"),
    [
        ([], 1.0, {"chance": 4.0}, "Nothing has been logged"),
        ([4.1] * 19, 1.0, {"chance": 4.0}, "Too early to say after 19 steps"),
        ([4.1] * 20, 1.0, {}, "no chance level"),
        ([4.1] * 20, 1.0, {"chance": 4.0}, "Not learning: the loss is still 4.10, at its chance level of 4.00"),
        ([4.1] * 20 + [2.0] * 10, 1.0, {"chance": 4.0}, "Normal: the loss fell from 4.10 (chance 4.00) to 2.00, 50% of chance"),
        ([4.1] * 20 + [2.0] * 10, 0.1, {"chance": 4.0}, "Collapsing"),
        ([5.5] * 20 + [6.0] * 10, 1.0, {"chance": 6.9}, "Normal: the loss rose from 5.50 (chance 6.90) to 6.00"),  # MoCo
        ([28.0] * 20 + [25.0] * 10, 1.0, {"chance": 27.73, "floor": 23.73}, "to 25.00, 32% of the way from its floor of 23.73 up to chance"),
        ([28.0] * 20 + [22.0] * 10, 1.0, {"chance": 27.73, "floor": 23.73}, "Impossible: the loss of 22.00 is below its floor of 23.73"),
    ],
)
def test_diagnose_says_in_a_sentence_how_a_run_goes(losses, spread, landmarks, expected):
    run = Run(config={"landmarks": landmarks})
    for step, loss in enumerate(losses):
        run.log(step, loss=loss, z_spread=spread)
    assert expected in run.diagnose()


FAULTS = """
import resource, torch
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(10_000_000) for _ in range(5)]  # 40 MB each
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), faults()
print(min(faults() for _ in range(4)))  # the least: some small thing may lie where a block was, and one block move on, once
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is meant")
def test_freed_memory_is_kept():
    """Without it each round takes the 200 MB again, page by page of 4 KB."""
    keep = "from minivit.engine import keep_memory; keep_memory()"
    again, kept = (int(children.python(FAULTS.format(first=first)).stdout) for first in ("", keep))
    assert again > 10_000 and kept < 100
