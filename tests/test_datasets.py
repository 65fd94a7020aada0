"""Images from every source: the generated ones to the byte, folders against Pillow, and every error that a reader may meet."""
import hashlib
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2.functional import resize

from minivit import datasets, downloads, folders
from minivit.datasets import SHAPES, ImageData, MappedImages, load_data, shapes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINIVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


def pixels(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, channels)).astype(np.uint8)


def picture(path: Path, seed: int = 0, width: int = 7, height: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, width, height)).save(path)
    return path


def tree(root: Path, *names: str, width: int = 7, height: int = 5) -> list[Path]:
    return [picture(root / name, seed, width, height) for seed, name in enumerate(names)]


@pytest.fixture(scope="module")
def train() -> ImageData:
    return load_data("shapes")


@pytest.fixture(scope="module")
def test() -> ImageData:
    return load_data("shapes", "test")


def same(a: ImageData, b: ImageData) -> bool:
    return a.checksum() == b.checksum()


# ---------------------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize(
    "split, count, checksum, sha256",
    [
        ("train", 4000, "2fa715f546a800c3", "b0d6480023bfdc501e4bebf5b8ee34517525def17fcd28c57fa65f3593a0b602"),
        ("test", 1000, "8de5827d3dedd897", "c06cc929fb1a16cae7c5c5be852108db060735a1ffb7a87919d4971afd0a5447"),
    ],
)
def test_shapes_are_these_very_bytes_on_every_machine(request, split, count, checksum, sha256):
    data = request.getfixturevalue(split)
    assert data.images.shape == (count, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.checksum() == checksum
    assert hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().astype("<i8").tobytes()).hexdigest() == sha256


def test_shapes_are_balanced_and_named(train, test):
    assert train.classes == SHAPES == test.classes
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10
    assert (train.name, len(train)) == ("shapes", 4000)


@pytest.mark.parametrize("few, many", [(7, 13), (499, 503), (503, 1009), (1000, 1511)])
def test_the_first_shapes_do_not_depend_on_how_many_follow(few, many):
    (some, some_labels), (all_, all_labels) = shapes(few, seed=3), shapes(many, seed=3)
    assert torch.equal(some, all_[:few])
    assert torch.equal(some_labels, all_labels[:few])


@pytest.mark.parametrize("size, objects", [(48, None), (67, None), (96, 1), (128, None)])
def test_a_wider_view_has_more_objects_of_the_same_size(size, objects):
    """As much is covered as so many objects cover; by default one for each 32 × 32 pixels, counting those that the border cuts by what is seen."""
    images, labels = shapes(60, 3, size=size, objects=objects)
    assert images.shape == (60, 3, size, size) and labels.tolist() == [i % 10 for i in range(60)]
    assert torch.equal(images[:13], shapes(13, 3, size=size, objects=objects)[0])
    thin = torch.isin(labels, torch.tensor([SHAPES.index(name) for name in ("ring", "plus", "crescent", "dots")]))

    def covered(images):  # these leave most of a picture free: its median is the background
        background = images.flatten(2).int().median(-1).values[:, :, None, None]
        return ((images - background).abs().amax(1) > 30).sum((1, 2))[thin].double().mean()

    share = covered(images) / covered(shapes(60, 3, size=64, objects=1)[0]) / (objects or size / 32) ** 2
    assert 0.85 < share < 1.25  # 1.18 at 48: objects stand in the middle of their 32 × 32, of which the border cuts a quarter


def test_more_room_around_one_shape_changes_nothing_else():
    near, far = shapes(40, 7)[0], shapes(40, 7, size=64, objects=1)[0][:, :, 16:48, 16:48]
    assert (near.int() - far.int()).abs().max() <= 16  # the noise, of −8 to 8
    edges = shapes(40, 7, size=64, objects=1)[0][:, :, :3]
    assert (edges.int().amax((2, 3)) - edges.int().amin((2, 3))).max() <= 16  # one colour: nothing is there


def test_no_training_shape_is_a_test_shape(train, test):
    assert not {i.numpy().tobytes() for i in train.images} & {i.numpy().tobytes() for i in test.images}


def test_raw_pixels_do_not_tell_the_shapes_apart(train, test):
    from sklearn.neighbors import KNeighborsClassifier

    knn = KNeighborsClassifier(n_neighbors=20, metric="cosine")
    knn.fit(train.images.flatten(1).numpy() / np.float32(255), train.labels.numpy())
    accuracy = knn.score(test.images.flatten(1).numpy() / np.float32(255), test.labels.numpy())
    assert 0.30 <= accuracy <= 0.48


