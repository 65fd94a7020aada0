"""The comparisons with peers at tiny sizes: the table's structure, and that all sides compute the same. Never a time."""
import sys
from unittest.mock import patch

import pytest
import torch

from bench import augment, import_time, knn, moco_v3_step, monitors, nt_xent, pairs, simclr_step, swin_memory, swin_step, vit_step
from bench.__main__ import COMPARISONS
from minivit.__main__ import main

TINY = {
    vit_step: {"images": 3, "dim": 12, "depth": 1, "heads": 3, "rounds": 2, "repeats": 1},
    swin_step: {"images": 3, "image": {2: 64, 1: 56}, "dim": 12, "depth": (2, 2), "heads": (3, 3), "rounds": 2},
    augment: {"images": 5, "rounds": 2},
    knn: {"train": 211, "test": 31, "dim": 13, "k": 7, "rounds": 2},
    nt_xent: {"batch": 11, "dim": 13, "rounds": 2, "repeats": 1},
    simclr_step: {"images": 5, "dim": 12, "depth": 1, "heads": 3, "rounds": 2},
    moco_v3_step: {"images": 5, "large_images": 5, "large_image": 32, "hidden_dim": 11, "rounds": 2, "dim": 24, "depth": 1},
    monitors: {"images": 20, "rounds": 2, "model_args": {"dim": 8, "depth": 1}},
}
PEERS = {
    vit_step: ["torchvision"],
    swin_step: ["torchvision"] * 2,
    augment: ["torchvision v2, image by image", "torchvision v2, image by image, uint8", "kornia"],
    knn: ["scikit-learn"],
    nt_xent: ["the usual lines", "lightly", "pytorch-metric-learning"],
    simclr_step: ["torchvision (v2 uint8, ViT)"],
    moco_v3_step: [moco_v3_step.PEER] * 2,
    monitors: [monitors.PEER],
}


def name_of(module) -> str:
    return module.__name__


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setattr(pairs, "CORES", 1)


@pytest.mark.parametrize("module", TINY, ids=name_of)
def test_every_comparison_gives_rows(module):
    rows = module.main(**TINY[module])
    assert len(rows) == len(PEERS[module]) and all(row.peer.startswith(peer) for row, peer in zip(rows, PEERS[module], strict=True))
    for row in rows:
        assert row.ours_ms > 0 and str(TINY[module].get("images", TINY[module].get("k", 13))) in row.what
        if row.speeds:
            assert len(row.speeds) == 2 and 0 < row.speeds[0] <= row.speed <= row.speeds[1] and row.peer_ms > 0
        else:
            assert row.peer.split(",")[0] in ("kornia", "lightly", "pytorch-metric-learning") and row.peer_ms is None


def test_the_command_runs_them_all():
    assert set(COMPARISONS) == set(TINY)


WRONG = {  # what is broken on our side: name, and a wrong version made of the right one
    vit_step: ("load_weights", lambda right: lambda *_: []),
    swin_step: ("load_weights", lambda right: lambda *_: []),
    augment: ("ours", lambda right: lambda s: lambda x: right(s)(x).flip(-1)),
    knn: ("knn_predict", lambda right: lambda *x, k, temperature: right(*x, k=1, temperature=temperature)),
    nt_xent: ("nt_xent", lambda right: lambda z1, z2, *, temperature: 2 * right(z1, z2, temperature=temperature)),
    simclr_step: ("SimCLR", lambda right: lambda *x, temperature, **options: right(*x, temperature=2 * temperature, **options)),
    moco_v3_step: ("MoCoV3", lambda right: lambda *x, temperature, **options: right(*x, temperature=2 * temperature, **options)),
}


@pytest.mark.parametrize("module", WRONG, ids=name_of)
def test_sides_that_compute_different_things_are_not_compared(monkeypatch, module):
    name, wrong = WRONG[module]
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    with pytest.raises(ValueError, match="the sides differ by .*; their times say nothing"):
        module.main(**TINY[module])


