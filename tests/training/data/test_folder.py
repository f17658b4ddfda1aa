"""Folders of pictures: what is read and how, what is skipped, labels and splits."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Pixels, png
from training.data import Dataset, Split, check_labels, load_dataset
from training.data.folder import MAX_REPORTED, FolderOptions, find_classes, is_test, list_images, read
from training.errors import DataError

RAMP = (np.arange(8 * 8) * 4).astype(np.uint8).reshape(8, 8)


def options(**changes: Any) -> FolderOptions:
    return FolderOptions.model_validate({"dataset": "folder", "path": "pictures", "size": 8, "mode": "L", **changes})


def save(path: Path, image: Image.Image | Pixels, **settings: Any) -> Path:
    """Write a picture in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **settings)
    return path


def fill(folder: Path, *names: str) -> None:
    """A grey picture under each name; of its level, the test can tell which it is."""
    for name in names:
        save(folder / name, np.full((8, 8), level(name), np.uint8))


def level(name: str) -> int:
    return sum(name.encode()) % 256


def numbered(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number:03}.png" for number in range(count)]


def both(tmp_path: Path, **changes: Any) -> Pixels:
    """The images of both splits."""
    train, test = read(options(**changes), tmp_path)
    return np.concatenate([train.images, test.images])


def read_one(tmp_path: Path, **changes: Any) -> Pixels:
    """The only picture there, `[C, H, W]`."""
    (picture,) = both(tmp_path, **changes)
    return picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


# Pictures.


def test_a_picture_of_the_wanted_size_is_read_as_it_is(tmp_path: Path, folder: Path) -> None:
    save(folder / "a.png", RAMP)
    assert np.array_equal(read_one(tmp_path), RAMP[None])


def test_every_format_is_read_whatever_the_case_of_its_suffix(tmp_path: Path, folder: Path) -> None:
    for name in ("a.png", "b.jpg", "c.jpeg", "d.webp", "e.bmp", "f.gif", "g.PNG", "h.JPG"):
        save(folder / name, np.full((8, 8), 90, np.uint8))
    images = both(tmp_path)
    assert len(images) == 8
    assert np.abs(images.astype(int) - 90).max() <= 1


def test_other_files_are_no_pictures(tmp_path: Path, folder: Path) -> None:
    fill(folder, "a.png")
    (folder / "labels.csv").write_text("a")
    (folder / "b.png").mkdir()
    os.mkfifo(folder / "c.png")
    assert list_images(folder) == ["a.png"]


def test_the_centre_square_is_kept(tmp_path: Path, folder: Path) -> None:
    save(folder / "a.png", np.pad(RAMP, ((0, 0), (6, 6)), constant_values=255))
    assert np.array_equal(read_one(tmp_path), RAMP[None])


def test_another_size_is_resized_with_antialiasing(tmp_path: Path, folder: Path) -> None:
    board = np.indices((80, 48)).sum(axis=0) % 2 * 255
    save(folder / "a.png", board.astype(np.uint8))
    assert np.abs(read_one(tmp_path).astype(int) - 128).max() <= 8