# ---------------------------------------------------------------------------------------------------- digits


def test_digits_are_the_scans_four_times_as_large():
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    seen, keep = [0] * 10, []
    for label in labels:  # every fifth of a class
        seen[label] += 1
        keep.append(seen[label] % 5 == 0)
    data = load_data("digits", "test")
    assert data.labels.tolist() == labels[keep].tolist()
    assert data.classes == tuple("0123456789")
    places = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    for image, scan in zip(data.images[:11], scans[keep].reshape(-1, 8, 8)):
        rows = np.stack([np.interp(places, np.arange(8), column) for column in scan.T], axis=1)
        large = np.stack([np.interp(places, np.arange(8), row) for row in rows])
        for channel in image:
            np.testing.assert_array_equal(channel, np.rint(large * 255 / 16))


def test_digits_are_split_evenly():
    train, test = load_data("digits"), load_data("digits", "test")
    assert len(train) + len(test) == 1797
    ratio = torch.bincount(test.labels) / torch.bincount(train.labels)
    assert ratio.min() > 0.23
    assert ratio.max() < 0.26


# ---------------------------------------------------------------------------------------------------- limit, classes, size


def test_limit_is_balanced_and_takes_the_first_of_each_class(test):
    few = load_data("shapes", "test", limit=37)
    assert torch.bincount(few.labels).tolist() == [4] * 7 + [3] * 3
    assert torch.equal(few.images, test.images[:37])  # the shapes come in turn
    assert same(few, load_data("shapes", "test", limit=37))
    assert same(test, load_data("shapes", "test", limit=1009))
    assert len(load_data("shapes", "test", limit=1)) == 1


def test_limit_where_classes_are_small_and_sorted():
    labels = torch.tensor([0] * 2 + [1] * 11 + [2] * 3)
    data = ImageData(torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 1, 1), labels, ("a", "b", "c"), "x")
    few = datasets._limited(data, 11)
    assert few.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15]
    assert few.labels.tolist() == [0] * 2 + [1] * 6 + [2] * 3


def test_classes_are_kept_and_numbered_in_the_order_given(test):
    some = load_data("shapes", "test", classes=["star", "disc", "dots"])
    old = torch.tensor([SHAPES.index("star"), SHAPES.index("disc"), SHAPES.index("dots")])
    keep = torch.isin(test.labels, old)
    assert some.classes == ("star", "disc", "dots")
    assert torch.equal(old[some.labels], test.labels[keep])
    assert torch.equal(some.images, test.images[keep])
    assert torch.bincount(load_data("shapes", "test", classes=("plus", "ring"), limit=7).labels).tolist() == [4, 3]


@pytest.mark.parametrize("size", [17, 41])
def test_size_resizes_with_antialiasing(test, size):
    resized = load_data("shapes", "test", limit=13, size=size)
    assert resized.images.shape == (13, 3, size, size)
    for before, after in zip(test.images, resized.images):
        assert torch.equal(after, resize(before, [size, size], antialias=True))
    assert same(test, load_data("shapes", "test", size=32))


def test_checksum_sees_everything_that_matters():
    images, labels = shapes(11, seed=5)
    data = ImageData(images, labels, SHAPES, "x")
    brighter, relabelled = images.clone(), labels.clone()
    brighter[10, 2, 31, 31] ^= 1
    relabelled[10] = 7
    others = [
        ImageData(brighter, labels, SHAPES, "x"),
        ImageData(images, relabelled, SHAPES, "x"),
        ImageData(images, labels, SHAPES[::-1], "x"),
        data.subset(torch.arange(10)),
        data.subset(torch.arange(10, -1, -1)),
    ]
    assert len({d.checksum() for d in (data, *others)}) == 6
    assert data.checksum() == ImageData(images.clone(), labels.to(torch.int32), SHAPES, "y").checksum()
    assert same(data, data.to("cpu"))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("shape", {}, "no data set is called 'shape'; did you mean 'shapes'?"),
        ("imagenet", {}, "did you mean 'imagenette'?"),
        ("cifar", {}, "did you mean 'cifar100' or 'cifar10'?|did you mean 'cifar10' or 'cifar100'?"),
        ("qqq", {}, "there are shapes, digits, cifar10, cifar100, imagenette and folder:PATH."),
        ("folder:", {}, "a path follows the colon"),
        ("shapes", {"split": "val"}, "split='val': there are 'train' and 'test'."),
        ("shapes", {"limit": 0}, "limit=0: a whole number of at least 1, or None."),
        ("shapes", {"size": -3}, "size=-3: a whole number of at least 1, or None."),
        ("shapes", {"classes": ("disc", "cube")}, "shapes has no class 'cube'; it has disc, square,"),
        ("shapes", {"classes": ()}, "at least one name"),
        ("shapes", {"classes": ("disc", "disc")}, "each only once"),
    ],
)
def test_bad_arguments_are_explained(name, options, message):
    with pytest.raises(ValueError, match="|".join(map(re.escape, message.split("|")))):
        load_data(name, **{"split": "test", **options})


