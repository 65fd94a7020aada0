"""Augmentations against torchvision, image by image, with the parameters that we drew."""
import copy

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch.testing import assert_close
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from minivit import augment
from minivit.augment import (
    CenterResize,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomResizedCrop,
    View,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    generator_of,
    seed_of,
)

CLOSE = {"rtol": 0, "atol": 1e-5}
MEAN, STD = augment.IMAGENET_MEAN, augment.IMAGENET_STD


def pictures(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Noise, with a gray, a black, a white, a red and a two-coloured image among it: where hue and saturation have edges."""
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    special = [torch.full((3, 1, 1), value) for value in (0.5, 0.0, 1.0)] + [torch.tensor([1.0, 0, 0]).view(3, 1, 1)]
    for at, image in enumerate(special[: batch - 1]):
        x[at] = image
    if batch > 5:
        x[4, 2] = x[4, 1]
    return x


def drawn(operation: augment.Operation, x: torch.Tensor, *key: int) -> augment.Draws:
    return operation.draw(len(x), *x.shape[-2:], generator_of(*key))


# ---------------------------------------------------------------------------------------------------- against torchvision


@pytest.mark.parametrize(("height", "width", "size"), [(31, 31, 13), (29, 41, 17), (11, 7, 23), (37, 37, 37)])
def test_crop_equals_torchvision(height, width, size):
    x = pictures(19, height, width)
    crop = RandomResizedCrop(size)
    box = drawn(crop, x)
    ours = crop(x, **box)
    for i in range(len(x)):
        sides = [int(box[name][i]) for name in ("top", "left", "height", "width")]
        peer = TF.resized_crop(x[i], *sides, size=[size, size], interpolation=TF.InterpolationMode.BILINEAR, antialias=True)
        assert_close(ours[i], peer, **CLOSE)


@pytest.mark.parametrize(("height", "width", "size"), [(31, 31, 13), (29, 41, 17), (40, 29, 17), (7, 11, 23), (17, 17, 17)])
def test_center_resize_equals_torchvision(height, width, size):
    x, side = pictures(3, height, width), min(height, width)
    box = ((height - side) // 2, (width - side) // 2, side, side)
    assert_close(CenterResize(size)(x), TF.resized_crop(x, *box, size=[size, size], antialias=True), **CLOSE)


def test_flip_equals_torchvision():
    x = pictures(19, 11, 13)
    flip = HorizontalFlip()
    draws = drawn(flip, x)
    assert 0 < draws["apply"].sum() < 19
    for i, image in enumerate(flip(x, **draws)):
        assert torch.equal(image, TF.horizontal_flip(x[i]) if draws["apply"][i] else x[i])


@pytest.mark.parametrize(
    ("ours", "peer", "factors"),
    [
        (adjust_brightness, TF.adjust_brightness, (0.0, 0.3, 1.0, 1.8)),
        (adjust_contrast, TF.adjust_contrast, (0.0, 0.3, 1.0, 1.8)),
        (adjust_saturation, TF.adjust_saturation, (0.0, 0.3, 1.0, 1.8)),
        (adjust_hue, TF.adjust_hue, (-0.5, -0.2, 0.0, 0.07, 0.5)),
    ],
)
def test_colour_changes_equal_torchvision(ours, peer, factors):
    x = pictures(7, 11, 13)
    for factor in factors:
        assert_close(ours(x, torch.full((7,), factor)), torch.stack([peer(image, factor) for image in x]), **CLOSE)


def test_jitter_equals_torchvision_in_each_images_order():
    x = pictures(47, 11, 13)
    jitter = ColorJitter(0.8, 0.7, 0.6, 0.2)
    draws = drawn(jitter, x)
    assert len(draws["order"].unique(dim=0)) > 12  # of 24
    assert 0 < draws["apply"].sum() < 47
    changes = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for i, image in enumerate(jitter(x, **draws)):
        peer = x[i]
        for kind in draws["order"][i].tolist() if draws["apply"][i] else []:
            peer = changes[kind](peer, float(draws["factors"][i, kind]))
        assert_close(image, peer, **CLOSE)


def test_grayscale_equals_torchvision():
    x = pictures(19, 11, 13)
    gray = Grayscale(p=0.5)
    draws = drawn(gray, x)
    assert 0 < draws["apply"].sum() < 19
    for i, image in enumerate(gray(x, **draws)):
        assert_close(image, TF.rgb_to_grayscale(x[i], num_output_channels=3) if draws["apply"][i] else x[i], **CLOSE)


@pytest.mark.parametrize(("height", "width", "radius"), [(31, 37, 3), (11, 7, 6), (13, 29, 1)])
def test_blur_equals_torchvision(height, width, radius):
    x = pictures(19, height, width)
    blur = GaussianBlur(radius=radius)
    draws = drawn(blur, x)
    assert 0 < draws["apply"].sum() < 19
    taps = [2 * radius + 1] * 2
    for i, image in enumerate(blur(x, **draws)):
        assert_close(image, TF.gaussian_blur(x[i], taps, [float(draws["sigma"][i])] * 2) if draws["apply"][i] else x[i], **CLOSE)


# ---------------------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(("height", "width"), [(224, 224), (97, 193), (32, 32)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.2, 0.6)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width, area):
    count = 3001
    box = RandomResizedCrop(32, area=area).draw(count, height, width, generator_of("crop", 0))
    ours = torch.stack([box[name] for name in ("top", "left", "height", "width")], 1)
    torch.manual_seed(0)
    image, ratio = torch.empty(3, height, width), [3 / 4, 4 / 3]
    peer = torch.tensor([TorchvisionCrop.get_params(image, list(area), ratio) for _ in range(count)], dtype=torch.float64)
    for boxes in (ours, peer):
        assert (boxes >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([height, width])).all()
    figures = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
    }
    for name, figure in figures.items():
        assert ks_2samp(figure(ours).numpy(), figure(peer).numpy()).pvalue > 0.01, name


@pytest.mark.parametrize(("height", "width"), [(12, 101), (101, 12), (13, 102)])
def test_crop_falls_back_to_the_box_of_torchvision(height, width):
    whole = (1.0, 1.0)  # never fits into so long an image
    box = RandomResizedCrop(32, area=whole).draw(3, height, width, generator_of(0))
    peer = TorchvisionCrop.get_params(torch.empty(3, height, width), list(whole), [3 / 4, 4 / 3])
    for i in range(3):
        assert tuple(int(box[name][i]) for name in ("top", "left", "height", "width")) == tuple(peer)


def test_draws_are_uniform_where_they_should_be():
    x = torch.empty(5003, 3, 2, 2)
    jitter = drawn(ColorJitter(0.8, 1.5, 0.6, 0.2), x)
    for column, (low, high) in enumerate([(0.2, 1.8), (0.0, 2.5), (0.4, 1.6), (-0.2, 0.2)]):
        values = jitter["factors"][:, column]
        assert ks_2samp(values.numpy(), torch.linspace(low, high, 5003).numpy()).pvalue > 0.01
    assert jitter["apply"].double().mean().item() == pytest.approx(0.8, abs=0.025)
    assert (jitter["order"].sort(1).values == torch.arange(4)).all()
    first = torch.bincount(jitter["order"][:, 0], minlength=4) / 5003
    assert_close(first, torch.full((4,), 0.25), rtol=0, atol=0.03)
    blur = drawn(GaussianBlur(radius=1), x)
    assert ks_2samp(blur["sigma"].numpy(), torch.linspace(0.1, 2.0, 5003).numpy()).pvalue > 0.01
    assert drawn(HorizontalFlip(), x)["apply"].double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert drawn(Grayscale(), x)["apply"].double().mean().item() == pytest.approx(0.2, abs=0.025)


# ---------------------------------------------------------------------------------------------------- properties

VIEWS = {
    "simclr": augment.simclr(17, blur=True, mean=MEAN, std=STD),
    "supervised": augment.supervised(17),
    "flip first": View(HorizontalFlip(), RandomResizedCrop(17), ColorJitter(0.4, 0.4, 0.4, 0.1)),  # size changes inside the chain
}
shapes = {"height": st.integers(5, 40), "width": st.integers(5, 40), "seed": st.integers(0, 999)}


@given(**shapes, strength=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_values_stay_between_zero_and_one(height, width, seed, strength):
    x = pictures(7, height, width, seed)
    view = augment.simclr(11, strength=strength, min_area=0.05, blur=True)
    out = view(x, generator_of(seed))
    assert out.shape == (7, 3, 11, 11)
    assert out.dtype == torch.float32
    assert -1e-6 <= out.min() <= out.max() <= 1 + 1e-6


@given(**shapes, name=st.sampled_from(sorted(VIEWS)), cut=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_any_split_of_the_batch_gives_the_same_images(height, width, seed, name, cut):
    x, view = pictures(7, height, width, seed), VIEWS[name]
    draws = view.draw(7, height, width, generator_of(seed))
    whole = view.apply(x, draws)
    parts = []
    for part in (slice(0, cut), slice(cut, 7)):
        parts.append(view.apply(x[part], [{k: value[part] for k, value in draw.items()} for draw in draws]))
    assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", VIEWS)
def test_an_image_depends_on_its_own_pixels_and_draws_only(name):
    x, view = pictures(7, 19, 23), VIEWS[name]
    draws, others = (view.draw(7, 19, 23, generator_of(seed)) for seed in (0, 1))
    before = view.apply(x, draws)
    changed, mixed = 1 - x, copy.deepcopy(others)
    changed[3] = x[3]
    for mine, theirs in zip(draws, mixed):
        for key in mine:
            theirs[key][3] = mine[key][3]
    assert_close(view.apply(changed, mixed)[3], before[3], rtol=0, atol=1e-6)


def test_views_know_the_width():
    """An operation that keeps the size passes the width on, as it is, to the crop that follows."""
    _, box = View(HorizontalFlip(), RandomResizedCrop(17)).draw(101, 23, 191, generator_of(0))
    assert (box["left"] + box["width"]).max() > 150
    resized = View(RandomResizedCrop(17), GaussianBlur(radius=1), RandomResizedCrop(13))
    assert resized(pictures(3, 23, 191), generator_of(0)).shape == (3, 3, 13, 13)
    assert (resized.draw(101, 23, 191, generator_of(0))[2]["width"] <= 17).all()


@pytest.mark.parametrize("name", VIEWS)
def test_images_are_not_changed_in_place(name):
    x = pictures(7, 19, 23)
    before = x.clone()
    VIEWS[name](x, generator_of(0))
    assert torch.equal(x, before)


def test_neutral_settings_are_the_identity():
    x = pictures(7, 19, 23)
    one, zero = torch.ones(7), torch.zeros(7)
    for change, factor in ((adjust_brightness, one), (adjust_contrast, one), (adjust_saturation, one), (adjust_hue, zero)):
        assert_close(change(x, factor), x, rtol=0, atol=1e-6)
    jitters = (ColorJitter(0.0, 0.0, 0.0, 0.0, p=1.0), ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.0))
    for operation in (*jitters, Grayscale(p=0.0), HorizontalFlip(p=0.0)):
        assert_close(operation(x, **drawn(operation, x)), x, rtol=0, atol=1e-6)
    assert torch.equal(View(GaussianBlur(radius=1, p=0.0))(x), x)
    square = x[..., :19]
    assert_close(View(RandomResizedCrop(19, area=(1.0, 1.0), ratio=(1.0, 1.0)))(square), square, rtol=0, atol=1e-6)
    assert torch.equal(augment.evaluation(19)(square), square)


def test_strength_zero_leaves_the_colour_operations_out():
    kinds = [type(operation) for operation in augment.simclr(32, strength=0.0).operations]
    assert kinds == [RandomResizedCrop, HorizontalFlip]
    kinds = [type(operation) for operation in augment.simclr(224).operations]
    assert kinds == [RandomResizedCrop, HorizontalFlip, ColorJitter, Grayscale, GaussianBlur]
    jitter, blur = augment.simclr(224, strength=0.5).operations[2::2]
    assert vars(jitter) == pytest.approx({"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8})
    assert 2 * blur.radius + 1 == 23  # a tenth of 224, made odd


def test_normalisation_comes_last_and_can_be_undone():
    x = pictures(7, 17, 17)
    plain, normalised = augment.simclr(17, blur=True), augment.simclr(17, blur=True, mean=MEAN, std=STD)
    expected = plain(x, generator_of(0))
    out = normalised(x, generator_of(0))
    for channel in range(3):
        assert_close(out[:, channel], (expected[:, channel] - MEAN[channel]) / STD[channel], **CLOSE)
    assert_close(normalised.unnormalise(out), expected.clamp(0, 1), **CLOSE)
    assert torch.equal(plain.unnormalise(x), x)


def test_views_of_one_generator_differ_and_repeat_by_seed():
    x, view, generator = pictures(7, 17, 17), VIEWS["simclr"], generator_of(5, 3)
    first, second = view(x, generator), view(x, generator)
    assert (first[5:] - second[5:]).abs().mean() > 0.01
    assert torch.equal(first, view(x, generator_of(5, 3)))
    torch.manual_seed(0)
    without = view(x)
    torch.manual_seed(0)
    assert torch.equal(view(x), without)


def test_seeds_are_fixed_numbers():
    """Recorded runs rest on them."""
    assert seed_of(0, 0) == 5104172916443561106
    assert seed_of("shapes", 3, 7) == 7781317152148103830
    assert len({seed_of(seed, step) for seed in range(31) for step in range(31)}) == 31 * 31
    assert 0 <= seed_of("any", 3) < 2**63


def test_augmentations_say_what_they_cannot_do():
    for area in ((0.0, 1.0), (0.5, 0.2), (0.5, 1.1)):
        with pytest.raises(ValueError, match="area="):
            RandomResizedCrop(32, area=area)
    with pytest.raises(ValueError, match=r"hue=0\.6"):
        ColorJitter(0.4, 0.4, 0.4, 0.6)
    with pytest.raises(ValueError, match="radius=7: the blur must be narrower than the image of 7 pixels"):
        View(GaussianBlur(radius=7))(pictures(3, 11, 7))
