"""The COCO reader on whole files that the tests write."""

import json
import pickle

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from torch.utils.data import DataLoader  # noqa: E402

from tilewright.data import CocoDataset, collate, without_ignored  # noqa: E402
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