@pytest.mark.parametrize("name, options", [("shapes", {"classes": "disc"}), (Path("shapes"), {}), (None, {})])
def test_wrong_types_are_refused(name, options):
    with pytest.raises(TypeError):
        load_data(name, **options)


def test_importing_is_light():
    for module in (datasets, folders, downloads):
        lines = re.findall(r"^(?:import|from) (\w+)", Path(module.__file__).read_text(), re.MULTILINE)
        assert len(lines) > 5
        assert not set(lines) & {"sklearn", "matplotlib", "torchvision"}


def test_no_setting_is_read_but_the_cache():
    source = "".join(Path(module.__file__).read_text() for module in (datasets, folders, downloads))
    assert set(re.findall(r"MINIVIT_\w+", source)) == {"MINIVIT_CACHE"}


# ---------------------------------------------------------------------------------------------------- folders: what is read


def test_folder_pixels_are_pillows(tmp_path):
    root = tmp_path / "my photos"
    for name, mode in (("train/b/0.png", "RGB"), ("train/b/1.JPG", "RGB"), ("train/a/2.png", "L"), ("train/a/3.png", "RGBA")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(len(mode), 31, 19)).convert(mode).save(root / name)
    picture(root / "test/b/4.bmp", seed=4, width=11, height=23)

    data = load_data(f"folder:{root}", size=13)
    files = [root / f"train/{name}" for name in ("a/2.png", "a/3.png", "b/0.png", "b/1.JPG")]
    assert (data.classes, data.labels.tolist(), data.name) == (("a", "b"), [0, 0, 1, 1], f"folder:{root}")
    assert data.images.dtype == torch.uint8
    for file, image in zip(files, data.images, strict=True):
        middle = np.asarray(Image.open(file).convert("RGB"))[:, 6:25]
        expected = np.asarray(Image.fromarray(middle).resize((13, 13), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))

    test = load_data(f"folder:{root}", "test", size=7)
    expected = np.asarray(Image.fromarray(pixels(4, 11, 23)[6:17]).resize((7, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(test.images[0], expected.transpose(2, 0, 1))
    assert (test.classes, test.labels.tolist()) == (("a", "b"), [1])


def test_without_size_equal_pictures_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CHUNK", 2)
    tree(tmp_path / "data", *(f"train/c/{i}.png" for i in range(5)), width=31, height=17)
    data = load_data(f"folder:{tmp_path}/data")
    assert data.images.shape == (5, 3, 17, 31)
    for seed in range(5):
        np.testing.assert_array_equal(data.images[seed], pixels(seed, 31, 17).transpose(2, 0, 1))


def test_without_size_mixed_pictures_are_refused(tmp_path, cache):
    tree(tmp_path / "data/train/c", "0.png", "1.png", width=31, height=17)
    picture(tmp_path / "data/train/c/2.png", width=17, height=31)
    with pytest.raises(ValueError, match=r"several sizes \(2 of 31×17, 1 of 17×31.*pass size="):
        load_data(f"folder:{tmp_path}/data")
    assert load_data(f"folder:{tmp_path}/data", size=11).images.shape == (3, 3, 11, 11)


def test_the_test_split_is_test_or_else_val(tmp_path):
    tree(tmp_path, "train/c/0.png", "val/c/1.png", "test/unlabelled.png")
    val = load_data(f"folder:{tmp_path}", "test")
    np.testing.assert_array_equal(val.images[0], pixels(1, 7, 5).transpose(2, 0, 1))
    picture(tmp_path / "test/c/3.png", seed=3)
    test = load_data(f"folder:{tmp_path}", "test")
    np.testing.assert_array_equal(test.images[0], pixels(3, 7, 5).transpose(2, 0, 1))


def test_both_splits_number_classes_as_the_training_split(tmp_path):
    tree(tmp_path, "train/a/0.png", "train/b/0.png", "train/c/0.png", "test/a/0.png", "test/c/0.png")
    test = load_data(f"folder:{tmp_path}", "test")
    assert (test.classes, test.labels.tolist()) == (("a", "b", "c"), [0, 2])
    picture(tmp_path / "test/d/0.png")
    with pytest.raises(ValueError, match="has the class 'd', which its training split lacks"):
        load_data(f"folder:{tmp_path}", "test")


def test_one_file_in_ten_is_for_testing_by_its_name_alone(tmp_path):
    names = [f"{kind}/{i:03d}.png" for kind in ("cat", "dog") for i in range(151)]
    held_out = [name for name in names if int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 10 == 0]
    tree(tmp_path / "one", *names, width=3, height=2)
    one = {split: load_data(f"folder:{tmp_path}/one", split) for split in ("train", "test")}
    assert 0.06 < len(held_out) / len(names) < 0.14
    expected = torch.stack([torch.from_numpy(pixels(names.index(name), 3, 2)).permute(2, 0, 1) for name in held_out])
    assert torch.equal(one["test"].images, expected)
    assert len(one["train"]) + len(one["test"]) == len(names)
    assert one["train"].classes == one["test"].classes == ("cat", "dog")

    (tmp_path / "one").rename(tmp_path / "moved")
    assert same(load_data(f"folder:{tmp_path}/moved", "test"), one["test"])


def test_a_class_may_be_called_train(tmp_path):
    tree(tmp_path, *(f"{kind}/{i}.png" for kind in ("bus", "train") for i in range(5)))
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("bus", "train")
    assert set(data.labels.tolist()) == {0, 1}


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    tree(tmp_path, "train/c/0.png", "train/.ipynb_checkpoints/0.png", "train/c/._0.png")
    (tmp_path / "train/c/notes.txt").write_text("not an image")
    (tmp_path / "train/README.md").write_text("not a class")
    data = load_data(f"folder:{tmp_path}")
    assert (len(data), data.classes) == (1, ("c",))


def test_the_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    names = [f"train/{kind}/{i}.png" for kind in "abc" for i in range(7)]
    tree(tmp_path, *names)
    data = load_data(f"folder:{tmp_path}")
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listing(self))))
    monkeypatch.setenv("MINIVIT_CACHE", str(tmp_path / "another cache"))
    again = load_data(f"folder:{tmp_path}")
    assert same(data, again)
    assert data.labels.tolist() == sorted(data.labels.tolist())


