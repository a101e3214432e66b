"""The COCO reader on files that the tests write: whole ones, and every damage by name."""

import json
import pickle

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from torch.utils.data import DataLoader  # noqa: E402

from tilewright.data import (  # noqa: E402
    CocoDataset,
    DataError,
    ImageError,
    collate,
    without_ignored,
)
from tilewright.models import FasterRCNNCpp  # noqa: E402


def content():
    """Two images with objects, one without; category ids with holes, out of order."""
    return {
        "info": {"year": 2024},
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "deep/b.png", "width": 20, "height": 50},
            {"id": 9, "file_name": "empty.png", "width": 16, "height": 16},
        ],
        "categories": [
            {"id": 90, "name": "kite"},
            {"id": 18, "name": "dog"},
            {"id": 44, "name": "cup"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 10.5, 20], "area": 99.5},
            {"id": 2, "image_id": 3, "category_id": 90, "bbox": [0, 0, 20, 50], "iscrowd": 1},
            {"id": 5, "image_id": 7, "category_id": 44, "bbox": [30, 20, 10, 10]},
        ],
    }


def write(folder, data=None, text=None):
    """Writes the images and the JSON file; returns the arguments of the reader."""
    images = folder / "images"
    (images / "deep").mkdir(parents=True, exist_ok=True)
    for name, width, height in (("a", 40, 30), ("deep/b", 20, 50), ("empty", 16, 16)):
        pixels = np.full((height, width, 3), width, dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
    path = folder / "instances.json"
    path.write_text(json.dumps(content() if data is None else data) if text is None else text)
    return images, path


def test_items_are_what_the_detector_takes(tmp_path):
    data = CocoDataset(*write(tmp_path), strict=True)
    assert len(data) == 3 and data.image_ids == [7, 3, 9] and data.problems == []
    image, target = data[0]
    assert image.shape == (3, 30, 40) and image.dtype == torch.float32
    assert torch.equal(image, torch.full((3, 30, 40), 40 / 255))
    assert target["boxes"].tolist() == [[1, 2, 11.5, 22], [30, 20, 40, 30]]
    assert target["labels"].tolist() == [1, 2]  # dog, cup: 18, 44 of 18, 44, 90
    assert target["area"].tolist() == [99.5, 100.0]  # the file's, or the box's
    assert target["image_id"].item() == 7
    crowd = data[1][1]
    assert crowd["iscrowd"].tolist() == [True] and not crowd["difficult"].any()
    dtypes = {key: value.dtype for key, value in crowd.items()}
    assert dtypes == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "area": torch.float32,
        "iscrowd": torch.bool,
        "difficult": torch.bool,
        "image_id": torch.int64,
    }
    empty = data[-1][1]
    assert {key: value.dtype for key, value in empty.items()} == dtypes
    assert empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,)
    assert data.size(1) == (20, 50) and data.path(1).endswith("deep/b.png")
    assert "3 images (1 without objects), 3 objects of 3 classes; no problems" in data.report()


def test_categories_map_there_and_back(tmp_path):
    data = CocoDataset(*write(tmp_path))
    assert data.class_names == ("background", "dog", "cup", "kite")
    assert [data.classes.label(i) for i in (18, 44, 90, 1)] == [1, 2, 3, None]
    assert [data.classes.category(i) for i in (1, 2, 3)] == [18, 44, 90]
    for label in (0, 4):
        with pytest.raises(ValueError, match=rf"label must be in \[1, 3\], got {label}"):
            data.classes.category(label)
    detection = {**data.target(0), "scores": torch.tensor([0.5, 0.25])}
    assert data.results(0, detection) == [
        {"image_id": 7, "category_id": 18, "bbox": [1, 2, 10.5, 20], "score": 0.5},
        {"image_id": 7, "category_id": 44, "bbox": [30, 20, 10, 10], "score": 0.25},
    ]