def test_gradients_are_compared_too(monkeypatch):
    right = nt_xent.nt_xent

    def detached(z1, z2, *, temperature):
        return right(z1, z2.detach() + 0 * z2, temperature=temperature)

    monkeypatch.setattr(nt_xent, "nt_xent", detached)
    with pytest.raises(ValueError, match="gradient: the sides differ"):
        nt_xent.main(**TINY[nt_xent])


def test_sides_run_in_turn_and_every_other_round_backwards():
    seen = []

    def side(name):
        return lambda: seen.append(name) or float(len(seen))

    times = pairs.in_turn({name: side(name) for name in "abc"}, rounds=3)
    assert "".join(seen) == "abccbaabc"
    assert times == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_speed_is_the_median_of_the_ratios_of_each_round(monkeypatch):
    """The second round is ten times slower for both. Ratios 2, 3, 1.5; that of the medians, 3 / 2, would be another."""
    seconds = {"minivit": iter([9.0, 1.0, 10.0, 2.0]), "peer": iter([9.0, 2.0, 30.0, 3.0])}
    monkeypatch.setattr(pairs, "stopwatch", lambda step, repeats=1: step)
    (row, left_out) = pairs.compare("this", {name: values.__next__ for name, values in seconds.items()}, rounds=3, absent=("that",))
    assert (row.what, row.peer, row.ours_ms, row.peer_ms) == ("this", "peer", 2000, 3000)
    assert row.speeds == (1.5, 2, 3) and row.speed == 2
    assert left_out == pairs.Row("this", 2000, "that")
    assert pairs.line(row).split() == ["this", "2000.00", "peer", "3000.00", "2.00", "(1.50", "…", "3.00)"]
    assert pairs.line(left_out).split(maxsplit=4) == ["this", "2000.00", "that", "–", "not installed: left out"]


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), pairs.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_python_m_minivit_bench_prints_one_table(monkeypatch, capsys):
    for module in COMPARISONS:
        rows = [pairs.Row(module.__name__, 1.0, "peer", 2.0, (1.9, 2.0, 2.1)), pairs.Row(module.__name__, 1.0, "none")]
        monkeypatch.setattr(module, "main", lambda rows=rows: rows)
    monkeypatch.delitem(sys.modules, "bench.__main__", raising=False)
    with patch.object(sys, "argv", ["minivit", "bench"]):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == pairs.HEADER and len(lines) == 2 * len(COMPARISONS) + 3
    assert [line.split()[0] for line in lines[2:-1:2]] == [module.__name__ for module in COMPARISONS]
    assert all("2.00 (1.90 … 2.10)" in line for line in lines[2:-1:2])


def test_where_time_goes_names_our_operations():
    assert list(augment.where_time_goes(images=3, rounds=1)) == ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "Grayscale"]


def test_import_time_is_measured_in_fresh_processes(monkeypatch):
    monkeypatch.setattr(import_time, "CODE", import_time.CODE.replace(", torch", ""))  # which takes seconds
    monkeypatch.setattr(import_time, "STATEMENTS", {"first_method": "time.sleep(0.02)", "nothing": "pass"})
    found = import_time.main(rounds=1)
    assert found["first_method"] >= 0.02 and found.keys() == {"first_method", "nothing"}


def test_the_curve_of_windows_has_its_figures():
    rows = swin_memory.attention_curve(sides=(4, 8), window=4, dim=6, heads=2, rounds=1)
    assert [row["tokens"] for row in rows] == [16, 64] and all(row["global"] > 0 and row["windows"] > 0 for row in rows)


def test_peak_memory_counts_what_is_held_at_a_time():
    def step() -> None:
        x = torch.ones(1 << 16)
        y = x * 2
        del x
        y + 1  # the third tensor, when the first is gone

    assert swin_memory.peak_bytes(step) == pytest.approx(2 * 4 * (1 << 16), rel=0.01)


def test_checkpointing_and_sequential_attention_lower_the_peak():
    found = {key: memory for key, (memory, _) in swin_memory.peak_memory("swin_v2_pocket", images=2, image_size=64, window=8).items()}
    assert list(found) == list(swin_memory.SETTINGS)
    plain = found.pop("as it is")
    assert all(memory < plain for memory in found.values()) and found["both, 1 window"] == min(found.values())
