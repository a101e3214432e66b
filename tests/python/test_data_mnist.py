"""MNIST's IDX files, its fixed binarisation as text, and CIFAR-10's binary batches, as these tests
write them: whole, and damaged in every way that has a message."""

import gzip
import struct

import numpy as np
import pytest
import torch

from tilewright.data import (
    DataError,
    load_cifar10,
    load_mnist,
    read_binarised_mnist,
    read_cifar_batch,
    read_idx,
)

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(values):
    """The bytes of an IDX file."""
    kind = values.dtype.kind + str(values.dtype.itemsize)
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, CODES[kind], values.ndim, *values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def mnist(folder, train=7, test=3, sep="-", end="", rng=None):
    """MNIST's four files with random pixels; returns images and labels by split."""
    rng = rng or np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    made = {}
    for split, part, count in (("train", "train", train), ("test", "t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for what, axes, values in (("images", 3, images), ("labels", 1, labels)):
            content = idx(values)
            path = folder / f"{part}-{what}{sep}idx{axes}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if end else content)
        made[split] = images, labels
    return made


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_of_every_type(tmp_path, kind, packed):
    values = (np.arange(24) * 5 - 9).astype(np.int64).astype(kind).reshape(2, 3, 4)
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    read = read_idx(path)
    assert read.shape == (2, 3, 4) and read.numpy().dtype == values.dtype
    assert np.array_equal(read.numpy(), values)


def test_idx_without_values(tmp_path):
    (tmp_path / "none").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    assert read_idx(tmp_path / "none").shape == (0, 28, 28)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file, .* got an empty file"),
        (b"\0\0\x08", "expected an IDX file, .* got 0, 0, 8"),
        (b"\x89PNG" + GOOD, "expected an IDX file, .* got 137, 80, 78, 71"),
        (b"\0\0\x0a\x01" + GOOD[4:], "expected an IDX file, .* got 0, 0, 10, 1"),
        (b"\0\0\x08\0", "expected 1 to 8 axes, got 0"),
        (b"\0\0\x08\xff" + GOOD[4:], "expected 1 to 8 axes, got 255"),
        (GOOD[:7], "cut short within its sizes"),
        (GOOD[:-1], "expected 6 bytes for sizes 2 x 3, got 5"),
        (GOOD + b"\0", "expected 6 bytes for sizes 2 x 3, got more"),
        # Sizes that no memory holds are read no further than the file goes.
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3) + b"\0" * 5, "got 5"),
        (gzip.compress(GOOD)[:-3], "cannot be read"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "cannot be read"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"damaged: .*{message}"):
        read_idx(path)


def test_missing_files(tmp_path):
    for read in (read_idx, read_binarised_mnist, read_cifar_batch):
        with pytest.raises(DataError, match="none: there is no such file"):
            read(tmp_path / "none")
    for load in (load_mnist, load_cifar10):
        with pytest.raises(DataError, match="nowhere: there is no such folder"):
            load(tmp_path / "nowhere", "train")
        with pytest.raises(ValueError, match=r"split must be one of .*got 'valid'"):
            load(tmp_path, "valid")
    with pytest.raises(DataError, match=r"expected train-images-idx3-ubyte or .*gz there"):
        load_mnist(tmp_path, "train")
    with pytest.raises(DataError, match=r"expected data_batch_\*.bin there, found none"):
        load_cifar10(tmp_path, "train")


