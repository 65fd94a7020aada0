"""Augmentations against torchvision, image by image, with the parameters that we drew."""
import copy

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy.ndimage import sobel as scipy_sobel
from scipy.stats import ks_2samp
from torch.testing import assert_close
from torchvision.transforms import ColorJitter as TorchvisionJitter
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from minivit import augment
from minivit.augment import (
    CenterResize,
    ColorJitter,
    Cutout,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    HorizontalFlip,
    RandomResizedCrop,
    Rotation,
    Sobel,
    Solarize,
    View,
    add_brightness,
    adjust_brightness,
    adjust_channel_contrast,
    adjust_contrast,
    adjust_hsv_saturation,
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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(31, 31, 13), (29, 41, 17), (11, 7, 23), (37, 37, 37)])
def test_crop_equals_torchvision(height, width, size, interpolation):
    x = pictures(19, height, width)
    crop = RandomResizedCrop(size, interpolation=interpolation)
    box = drawn(crop, x)
    ours = crop(x, **box)
    for i in range(len(x)):
        sides = [int(box[name][i]) for name in ("top", "left", "height", "width")]
        peer = TF.resized_crop(x[i], *sides, size=[size, size], interpolation=TF.InterpolationMode(interpolation), antialias=True)
        assert_close(ours[i], peer.clamp(0, 1), **CLOSE)


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


def test_solarize_equals_torchvision():
    x = pictures(19, 11, 13)
    x[:, :, 0] = 128 / 255  # the threshold itself is inverted
    solarize = Solarize(0.5)
    draws = drawn(solarize, x)
    assert 0 < draws["apply"].sum() < 19
    for i, image in enumerate(solarize(x, **draws)):
        assert_close(image, TF.solarize(x[i], 128 / 255) if draws["apply"][i] else x[i], **CLOSE)


def test_rotation_equals_torchvision():
    x = pictures(23, 17, 17)
    rotation = Rotation()
    draws = drawn(rotation, x)
    assert set(draws["turns"].tolist()) == {0, 1, 2, 3}
    for i, image in enumerate(rotation(x, **draws)):
        assert_close(image, TF.rotate(x[i], 90.0 * int(draws["turns"][i])), **CLOSE)


@pytest.mark.parametrize(("height", "width", "share"), [(17, 23, 0.5), (23, 17, 0.3), (11, 13, 1.0)])
def test_cutout_equals_torchvision(height, width, share):
    x = pictures(19, height, width)
    cutout = Cutout(share, p=0.7)
    draws = drawn(cutout, x)
    side = round(share * min(height, width))
    for i, image in enumerate(cutout(x, **draws)):
        spans = []
        for centre, pixels in ((draws["row"][i], height), (draws["column"][i], width)):
            start = int(centre) - side // 2
            spans.append((max(start, 0), min(start + side, pixels) - max(start, 0)))
        (top, tall), (left, wide) = spans
        peer = TF.erase(x[i], top, left, tall, wide, torch.full((3, 1, 1), 0.5)) if draws["apply"][i] else x[i]
        assert torch.equal(image, peer)


def test_noise_equals_torchvisions_formula():
    x = pictures(19, 11, 13)
    noise = GaussianNoise((0.05, 0.3), p=0.6)
    draws = drawn(noise, x)
    assert 0 < (draws["sigma"] == 0).sum() < 19
    for i, image in enumerate(noise(x, **draws)):
        sigma = float(draws["sigma"][i])
        assert_close(image, (x[i] + sigma * draws["noise"][i]).clamp(0, 1), **CLOSE)
        assert sigma == 0 or 0.05 <= sigma <= 0.3
    large = GaussianNoise((0.1, 0.1))
    gray = torch.full((31, 3, 37, 41), 0.5)
    ours = large(gray, **drawn(large, gray))
    torch.manual_seed(0)
    assert ks_2samp(ours.flatten().numpy(), TF.gaussian_noise(gray, sigma=0.1).flatten().numpy()).pvalue > 0.01


