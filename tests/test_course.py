"""The course's own parts: exercises that answer rightly, and figures that say what they show."""
import time

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
from minivit.course.checks import EXERCISES, check  # noqa: E402
from minivit.course.plots import ch03, ch05, ch07, ch08, ch09, ch10  # noqa: E402


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_knows_its_answer_and_its_mistakes(name, capsys):
    exercise = EXERCISES[name]
    check(name, lambda *case: ...)
    assert capsys.readouterr().out == f"{name}: not attempted\n"
    check(name, exercise.reference)
    assert capsys.readouterr().out == f"{name}: pass\n"
    for wrong, text in exercise.mistakes:
        check(name, wrong)
        assert f"not yet: {text}" in capsys.readouterr().out


def test_chapter_03s_museum_matrix_shows_pairs_and_hides_the_diagonal():
    cosines = ch03.cosines(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)))
    figure = ch03.similarity(cosines, torch.rand(16, 3, 8, 8), "before")
    image = figure.axes[0].images[0].get_array()
    assert image.mask.diagonal().all() and image.mask.sum() == 16
    frames = [patch.get_xy() for patch in figure.axes[0].patches if not patch.get_fill()]
    assert [(round(x + 0.45), round(y + 0.45)) for x, y in frames] == [((i + 8) % 16, i) for i in range(16)]
    ch03.plt.close(figure)


def test_chapter_03s_shown_cosines_leave_the_method_as_it_is():
    from minivit import preset

    experiment = preset("simclr/pocket_turns", limit=40)
    _, test = experiment.load()
    method = experiment.build(10).eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    matrix = ch03.shown_cosines(method, ch03.matrix_views(test, experiment.recipe()))
    assert matrix.shape == (16, 16) and torch.allclose(matrix.diagonal(), torch.ones(16)) and not method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_chapter_05s_strip_is_the_ring_of_the_library():
    """Who wrote which block: as MoCo writes them, batch after batch."""
    written: list[int | None] = [None] * 4
    for done in range(11):
        assert ch05.made_at(done, 4) == written
        written[done % 4] = done


def small_moco(momentum: float, symmetric: bool = False):
    from minivit import preset

    args = {"queue_size": 48 * (1 + symmetric), "momentum": momentum, "temperature": 0.2, "symmetric": symmetric}
    return preset("moco_v2/pocket", limit=60, batch_size=16, steps=8, warmup=2, method_args=args)


def test_chapter_05s_look_at_the_keys_changes_no_training():
    chosen = small_moco(0.5)
    train, _ = chosen.load()
    look = ch05.KeyAge(every=2)
    plain, looked = (chosen.fit(train, callbacks=callbacks)[0].state_dict() for callbacks in ((), (look,)))
    assert all(torch.equal(value, plain[name]) for name, value in looked.items())
    assert look.log["steps"] == [4, 6, 8] and all(len(ages) == 3 for ages in look.log["same"])


@pytest.mark.parametrize("symmetric", [False, True])
def test_chapter_05s_keys_are_fresh_at_m_1_and_go_stale_at_m_0(symmetric):
    same = {}
    for momentum in (1.0, 0.0):
        chosen = small_moco(momentum, symmetric)
        train, _ = chosen.load()
        look = ch05.KeyAge(every=4)
        chosen.fit(train, callbacks=[look])
        same[momentum] = ch05.by_age(look.log)
        assert ch05.by_age(look.log, "other").max() < 0.99
    assert same[1.0] == pytest.approx([1, 1, 1], abs=1e-3)  # views, ids and blocks of the ring are the right ones
    assert same[0.0][0] > same[0.0][-1] and same[0.0][-1] < 0.98


def test_chapter_05s_signatures_forget_the_picture():
    q, k = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ch05.signatures(q + 3, q + 5).diagonal(), torch.ones(5), atol=1e-5)
    assert torch.allclose(ch05.signatures(q, k), ch05.signatures(q - 2, k + 9), atol=1e-5)