@pytest.mark.parametrize(("sep", "end"), [("-", ""), (".", ""), ("-", ".gz")])
def test_mnist(tmp_path, sep, end):
    made = mnist(tmp_path, sep=sep, end=end)
    for split, (images, labels) in made.items():
        data = load_mnist(tmp_path, split)
        assert data.images.shape == (len(images), 1, 28, 28) and data.images.dtype == torch.uint8
        assert np.array_equal(data.images[:, 0].numpy(), images)
        assert np.array_equal(data.labels.numpy(), labels)
        assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("labels-idx1", np.zeros(6, np.uint8), "expected 7 labels, as .*images-idx3.* got 6"),
        ("labels-idx1", np.full(7, 10, np.uint8), "expected labels from 0 to 9, got 10"),
        ("labels-idx1", np.zeros((7, 1), np.uint8), "expected unsigned bytes in 1 axes, got"),
        (
            "images-idx3",
            np.zeros((7, 28, 28), np.int32),
            "expected unsigned bytes in 3 axes, got torch.int32 ",
        ),
        ("images-idx3", np.zeros((0, 28, 28), np.uint8), "expected images, got sizes"),
    ],
)
def test_mnist_that_does_not_fit(tmp_path, file, values, message):
    mnist(tmp_path)
    (tmp_path / f"train-{file}-ubyte").write_bytes(idx(values))
    with pytest.raises(DataError, match=f"train-{file}-ubyte: {message}"):
        load_mnist(tmp_path, "train")


def test_binarised_mnist(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 2, (5, 784))
    path = tmp_path / "binarized_mnist_train.amat"
    path.write_text("".join(" ".join(map(str, row)) + " \n" for row in pixels) + "\n")
    images = read_binarised_mnist(path)
    assert images.shape == (5, 1, 28, 28) and images.dtype == torch.float32
    assert np.array_equal(images.reshape(5, 784).numpy(), pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "expected lines of 784 zeros and ones, got an empty file"),
        (lambda rows: [rows[0], rows[1][:-2]], "line 2: expected 784 .* got 783 words"),
        (lambda rows: [rows[0], rows[1] + " 1"], "line 2: expected 784 .* got 785 words"),
        (lambda rows: ["2" + rows[0][1:]], "line 1: expected 784 zeros and ones"),
        (lambda rows: ["x" + rows[0][1:]], "line 1: expected 784 zeros and ones"),
        (lambda rows: [rows[0].replace(" ", "")], "line 1: .* got 1 words"),
        (lambda rows: [rows[0], "", rows[1]], "line 2: .* got 0 words"),
        (lambda rows: ["10 " + rows[0][4:]], "line 1: .* got 783 words"),
    ],
)
def test_damaged_binarised_mnist(tmp_path, change, message):
    path = tmp_path / "damaged.amat"
    path.write_text("\n".join(change([" ".join("10" * 392), " ".join("01" * 392)])))
    with pytest.raises(DataError, match=f"damaged.amat: {message}"):
        read_binarised_mnist(path)


def cifar(path, labels, rng):
    """A batch with random colours, which are returned."""
    colours = rng.integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    records = np.concatenate([np.array(labels, np.uint8)[:, None], colours], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(records.tobytes())
    return colours.reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("inner", [".", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, inner):
    rng = np.random.default_rng(2)
    first = cifar(tmp_path / inner / "data_batch_1.bin", [3, 9], rng)
    second = cifar(tmp_path / inner / "data_batch_2.bin", [0], rng)
    held_out = cifar(tmp_path / inner / "test_batch.bin", [1, 2, 5], rng)
    train, test = (load_cifar10(tmp_path, split) for split in ("train", "test"))
    assert np.array_equal(train.images.numpy(), np.concatenate([first, second]))
    assert train.labels.tolist() == [3, 9, 0] and test.labels.tolist() == [1, 2, 5]
    assert np.array_equal(test.images.numpy(), held_out)
    assert train.class_names[3] == "cat" and len(train.class_names) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected records of 3073 bytes .* got 0 bytes"),
        (b"\x01" * 3072, r"expected records of 3073 bytes .* got 3072 bytes"),
        (b"\x01" * 3074, r"expected records of 3073 bytes .* got 3074 bytes"),
        (b"\x01" * 3073 + b"\x0a" * 3073, "record 1: expected a label from 0 to 9, got 10"),
    ],
)
def test_damaged_cifar(tmp_path, content, message):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_1.bin: {message}"):
        load_cifar10(tmp_path, "train")
