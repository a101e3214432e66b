"""Labelled images: their container, the digits, and folders with a sub-folder for each class."""

import numpy as np
import pytest
import torch

from tilewright.data import (
    DataError,
    ImageError,
    LabelledImages,
    load_digits_images,
    load_image_folder,
    load_split,
)


def test_the_container_checks():
    images, labels = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
    assert len(LabelledImages(images, labels, ("a", "b"))) == 2
    for arguments, message in [
        ((images[0], labels, ("a", "b")), r"images must have shape \(N, C, H, W\)"),
        ((images.double(), labels, ("a", "b")), "uint8 or float32, got .* torch.float64"),
        ((images, labels[:1], ("a", "b")), r"labels must have shape \(2,\)"),
        ((images, labels.int(), ("a", "b")), "be int64, got .* torch.int32"),
        ((images, labels, ("a",)), r"labels must be in \[0, 1\), got 1"),
        ((images, -labels, ("a", "b")), r"labels must be in \[0, 2\), got -1"),
        ((images.numpy(), labels, ("a", "b")), "images must be a tensor, got ndarray"),
        ((images, None, ("a", "b")), "labels must be a tensor, got NoneType"),
        ((images, labels, None), "class_names must be a tuple of names, got None"),
        ((images, labels, "ab"), "class_names must be a tuple of names, got 'ab'"),
        (
            (images + torch.tensor([0.0, 255.0]).view(2, 1, 1, 1), labels, ("a", "b")),
            r"must lie in \[0, 1\], got 0 to 255 \(divide .* by 255, or give them as uint8\)",
        ),
        ((images - 0.5, labels, ("a", "b")), r"must lie in \[0, 1\], got -0.5 to -0.5"),
        ((images / 0, labels, ("a", "b")), r"must lie in \[0, 1\], got nan to nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            LabelledImages(*arguments)
    assert len(LabelledImages(images + 1.0001, labels, ["a", "b"])) == 2, "rounded"
    assert len(LabelledImages(images[:0], labels[:0], ())) == 0


def test_floats_and_binarised():
    images = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    data = LabelledImages(images, torch.tensor([0]), ("a",))
    assert data.floats().max() == 1 and data.floats().dtype == torch.float32
    assert data.binarised().images.flatten().tolist() == [0, 0, 1, 1]
    assert data.binarised(0.1).images.flatten().tolist() == [0, 1, 1, 1]
    two = LabelledImages(images.repeat(2, 1, 1, 1), torch.tensor([0, 0]), ("a",))
    assert two.floats(torch.tensor([1])).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\], got 0"):
        data.binarised(0.0)


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    raw = datasets.load_digits()
    for split in ("train", "test"):
        data, ids = load_digits_images(split), load_split(split).ids
        assert data.images.shape == (len(ids), 1, 8, 8)
        expected = (raw.images[ids] / 16).astype(np.float32)
        assert np.array_equal(data.images[:, 0].numpy(), expected)
        assert np.array_equal(data.labels.numpy(), raw.target[ids])
        binary = load_digits_images(split, binarised=True)
        assert np.array_equal(binary.images[:, 0].numpy(), (raw.images[ids] >= 8).astype("f4"))
    counts = torch.bincount(load_digits_images("test").labels)
    assert counts.min() == 44 and counts.sum() == 450
    with pytest.raises(ValueError, match=r"split must be one of .* got 'all'"):
        load_digits_images("all")


def folder(path, counts, size=(6, 9)):
    """One image of an even colour in each file, by class."""
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    for label, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image.new("RGB", size, (20 * i, 100 * label, 250)).save(path / name / f"{i}.png")
    return path


def test_a_folder_is_divided_by_class(tmp_path):
    folder(tmp_path, {"cat": 8, "ant": 4})
    (tmp_path / ".cache").mkdir()
    train, test = (load_image_folder(tmp_path, 5, split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("ant", "cat")
    assert train.images.shape == (9, 3, 5, 5) and train.images.dtype == torch.uint8
    assert train.labels.tolist() == [0] * 3 + [1] * 6 and test.labels.tolist() == [0, 1, 1]
    colours = [tuple(image[:, 0, 0].tolist()) for data in (train, test) for image in data.images]
    assert len(set(colours)) == 12, "every image in one of the splits"
    again = load_image_folder(tmp_path, 5, "test")
    assert torch.equal(again.images, test.images)
    others = [load_image_folder(tmp_path, 5, "test", seed=seed).images for seed in range(1, 5)]
    assert any(not torch.equal(other, test.images) for other in others)
    assert len(load_image_folder(tmp_path, 5, "test", held_out=0.5)) == 6


def test_a_folder_that_is_divided_already(tmp_path):
    folder(tmp_path / "train", {"a": 1, "b": 3})
    folder(tmp_path / "val", {"b": 2})
    train, test = (load_image_folder(tmp_path, 4, split) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 1, 1, 1] and test.labels.tolist() == [1, 1]
    folder(tmp_path / "val", {"c": 1})
    with pytest.raises(DataError, match=r"val: expected classes of .*train, got c"):
        load_image_folder(tmp_path, 4, "test")


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "validation")])
def test_other_names_of_splits(names, tmp_path):
    for name, count in zip(names, (3, 2), strict=True):
        folder(tmp_path / name, {"a": count, "b": count})
    train, test = (load_image_folder(tmp_path, 4, split) for split in ("train", "test"))
    assert train.class_names == ("a", "b") and len(train) == 6 and len(test) == 4


