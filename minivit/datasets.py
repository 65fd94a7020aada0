"""Images: generated, bundled with scikit-learn, downloaded, or a folder of yours. All become one `ImageData`."""
import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from torch.nn import functional as F

from minivit.downloads import fetch
from minivit.folders import read_folder

SHAPES = ("disc", "square", "triangle", "ring", "plus", "star", "stripes", "crescent", "checker", "dots")
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IN_MEMORY = 2 * 10**9  # bytes of decoded images; a larger folder stays on disk


class MappedImages:
    """uint8 ``(N, 3, H, W)`` in a ``.npy`` file that stays on disk: indexing by a batch of ids reads only those images."""

    def __init__(self, path: Path):
        self.array = np.load(path, mmap_mode="r")
        self.shape = self.array.shape
        self.device = torch.device("cpu")

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.array[np.asarray(index.cpu())])


@dataclass(frozen=True)
class ImageData:
    """Labelled images: ``images`` uint8 ``(N, 3, H, W)``, ``labels`` int64 ``(N,)``, ``classes`` their names.

    ``images`` is a tensor on any device, or `MappedImages` on disk; both are indexed by a batch of ids.
    """

    images: Tensor | MappedImages
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> "ImageData":
        """Only these images, in this order."""
        return ImageData(self.images[index], self.labels[index], self.classes, self.name)

    def balanced(self, count: int, *, seed: int = 0) -> "ImageData":
        """``count`` images drawn by ``seed``, equally many of each class (or one more of some). ValueError if there are not so many."""
        if not 1 <= count <= len(self):
            raise ValueError(f"count={count}: from 1 to the {len(self)} images of {self.name}.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        labels = self.labels.cpu()[order]
        chosen = np.lexsort((labels.numpy(), _rank(labels)))[:count]
        return self.subset(order[torch.from_numpy(chosen)].sort().values.to(self.labels.device))

    def to(self, device: torch.device | str) -> "ImageData":
        """Move a tensor of images, and the labels; mapped images stay on disk and travel batch by batch."""
        images = self.images.to(device) if isinstance(self.images, Tensor) else self.images
        return ImageData(images, self.labels.to(device), self.classes, self.name)

    def checksum(self) -> str:
        """First 16 hex digits of the SHA-256 over shape, class names, pixels and labels."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        for ids in torch.arange(len(self)).split(4096):
            digest.update(self.images[ids.to(self.images.device)].cpu().contiguous().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def load_data(
    name: str,
    split: str = "train",
    *,
    size: int | None = None,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    root: str | Path | None = None,
) -> ImageData:
    """One split, "train" or "test", of a named data set or of ``folder:PATH``.

    ``shapes`` (generated, 4,000 + 1,000 images of 32×32) and ``digits`` (scikit-learn's scans) are always there;
    ``cifar10``, ``cifar100``, ``imagenette`` are downloaded to ``root`` once, after saying how much and from where; a copy
    of yours in ``root`` is used as it is. ``folder:PATH`` holds ``PATH/train/CLASS/*`` and ``PATH/test`` (or ``val``); with
    class folders right below PATH, a tenth of the files, chosen by a hash of their names, is the test split.

    ``size``: bring all images to squares of this side, once; folders of mixed sizes need it. The square is cut from the
    middle, so a crop augmentation never sees the borders of a long picture; ``imagenette`` is cut to 160×160 first.
    ``limit``: keep this many images, the same ones each time, balanced over the classes. ``classes``: keep only these, and
    number them in this order.

    Raises ValueError for an unknown name, split or class and for a corrupt file, FileNotFoundError for a missing folder.
    """
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: a string, such as 'shapes' or 'folder:PATH'.")
    if isinstance(classes, str):
        raise TypeError(f"classes={classes!r}: a tuple of names, such as ({classes!r},).")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: there are 'train' and 'test'.")
    for argument, value in (("size", size), ("limit", limit)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{argument}={value!r}: a whole number of at least 1, or None.")
    if name.startswith("folder:"):
        data = _folder(name, name.removeprefix("folder:"), split, size)
    elif name in _LOADERS:
        data = _resized(_LOADERS[name](name, split, root), size)
    else:
        near = difflib.get_close_matches(name, _LOADERS, n=2)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(_LOADERS)} and folder:PATH."
        raise ValueError(f"no data set is called {name!r}; {hint}")
    return _limited(data if classes is None else _only(data, classes), limit)


def _only(data: ImageData, classes: Sequence[str]) -> ImageData:
    unknown = [c for c in classes if c not in data.classes]
    if unknown:
        raise ValueError(f"{data.name} has no class {unknown[0]!r}; it has {', '.join(data.classes)}.")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes={tuple(classes)}: at least one name, and each only once.")
    old = torch.tensor([data.classes.index(c) for c in classes])
    keep = torch.isin(data.labels, old).nonzero()[:, 0]
    labels = (data.labels[keep, None] == old).int().argmax(1)
    return ImageData(data.images[keep], labels, tuple(classes), data.name)


def _limited(data: ImageData, limit: int | None) -> ImageData:
    """The first images of each class in turn, in their old order."""
    if limit is None or limit >= len(data):
        return data
    keep = np.lexsort((data.labels.numpy(), _rank(data.labels)))[:limit]
    return data.subset(torch.from_numpy(np.sort(keep)))


def _rank(labels: Tensor) -> np.ndarray:
    """Of each image: how many earlier ones have the same label."""
    labels = labels.numpy()
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order], side="left")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - starts
    return rank


def _resized(data: ImageData, size: int | None) -> ImageData:
    if size is None or tuple(data.images.shape[-2:]) == (size, size):
        return data
    from torchvision.transforms.v2.functional import resize

    parts = [resize(data.images[ids], [size, size], antialias=True) for ids in torch.arange(len(data)).split(4096)]
    return ImageData(torch.cat(parts), data.labels, data.classes, data.name)


# ---------------------------------------------------------------------------------------------------- where they come from


def _folder(name: str, path: str | Path, split: str, size: int | None) -> ImageData:
    if not path:
        raise ValueError(f"name={name!r}: a path follows the colon.")
    file, labels, classes = read_folder(Path(path).expanduser(), split, size)
    images = MappedImages(file) if file.stat().st_size > IN_MEMORY else torch.from_numpy(np.load(file))
    return ImageData(images, torch.from_numpy(labels), classes, name)


def _shapes(name: str, split: str, root: str | Path | None) -> ImageData:
    images, labels = shapes(4000, seed=0) if split == "train" else shapes(1000, seed=1)
    return ImageData(images, labels, SHAPES, name)


def _digits(name: str, split: str, root: str | Path | None) -> ImageData:
    """8×8 scans with values 0 … 16, made four times as large. Every fifth of a class is for testing."""
    from sklearn.datasets import load_digits

    scans, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    mine = torch.from_numpy(_rank(labels) % 5 == 4) == (split == "test")
    scans = rearrange(scans[mine], "n (h w) -> n 1 h w", h=8) * (255 / 16)
    large = F.interpolate(scans, scale_factor=4, mode="bilinear").round().to(torch.uint8)
    return ImageData(repeat(large, "n 1 h w -> n c h w", c=3).contiguous(), labels[mine], tuple("0123456789"), name)


def _cifar(name: str, split: str, root: str | Path | None) -> ImageData:
    from torchvision.datasets import CIFAR10, CIFAR100

    folder = fetch(name, root)
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:  # these files are pickles, which can run code: torchvision compares the MD5 of every one before it opens any
        data = kind(folder.parent, train=split == "train")
    except RuntimeError as error:
        raise ValueError(f"{folder} is not an exact copy of {name}; move it away to download a good one.") from error
    images = rearrange(torch.from_numpy(data.data), "n h w c -> n c h w").contiguous()
    return ImageData(images, torch.tensor(data.targets), tuple(data.classes), name)


def _imagenette(name: str, split: str, root: str | Path | None) -> ImageData:
    data = _folder(name, fetch(name, root), split, size=160)
    return replace(data, classes=tuple(IMAGENETTE.get(c, c) for c in data.classes))


_LOADERS = {"shapes": _shapes, "digits": _digits, "cifar10": _cifar, "cifar100": _cifar, "imagenette": _imagenette}


# ---------------------------------------------------------------------------------------------------- generated


def shapes(count: int, seed: int, *, size: int = 32, objects: int | None = None) -> tuple[Tensor, Tensor]:
    """``count`` pictures of ten kinds of shape, uint8 ``(N, 3, size, size)``, and their labels.

    A larger ``size`` is a wider view, not a closer one: objects keep their size in pixels, and there are ``objects`` × ``objects`` of them, 32
    pixels apart around the middle, of one kind and colour, each with a size and turn of its own. By default as many as the view holds, so that
    they are as dense everywhere; ``objects=1`` leaves more room around a single one.

    All geometry is in integers (1/64 pixel, angles from a rounded table) and all randomness is `numpy.random.RandomState`,
    whose stream is frozen, so that every machine makes the same bytes; the first n of N images do not depend on N.
    """
    objects = objects or -(-size // 32)
    random = np.random.RandomState(seed)
    labels = np.arange(count) % len(SHAPES)
    draws = random.randint(0, 1 << 16, size=(count, 7))
    further = np.random.RandomState(seed + 20_000).randint(0, 1 << 16, size=(count, objects**2 - 1, 2))
    own = np.concatenate([draws[:, None, 2:4], further], axis=1)
    noise = np.random.RandomState(seed + 10_000)
    at_once = max(500 * 32**2 // size**2, 1)
    parts = [_render(*(x[i : i + at_once] for x in (labels, draws, own)), noise, size) for i in range(0, count, at_once)]
    return torch.from_numpy(np.concatenate(parts)), torch.from_numpy(labels.astype(np.int64))


def _render(labels: np.ndarray, draws: np.ndarray, own: np.ndarray, noise: np.random.RandomState, size: int) -> np.ndarray:
    """Two colours of opposite hue, equal saturation and value, mixed by the shapes' coverage of each pixel, plus a little noise.

    What differs from image to image apart from the shape — colour, place, size, a small turn — is what the augmentations
    remove. That both colours share saturation and value matters: a relation between them would survive the jitter.
    """

    def between(drawn: np.ndarray, low: int, high: int) -> np.ndarray:
        return low + drawn * (high - low + 1) // 65536

    def column(i: int, low: int, high: int) -> np.ndarray:
        return between(draws[:, i, None, None], low, high)

    u, v, nearest = _around_objects(size, round(own.shape[1] ** 0.5), dx=column(0, -480, 480), dy=column(1, -480, 480))
    angle, radius = (between(own[nearest + (i,)], low, high) for i, low, high in ((0, -8, 8), (1, 512, 832)))
    inside = _inside(labels, *_turned(u, v, angle), radius)
    coverage = reduce(inside.astype(np.int32), "n (h a) (w b) -> n 1 h w", "sum", a=2, b=2)  # 0 … 4 of 4 sub-pixels
    hue, saturation, value = column(4, 0, 1535), column(5, 88, 256), column(6, 76, 255)
    back, front = _colour(hue, saturation, value), _colour(hue + 768, saturation, value)  # opposite hues
    picture = (back * (4 - coverage) + front * coverage + 2) // 4
    picture = picture + noise.randint(-8, 9, size=picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _colour(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """RGB ``(N, 3, 1, 1)`` from hue [0, 1536), saturation [0, 256], value [0, 255]: HSV's six straight pieces, in integers."""
    k = (np.array([5, 3, 1])[:, None, None] * 256 + hue[:, None]) % 1536
    wave = np.clip(np.minimum(k, 1024 - k), 0, 256)
    return value[:, None] * (65536 - saturation[:, None] * wave) >> 16


def _around_objects(size: int, objects: int, *, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Places of 2·size × 2·size sub-pixels in 1/64 pixel, from the nearest of objects × objects shapes moved by (dx, dy), and which one that is."""
    line = 32 * np.arange(2 * size) + 16 - 32 * size
    u, v = line[None, None, :] - dx, line[None, :, None] - dy
    if objects == 1:
        return u, v, (slice(None), [[0]])
    col, row = (np.clip((place + 1024 * objects) // 2048, 0, objects - 1) for place in (u, v))
    nearest = (np.arange(len(dx))[:, None, None], row * objects + col)
    return u - 2048 * col + 1024 * (objects - 1), v - 2048 * row + 1024 * (objects - 1), nearest


def _turned(u: np.ndarray, v: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) as seen from a shape turned by angle/256 of a circle."""
    table = np.round(1024 * np.sin(2 * np.pi * np.arange(256) / 256)).astype(np.int64)
    sin, cos = table[angle % 256], table[(angle + 64) % 256]
    return (cos * u + sin * v) >> 10, (cos * v - sin * u) >> 10


def _inside(labels: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which sub-pixels belong to the shape: one integer inequality for each kind."""
    out = np.zeros(x.shape, dtype=bool)
    for kind in np.unique(labels):
        at = labels == kind
        out[at] = _KINDS[SHAPES[kind]](x[at], y[at], radius[at])
    return out


def _disc(x, y, r):
    return x * x + y * y <= r * r


def _box(x, y, r):
    return np.maximum(abs(x), abs(y)) <= r


def _triangle(x, y, r):
    return (2 * y <= r) & (1774 * abs(x) - 1024 * y <= 1024 * r)  # 1774 / 1024 = √3


def _star(x, y, r):
    """A pentagram is where at least four of the five half-planes of its lines hold."""
    turns = np.arange(5)
    nx, ny = np.round(1024 * np.sin(0.4 * np.pi * turns)).astype(int), np.round(1024 * np.cos(0.4 * np.pi * turns)).astype(int)
    return sum((nx[i] * x + ny[i] * y <= 391 * r).astype(int) for i in range(5)) >= 4  # 391 / 1024 ≈ 1.23 cos 72°


def _dots(x, y, r):
    """Nine small discs on a 3 × 3 lattice."""
    step = 2 * r // 3
    return _box(x, y, r) & _disc((x + r) % step - step // 2, (y + r) % step - step // 2, r // 4)


_KINDS = {
    "disc": _disc,
    "square": lambda x, y, r: _box(x, y, r * 7 // 8),
    "triangle": _triangle,
    "ring": lambda x, y, r: _disc(x, y, r) & ~_disc(x, y, r * 9 // 16),
    "plus": lambda x, y, r: _box(x, y, r) & (np.minimum(abs(x), abs(y)) <= r // 4),
    "star": _star,
    "stripes": lambda x, y, r: _box(x, y, r) & ((y + r) * 7 // (2 * r + 1) % 2 == 0),
    "crescent": lambda x, y, r: _disc(x, y, r) & ~_disc(x - r // 2, y, r * 7 // 8),
    "checker": lambda x, y, r: _box(x, y, r) & (((x + r) * 5 // (2 * r + 1) + (y + r) * 5 // (2 * r + 1)) % 2 == 0),
    "dots": _dots,
}