def test_a_name_means_the_same_with_composed_and_with_split_accents(tmp_path):
    tree(tmp_path / "linux", "train/caf\u00e9/0.png", "train/cafz/0.png")
    tree(tmp_path / "mac", "train/cafe\u0301/0.png", "train/cafz/0.png")
    assert same(load_data(f"folder:{tmp_path}/linux"), load_data(f"folder:{tmp_path}/mac"))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path, "images/train/c/0.png")
    assert len(load_data("folder:~/images")) == 1


def test_a_large_folder_stays_on_disk(tmp_path, monkeypatch):
    tree(tmp_path, *(f"train/{kind}/{i}.png" for kind in "ab" for i in range(7)))
    data = load_data(f"folder:{tmp_path}")
    monkeypatch.setattr(datasets, "IN_MEMORY", 14 * 3 * 7 * 5)  # the file is larger by its header
    mapped = load_data(f"folder:{tmp_path}")
    assert isinstance(data.images, torch.Tensor)
    assert isinstance(mapped.images, MappedImages)
    assert isinstance(mapped.images.array, np.memmap)
    assert same(data, mapped)
    batch = torch.tensor([11, 2, 5, 2])
    assert torch.equal(mapped.images[batch], data.images[batch])
    assert torch.equal(mapped.subset(batch).images, data.subset(batch).images)
    assert same(mapped.to("cpu"), data)
    assert same(load_data(f"folder:{tmp_path}", limit=5), data.subset(torch.tensor([0, 1, 2, 7, 8])))


# ---------------------------------------------------------------------------------------------------- folders: the cache


