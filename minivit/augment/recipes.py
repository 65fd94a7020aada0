"""Each paper's views: one `View`, or a tuple where the views differ.

Every recipe takes ``mean`` and ``std``, the normalisation at its end; where a paper has one, it is the default. ``blur=None``
means: above 32 pixels only. Blur kernels are a tenth of the image wide (23 taps at 224), as in SimCLR and BYOL; MoCo's and
SwAV's code blurs with Pillow, whose kernel is as wide as σ needs.
"""
from collections.abc import Callable, Sequence

from minivit.augment.base import Operation, View
from minivit.augment.colour import ColorJitter, Grayscale, Solarize
from minivit.augment.filters import GaussianBlur, GaussianNoise, Sobel
from minivit.augment.geometry import CenterResize, Cutout, HorizontalFlip, RandomResizedCrop, Rotation

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Numbers = Sequence[float] | None


def evaluation(size: int, *, mean: Numbers = None, std: Numbers = None) -> View:
    """The largest central square at ``size``, nothing random."""
    return View(CenterResize(size), mean=mean, std=std)


def supervised(size: int, *, min_area: float = 0.08, mean: Numbers = None, std: Numbers = None) -> View:
    """Crop and flip, the plain recipe for training with labels."""
    return View(RandomResizedCrop(size, area=(min_area, 1.0)), HorizontalFlip(), mean=mean, std=std)


def simclr(
    size: int,
    *,
    strength: float = 1.0,
    min_area: float = 0.08,
    blur: bool | None = None,
    form: str = "torchvision",
    quarter_turns: bool = False,
    mean: Numbers = None,
    std: Numbers = None,
) -> View:
    """SimCLR's view: crop, flip, colour jitter (0.8 s, 0.8 s, 0.8 s, 0.2 s; p 0.8), grayscale (p 0.2), blur (p 0.5).

    ImageNet: ``simclr(224)``. CIFAR-10: ``simclr(32, strength=0.5)``, no blur. ``strength=0`` leaves out both colour
    operations (crop only). ``form`` is the jitter's: the paper's results come from "tf_v1", the code's default today is
    "tf_v2", and both resize bicubically. The paper feeds [0, 1] without normalisation. ``quarter_turns`` ends the view with a
    turn by 0°, 90°, 180° or 270°, equally likely: what h remembers of it and z forgets is the paper's table 3.
    Source: Chen et al. 2020, appendix A; boxes are sampled as torchvision does (see `RandomResizedCrop`).
    """
    interpolation = "bilinear" if form == "torchvision" else "bicubic"
    operations: list[Operation] = [RandomResizedCrop(size, area=(min_area, 1.0), interpolation=interpolation), HorizontalFlip()]
    if strength > 0:
        operations += [simclr_jitter(strength, form=form), Grayscale()]
    turns = [Rotation(0.75)] if quarter_turns else []
    return View(*operations, *_blur(size, blur, 0.5), *turns, mean=mean, std=std)


def moco_v1(size: int, *, min_area: float = 0.2, mean: Numbers = IMAGENET_MEAN, std: Numbers = IMAGENET_STD) -> View:
    """MoCo v1's view: crop, grayscale (p 0.2), jitter (0.4, 0.4, 0.4, 0.4; always), flip. No blur. Source: He et al. 2020, official code."""
    crop, jitter = RandomResizedCrop(size, area=(min_area, 1.0)), ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0)
    return View(crop, Grayscale(), jitter, HorizontalFlip(), mean=mean, std=std)


def moco_v2(
    size: int, *, min_area: float = 0.2, blur: bool | None = None, mean: Numbers = IMAGENET_MEAN, std: Numbers = IMAGENET_STD
) -> View:
    """MoCo v2's view: crop, jitter (0.4, 0.4, 0.4, 0.1; p 0.8), grayscale (p 0.2), blur (p 0.5), flip. Source: Chen et al. 2020, official code."""
    crop, jitter = RandomResizedCrop(size, area=(min_area, 1.0)), ColorJitter(0.4, 0.4, 0.4, 0.1)
    return View(crop, jitter, Grayscale(), *_blur(size, blur, 0.5), HorizontalFlip(), mean=mean, std=std)


def moco_v3(
    size: int, *, min_area: float = 0.08, blur: bool | None = None, mean: Numbers = IMAGENET_MEAN, std: Numbers = IMAGENET_STD
) -> tuple[View, View]:
    """MoCo v3's two views: crop, jitter (0.4, 0.4, 0.2, 0.1; p 0.8), grayscale (p 0.2), blur (p 1 | 0.1), solarize (p 0 | 0.2), flip.

    ``min_area`` is 0.08 for ViTs and 0.2 for ResNets. Source: Chen, Xie & He 2021, official code.
    """

    def view(blur_p: float, solarize: tuple[Operation, ...]) -> View:
        crop, jitter = RandomResizedCrop(size, area=(min_area, 1.0)), ColorJitter(0.4, 0.4, 0.2, 0.1)
        return View(crop, jitter, Grayscale(), *_blur(size, blur, blur_p), *solarize, HorizontalFlip(), mean=mean, std=std)

    return view(1.0, ()), view(0.1, (Solarize(0.2),))


