"""The course's own parts: exercises that answer rightly, and figures that say what they show."""
import matplotlib
import pytest
import torch

matplotlib.use("Agg")
from minivit.course.checks import EXERCISES, check  # noqa: E402
from minivit.course.plots import ch03  # noqa: E402


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