def test_chapter_07s_corridor_is_four_high_and_its_figure_shows_each_temperature_inside():
    assert ch07.corridor(1024, 1.0) == pytest.approx((27.73, 23.73), abs=0.01)  # facts/moco.md §3.3
    curves = {tau: ([0, 10], [ch07.corridor(128, tau)[0], ch07.corridor(128, tau)[0] - 1]) for tau in (0.2, 1.0)}
    figure = ch07.corridors(curves, 128, live={0.2: curves[0.2]})
    left, right = figure.axes
    assert len(left.patches) == 2 and {line.get_linewidth() for line in right.lines if len(line.get_xdata()) == 2} >= {1.3, 2.5}
    shares = [line.get_ydata() for line in right.lines if line.get_label().startswith("τ")]
    assert len(shares) == 3 and all(list(share) == pytest.approx([0, 0.25]) for share in shares)
    assert "τ 1: from 19.41" in ch07.corridors_alt(curves, 128) and "at least 0.00" in ch07.corridors_alt(curves, 128)
    ch07.plt.close("all")


def test_chapter_07s_tables_have_the_right_number_of_candidates():
    left, right = ch07.tables(4).axes
    for axes, unused in ((left, 1), (right, 4)):
        hatched = [patch for patch in axes.patches if patch.get_hatch()]
        blue = [patch for patch in axes.patches if patch.get_facecolor() == matplotlib.colors.to_rgba(ch07.BLUE)]
        assert (len(axes.patches), len(hatched), len(blue)) == (64, 8 * unused, 8)
    ch07.plt.close("all")


def test_chapter_07s_ablations_mark_defaults_and_take_words_for_a_table():
    ours = {"a": {"x (default)": [0.5, 0.6], "y": [0.4, 0.2]}, "b": {"v": [0.3, 0.3], "w": [0.1, 0.2]}}
    figure = ch07.ablations(ours, {"a": {"x": 70.0, "y": 76.5}, "b": "no table"}, {"chance": 0.1}, measure="kNN")
    colours = [[patch.get_facecolor() for patch in axes.patches] for axes in figure.axes]
    blue, orange = (matplotlib.colors.to_rgba(colour) for colour in (ch07.BLUE, ch07.ORANGE))
    assert colours == [[blue, orange], [orange, blue], [orange, orange], []]
    assert figure.axes[3].texts[0].get_text() == "no table"
    ch07.plt.close("all")


def test_chapter_07s_patients_differ_from_the_right_head_in_one_way_each():
    from minivit.course.ex07 import PATIENTS, patient

    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0)) + 1
    measured = {}
    for name in PATIENTS:
        head = patient(name).train()
        out = head(x)
        measured[name] = sum(p.numel() for p in head.parameters()), bool(out.mean(0).abs().max() < 1e-3)
    assert measured == {"A": (3232, False), "B": (3072, True), "C": (3168, False)}


def test_chapter_08s_heat_map_is_front_to_back_and_says_what_is_frozen():
    jump = np.ones(60)
    jump[40:] = 4.0
    arms = {"learned": ch08.ratios_of({"stem": jump, "block0": np.ones(60)}), "frozen": ch08.ratios_of({"block0": np.ones(60)})}
    assert arms["learned"]["stem"].max() == 4 and arms["learned"]["stem"].argmax() == 40
    knn = {arm: ([29, 59], [0.3, 0.4]) for arm in arms}
    figure = ch08.heat(arms, knn, {"chance": 0.1}, guess=3)
    below = figure.axes[2:4]
    assert [label.get_text() for label in below[0].get_yticklabels()] == ["patch projection", "block 1"]
    assert [text.get_text() for axes in below for text in axes.texts] == ["your guess: 3", "frozen: no gradient"]
    assert np.isnan(below[1].images[0].get_array().filled(np.nan)[0]).all() and below[0].images[0].get_array()[0, 40] == 4
    assert "learned: at the most 4.0 times the median, in patch projection; kNN ends at 0.40" in ch08.heat_alt(arms, knn)
    ch08.plt.close("all")


def test_chapter_08s_unrest_is_a_deviation_of_logarithms():
    halves_and_doubles = np.array([100.0] * 3 + [0.5, 2.0] * 20)
    assert ch08.unrest({"a": halves_and_doubles, "b": np.ones(43)}, since=3) == {"a": pytest.approx(np.log(2)), "b": 0.0}