def test_sobel_equals_scipys():
    x = pictures(19, 11, 13)
    sobel = Sobel(0.7)
    draws = drawn(sobel, x)
    assert 0 < draws["apply"].sum() < 19
    for i, image in enumerate(sobel(x, **draws)):
        gray = TF.rgb_to_grayscale(x[i], num_output_channels=1)[0].double().numpy()
        across, down = (torch.from_numpy(scipy_sobel(gray, axis=axis, mode="nearest")) for axis in (1, 0))
        edges = ((across**2 + down**2).sqrt() / 4).clamp(max=1).float().expand(3, -1, -1)
        assert_close(image, edges if draws["apply"][i] else x[i], **CLOSE)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_the_tensorflow_forms_equal_their_definitions(factor):
    x = pictures(7, 11, 13)
    factors = torch.full((7,), factor)
    hsv = rgb_to_hsv(x.permute(0, 2, 3, 1).double().numpy())
    hsv[..., 1] = (hsv[..., 1] * factor).clip(0, 1)
    assert_close(adjust_hsv_saturation(x, factors), torch.from_numpy(hsv_to_rgb(hsv)).permute(0, 3, 1, 2).float(), **CLOSE)
    for i in range(7):
        for channel in range(3):
            plane = x[i, channel].double()
            pulled = ((plane - plane.mean()) * factor + plane.mean()).clamp(0, 1)
            assert_close(adjust_channel_contrast(x, factors)[i, channel], pulled.float(), **CLOSE)
    assert_close(add_brightness(x, factors - 1), (x + factor - 1).clamp(0, 1), **CLOSE)


@pytest.mark.parametrize("form", ["tf_v1", "tf_v2"])
def test_the_tensorflow_jitter_keeps_each_images_order(form):
    x = pictures(29, 11, 13)
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, form=form)
    draws = drawn(jitter, x)
    brightness = add_brightness if form == "tf_v1" else adjust_brightness
    changes = (brightness, adjust_channel_contrast, adjust_hsv_saturation, adjust_hue)
    ours = jitter(x, **draws)
    for i in range(len(x)):
        image = x[i : i + 1]
        for kind in draws["order"][i] if draws["apply"][i] else ():
            image = changes[kind](image, draws["factors"][i : i + 1, kind])
        assert_close(ours[i : i + 1], image, **CLOSE)


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
    assert drawn(Solarize(0.2), x)["apply"].double().mean().item() == pytest.approx(0.2, abs=0.025)
    shift = drawn(ColorJitter(0.4, 0.4, 0.2, 0.1, form="tf_v1"), x)["factors"][:, 0]
    assert ks_2samp(shift.numpy(), torch.linspace(-0.4, 0.4, 5003).numpy()).pvalue > 0.01
    turns = torch.bincount(drawn(Rotation(), x)["turns"], minlength=4) / 5003
    assert_close(turns, torch.full((4,), 0.25), rtol=0, atol=0.03)
    hole = drawn(Cutout(), torch.empty(5003, 3, 7, 11))
    for name, pixels in (("row", 7), ("column", 11)):
        assert_close(torch.bincount(hole[name]) / 5003, torch.full((pixels,), 1 / pixels), rtol=0, atol=0.03)


def test_jitter_factors_are_distributed_as_torchvisions():
    jitter = drawn(ColorJitter(0.8, 0.5, 1.2, 0.3, p=1.0), torch.empty(3001, 3, 2, 2))["factors"]
    peer = TorchvisionJitter(0.8, 0.5, 1.2, 0.3)
    torch.manual_seed(0)
    draws = torch.tensor([TorchvisionJitter.get_params(peer.brightness, peer.contrast, peer.saturation, peer.hue)[1:] for _ in range(3001)])
    for column in range(4):
        assert ks_2samp(jitter[:, column].numpy(), draws[:, column].numpy()).pvalue > 0.01


# ---------------------------------------------------------------------------------------------------- properties

VIEWS = {
    "simclr": augment.simclr(17, blur=True, mean=MEAN, std=STD),
    "supervised": augment.supervised(17),
    "flip first": View(HorizontalFlip(), RandomResizedCrop(17), ColorJitter(0.4, 0.4, 0.4, 0.1)),  # size changes inside the chain
    "byol": augment.byol(17, blur=True)[1],
    "moco_v1": augment.moco_v1(17),
    "swav": augment.swav(17, small_size=11, blur=True)[2],
    "the rest": View(RandomResizedCrop(17), Rotation(), Cutout(), GaussianNoise(), Sobel(0.5), Solarize(0.5)),
}
shapes = {"height": st.integers(5, 40), "width": st.integers(5, 40), "seed": st.integers(0, 999)}


