"""The course's own parts: exercises that answer rightly, and figures that say what they show."""
import matplotlib
import pytest
import torch

matplotlib.use("Agg")
from minivit.course.checks import EXERCISES, check  # noqa: E402
from minivit.course.plots import ch03, ch05  # noqa: E402


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