def test_chapter_08s_figures_of_a_cell_are_in_the_order_of_the_seeds():
    def run(seed, cell="a", **ratios):
        return {"cell": cell, "seed": seed, "final": {"knn": seed / 10}, "monitor": ratios}

    runs = [run(2, ratio_stem=1, ratio_block0=3), run(1, ratio_stem=4, ratio_block0=2), run(1, "b", ratio_block0=5)]
    runs.append({"cell": "a", "seed": 3, "error": "x"})
    assert ch08.told(runs, "a", "knn") == [0.1, 0.2] and ch08.told(runs, "a", "front") == [4, 3]
    assert ch08.told(runs, "b", "front") == [5] and ch08.told(runs, "b", "ratio_stem") == []
    runs = [{**run(seed, "c"), "series": {"grad/stem": [1.0, 2.0] * 30}} for seed in (0, 1)] + [{"cell": "c", "seed": 2, "diverged": "NaN"}]
    steady, same, diverged = ch08.told(runs, "c", "unrest_stem")
    assert steady == same > 0 and np.isnan(diverged) and np.isnan(ch08.told(runs, "c", "knn")[2])


def test_chapter_08s_cures_leave_out_what_a_frozen_layer_has_not():
    figure = ch08.cures({"stem": {"the patient": [3.0, 5.0], "2 frozen": []}}, {"stem": 3})
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [4.0, 0]
    assert [text.get_text() for text in axes.texts] == ["4.0", "frozen: none"]
    ch08.plt.close("all")


def test_a_timed_look_has_its_seconds_of_training(monkeypatch):
    from minivit import preset
    from minivit.callbacks import DenseKNN
    from minivit.course.clock import TimedKNN

    experiment = preset("supervised/pocket_p", steps=4, warmup=1, batch_size=16, limit=40)
    train, test = experiment.load()
    looks, look = TimedKNN(train, test, every=2), DenseKNN.after_step

    def slow_look(*given):
        time.sleep(0.5)
        look(*given)

    monkeypatch.setattr(DenseKNN, "after_step", slow_look)
    _, run = experiment.fit(train, seed=0, callbacks=[looks])
    assert len(run.history("knn")[0]) == len(looks.seconds) == 2 and 0 < looks.seconds[0] < looks.seconds[1]
    assert looks.seconds[1] - looks.seconds[0] < 0.5  # two looks of half a second lie between them


@pytest.mark.parametrize("name", ["c_pocket", "s2_pocket", "s3_pocket"])
def test_chapter_09s_fields_are_those_of_the_gradient(name):
    from minivit import create_model
    from minivit.models.early_convs import STEMS

    side, apart = ch09.fields([(layer.kernel, layer.stride) for layer in STEMS[name]])[-1]
    top, bottom, left, right = ch09.seen_by(create_model(f"vit_{name}").stem, 4 * 2 + 1)
    below = ch09.seen_by(create_model(f"vit_{name}").stem, 4 * 3 + 1)[0]
    assert (bottom - top + 1, right - left + 1, below - top) == (side, side, apart)


def test_chapter_09s_field_is_drawn_where_the_gradient_is():
    from minivit import create_model

    figure = ch09.receptive(torch.zeros(3, 32, 32), 8, [(3, 2)] * 3, (1, 2))
    for axes, name in zip(figure.axes, ("vit_p_pocket", "vit_c_pocket"), strict=True):
        box = max((patch for patch in axes.patches if patch.get_linewidth() == 4), key=lambda patch: patch.get_width())
        drawn = box.get_y() + 0.5, box.get_y() + box.get_height() - 0.5, box.get_x() + 0.5, box.get_x() + box.get_width() - 0.5
        assert drawn == ch09.seen_by(create_model(name).stem, 4 * 1 + 2)
    ch09.plt.close("all")