def test_a_folder_is_decoded_once(tmp_path, monkeypatch, cache):
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    data = load_data(f"folder:{tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "_decode", None)
        assert same(load_data(f"folder:{tmp_path}"), data)
    assert len(list(cache.iterdir())) == 1
    load_data(f"folder:{tmp_path}", size=3)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["pixels", "time", "new file", "name"])
def test_a_changed_folder_is_decoded_again(tmp_path, cache, change):
    first, _ = tree(tmp_path, "train/a/0.png", "train/b/1.png")
    before = first.stat()
    data = load_data(f"folder:{tmp_path}")
    if change == "pixels":
        picture(first, seed=5)
    elif change == "time":
        os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "new file":
        picture(tmp_path / "train/a/2.png")
    else:
        first.rename(first.with_name("3.png"))
    again = load_data(f"folder:{tmp_path}")
    assert len(list(cache.iterdir())) == 2
    assert same(again, data) == (change in ("time", "name"))


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b"", lambda b: b"PK\x03\x04" + b[4:], lambda b: b.replace(b"(2, 3", b"(1, 3")],
    ids=["cut short", "empty", "another format", "another count"],
)
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    data = load_data(f"folder:{tmp_path}")
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(load_data(f"folder:{tmp_path}"), data)
    assert file.read_bytes() == whole


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, cache):
    resource = pytest.importorskip("resource")
    tree(tmp_path, *(f"train/c/{i}.png" for i in range(7)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))  # a write past this fails, as on a full disk
    try:
        with pytest.raises(OSError, match=r"decoded images \(5\.4 MB\) could not be kept in .*MINIVIT_CACHE"):
            load_data(f"folder:{tmp_path}", size=509)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    tree(tmp_path, "train/c/0.png")
    monkeypatch.setenv("MINIVIT_CACHE", str(tmp_path / "train/c/0.png"))
    with pytest.raises(OSError, match="could not be kept in .*MINIVIT_CACHE"):
        load_data(f"folder:{tmp_path}")


# ---------------------------------------------------------------------------------------------------- folders: errors


def jpeg_cut_short() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(0, 61, 59)).save(stream, "JPEG")
    return stream.getvalue()[:-701]


def sixteen_bits() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(59 * 61, dtype=np.uint16).reshape(59, 61) * 17).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize("content", [b"", b"no image", jpeg_cut_short(), sixteen_bits()], ids=["empty", "text", "cut", "16 bits"])
def test_a_corrupt_image_is_named(tmp_path, cache, content, size):
    tree(tmp_path / "data/train/c", "0.png", "2.png", width=61, height=59)
    bad = tmp_path / "data/train/c/1.png"
    bad.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_data(f"folder:{tmp_path}/data", size=size)
    assert f"the image {bad} cannot be read" in str(error.value)
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "files, split, kind, message",
    [
        ([], "train", ValueError, "holds no class folders"),
        (["a.png", "b.png"], "train", ValueError, "holds no class folders"),
        (["cat/a.txt", "dog/b.png"], "train", ValueError, r"class folder \S*cat holds no images"),
        (["train/cat/a.txt", "train/dog/b.png"], "train", ValueError, r"class folder \S*cat holds no images"),
        (["images/cat/a.png"], "train", ValueError, r"\Simages\Scat is a folder inside a class folder"),
        (["train/cat/a.png"], "test", FileNotFoundError, "no class folders in 'test' or 'val'"),
        (["cat/a.png"], "test", ValueError, "no image of .* falls into the test split"),
    ],
)
def test_a_folder_of_another_form_is_explained(tmp_path, files, split, kind, message):
    root = tmp_path / "data"
    root.mkdir()
    for name in files:
        picture((root / name).with_suffix(".png")).rename(root / name)
    with pytest.raises(kind, match=message):
        load_data(f"folder:{root}", split)


def test_a_missing_folder_and_a_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"there is no folder {tmp_path}/nowhere"):
        load_data(f"folder:{tmp_path}/nowhere")
    with pytest.raises(ValueError, match=r"0.png is a file"):
        load_data(f"folder:{picture(tmp_path / '0.png')}")


