"""The user's own arrays in one .npz file: what is read, what is said, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import load_dataset


def npz(folder: Path, **changes) -> DataConfig:
    """A whole .npz of three 4 x 4 training images and two test images, with `changes`; None removes an array."""
    arrays = {
        "x_train": np.full((3, 4, 4), [[[100]], [[150]], [[200]]], np.uint8),
        "y_train": np.array([0, 1, 2]),
        "x_test": np.full((2, 4, 4), [[[120]], [[180]]], np.uint8),
        "y_test": np.array([0, 1]),
    } | changes
    path = folder / "data.npz"
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return DataConfig(name="npz", path=str(path))


@pytest.mark.parametrize(
    ("shape", "num_channels"),
    [((2, 4, 4), 1), ((2, 4, 4, 1), 1), ((2, 1, 4, 4), 1), ((2, 4, 4, 3), 3), ((2, 3, 4, 4), 3)],
)
def test_npz_in_each_layout(tmp_path, shape, num_channels):
    marked = np.zeros(shape, np.uint8)
    # Image 1, row 2, column 3, last channel.
    where = {3: (1, 2, 3), 4: (1, -1, 2, 3) if shape[1] in (1, 3) else (1, 2, 3, -1)}[len(shape)]
    marked[where] = 200
    dataset = load_dataset(npz(tmp_path, x_train=marked, y_train=np.array([0, 1]), x_test=marked))
    assert dataset.train.images_NCHW.shape == (2, num_channels, 4, 4)
    assert dataset.train.images_NCHW.dtype == np.uint8
    assert np.argwhere(dataset.train.images_NCHW).tolist() == [[1, num_channels - 1, 2, 3]]
    assert (dataset.num_channels, dataset.image_size) == (num_channels, 4)


def test_npz_floats_labels_in_a_column_and_class_names(tmp_path):
    floats = np.zeros((3, 4, 4), np.float32)
    floats[0, 0, :3] = [1.0, 0.5, 0.001]
    names = np.array(["cat", "dog", "owl"])
    dataset = load_dataset(
        npz(tmp_path, x_train=floats, y_train=np.array([[2], [1], [0]], np.uint8), class_names=names)
    )
    assert dataset.train.images_NCHW[0, 0, 0].tolist() == [255, 128, 0, 0]
    assert dataset.train.labels_N.tolist() == [2, 1, 0]
    assert dataset.train.labels_N.dtype == np.int64
    assert dataset.class_names == ("cat", "dog", "owl")
    assert load_dataset(npz(tmp_path)).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"y_test": None}, "{path}"),
        ({"x_train": np.zeros((3, 4), np.uint8)}, "{path}"),
        ({"x_train": np.zeros((3, 4, 4, 2), np.uint8)}, "{path}"),
        ({"x_train": np.full((3, 4, 4), 2.0)}, "{path}"),
        ({"x_train": np.full((3, 4, 4), np.nan)}, "{path}"),
        ({"x_train": np.zeros((3, 4, 4), np.int64)}, "{path}"),
        ({"y_train": np.array([0.0, 1.0, 2.0])}, "{path}"),
        ({"y_train": np.array([{}, {}, {}])}, "{path}"),
        ({"y_train": np.array([0, 1])}, "data.path={path}"),
        ({"y_train": np.array([0, -1, 2])}, "data.path={path}"),
        ({"class_names": np.array(["one", "two"])}, "data.path={path}"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.array([], int)}, "data.path={path}"),
        ({"x_test": np.full((2, 4, 4, 3), 200, np.uint8)}, "data.path={path}"),
        ({"x_test": np.full((2, 5, 5), 200, np.uint8)}, "data.image_size"),
        ({"x_train": np.zeros((3, 4, 4), np.uint8)}, "{path}"),
        ({"x_train": np.full((3, 4, 4), 255, np.uint8)}, "data.path={path}"),
        # Digits of 0 to 16 and masks of 0 and 1, which would be nearly black.
        ({"x_train": np.arange(48, dtype=np.uint8).reshape(3, 4, 4) % 17}, "{path}"),
        ({"x_test": np.arange(32, dtype=np.uint8).reshape(2, 4, 4) % 2}, "{path}"),
        ({"x_train": np.arange(48, dtype=np.float32).reshape(3, 4, 4) % 17 / 255}, "{path}"),
        ({"x_train": np.arange(48.0).reshape(3, 4, 4) * 255 / 47}, "{path}"),
        ({"x_train": np.linspace(-1, 1, 48).reshape(3, 4, 4)}, "{path}"),
        ({"x_train": np.arange(48, dtype=np.uint16).reshape(3, 4, 4) * 80}, "{path}"),
        ({"x_train": np.full((3, 4, 4), "black")}, "{path}"),
        ({"y_train": np.eye(3)}, "{path}"),
        ({"y_train": np.array(["a", "b", "c"])}, "{path}"),
        ({"y_train": np.array(["a", "b", "z"]), "y_test": np.array(["a", "b"]), "class_names": list("abc")}, "{path}"),
        ({"y_test": np.array([0, 7])}, "data.path={path}"),
        ({"y_test": np.array([0, 7]), "class_names": np.arange(9)}, "data.path={path}"),
        ({"class_names": np.array("cat")}, "{path}"),
        ({"class_names": np.array(["cat", "dog", "cat"])}, "{path}"),
        ({"class_names": np.array([{}, {}, {}])}, "{path}"),
        ({"train_images": np.zeros((3, 4, 4), np.uint8)}, "{path}"),
        ({"y_train": np.zeros(3, int), "y_test": np.zeros(2, int)}, "data.path={path}"),
    ],
)
def test_an_npz_with_wrong_arrays_is_refused_in_one_line(tmp_path, changes, key, keys_of, golden):
    config = npz(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        load_dataset(config)
    assert keys_of(caught.value) == [key.format(path=config.path)]
    golden(caught.value)


def test_a_file_that_is_not_an_npz_is_refused(tmp_path, keys_of, golden):
    path = tmp_path / "data.npz"
    for content in (b"", b"PK\x03\x04", b"hello", Path(npz(tmp_path).path).read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="npz", path=str(path)))
        assert keys_of(caught.value) == [str(path)]
    golden(caught.value)
    for given, key in ((str(tmp_path / "absent.npz"), str(tmp_path / "absent.npz")), (None, "data.path")):
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="npz", path=given))
        assert keys_of(caught.value) == [key]
        golden(caught.value)
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="npz", path=str(tmp_path)))
    assert keys_of(caught.value) == [str(tmp_path)]
    golden(caught.value)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 10, 90], ("0", "10", "90")),
        ([1, 2, 3], ("1", "2", "3")),
        ([1443537, 1629819, 1641577], ("1443537", "1629819", "1641577")),
        ([0, 1, 3], ("0", "1", "3")),
        (["dog", "cat", "owl"], ("cat", "dog", "owl")),
        ([b"dog", b"cat", "größe".encode()], ("cat", "dog", "größe")),
    ],
    ids=str,
)
def test_any_labels_are_as_many_classes_as_labels_occur(tmp_path, labels, names):
    dataset = load_dataset(npz(tmp_path, y_train=np.array(labels), y_test=np.array(labels[:2])))
    assert (dataset.num_classes, dataset.class_names) == (3, names)
    texts = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    assert [names[label] for label in dataset.train.labels_N] == texts
    assert [names[label] for label in dataset.test.labels_N] == texts[:2]
    assert dataset.train.labels_N.dtype == np.int64
    (note,) = dataset.notes
    assert note.startswith("labels ")


def test_labels_from_1_take_the_class_names_in_order(tmp_path, golden):
    names = np.array(["cat", "dog", "owl"])
    dataset = load_dataset(npz(tmp_path, y_train=np.array([3, 1, 2]), y_test=np.array([1, 2]), class_names=names))
    assert dataset.class_names == ("cat", "dog", "owl")
    assert dataset.train.labels_N.tolist() == [2, 0, 1]
    golden("\n".join(dataset.notes))
    # Class names as bytes, for text labels in another order.
    names = np.array([b"owl", b"cat", b"dog"])
    texts = np.array(["dog", "cat", "owl"])
    dataset = load_dataset(npz(tmp_path, y_train=texts, y_test=texts[:2], class_names=names))
    assert (dataset.class_names, dataset.notes) == (("owl", "cat", "dog"), ())
    assert dataset.train.labels_N.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("dtype", "pixel_max"),
    [(np.uint8, 16), (np.float64, 16), (np.int64, 16), (np.float32, 1), (np.uint16, 4095), (np.uint8, 255)],
)
def test_pixels_are_scaled_by_pixel_max(tmp_path, dtype, pixel_max):
    images = (np.array([0, 0.25, 0.5, 1]) * pixel_max).astype(dtype)
    images_NHW = np.tile(images, (3, 4, 1))
    path = npz(tmp_path, x_train=images_NHW, x_test=images_NHW[:2]).path
    dataset = load_dataset(DataConfig(name="npz", path=path, pixel_max=pixel_max))
    expected = np.rint(images / pixel_max * 255)
    assert dataset.train.images_NCHW[0, 0, 0].tolist() == expected.tolist()
    assert dataset.train.images_NCHW.dtype == np.uint8


def test_splits_on_different_scales_are_refused(tmp_path, keys_of, golden):
    # Only the training images are scaled to [0, 1].
    ramp = np.arange(16.0).reshape(4, 4)
    path = npz(tmp_path, x_train=np.tile(ramp / 15, (3, 1, 1)), x_test=np.tile(ramp * 17, (2, 1, 1))).path
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="npz", path=path, pixel_max=255))
    assert keys_of(caught.value) == [f"data.path={path}"]
    golden(caught.value)
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="npz", path=npz(tmp_path).path, pixel_max=4095))
    assert keys_of(caught.value) == [path]
    golden(caught.value)


def test_true_is_white(tmp_path):
    mask = np.eye(4, dtype=bool)[None].repeat(3, axis=0)
    dataset = load_dataset(npz(tmp_path, x_train=mask, x_test=mask[:2]))
    assert np.array_equal(dataset.train.images_NCHW[2, 0], 255 * np.eye(4))
    assert dataset.dtype == "bool"


def test_the_digits_of_scikit_learn_as_users_save_them(tmp_path):
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images, labels = bundled.images.astype(np.uint8), bundled.target
    path = npz(tmp_path, x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9]).path
    with pytest.raises(DataError, match=r"data\.pixel_max=16 "):
        load_dataset(DataConfig(name="npz", path=path))
    dataset = load_dataset(DataConfig(name="npz", path=path, pixel_max=16))
    # As in the data set `digits`.
    assert np.array_equal(dataset.train.images_NCHW[:, 0], np.rint(bundled.images * (255 / 16)))
    # Dark images are read as they are.
    dark = load_dataset(DataConfig(name="npz", path=path, pixel_max=255))
    assert np.array_equal(dark.train.images_NCHW[:, 0], images)


@pytest.mark.parametrize(
    "spelling",
    ["train_images train_labels test_images test_labels", "X_train Y_train X_test Y_test", "trainX trainY testX testY"],
)
def test_usual_names_of_arrays_are_read_and_others_left_out(tmp_path, spelling, golden):
    expected = load_dataset(npz(tmp_path))
    with np.load(expected_path := tmp_path / "data.npz") as arrays:
        renamed = dict(zip(spelling.split(), (arrays[key] for key in arrays), strict=True))
    # As in MedMNIST; and an array of Python objects that nobody needs.
    np.savez(expected_path, **renamed, val_images=np.zeros((2, 4, 4)), meta=np.array([{}]))
    dataset = load_dataset(DataConfig(name="npz", path=str(expected_path)))
    assert np.array_equal(dataset.train.images_NCHW, expected.train.images_NCHW)
    assert np.array_equal(dataset.test.labels_N, expected.test.labels_N)
    golden("\n".join(dataset.notes))


@pytest.mark.parametrize("key", ["user", "writer", "writer_ids", "users_train", "train_client_id", "Group"])
@pytest.mark.parametrize("ids", [[7, 3, 7], ["bob", "ann", "bob"]])
def test_groups_are_one_id_per_training_image(tmp_path, key, ids):
    dataset = load_dataset(npz(tmp_path, **{key: np.array(ids)}))
    assert dataset.groups_N.tolist() == [1, 0, 1]
    assert dataset.notes == ()


def test_an_array_of_another_length_is_no_group(tmp_path):
    dataset = load_dataset(npz(tmp_path, user=np.arange(2)))
    assert dataset.groups_N is None
    assert dataset.notes == ("arrays left out: user",)