def test_chapter_09s_distributions_keep_diverged_runs_and_are_not_moved_by_own_ones():
    nan = float("nan")
    scores = {"SGD": {"P": [0.5, 0.4, nan, 0.45], "C": [0.6, 0.6, 0.3, nan]}}
    mine = {"SGD": {"C": [0.5, 0.7, nan]}}
    (axes,) = ch09.distributions(scores, mine).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["P, 4 draws"].get_ydata()[-1] == lines["C, 4 draws"].get_ydata()[-1] == 0.75
    assert (lines["C, 4 draws"].get_ydata()[0], lines["P, 4 draws"].get_ydata()[0]) == (0.5, 0.25)
    x, y = lines["C, your runs"].get_data()
    assert list(x) == pytest.approx([10, -10, nan], nan_ok=True) and set(y) == {0} and axes.get_xlim()[0] < -10
    assert "P 75%, C 50%" in ch09.distributions_alt(scores) and ch09.distributions_alt(scores, mine).endswith("better than it.")
    assert "within 5.5 points of their model's best: SGD: P 50%, C 50%" in ch09.distributions_alt(scores, within=0.055)
    search = {f"{stem}, SGD": {"centre": [0.1, 1], "lr": [0.1, 0.2, 0.4, 0.05], "accuracy": [v if v == v else None for v in scores["SGD"][stem]]}
              for stem in "PC"}  # fmt: skip
    (axes,) = [ch09.drawn(search, ["SGD"]).axes[0]]
    crosses = {line.get_label(): list(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"}
    assert crosses == {"P, diverged": [4], "C, diverged": [0.5]}
    search["C, AdamW"] = search["P, SGD"] | {"accuracy": [0.5] * 4}  # no cross in the last panel
    (legend,) = ch09.drawn(search | {"P, AdamW": search["C, AdamW"]}, ["SGD", "AdamW"]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["P", "P, diverged", "C", "C, diverged", "chance 0.10"]
    del search["C, AdamW"]
    for found in search.values():
        found["weight_decay"] = [1, 2, 3, 4]
    figure = ch09.drawn(search, ["SGD"], over=("lr", "weight_decay", "lr × weight_decay"))
    assert [list(axes.lines[0].get_xdata()) for axes in figure.axes] == [[1, 2, 0.5], [1, 2, 4], [1, 4, 2]]  # P, the runs that did not diverge
    assert [axes.get_title() for axes in figure.axes] == ["SGD", "", ""] and len({axes.get_ylim() for axes in figure.axes}) == 1
    ch09.plt.close("all")


def test_chapter_09s_recorded_control_has_no_bar():
    live, control = {("P", "AdamW"): 0.3, ("C", "SGD"): 0.5}, ("P + BN + ReLU", "SGD")
    recorded = {name: [score - 0.1, score + 0.1] for name, score in live.items()} | {control: [0.2, 0.6]}
    _, right = ch09.outcome({name: [2.0] * 12 for name in live}, live, recorded, {"chance": 0.1}).axes
    assert [bar.get_x() + bar.get_width() / 2 for bar in right.patches] == [0, 1] and [bar.get_height() for bar in right.patches] == [0.3, 0.5]
    marks = [bars.lines[0].get_xydata()[0] for bars in right.containers if hasattr(bars, "lines")]
    assert [x for x, _ in marks] == [0, 1, 2] and [y for _, y in marks] == pytest.approx([0.3, 0.5, 0.4])
    assert [text.get_text() for text in right.get_xticklabels()] == ["P\nAdamW", "C\nSGD", "P + BN\n+ ReLU\nSGD"]
    assert "2 recorded seeds" in [text.get_text() for text in right.get_legend().get_texts()]
    ch09.plt.close("all")


def test_chapter_09s_live_marks_are_on_the_probes_axes():
    kept = {("p", 3): [0.4, 0.6], ("c", 5): [0.5, 0.7], ("c", 3): [0.5, 0.9], ("p", 5): [0.3, 0.4], ("other", 3): [0.0]}
    runs = [{"cell": cell, "seed": seed, "series": {"knn": values}} for (cell, seed), values in kept.items()]
    long, live = ch09.curves(runs, {"P": "p", "C": "c"}, "knn", every=40), {"P": {80: 0.4, 100: 0.45}, "C": {80: 0.55}}
    assert long == {"P": {40: (0.4, 0.3), 80: (0.6, 0.4)}, "C": {40: (0.5, 0.5), 80: (0.9, 0.7)}}
    left, right = ch09.without_labels(long, {}, live, ({"chance": 0.1}, {"chance": 0.1, "raw pixels": 0.15})).axes
    assert [list(bars.lines[0].get_xdata()) for bars in left.containers] == [[40, 80], [40, 80]]
    assert [list(bars.lines[0].get_ydata()) for bars in left.containers] == [pytest.approx([0.35, 0.5]), pytest.approx([0.5, 0.8])]
    marks = {line.get_label(): [tuple(xy) for xy in line.get_xydata()] for line in right.lines if "this run" in line.get_label()}
    assert marks == {"P, this run": [(80, 0.4), (100, 0.45)], "C, this run": [(80, 0.55)]} and not right.containers
    assert [line.get_label() for line in right.lines[:2]] == ["chance 0.10", "raw pixels 0.15"]
    ch09.plt.close("all")


def test_chapter_09s_bars_add_up():
    axes = ch09.swap({"pocket": {"P": [1, 3, 3, 3], "C": [4, 3, 3]}}).axes[0]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([0.1, 0.3, 0.3, 0.3, 0.4, 0.3, 0.3])
    assert [bool(patch.get_hatch()) for patch in axes.patches] == [False] * 3 + [True] + [False] * 3
    assert [text.get_text() for text in axes.texts] == ["100.0%", "100.0%"]
    ch09.plt.close("all")


def test_chapter_10s_maps_mark_what_was_trained_and_hatch_what_nobody_knows():
    table = torch.arange(49.0).view(7, 7)
    figure = ch10.extended({"a": {4: table, 8: None}, "b": {4: 2 * table, 8: torch.zeros(15, 15)}}, one_scale=True)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["window 4 (trained)", "window 8", "", ""]
    unknown = panels[1].images[0].get_array()
    assert unknown.mask.sum() == 225 - 49 and torch.equal(torch.tensor(unknown[4:11, 4:11].filled()), table - table.mean())
    assert [bool(patch.get_hatch()) for axes in panels for patch in axes.patches] == [True, False, False]
    assert {axes.images[0].get_clim() for axes in panels} == {(-24, 24)}  # the first row's, of all
    ch10.plt.close("all")


@pytest.mark.parametrize("side, window, shift", [(8, 4, 2), (12, 4, 1), (15, 5, 2)])
def test_chapter_10s_rolled_map_joins_what_the_mask_forbids(side, window, shift):
    """Tints of the right panel: tokens of one window may look at each other just where they have the same."""
    from minivit.layers.window import partition, shift_mask

    figure = ch10.shifting(side, window, shift)
    assert [axes.get_title() for axes in figure.axes][1].endswith(f"{(side // window + 1) ** 2} pieces")
    tints = torch.zeros(side, side)
    for patch in figure.axes[2].patches:
        tints[round(patch.get_y()), round(patch.get_x())] = sum(10**i * channel for i, channel in enumerate(patch.get_facecolor()))
    tints = partition(tints[None, :, :, None], window)
    assert torch.equal(tints == tints.mT, shift_mask(side, side, window, (shift, shift)))
    ch10.plt.close("all")


def test_chapter_10s_masks_count_the_forbidden_pairs():
    from minivit.layers.window import shift_mask

    figure = ch10.masks(shift_mask(8, 8, 4, (2, 2)))
    assert [axes.get_title() for axes in figure.axes] == [f"window {i}: {n} forbidden" for i, n in enumerate((0, 128, 128, 192), 1)]
    ch10.plt.close("all")


def test_chapter_10s_amplitudes_take_one_run_or_several_seeds():
    seeds, one = torch.rand(3, 6).numpy() + 1, torch.rand(6).numpy() + 1
    figure = ch10.amplitudes({"a": {"pre": seeds}, "b": {"pre": one, "post": one}}, guess=2.0)
    left, right = figure.axes
    assert [len(line.get_xdata()) for line in left.lines] == [6] and [line.get_label() for line in right.lines][:2] == ["pre", "post"]
    assert any(line.get_label() == "your guess" for line in right.lines)
    ch10.plt.close("all")


def test_chapter_10s_windows_are_drawn_with_recorded_seeds_and_without():
    live, seeds = {"a": {"4": [0.5], "8": [0.4]}}, {"a": {"4": [0.4, 0.6], "8": [0.3, 0.5]}}
    for recorded, said in ((seeds, ["a, recorded", "chance 0.10", "your guess", "a"]), ({}, ["chance 0.10", "your guess", "a"])):
        axes = ch10.at_windows(live, recorded, {"chance": 0.1}, guess=0.2).axes[0]
        assert sorted(axes.get_legend_handles_labels()[1]) == sorted(said)
    ch10.plt.close("all")


def test_chapter_10s_attentions_of_the_exercise_are_what_their_names_say():
    from minivit.course.ex10 import ATTENTIONS, changed

    noticed = {name: changed(attend) for name, attend in ATTENTIONS.items()}
    assert {name: int(table.sum()) for name, table in noticed.items()} == {
        "right": 4, "rolled the other way": 16, "no mask": 16, "not rolled back": 4, "not shifted": 16,
    }  # fmt: skip
    assert noticed["right"][:2, :2].all() and noticed["not rolled back"][-2:, -2:].all() and noticed["no mask"][-1, -1]