def test_it_feeds_a_detector(tmp_path):
    """Through a loader with workers, into a training step; crowds are no objects to learn."""
    data = CocoDataset(*write(tmp_path))
    loader = DataLoader(data, batch_size=3, num_workers=1, collate_fn=collate)
    images, targets = next(iter(loader))
    targets = [without_ignored(target) for target in targets]
    assert [len(target["labels"]) for target in targets] == [2, 0, 0]
    model = FasterRCNNCpp(len(data.class_names), min_size=32, max_size=64, fpn_channels=16)
    losses, _ = model(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert torch.equal(pickle.loads(pickle.dumps(data))[0][0], images[0])


def test_labels_of_another_data_set(tmp_path):
    classes = CocoDataset(*write(tmp_path)).classes
    other = content()
    other["categories"] = [{"id": 1, "name": "bird"}, {"id": 90, "name": "kite"}]
    other["annotations"][0]["category_id"] = 1
    data = CocoDataset(*write(tmp_path, other), classes=classes)
    assert data.class_names == ("background", "dog", "cup", "kite")
    assert data[1][1]["labels"].tolist() == [3]
    assert [str(p).removeprefix(f"{tmp_path}/instances.json: ") for p in data.problems] == [
        "categories[0], id 1: 'bird' is not among the classes (category left out with 1 "
        "annotations)",
        "annotations[2], id 5: category_id 44 is not among the categories (annotation left out)",
    ]


def test_a_subset_keeps_ids(tmp_path):
    part = CocoDataset(*write(tmp_path)).subset([2, 0])
    assert part.image_ids == [9, 7] and part[1][1]["image_id"].item() == 7
    with pytest.raises(IndexError, match="index 2 is out of range for 2 images"):
        part[2]


LEFT_OUT = "annotation left out"
IMAGE = "image left out with {} annotations"


def add(key, **entry):
    return lambda data: data[key].append(entry)


def change(key, i, **entry):
    return lambda data: data[key][i].update(entry)


def box(*sides):
    return change("annotations", 0, bbox=list(sides))


PROBLEMS = [
    (change("annotations", 0, image_id=8), "image_id 8 is not among the usable images", LEFT_OUT),
    (change("annotations", 0, category_id=2), "category_id 2 is not among the categ", LEFT_OUT),
    (change("annotations", 0, category_id=None), "category_id nothing is not among", LEFT_OUT),
    (change("annotations", 0, id="x"), 'annotations[0]: id must be an integer, got "x"', LEFT_OUT),
    (change("annotations", 0, id=2), "another annotation has the same id", "kept"),
    (lambda d: d["annotations"].append(d["annotations"][0]), "stands there twice", LEFT_OUT),
    (lambda d: d["annotations"].append(5), "annotations[3]: expected an object, got 5", LEFT_OUT),
    (box(1, 2, 3), "bbox must be four numbers, got [1, 2, 3]", LEFT_OUT),
    (box(1, 2, 3, "4"), 'bbox must be four numbers, got [1, 2, 3, "4"]', LEFT_OUT),
    (box(1, 2, 0, 4), "the box (1.0, 2.0, 1.0, 6.0) has no positive width", LEFT_OUT),
    (box(1, 2, 3, -4), "has no positive width and height", LEFT_OUT),
    (box(30, 2, 1e-9, 4), "has no size in float32", LEFT_OUT),
    (box(1, 2, float("nan"), 4), "is not finite", LEFT_OUT),
    (box(1, 2, float("inf"), 4), "is not finite", LEFT_OUT),
    (box(40, 2, 5, 4), "is outside of the 40 x 30 image", LEFT_OUT),
    (box(-9, 2, 5, 4), "is outside of the 40 x 30 image", LEFT_OUT),
    (box(35, 2, 10, 4), "reaches out of the 40 x 30 image", "box clipped"),
    (change("images", 0, width=30, height=40), "the size is given as 30 x 40, but", IMAGE),
    (change("images", 0, width=-1), "width must be a positive integer, got -1", "not compared"),
    (change("images", 0, file_name=None), "file_name must be a string, got nothing", "image left"),
    (change("images", 0, file_name="c.png"), "images/c.png: there is no such file", IMAGE),
    (change("images", 0, file_name="text.png"), "text.png: not an image", IMAGE),
    (add("images", id=3, file_name="empty.png"), "has the id of 'b.png'", "image left out"),
    (add("images", id=4, file_name="a.png"), "'a.png' is also image 7", "kept"),
    (add("images", file_name="a.png"), "images[3]: id must be an integer, got nothing", "left out"),
    (add("categories", id=18, name="cat"), "'cat' has the id of 'dog'", "category left out"),
    (add("categories", id=19), "name must be a string, got nothing", "category left out"),
]


@pytest.mark.parametrize(("damage", "message", "done"), PROBLEMS)
def test_what_is_wrong_is_told_by_name(tmp_path, damage, message, done):
    data = content()
    damage(data)
    images, path = write(tmp_path, data)
    (images / "text.png").write_text("no image")
    read = CocoDataset(images, path)
    told = [str(problem) for problem in read.problems]
    assert any(message in line for line in told), told
    assert any(done.format(2) in line for line in told), told
    assert all(str(tmp_path) in line for line in told)
    assert told[0] in read.report()
    with pytest.raises(DataError, match=r"instances\.json"):
        CocoDataset(images, path, strict=True)


def test_nothing_is_lost_silently(tmp_path):
    """Images and annotations of the file: served, or named in a problem."""
    data = content()
    for damage, _, _ in PROBLEMS[7:12]:
        damage({"annotations": (entry := [dict(data["annotations"][0])])})
        data["annotations"].append({**entry[0], "id": 100 + len(data["annotations"])})
    read = CocoDataset(*write(tmp_path, data))
    served = sum(len(read.target(i)["labels"]) for i in range(len(read)))
    assert served == 3
    assert served + len(read.problems) == len(data["annotations"])
    assert "5 problems: 5 x annotation left out" in read.report()


def test_strict_says_the_first_and_the_count(tmp_path):
    data = content()
    data["annotations"] = [{"id": i, "image_id": 1} for i in range(8)]
    with pytest.raises(DataError) as caught:
        CocoDataset(*write(tmp_path, data), strict=True)
    message = str(caught.value)
    assert "8 problems: 8 x annotation left out" in message
    assert "annotations[4], id 4" in message and "annotations[5]" not in message
    assert "... and 3 more" in message


def test_a_rounding_over_the_edge_is_no_problem(tmp_path):
    data = content()
    data["annotations"][0]["bbox"] = [-0.5, 2, 41, 28.25]
    read = CocoDataset(*write(tmp_path, data), strict=True)
    assert read[0][1]["boxes"][0].tolist() == [0, 2, 40, 30]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', r"instances.json: not JSON: line 1, column 13"),
        ("[1, 2]", "expected an object with images, annotations and categories, got a list"),
        ('{"images": []}', "'annotations' must be a list, got nothing; the file has 'images'"),
        ('{"images": {}}', "'images' must be a list, got dict"),
        ("\ud800".encode("utf-16", "surrogatepass").decode("latin1"), "not JSON|cannot be read"),
        ('{"images": [], "annotations": [], "categories": []}', "it has no usable category"),
        ("9" * 5000, "cannot be read"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "no image can be used; no problems",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        CocoDataset(*write(tmp_path, text=text))


def test_a_wrong_path_is_an_error(tmp_path):
    images, path = write(tmp_path)
    with pytest.raises(DataError, match=r"none\.json: cannot be read: .*No such file"):
        CocoDataset(images, tmp_path / "none.json")
    with pytest.raises(DataError, match=r"there is no folder of images: .*nowhere"):
        CocoDataset(tmp_path / "nowhere", path)
    with pytest.raises(DataError, match="no image can be used; 3 problems"):
        CocoDataset(tmp_path, path)
    with pytest.raises(
        ValueError, match=r"check must be one of \('headers', 'pixels'\), got 'all'"
    ):
        CocoDataset(images, path, check="all")


def test_a_damaged_image_is_found_by_checking_pixels(tmp_path):
    images, path = write(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "a.png")
    whole = (images / "a.png").read_bytes()
    (images / "a.png").write_bytes(whole[: len(whole) // 2])
    trusting = CocoDataset(images, path)
    with pytest.raises(ImageError, match=r"a\.png: the image is damaged"):
        trusting[0]
    seen = []
    careful = CocoDataset(
        images, path, check="pixels", progress=lambda it: (seen.append(len(it)), it)[1]
    )
    assert careful.image_ids == [3, 9] and seen == [3]
    assert "a.png: the image is damaged" in careful.report()
    assert "image left out with 2 annotations" in careful.report()


def test_an_image_that_changes_afterwards_is_named(tmp_path):
    images, path = write(tmp_path)
    data = CocoDataset(images, path)
    Image.fromarray(np.zeros((3, 4, 3), dtype=np.uint8)).save(images / "a.png")
    with pytest.raises(ImageError, match="was 40 x 30 when the data set was opened, and is 4 x 3"):
        data[0]


@pytest.mark.parametrize("annotated", ["upright", "stored"])
def test_a_turned_image_has_the_size_that_was_annotated(tmp_path, annotated):
    """Annotators that ignore the orientation give sizes and boxes of the pixels as stored."""
    data = content()
    width, height = (30, 40) if annotated == "upright" else (40, 30)
    data["images"][0].update(width=width, height=height)
    data["annotations"][0]["bbox"] = [0, 0, width, height]
    images, path = write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(images / "a.png", exif=exif)
    image, target = CocoDataset(images, path)[0]
    assert image.shape == (3, height, width)
    assert target["boxes"][0].tolist() == [0, 0, width, height]