def byol(
    size: int, *, min_area: float = 0.08, blur: bool | None = None, mean: Numbers = IMAGENET_MEAN, std: Numbers = IMAGENET_STD
) -> tuple[View, View]:
    """BYOL's two views: bicubic crop, flip, jitter (0.4, 0.4, 0.2, 0.1; p 0.8; additive brightness), grayscale (p 0.2),
    blur (p 1 | 0.1), solarize (p 0 | 0.2). Source: Grill et al. 2020, appendix B and official code.
    """

    def view(blur_p: float, solarize: tuple[Operation, ...]) -> View:
        crop = RandomResizedCrop(size, area=(min_area, 1.0), interpolation="bicubic")
        jitter = ColorJitter(0.4, 0.4, 0.2, 0.1, form="tf_v1")
        return View(crop, HorizontalFlip(), jitter, Grayscale(), *_blur(size, blur, blur_p), *solarize, mean=mean, std=std)

    return view(1.0, ()), view(0.1, (Solarize(0.2, threshold=0.5),))


def swav(
    size: int,
    *,
    small_size: int | None = None,
    small_views: int = 6,
    strength: float = 1.0,
    blur: bool | None = None,
    mean: Numbers = IMAGENET_MEAN,
    std: Numbers = IMAGENET_STD,
) -> tuple[View, ...]:
    """SwAV's multi-crop: two views of ``size`` from 14–100 % of the image, then ``small_views`` of ``small_size`` from 5–14 %.

    ``swav(224, small_size=96)`` is the paper's. Without ``small_size``: two views from 8–100 %. Each is cropped, flipped,
    jittered as in SimCLR at strength 1, grayed (p 0.2) and blurred (p 0.5). Source: Caron et al. 2020, official code.
    """

    def view(side: int, area: tuple[float, float]) -> View:
        crop = RandomResizedCrop(side, area=area)
        return View(crop, HorizontalFlip(), simclr_jitter(strength), Grayscale(), *_blur(side, blur, 0.5), mean=mean, std=std)

    if small_size is None:
        return (view(size, (0.08, 1.0)),) * 2
    return (view(size, (0.14, 1.0)),) * 2 + (view(small_size, (0.05, 0.14)),) * small_views


def simclr_jitter(strength: float, **options: str) -> ColorJitter:
    """SimCLR's colour jitter at strength s: 0.8 s, 0.8 s, 0.8 s, and a hue of 0.2 s. SwAV takes it over."""
    return ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, **options)


COMPOSED: dict[str, Callable[[int, float], tuple[Operation, ...]]] = {  # of the image's side and the crop's smallest area
    "crop": lambda size, min_area: (RandomResizedCrop(size, area=(min_area, 1.0)), HorizontalFlip()),
    "cutout": lambda size, min_area: (Cutout(),),
    "color": lambda size, min_area: (simclr_jitter(1.0), Grayscale()),
    "sobel": lambda size, min_area: (Sobel(),),
    "noise": lambda size, min_area: (GaussianNoise(),),
    "blur": lambda size, min_area: tuple(_blur(size, True, 1.0)),
    "rotate": lambda size, min_area: (Rotation(1.0),),
}


def composition(
    size: int, *, first: str, second: str | None = None, min_area: float = 0.08, mean: Numbers = None, std: Numbers = None
) -> tuple[View, View]:
    """SimCLR's comparison of operations: the plain image, and the image after ``first``, then after ``second`` if that is another.

    The names are those of `COMPOSED`: crop (with flip), cutout (half the side, gray), color (jitter at strength 1 with p 0.8, then
    grayscale with p 0.2), sobel, noise (σ up to 0.2), blur (σ up to 2 pixels; at 32 pixels the kernel has 3 taps) and rotate
    (90°, 180° or 270°); all but color are always applied. As in the paper only one branch is augmented, which lowers all
    accuracies. There both branches first share a random crop and resize, as ImageNet's images differ in size; here both get
    the central square. Strengths that the paper does not give are ours. Raises ValueError for an unknown name.
    Source: Chen et al. 2020, §3.1 and fig. 5.
    """
    for argument, name in (("first", first), ("second", second)):
        if name not in COMPOSED and not (argument == "second" and name is None):
            raise ValueError(f"{argument}={name!r}: there are {', '.join(COMPOSED)}.")
    names = (first,) if second in (None, first) else (first, second)
    operations = [operation for name in names for operation in COMPOSED[name](size, min_area)]
    return View(CenterResize(size), mean=mean, std=std), View(CenterResize(size), *operations, mean=mean, std=std)


def _blur(size: int, blur: bool | None, p: float) -> list[Operation]:
    """SimCLR's blur, where it is wanted: σ ~ U(0.1, 2.0) pixels, with probability ``p``."""
    wanted = size > 32 if blur is None else blur
    return [GaussianBlur(radius=max(1, size // 20), p=p)] if wanted else []
