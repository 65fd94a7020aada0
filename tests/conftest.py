"""What all tests share."""
import pytest
import torch

torch.set_num_threads(1)  # on small tensors and a busy machine PyTorch's threads wait for each other longer than they compute
DRAWN: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}


@pytest.fixture(scope="module", autouse=True)
def shapes_are_drawn_once(request):
    """All shapes take half a second, and many tests want only a few. Those of the drawing itself draw them every time."""
    from minivit import datasets

    draw = datasets.shapes

    def once(count: int, seed: int) -> tuple[torch.Tensor, ...]:
        if (count, seed) not in DRAWN:
            DRAWN[count, seed] = draw(count, seed)
        return tuple(part.clone() for part in DRAWN[count, seed])

    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ not in ("test_datasets", "test_mutants"):
            patch.setattr(datasets, "shapes", once)
        yield
