"""Folders of images: found, split, decoded once, and kept in the cache as one uint8 array."""
import hashlib
import os
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image
from tqdm import tqdm

from minivit.downloads import cache_dir

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
CHUNK = 256  # images decoded at a time: memory stays small however large the folder is


def read_folder(path: Path, split: str, size: int | None) -> tuple[Path, np.ndarray, tuple[str, ...]]:
    """Decode one split of a folder, once: the ``.npy`` file of the images, uint8 ``(N, 3, H, W)``, their labels, the class names.

    The file's name is a hash of the folder, the split, the size, and every image's name, bytes and time of change: touch one
    image and the folder is decoded again. A damaged file is rebuilt. `load_data` says how splits and sizes are chosen.

    Raises FileNotFoundError for a missing folder; ValueError if there are no classes or no images, for an image that cannot
    be read, for mixed sizes without ``size`` and for a link that leaves the folder; OSError if the cache cannot be written.
    """
    root = path.resolve()
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {path}.")
    if not root.is_dir():
        raise ValueError(f"{path} is a file; give the folder that holds one folder of images per class.")
    files, labels, classes = _find(root, split)
    key = hashlib.sha256(repr(("version 1", str(root), split, size)).encode())
    for file in files:
        stat = file.stat()
        key.update(repr((_name(file, root), stat.st_size, stat.st_mtime_ns)).encode())
    cache = cache_dir() / "folders" / f"{key.hexdigest()[:32]}.npy"
    if not _is_whole(cache, len(files), size):
        _build(cache, files, size)
    return cache, labels, classes


# ---------------------------------------------------------------------------------------------------- finding


def _find(root: Path, split: str) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """The images of one split, their labels, and the class names. Both splits number the classes as the training split does."""
    folders = _subfolders(root, root)
    train = _subfolders(folders["train"], root) if "train" in folders else {}
    chosen = train
    if not train:  # no split is given; a "train" without folders is a class of trains
        train = chosen = folders
    elif split == "test":
        tests = [_subfolders(folders[name], root) for name in ("test", "val") if name in folders]
        chosen = next(filter(None, tests), {})
        if not chosen:
            raise FileNotFoundError(f"{root} holds 'train', but no class folders in 'test' or 'val'.")
    if not train:
        raise ValueError(f"{root} holds no class folders; images belong in {root}/CLASS or {root}/train/CLASS.")
    unknown = sorted(set(chosen) - set(train))
    if unknown:
        raise ValueError(f"the test split of {root} has the class {unknown[0]!r}, which its training split lacks.")

    classes = list(train)
    found = [(file, classes.index(name)) for name, folder in chosen.items() for file in _images(folder, root)]
    if train is folders:
        found = [(file, label) for file, label in found if _is_test(_name(file, root)) == (split == "test")]
    if not found:
        raise ValueError(f"no image of {root} falls into the {split} split; make the folders {root}/train and {root}/test.")
    return [file for file, _ in found], np.array([label for _, label in found], dtype=np.int64), tuple(classes)


def _is_test(name: str) -> bool:
    """One file in ten, by a hash of its name: the same on every machine, whatever other files there are."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    return int(digest[:8], 16) % 10 == 0


def _subfolders(folder: Path, root: Path) -> dict[str, Path]:
    return {_name(entry, folder): entry for entry in _entries(folder, root) if entry.is_dir()}


def _images(folder: Path, root: Path) -> list[Path]:
    entries = _entries(folder, root)
    for entry in entries:
        if entry.is_dir():
            raise ValueError(f"{entry} is a folder inside a class folder; images must lie directly in {folder}.")
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
    if not images:
        raise ValueError(f"the class folder {folder} holds no images ({' '.join(SUFFIXES)}).")
    return images


def _entries(folder: Path, root: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files. A link may lead to another place below ``root``, never out of it."""
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda entry: _name(entry, folder))
    for entry in entries:
        if entry.is_symlink() and not (entry.exists() and entry.resolve().is_relative_to(root)):
            raise ValueError(f"{entry} is a symbolic link that leaves {root} or leads nowhere; put a copy of the original there.")
    return entries


def _name(path: Path, folder: Path) -> str:
    """The path below ``folder`` with forward slashes and composed accents, which some systems take apart."""
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


# ---------------------------------------------------------------------------------------------------- decoding


def _is_whole(cache: Path, count: int, size: int | None) -> bool:
    try:
        array = np.lib.format.open_memmap(cache, mode="r")
    except Exception:  # it is missing, cut short, or something else altogether: NumPy has many words for that
        return False
    height, width = (size, size) if size else array.shape[-2:]
    return array.dtype == np.uint8 and array.shape == (count, 3, height, width)


def _build(cache: Path, files: list[Path], size: int | None) -> None:
    """Decode everything into a temporary file and rename it, so that a cache file is always complete.

    The bytes are written in order rather than through a memory map: on a full disk a map kills the process, a write raises.
    """
    part = cache.with_suffix(f".{uuid.uuid4().hex}.part")
    with ThreadPoolExecutor() as pool:
        height, width = (size, size) if size else _common_size(pool, files)
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, height, width)}
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "xb") as out, tqdm(total=len(files), desc="decoding", unit="img", delay=1) as bar:
                np.lib.format.write_array_header_1_0(out, header)
                for i in range(0, len(files), CHUNK):
                    for image in pool.map(partial(_decode, size=size), files[i : i + CHUNK]):
                        out.write(image.tobytes())
                        bar.update()
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, cache)
        except OSError as error:
            megabytes = f"{len(files) * 3 * height * width / 1e6:.1f} MB"
            advice = "free some space, or set MINIVIT_CACHE to another folder"
            raise OSError(f"the decoded images ({megabytes}) could not be kept in {cache.parent} ({error}); {advice}.") from error
        finally:
            with suppress(OSError):
                part.unlink()


def _common_size(pool: ThreadPoolExecutor, files: list[Path]) -> tuple[int, int]:
    """Height and width, if all images agree."""
    met = Counter(pool.map(_dimensions, files)).most_common(3)
    if len(met) > 1:
        sizes = ", ".join(f"{count} of {width}×{height}" for (height, width), count in met)
        raise ValueError(f"the images have several sizes ({sizes}, …): pass size= to bring them all to one square.")
    return met[0][0]


def _dimensions(file: Path) -> tuple[int, int]:
    with _opened(file) as image:
        return image.height, image.width


def _decode(file: Path, size: int | None) -> np.ndarray:
    """RGB ``(3, H, W)``; with ``size``, the largest square in the middle, resized with antialiasing."""
    with _opened(file) as image:
        if image.mode[0] in "IF":  # Pillow would clip these at 255
            raise ValueError(f"it has more than 8 bits per channel (mode {image.mode})")
        image = image.convert("RGB")
        if size:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
        return rearrange(np.asarray(image), "h w c -> c h w")


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except Exception as error:  # for a damaged file Pillow raises nearly anything
        raise ValueError(f"the image {file} cannot be read: {error}.") from error