@pytest.mark.parametrize(
    "link, target",
    [
        ("train/c/1.png", "outside/c/1.png"),
        ("train/d", "outside/c"),
        ("train", "outside"),
        ("train/c/1.png", "data/train/c/missing.png"),
        ("train/c/1.png", "data2/c/1.png"),
    ],
)
def test_links_out_of_the_folder_are_refused(tmp_path, link, target):
    tree(tmp_path, "outside/c/1.png", "data/test/c/0.png", "data2/c/1.png")
    if link != "train":
        picture(tmp_path / "data/train/c/0.png")
    (tmp_path / "data" / link).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / 'data' / link))} is a symbolic link"):
        load_data(f"folder:{tmp_path}/data")


def test_links_within_the_folder_are_followed(tmp_path):
    first, _ = tree(tmp_path, "data/train/c/0.png", "data/originals/1.png")
    (tmp_path / "data/train/c/1.png").symlink_to(first)
    (tmp_path / "data/test").symlink_to("train")
    (tmp_path / "shortcut").symlink_to("data")
    train, test = (load_data(f"folder:{tmp_path}/shortcut", split) for split in ("train", "test"))
    assert len(train) == 2
    assert torch.equal(train.images[0], train.images[1])
    assert same(train, test)


# ---------------------------------------------------------------------------------------------------- published sets


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A tiny copy in CIFAR's own format, with its digests given to torchvision."""

    def write(name: str, per_file: int) -> Path:
        kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
        labels, names = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
        folder = tmp_path / "own" / kind.base_folder
        folder.mkdir(parents=True)

        def dump(file: str, content: dict) -> str:
            (folder / file).write_bytes(pickle.dumps(content))
            return hashlib.md5((folder / file).read_bytes()).hexdigest()

        for seed, (part, files) in enumerate((("train_list", kind.train_list), ("test_list", kind.test_list))):
            entries = []
            for i, (file, _) in enumerate(files):
                data = np.random.RandomState(7 * seed + i).randint(0, 256, (per_file, 3072)).astype(np.uint8)
                entries.append([file, dump(file, {"data": data, labels: [(seed + i + j) % 3 for j in range(per_file)]})])
            monkeypatch.setattr(kind, part, entries)
        meta = dump(kind.meta["filename"], {names: ["ant", "bee", "cow"]})
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta})
        return folder

    return write


@pytest.mark.parametrize("name, files", [("cifar10", 5), ("cifar100", 1)])
def test_cifar_is_read_by_torchvision_from_a_copy_of_ones_own(cifar, name, files):
    folder = cifar(name, per_file=11)
    train, test = load_data(name, root=folder.parent), load_data(name, "test", root=folder)
    expected = [np.random.RandomState(i).randint(0, 256, (11, 3072)).astype(np.uint8) for i in range(files)]
    np.testing.assert_array_equal(train.images.flatten(1), np.concatenate(expected))
    assert train.images.shape == (11 * files, 3, 32, 32)
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [(i + j) % 3 for i in range(files) for j in range(11)]
    assert test.labels.tolist() == [(1 + j) % 3 for j in range(11)]
    assert (train.classes, train.name) == (("ant", "bee", "cow"), name)


def test_a_changed_cifar_file_is_never_unpickled(cifar):
    folder = cifar("cifar10", per_file=2)

    class Trap:
        def __reduce__(self):
            return (Path.touch, (folder.parent / "sprung",))

    (folder / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))} is not an exact copy of cifar10"):
        load_data("cifar10", root=folder.parent)
    assert not (folder.parent / "sprung").exists()


def test_imagenette_is_cut_to_squares_and_named_in_english(tmp_path):
    root = tmp_path / "imagenette2-160"
    for split in ("train", "val"):
        for wnid in list(datasets.IMAGENETTE)[::-1]:
            picture(root / split / wnid / "ILSVRC_1.JPEG", width=167, height=163)
    data = load_data("imagenette", root=tmp_path)
    assert data.classes[:3] == ("tench", "English springer", "cassette player")
    assert data.classes[9] == "parachute"
    assert data.images.shape == (10, 3, 160, 160)
    assert data.labels.tolist() == list(range(10))
    assert data.name == "imagenette"
    assert load_data("imagenette", "test", root=tmp_path, size=23, classes=("church",)).images.shape == (1, 3, 23, 23)


def test_the_ten_names_are_torchvisions():
    names = torchvision.datasets.Imagenette._WNID_TO_CLASS
    assert {wnid: known[0] for wnid, known in names.items()} == datasets.IMAGENETTE
    assert sorted(datasets.IMAGENETTE) == list(datasets.IMAGENETTE)