@pytest.mark.parametrize("name", ["train", "Validation"])
def test_half_a_division_is_refused(name, tmp_path):
    folder(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(DataError, match=f"expected folders of both splits, .* got {name} alone"):
        load_image_folder(tmp_path, 4, "train")


def test_files_that_are_no_images_are_told(tmp_path):
    folder(tmp_path, {"a": 2})
    for name in ("notes.txt", "photo.HEIC", "readme"):
        (tmp_path / "a" / name).write_text("no image")
    told = r"3 files are no images by their suffix \(\.heic, \.txt, none\) and left out"
    with pytest.warns(UserWarning, match=told):
        assert len(load_image_folder(tmp_path, 4, "train")) == 1


def test_images_are_scaled_and_cut_from_the_middle(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (200, 100, 50)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = load_image_folder(tmp_path, 10, "train")
    assert torch.equal(data.images[0].permute(1, 2, 0), torch.from_numpy(pixels[:, 10:20]))
    small = load_image_folder(tmp_path, 4, "train").images
    assert small.shape[2:] == (4, 4)
    large = load_image_folder(tmp_path, 20, "train").images
    assert large.shape[2:] == (20, 20) and large[0, 0, 10, 10] == 200
    grey = load_image_folder(tmp_path, 10, "train", grey=True).images
    assert grey.shape == (2, 1, 10, 10) and grey[0, 0, 5, 5] == round(
        0.299 * 200 + 0.587 * 100 + 0.114 * 50
    )


def test_folders_that_hold_no_such_data(tmp_path):
    with pytest.raises(DataError, match="none: there is no such folder"):
        load_image_folder(tmp_path / "none", 8, "train")
    with pytest.raises(DataError, match="expected a sub-folder of images for each class"):
        load_image_folder(tmp_path, 8, "train")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a: expected images \(.*\.png.*\), found none"):
        load_image_folder(tmp_path, 8, "train")
    folder(tmp_path, {"a": 1})
    with pytest.raises(DataError, match="a: expected two images at least"):
        load_image_folder(tmp_path, 8, "train")
    folder(tmp_path, {"a": 2})
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"a/\d.png"):
        load_image_folder(tmp_path, 8, "train")
    for arguments, message in [
        ({"size": 0, "split": "train"}, "size must be at least 1, got 0"),
        ({"size": 8, "split": "all"}, "split must be one of .* got 'all'"),
        ({"size": 8, "split": "test", "held_out": 1.0}, r"held_out must be in \(0, 1\), got 1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_image_folder(tmp_path, **arguments)