def test_the_filter_is_the_recipes(tmp_path: Path, folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    save(folder / "a.png", noise)
    for name in ("nearest", "bilinear", "lanczos"):
        expected = Image.fromarray(noise).resize((8, 8), Image.Resampling[name.upper()])
        assert np.array_equal(read_one(tmp_path, resampling=name)[0], np.asarray(expected))


@pytest.mark.parametrize(("mode", "colour"), [("RGB", [255, 0, 0]), ("L", [76])])
def test_the_mode_is_the_recipes(tmp_path: Path, folder: Path, mode: str, colour: list[int]) -> None:
    save(folder / "a.png", Image.new("RGB", (8, 8), "red"))
    picture = read_one(tmp_path, mode=mode)
    assert picture.shape == (len(colour), 8, 8)
    assert picture[:, 0, 0].tolist() == colour


def test_a_turned_photograph_is_turned_back(tmp_path: Path, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    save(folder / "a.png", np.rot90(RAMP), exif=exif)
    assert np.array_equal(read_one(tmp_path), RAMP[None])


def test_alpha_is_put_on_black(tmp_path: Path, folder: Path) -> None:
    save(folder / "a.png", Image.new("RGBA", (8, 8), (255, 255, 255, 0)))
    assert (read_one(tmp_path) == 0).all()


def test_alpha_is_put_on_what_the_recipe_says(tmp_path: Path, folder: Path) -> None:
    save(folder / "a.png", Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert read_one(tmp_path, mode="RGB", background="#ff8000")[:, 0, 0].tolist() == [255, 128, 0]


def test_palette_bilevel_and_16_bits_are_converted(tmp_path: Path, folder: Path) -> None:
    save(folder / "a.png", Image.new("RGB", (8, 8), (90, 90, 90)).quantize())
    assert (read_one(tmp_path) == 90).all()
    save(folder / "a.png", Image.new("1", (8, 8), 1))
    assert (read_one(tmp_path) == 255).all()
    save(folder / "a.png", RAMP.astype(np.uint16) << 8)
    assert np.array_equal(read_one(tmp_path), RAMP[None])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, folder: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    save(folder / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert np.abs(read_one(tmp_path, mode="RGB")[:, 0, 0].astype(int) - [255, 0, 0]).max() <= 2


# What is skipped.


def corrupt(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and what is said of each."""
    good = png(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8))
    contents = {
        "empty.png": (b"", "not a PNG"),
        "text.jpg": (b"hello", "not a PNG, JPEG, WEBP, GIF or BMP image"),
        "truncated.png": (good[:-30], "damaged or truncated"),
        "corrupt.png": (good[:45] + b"\0" * 20 + good[65:], "damaged or truncated"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    save(folder / "half.jpg", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    (folder / "half.jpg").write_bytes((folder / "half.jpg").read_bytes()[:2000])
    return {name: message for name, (_, message) in contents.items()} | {"half.jpg": "damaged or truncated"}


def test_what_cannot_be_read_is_reported_and_skipped(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder, *numbered(20, "good"))
    expected = corrupt(folder)
    assert len(both(tmp_path)) == 20
    lines = capsys.readouterr().err.splitlines()
    for line, name in zip(lines, sorted(expected), strict=True):
        assert line.startswith(f"skipped {name}: ")
        assert expected[name] in line


def test_of_many_unreadable_files_the_first_are_named_and_the_others_counted(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder, "good.png")
    for name in numbered(MAX_REPORTED + 7):
        (folder / name).write_bytes(b"")
    assert len(both(tmp_path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"skipped {name}" for name in numbered(MAX_REPORTED)]
    assert lines[-1] == "skipped 7 more files"


def test_links_are_read_unless_they_leave_the_folder(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder, "a.png", "sub/b.png")
    fill(tmp_path / "pictures-too", "c.png")
    (folder / "inside.png").symlink_to("sub/b.png")
    (folder / "outside.png").symlink_to(tmp_path / "pictures-too" / "c.png")
    (folder / "nowhere.png").symlink_to("missing.png")
    (folder / "round.png").symlink_to("round.png")
    (folder / "folder").symlink_to(tmp_path / "pictures-too")
    levels = sorted(both(tmp_path)[:, 0, 0, 0].tolist())
    assert levels == sorted([level("a.png"), level("sub/b.png"), level("sub/b.png")])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].removeprefix("skipped ") for line in lines] == [
        "nowhere.png",
        "outside.png",
        "round.png",
    ]
    assert "leaves the folder" in lines[1]


def test_the_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "a.png")
    (tmp_path / "pictures").symlink_to("elsewhere")
    assert len(both(tmp_path)) == 1


@pytest.mark.parametrize("path", ["pictures", "deeper/pictures"])
def test_a_folder_that_is_not_there_is_a_data_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=f"{path} is absent"):
        read(options(path=path), tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("")
    with pytest.raises(DataError, match="pictures is absent, or is not a folder"):
        read(options(), tmp_path)


def test_a_folder_without_pictures_is_a_data_error(tmp_path: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"pictures has no images: no file ends in \.png"):
        read(options(), tmp_path)


def test_a_folder_of_which_nothing_can_be_read_is_a_data_error(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = corrupt(folder)
    with pytest.raises(DataError, match="none of the images can be read"):
        read(options(), tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == len(expected)


# Splits.


def splits(tmp_path: Path, **changes: Any) -> Dataset:
    return load_dataset(options(**changes), tmp_path)


def test_each_split_is_in_the_order_of_the_paths_hashes(tmp_path: Path, folder: Path) -> None:
    """And not of the paths: the last training images are set aside for validation, and must be of every class."""
    names = ["b/2.png", "b.png", "a/1.png", "a/10.png", "a/2.png", "B.png", *numbered(30)]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    fill(folder, *reversed(names))
    train, test = read(options(test_fraction=0.3), tmp_path)
    assert list_images(folder) == names
    for split, tested in ((train, False), (test, True)):
        expected = [level(name) for name in names if is_test(name, options(test_fraction=0.3)) is tested]
        assert split.images[:, 0, 0, 0].tolist() == expected


def test_the_fraction_is_about_what_is_asked() -> None:
    for fraction in (0.1, 0.5):
        asked = options(test_fraction=fraction)
        tested = sum(is_test(name, asked) for name in numbered(5000))
        assert tested / 5000 == pytest.approx(fraction, abs=0.02)


# The first bytes of each path's sha256, by `printf %s a.png | sha256sum`.
@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", 0x7F07), ("1.png", 0x9461), ("c/d.png", 0x5F6A), ("é.png", 0x001C), ("\udcff.png", 0x09DD)],
)
def test_the_split_of_a_path_is_settled(name: str, start: int) -> None:
    """It must never change: measured numbers hang on it. The last name is the byte 0xff, which is no UTF-8."""
    assert not is_test(name, options(test_fraction=max(start / 2**16, 1e-9)))
    assert is_test(name, options(test_fraction=(start + 1) / 2**16))


def test_added_files_move_no_others(tmp_path: Path, folder: Path) -> None:
    fill(folder, *numbered(40))
    before = splits(tmp_path)
    fill(folder, *numbered(40, "x/"), *numbered(40, "0"))
    after = splits(tmp_path)
    for name in ("train", "test"):
        old, new = (getattr(split, name).images[:, 0, 0, 0].tolist() for split in (before, after))
        assert set(old) <= set(new)
        assert len(new) > len(old)
    assert len(after.train.images) + len(after.test.images) == 120


def test_a_larger_fraction_keeps_what_is_in_the_test_split() -> None:
    names = numbered(200)
    small, large = ({n for n in names if is_test(n, options(test_fraction=f))} for f in (0.1, 0.3))
    assert small < large


@pytest.mark.parametrize(("name", "split"), [("a.png", "training"), ("1.png", "test")])
def test_neither_split_may_be_empty(tmp_path: Path, folder: Path, name: str, split: str) -> None:
    fill(folder, name)
    with pytest.raises(DataError, match=f"the {split} split of pictures has no images"):
        splits(tmp_path, test_fraction=0.5)


# Labels.


def test_sub_folders_are_labels(tmp_path: Path, folder: Path) -> None:
    names = [*numbered(20, "cat/"), *numbered(20, "dog/young/"), *numbered(20, "ant/")]
    fill(folder, *names)
    for split in read(options(test_fraction=0.4), tmp_path):
        assert split.labels is not None
        assert split.labels.dtype == np.uint8
        assert split.classes == ("ant", "cat", "dog")
        expected = {level(name): ["ant", "cat", "dog"].index(name.split("/")[0]) for name in names}
        assert split.labels.tolist() == [expected[value] for value in split.images[:, 0, 0, 0].tolist()]


def test_a_class_that_is_in_one_split_only_has_its_number_all_the_same(tmp_path: Path, folder: Path) -> None:
    fill(folder, "a/1.png", "b/1.png", "c/1.png")
    labels = [split.labels for split in read(options(test_fraction=0.5), tmp_path)]
    assert sorted(np.concatenate(labels).tolist()) == [0, 1, 2]
    assert all(len(part) < 3 for part in labels)


def test_a_class_without_training_images_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    """Or what is learnt of the next class would be taken for its."""
    name = next(name for name in numbered(20, "bee/") if is_test(name, options(test_fraction=0.5)))
    fill(folder, *numbered(20, "ant/"), name, *numbered(20, "dog/"))
    with pytest.raises(DataError, match=r"^pictures has no training images of class 'bee'; labels are 0, 1, "):
        check_labels(splits(tmp_path, test_fraction=0.5), "pictures")


def test_labels_without_names_are_refused_by_number() -> None:
    images = np.zeros((12, 1, 8, 8), np.uint8)
    train, test = Split(images, np.arange(1, 13, dtype=np.uint8)), Split(images[:1], None)
    with pytest.raises(DataError, match=r"^faces has no training images of class 0; "):
        check_labels(Dataset(train, train[12:], test), "faces")
    with pytest.raises(DataError, match=r"^faces has no training images of class 0, 7, 8, 9, 10 and 2 more; "):
        check_labels(Dataset(train[:6], train[6:], test), "faces")
    check_labels(Dataset(Split(images, None), Split(images[:0], None), Split(images, None)), "faces")


def test_a_sub_folder_may_be_called_anything(tmp_path: Path, folder: Path) -> None:
    for name in ("z\u00e9bre", os.fsdecode(b"\xff")):
        save(folder / name / "1.png", RAMP)
    assert read(options(), tmp_path)[0].classes == ("z\u00e9bre", "\ufffd")


def test_a_sub_folder_of_which_nothing_can_be_read_is_no_class(tmp_path: Path, folder: Path) -> None:
    fill(folder, "cat/a.png", "dog/a.png")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._a.png").write_bytes(b"junk")
    assert sorted(np.concatenate([split.labels for split in read(options(), tmp_path)]).tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["a/1.png", "b/1.png"], ["a", "b"]),
        (["b/x/1.png", "a/x/1.png"], ["a", "b"]),
        (["a/1.png"], []),
        (["a/1.png", "b/1.png", "1.png"], []),
        (["1.png"], []),
        ([f"{n:03}/1.png" for n in range(256)], [f"{n:03}" for n in range(256)]),
        ([f"{n:03}/1.png" for n in range(257)], []),
    ],
    ids=["two", "deeper", "one", "one outside", "none", "256", "257"],
)
def test_classes_are_2_to_256_sub_folders(names: list[str], classes: list[str]) -> None:
    assert find_classes(names) == classes


def test_a_folder_without_classes_has_no_labels(tmp_path: Path, folder: Path) -> None:
    fill(folder, *numbered(20))
    dataset = splits(tmp_path, validation=2, test_fraction=0.4)
    assert dataset.train.labels is dataset.validation.labels is dataset.test.labels is None
    assert dataset.train.classes == ()


# FolderOptions.


def test_key_and_title_come_from_the_path() -> None:
    assert options(path="faces/aligned").key == "folder:faces/aligned"
    assert options(path="faces/aligned").title == "aligned"


def test_a_progress_bar_is_for_terminals(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder, *numbered(3))
    read(options(), tmp_path)
    assert capsys.readouterr() == ("", "")