@given(**shapes, strength=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_values_stay_between_zero_and_one(height, width, seed, strength):
    x = pictures(7, height, width, seed)
    rest = View(RandomResizedCrop(11), Rotation(), Cutout(), GaussianNoise((0.0, strength)), Sobel(0.3), Solarize(0.5))
    forms = [augment.simclr(11, strength=strength, min_area=0.05, blur=True, form=form) for form in ("torchvision", "tf_v1", "tf_v2")]
    for view in (rest, *forms):
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
    for change, factor in ((add_brightness, zero), (adjust_channel_contrast, one), (adjust_hsv_saturation, one)):
        assert_close(change(x, factor), x, rtol=0, atol=1e-6)
    jitters += tuple(ColorJitter(0.0, 0.0, 0.0, 0.0, p=1.0, form=form) for form in ("tf_v1", "tf_v2"))
    off = (Grayscale(0.0), HorizontalFlip(0.0), Solarize(0.0), Cutout(p=0.0), Sobel(0.0), GaussianNoise(p=0.0), GaussianNoise((0.0, 0.0)))
    for operation in (*jitters, *off):
        assert_close(operation(x, **drawn(operation, x)), x, rtol=0, atol=1e-6)
    assert torch.equal(View(GaussianBlur(radius=1, p=0.0))(x), x)
    square = x[..., :19]
    for interpolation in ("bilinear", "bicubic"):
        whole = RandomResizedCrop(19, area=(1.0, 1.0), ratio=(1.0, 1.0), interpolation=interpolation)
        assert_close(View(whole)(square), square, rtol=0, atol=1e-6)
    assert torch.equal(View(Rotation(0.0))(square), square)
    assert torch.equal(augment.evaluation(19)(square), square)


def test_strength_zero_leaves_the_colour_operations_out():
    kinds = [type(operation) for operation in augment.simclr(32, strength=0.0).operations]
    assert kinds == [RandomResizedCrop, HorizontalFlip]
    kinds = [type(operation) for operation in augment.simclr(224).operations]
    assert kinds == [RandomResizedCrop, HorizontalFlip, ColorJitter, Grayscale, GaussianBlur]
    jitter, blur = augment.simclr(224, strength=0.5).operations[2::2]
    assert strengths(jitter) == pytest.approx((0.4, 0.4, 0.4, 0.1, 0.8)) and jitter.form == "torchvision"
    assert 2 * blur.radius + 1 == 23  # a tenth of 224, made odd


def strengths(jitter: ColorJitter) -> tuple[float, ...]:
    return jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p


def test_recipes_are_the_papers():
    """Probabilities and strengths as facts sheets and official code have them, and the order of the operations."""
    crop, gray, jitter, flip = augment.moco_v1(224).operations
    assert [type(part) for part in (crop, gray, jitter, flip)] == [RandomResizedCrop, Grayscale, ColorJitter, HorizontalFlip]
    assert crop.area == (0.2, 1.0) and gray.p == 0.2 and strengths(jitter) == (0.4, 0.4, 0.4, 0.4, 1.0)
    crop, jitter, gray, blur, flip = augment.moco_v2(224).operations
    assert crop.area == (0.2, 1.0) and strengths(jitter) == (0.4, 0.4, 0.4, 0.1, 0.8) and blur.p == 0.5 and type(flip) is HorizontalFlip
    first, second = augment.moco_v3(224)
    for view, blur_p in ((first, 1.0), (second, 0.1)):
        crop, jitter, gray, blur, *solarize, flip = view.operations
        assert crop.area == (0.08, 1.0) and strengths(jitter) == (0.4, 0.4, 0.2, 0.1, 0.8)
        assert gray.p == 0.2 and blur.p == blur_p and type(flip) is HorizontalFlip
        assert [part.p for part in solarize] == ([] if view is first else [0.2])
    assert augment.moco_v3(224, min_area=0.2)[0].operations[0].area == (0.2, 1.0)
    for view, blur_p in zip(augment.byol(224), (1.0, 0.1), strict=True):
        crop, flip, jitter, gray, blur, *solarize = view.operations
        assert crop.interpolation == "bicubic" and jitter.form == "tf_v1" and strengths(jitter) == (0.4, 0.4, 0.2, 0.1, 0.8)
        assert blur.p == blur_p and len(solarize) == (blur_p < 1)
        assert view.mean == MEAN and view.std == STD
    views = augment.swav(224, small_size=96)
    assert [view.operations[0].size for view in views] == [224, 224] + [96] * 6
    assert [view.operations[0].area for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert [view.operations[0].area for view in augment.swav(224)] == [(0.08, 1.0)] * 2
    for recipe in (augment.moco_v2(32), augment.moco_v3(32)[0], augment.byol(32)[0], augment.swav(32)[0]):
        assert not any(isinstance(part, GaussianBlur) for part in recipe.operations)
    assert augment.simclr(32, form="tf_v2").operations[0].interpolation == "bicubic"


def test_a_composition_augments_one_branch_only():
    kinds = {
        "crop": [RandomResizedCrop, HorizontalFlip], "cutout": [Cutout], "color": [ColorJitter, Grayscale], "sobel": [Sobel],
        "noise": [GaussianNoise], "blur": [GaussianBlur], "rotate": [Rotation],
    }  # fmt: skip
    assert set(augment.COMPOSED) == set(kinds)
    x = pictures(7, 17, 17)
    for first in kinds:
        assert [type(part) for part in augment.composition(17, first=first, second=first)[1].operations] == [CenterResize, *kinds[first]]
        for second in set(kinds) - {first}:
            plain, other = augment.composition(17, first=first, second=second, mean=MEAN, std=STD)
            assert [type(part) for part in plain.operations] == [CenterResize]
            assert_close(plain.unnormalise(plain(x, generator_of(0))), x, **CLOSE)
            assert [type(part) for part in other.operations] == [CenterResize, *kinds[first], *kinds[second]]
            assert not torch.allclose(other(x, generator_of(0)), plain(x, generator_of(0)), atol=0.1)
    assert [type(part) for part in augment.composition(17, first="blur")[1].operations] == [CenterResize, GaussianBlur]
    always = [augment.composition(17, first=name)[1].operations[1] for name in ("cutout", "sobel", "noise", "blur", "rotate")]
    assert all(part.p == 1 for part in always) and always[3].radius == 1
    assert strengths(augment.composition(17, first="color")[1].operations[1]) == (0.8, 0.8, 0.8, 0.2, 0.8)
    assert augment.composition(17, first="sobel", second="crop", min_area=0.3)[1].operations[2].area == (0.3, 1.0)
    assert augment.composition(13, first="rotate")[1](pictures(3, 29, 17), generator_of(0)).shape == (3, 3, 13, 13)
    with pytest.raises(ValueError, match="first='colour': there are crop, cutout, color, sobel, noise, blur, rotate"):
        augment.composition(17, first="colour")
    with pytest.raises(ValueError, match="second='grey'"):
        augment.composition(17, first="crop", second="grey")


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
    with pytest.raises(ValueError, match="interpolation='cubic': there are 'bilinear', 'bicubic'"):
        RandomResizedCrop(32, interpolation="cubic")
    with pytest.raises(ValueError, match="form='tf': there are 'torchvision', 'tf_v1', 'tf_v2'"):
        augment.simclr(32, form="tf")
    with pytest.raises(ValueError, match="quarter turns need square images, not 11×7"):
        View(Rotation())(pictures(3, 11, 7))
    with pytest.raises(ValueError, match=r"share=1\.5"):
        Cutout(1.5)
    with pytest.raises(ValueError, match=r"hue=0\.6"):
        ColorJitter(0.4, 0.4, 0.4, 0.6)
    with pytest.raises(ValueError, match="radius=7: the blur must be narrower than the image of 7 pixels"):
        View(GaussianBlur(radius=7))(pictures(3, 11, 7))
