import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import load_dataset
from fedvtc.learning.data.image_files import resize_images


def paint(path: Path, colour: int | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    paint(tmp_path / "train" / "cat" / "b.png", 20)
    paint(tmp_path / "train" / "cat" / "a.PNG", 10)
    paint(tmp_path / "train" / "dog" / "deeper" / "a.bmp", 230)
    paint(tmp_path / "test" / "dog" / "a.png", 240)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def save_in_each_class(folder: Path, name: str, image: Image.Image) -> None:
    """Saves a training and a test image for each of two classes."""
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            image.save(folder / split / label / name)


def configured(folder: Path, **keys) -> DataConfig:
    return DataConfig(name="folder", path=str(folder), **keys)


def test_a_folder_of_grey_images_in_order_of_class_and_name(folder):
    dataset = load_dataset(configured(folder))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.images_NCHW.shape == (3, 1, 8, 8)
    assert dataset.train.images_NCHW[:, 0, 0, 0].tolist() == [10, 20, 230]
    assert dataset.train.labels_N.tolist() == [0, 0, 1]
    assert dataset.test.labels_N.tolist() == [1]


def test_a_folder_that_cannot_be_opened_is_one_line(tmp_path, keys_of, golden):
    # Root may open every folder, but not one of a name that is too long.
    with pytest.raises(DataError) as caught:
        load_dataset(configured(tmp_path / ("x" * 300)))
    assert keys_of(caught.value) == [str(tmp_path / ("x" * 300) / "train")]
    golden(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize("mode", [0o000, 0o300])
def test_a_folder_without_permission_is_one_line(folder, mode, keys_of):
    for locked in (folder / "train", folder):
        locked.chmod(mode)
    with pytest.raises(DataError) as caught:
        load_dataset(configured(folder))
    assert keys_of(caught.value) == [str(folder / "train")]
    for locked in (folder, folder / "train"):
        locked.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_below_a_class_without_permission_is_not_passed_over(folder, keys_of):
    locked = folder / "train" / "dog" / "deeper"
    locked.chmod(0o000)
    with pytest.raises(DataError) as caught:
        load_dataset(configured(folder))
    assert keys_of(caught.value) == [str(locked)]
    locked.chmod(0o700)


def test_hidden_files_of_other_programs_are_ignored(folder):
    expected = load_dataset(configured(folder))
    # A zip from macOS, and previews by Synology beside the images.
    paint(folder / "train" / "__MACOSX" / "cat" / "a.png", 50)
    paint(folder / "test" / "__MACOSX" / "cat" / "a.png", 50)
    paint(folder / "train" / "cat" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_M.jpg", 50)
    paint(folder / "train" / ".ipynb_checkpoints" / "a-checkpoint.png", 50)
    paint(folder / "train" / "dog" / ".ipynb_checkpoints" / "deeper" / "a.png", 50)
    (folder / "test" / ".cache").mkdir()
    (folder / "train" / "cat" / "._a.PNG").write_bytes(b"a fork of macOS")
    dataset = load_dataset(configured(folder))
    assert dataset.class_names == expected.class_names
    assert dataset.notes == expected.notes
    assert np.array_equal(dataset.train.images_NCHW, expected.train.images_NCHW)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("I;16", "png"), ("I;16", "tif"), ("I", "tif"), ("F", "tiff")],
)
def test_images_of_more_than_8_bits_are_refused(folder, mode, suffix, keys_of, golden):
    path = folder / "train" / "cat" / f"deep.{suffix}"
    Image.new(mode, (8, 8), 1000).save(path)
    with pytest.raises(DataError) as caught:
        load_dataset(configured(folder))
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def test_one_coloured_image_makes_all_coloured(folder):
    paint(folder / "test" / "cat" / "a.png", (1, 2, 3))
    dataset = load_dataset(configured(folder))
    assert dataset.num_channels == 3
    assert dataset.test.images_NCHW[0, :, 5, 5].tolist() == [1, 2, 3]
    assert dataset.train.images_NCHW[0, :, 0, 0].tolist() == [10, 10, 10]


def test_differing_sizes_are_refused_without_image_size_and_resized_with_it(folder, keys_of, golden):
    paint(folder / "train" / "cat" / "c.png", 20, size=(10, 6))
    with pytest.raises(DataError) as caught:
        load_dataset(configured(folder))
    assert keys_of(caught.value) == ["data.image_size"]
    golden(caught.value)
    dataset = load_dataset(configured(folder, image_size=4))
    assert dataset.train.images_NCHW.shape == (4, 1, 4, 4)
    assert dataset.test.images_NCHW.shape == (1, 1, 4, 4)


def test_images_that_are_not_square_are_refused_without_image_size(tmp_path, keys_of, golden):
    save_in_each_class(tmp_path, "a.png", Image.new("L", (10, 6), 200))
    with pytest.raises(DataError) as caught:
        load_dataset(configured(tmp_path))
    assert keys_of(caught.value) == ["data.image_size"]
    golden(caught.value)


def test_a_damaged_image_or_a_wrong_folder_is_named(folder, keys_of, golden):
    def key_of_the_error(folder):
        with pytest.raises(DataError) as caught:
            load_dataset(configured(folder))
        golden(caught.value)
        return keys_of(caught.value)

    broken = folder / "train" / "cat" / "a.PNG"
    whole = broken.read_bytes()
    for content in (b"", whole[:40], whole[:-25]):
        broken.write_bytes(content)
        assert key_of_the_error(folder) == [str(broken)]
    broken.write_bytes(whole)
    paint(folder / "test" / "owl" / "a.png", 1)
    assert key_of_the_error(folder) == [str(folder / "test")]
    assert key_of_the_error(folder / "absent") == [str(folder / "absent" / "train")]
    (folder / "empty" / "train" / "cat").mkdir(parents=True)
    (folder / "empty" / "test" / "cat").mkdir(parents=True)
    assert key_of_the_error(folder / "empty") == [str(folder / "empty" / "train")]


def test_images_of_16_bits_are_scaled_by_pixel_max(tmp_path):
    for suffix, mode in (("png", "I;16"), ("tif", "I;16"), ("tiff", "I")):
        image = Image.new(mode, (2, 2), 0)
        image.putpixel((1, 0), 4095)
        image.putpixel((0, 1), 2047)
        save_in_each_class(tmp_path, f"a.{suffix}", image)
    dataset = load_dataset(configured(tmp_path, pixel_max=4095))
    assert dataset.train.images_NCHW.tolist() == 6 * [[[[0, 255], [127, 0]]]]


def test_an_image_of_8_bits_among_images_of_16_bits_is_refused(tmp_path, keys_of, golden):
    save_in_each_class(tmp_path, "a.png", Image.new("I;16", (8, 8), 60_000))
    paint(tmp_path / "train" / "cat" / "b.png", 200)
    with pytest.raises(DataError) as caught:
        load_dataset(configured(tmp_path, pixel_max=65535))
    assert keys_of(caught.value) == [str(tmp_path / "train" / "cat" / "b.png")]
    golden(caught.value)


def test_masks_of_0_and_1_are_refused_and_scaled_before_resizing(tmp_path, keys_of, golden):
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 1
    save_in_each_class(tmp_path, "a.png", Image.fromarray(mask))
    with pytest.raises(DataError) as caught:
        load_dataset(configured(tmp_path))
    assert keys_of(caught.value) == [str(tmp_path / "train")]
    golden(caught.value)
    Image.fromarray(0 * mask).save(tmp_path / "train" / "cat" / "black.png")
    dataset = load_dataset(configured(tmp_path, pixel_max=1))
    assert np.array_equal(dataset.train.images_NCHW[:, 0], [255 * mask, 0 * mask, 255 * mask])
    halved = load_dataset(configured(tmp_path, pixel_max=1, image_size=3))
    # The column in the middle is half white.
    assert halved.train.images_NCHW[0, 0, 0].tolist() == pytest.approx([255, 127, 0], abs=30)


def ink(mode: str) -> Image.Image:
    """An 8 x 8 image whose column 1 is black ink; all pixels are black, and the ink is in the alpha channel."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, 1] = 255
    black = np.zeros((8, 8), np.uint8)
    channels = [black, alpha] if mode == "LA" else [black, black, black, alpha]
    image = Image.fromarray(np.stack(channels, axis=-1), "LA" if mode == "LA" else "RGBA")
    return image.quantize(4) if mode == "P" else image


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_images_are_put_on_white(tmp_path, mode):
    save_in_each_class(tmp_path, "a.png", ink(mode))
    dataset = load_dataset(configured(tmp_path))
    assert dataset.num_channels == (1 if mode == "LA" else 3)
    assert dataset.train.images_NCHW[0, 0, 3].tolist() == [255, 0, 255, 255, 255, 255, 255, 255]
    assert dataset.notes == ("4 image files partly transparent, put on white",)
    # An opaque alpha channel changes nothing.
    opaque = ink("RGBA").convert("RGB").convert("RGBA")
    opaque.putpixel((0, 0), (255, 255, 255, 255))
    save_in_each_class(tmp_path, "a.png", opaque)
    assert load_dataset(configured(tmp_path)).notes == ()


def test_every_image_that_pillow_reads_is_read_and_other_files_are_counted(folder, golden):
    for suffix in ("pgm", "tga", "JP2", "jfif", "avif"):
        paint(folder / "train" / "cat" / f"z.{suffix}", 200)
    for name in ("train/cat/notes.md", "train/cat/array.npy", "train/stray.png", "test/labels.csv", "test/dog/z"):
        (folder / name).write_text("not an image of a class")
    dataset = load_dataset(configured(folder))
    assert np.bincount(dataset.train.labels_N).tolist() == [7, 1]
    golden("\n".join(dataset.notes))


def test_a_class_folder_without_images_is_refused(folder, keys_of, golden):
    for name, content in (("owl", "x.npy"), ("ant", None)):
        (folder / "train" / name).mkdir()
        if content:
            (folder / "train" / name / content).write_text("an array")
        with pytest.raises(DataError) as caught:
            load_dataset(configured(folder))
        assert keys_of(caught.value) == [str(folder / "train" / name)]
        golden(caught.value)
    # A class without test images is only odd.
    for name in ("owl", "ant"):
        paint(folder / "train" / name / "a.png", 5)
    assert load_dataset(configured(folder)).class_names == ("ant", "cat", "dog", "owl")


def test_a_class_has_one_name_in_both_unicode_forms(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        for number, name in enumerate(("chat", "\u00e9l\u00e9phant")):
            paint(tmp_path / split / unicodedata.normalize(form, name) / "a.png", 250 - 9 * number - len(split))
    dataset = load_dataset(configured(tmp_path))
    assert dataset.class_names == ("chat", "\u00e9l\u00e9phant")
    assert dataset.test.labels_N.tolist() == [0, 1]


def test_an_absent_or_misspelt_folder_comes_with_those_that_are_there(folder, golden):
    def message():
        with pytest.raises(DataError) as caught:
            load_dataset(configured(folder))
        return str(caught.value)

    (folder / "test").rename(folder / "val")
    (folder / "__MACOSX").mkdir()
    texts = [message()]
    (folder / "val").rename(folder / "test")
    (folder / "test/dog").rename(folder / "test/Dog")
    golden("\n".join([*texts, message()]))


def test_class_folders_one_level_too_deep_are_refused(folder, keys_of, golden):
    for split in ("train", "test"):
        (folder / split).rename(folder / "images")
        (folder / split).mkdir()
        (folder / "images").rename(folder / split / "images")
    with pytest.raises(DataError) as caught:
        load_dataset(configured(folder))
    assert keys_of(caught.value) == [f"data.path={folder}"]
    golden(caught.value)


def test_frames_and_orientations_are_counted(folder, golden):
    frames = [Image.new("L", (8, 8), colour) for colour in (200, 100)]
    for name in ("c.gif", "d.tif"):
        frames[0].save(folder / "train" / "cat" / name, save_all=True, append_images=frames[1:])
    turned = Image.new("L", (8, 8), 0)
    turned.putpixel((0, 0), 255)
    exif = Image.Exif()
    # The camera was turned: the right column is the top row.
    exif[0x0112] = 6
    turned.save(folder / "train" / "dog" / "z.png", exif=exif)
    dataset = load_dataset(configured(folder))
    assert dataset.train.images_NCHW[:, 0, 0, 0].tolist() == [10, 20, 200, 200, 230, 0]
    assert np.argwhere(dataset.train.images_NCHW[-1, 0]).tolist() == [[0, 7]]
    golden("\n".join(dataset.notes))


def test_links_to_folders_are_followed_once(folder):
    paint(folder / "elsewhere" / "b.png", 250)
    (folder / "train" / "dog" / "linked").symlink_to(folder / "elsewhere")
    (folder / "elsewhere" / "up").symlink_to(folder / "train" / "dog")
    dataset = load_dataset(configured(folder))
    assert dataset.train.images_NCHW[:, 0, 0, 0].tolist() == [10, 20, 230, 250]


def test_a_folder_below_each_class_names_the_groups(folder):
    assert load_dataset(configured(folder)).groups_N is None
    for name, user in (("cat", "bob"), ("cat", "ann"), ("dog", "bob")):
        paint(folder / "users" / "train" / name / user / "deep" / "a.png", 200 + len(name + user))
        paint(folder / "users" / "train" / name / user / "b.png", 10)
    paint(folder / "users" / "test" / "cat" / "a.png", 200)
    dataset = load_dataset(configured(folder / "users"))
    # In order of class and user; bob is one group in both classes.
    assert dataset.train.labels_N.tolist() == [0, 0, 0, 0, 1, 1]
    assert dataset.groups_N.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_file_where_a_folder_is_expected_is_one_line(folder, keys_of, golden):
    path = folder / "train" / "cat" / "b.png"
    with pytest.raises(DataError) as caught:
        load_dataset(configured(path))
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def test_resizing_keeps_flat_colours_means_and_channels():
    images_NCHW = np.zeros((2, 3, 4, 4), np.uint8)
    images_NCHW[0] = np.array([10, 20, 30])[:, None, None]
    images_NCHW[1, 0, :2] = 200
    halved = resize_images(images_NCHW, 2)
    assert halved.dtype == np.uint8
    assert halved[0].tolist() == [[[10, 10], [10, 10]], [[20, 20], [20, 20]], [[30, 30], [30, 30]]]
    assert halved[1, 0].mean() == pytest.approx(100, abs=1)
    assert halved[1, 0, 0, 0] > 150 > 50 > halved[1, 0, 1, 0]
    assert not halved[1, 1:].any()


@pytest.fixture
def tiny_imagenet(tmp_path) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(("n01443537", "n01629819")):
        for image in range(3):
            path = root / "train" / wnid / "images" / f"{wnid}_{image}.JPEG"
            paint(path, (100 * number, image, 0), size=(64, 64))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n_0.JPEG\t0\t10\t63\t58\n")
    paint(root / "val" / "images" / "val_0.JPEG", (100, 0, 0), size=(64, 64))
    paint(root / "val" / "images" / "val_1.JPEG", 0, size=(64, 64))
    (root / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn01629819\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t52\t55\t57\t59\n"
    )
    return root


def test_tiny_imagenet_as_distributed(tiny_imagenet):
    dataset = load_dataset(DataConfig(name="tiny-imagenet", root=str(tiny_imagenet.parent)))
    assert dataset.class_names == ("n01443537", "n01629819")
    assert dataset.train.images_NCHW.shape == (6, 3, 64, 64)
    assert dataset.train.labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels_N.tolist() == [1, 0]
    assert dataset.test.images_NCHW[:, 0, 0, 0] == pytest.approx([100, 0], abs=4)


@pytest.mark.parametrize("with_listing", [True, False])
@pytest.mark.parametrize("below", ["", "images"])
def test_tiny_imagenet_with_a_folder_for_each_class_of_val(tiny_imagenet, with_listing, below):
    for name, wnid in (("val_0.JPEG", "n01629819"), ("val_1.JPEG", "n01443537")):
        folder = tiny_imagenet / "val" / wnid / below
        folder.mkdir(parents=True)
        (tiny_imagenet / "val" / "images" / name).rename(folder / name)
    (tiny_imagenet / "val" / "images").rmdir()
    if not with_listing:
        (tiny_imagenet / "val" / "val_annotations.txt").unlink()
    dataset = load_dataset(DataConfig(name="tiny-imagenet", root=str(tiny_imagenet.parent)))
    assert dataset.test.labels_N.tolist() == [0, 1]
    assert dataset.test.images_NCHW[:, 0, 0, 0] == pytest.approx([0, 100], abs=4)


def test_a_damaged_tiny_imagenet_is_named(tiny_imagenet, keys_of, golden):
    def key_of_the_error():
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="tiny-imagenet", root=str(tiny_imagenet.parent)))
        golden(caught.value)
        return keys_of(caught.value)

    listing = tiny_imagenet / "val" / "val_annotations.txt"
    whole = listing.read_text()
    listing.write_text(whole + "val_2.JPEG\tn99\t0\t0\t1\t1\n")
    assert key_of_the_error() == [str(listing)]
    listing.write_text("")
    assert key_of_the_error() == [str(listing)]
    listing.write_text(whole)
    image = tiny_imagenet / "val" / "images" / "val_1.JPEG"
    image.unlink()
    assert key_of_the_error() == [str(image)]
