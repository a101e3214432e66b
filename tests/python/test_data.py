"""Holds the digit scenes to their promises: repeatable, tight boxes, held-out digits unseen."""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tilewright import data
from tilewright.data import CLASS_NAMES, DigitScenes, collate, load_split
from tilewright.data.digits import INK
from tilewright.data.scenes import MAX_OVERLAP

SCENES = 60


def scenes(**arguments):
    return DigitScenes(**{"split": "train", "length": SCENES, "seed": 3, **arguments})


def same(a, b):
    (image, target), (other, other_target) = a, b
    return torch.equal(image, other) and all(
        torch.equal(target[key], other_target[key]) for key in ("boxes", "labels")
    )


def test_an_item_has_the_documented_shapes_and_ranges():
    dataset = scenes(size=(128, 160))
    counts = []
    for image, target in dataset:
        boxes, labels = target["boxes"], target["labels"]
        assert set(target) == {"boxes", "labels"}
        assert image.shape == (3, 128, 160) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert boxes.shape == (len(labels), 4) and boxes.dtype == torch.float32
        assert labels.shape == (len(boxes),) and labels.dtype == torch.int64
        assert labels.min() >= 1 and labels.max() <= 10
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([160, 128])).all()
        longer = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
        assert longer.min() >= 11 and longer.max() <= 65  # 12 to 64, met within a pixel
        counts.append(len(labels))
    assert len(dataset) == SCENES == len(counts)
    assert min(counts) == 1 and max(counts) == 8


def test_every_class_and_size_occurs():
    dataset = scenes(length=200)
    labels = torch.cat([target["labels"] for _, target in dataset])
    boxes = torch.cat([target["boxes"] for _, target in dataset])
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    assert set(labels.tolist()) == set(range(1, 11))
    assert longer.min() < 14 and longer.max() > 60
    assert CLASS_NAMES[0] == "background" and "".join(CLASS_NAMES[1:]) == "0123456789"


def test_boxes_are_tight_around_the_ink():
    dataset = scenes()
    for i in range(SCENES):
        masks = dataset.masks(i)
        boxes = dataset[i][1]["boxes"]
        assert masks.shape == (len(boxes), 128, 128)
        for mask, box in zip(masks, boxes, strict=True):
            y, x = mask.nonzero(as_tuple=True)
            tight = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert box.tolist() == [float(side) for side in tight]


def test_the_ink_is_seen_in_the_image():
    """A digit alone differs in brightness from the sheet around it."""
    dataset = scenes(digits=(1, 1), digit_size=(40, 60))
    for i in range(SCENES):
        image, target = dataset[i]
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        mask = dataset.masks(i)[0, y1:y2, x1:x2]
        patch = image[:, y1:y2, x1:x2]
        difference = patch[:, mask].mean(dim=1) - patch[:, ~mask].mean(dim=1)
        assert difference.abs().max() > 0.1


def test_overlap_occurs_and_is_bounded():
    overlapping = 0
    for _, target in scenes(digits=(6, 8), digit_size=(24, 64)):
        boxes = target["boxes"]
        low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
        high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        common = (high - low).clamp(min=0).prod(dim=2).fill_diagonal_(0)
        share = common.sum(dim=1) / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        assert (share <= MAX_OVERLAP + 1e-6).all()
        overlapping += int((share > 0).sum())
    assert overlapping > SCENES


def test_a_scene_depends_on_seed_and_number_alone():
    dataset, again = scenes(), scenes()
    in_order = [dataset[i] for i in range(10)]
    torch.manual_seed(1)
    backwards = [again[i] for i in reversed(range(10))][::-1]
    assert all(same(a, b) for a, b in zip(in_order, backwards, strict=True))
    assert same(dataset[0], scenes(length=2)[0])
    assert same(dataset[-1], dataset[SCENES - 1])
    assert not torch.equal(dataset[0][0], dataset[1][0])
    assert not torch.equal(dataset[0][0], scenes(seed=4)[0][0])
    assert not torch.equal(dataset[0][0], scenes(split="test")[0][0])
    assert same(dataset[0], pickle.loads(pickle.dumps(dataset))[0])


def test_worker_processes_see_the_same_scenes():
    dataset = scenes(length=9)
    batches = [
        list(DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate))
        for workers in (0, 2)
    ]
    for (images, targets), (others, other_targets) in zip(*batches, strict=True):
        assert isinstance(images, list) and isinstance(targets, list)
        pairs = zip(images, targets, others, other_targets, strict=True)
        assert all(same((a, b), (c, d)) for a, b, c, d in pairs)
    assert [len(images) for images, _ in batches[0]] == [4, 4, 1]


def test_held_out_digits_are_never_trained_on():
    train, test = load_split("train"), load_split("test")
    assert not set(train.ids) & set(test.ids)
    assert set(train.ids) | set(test.ids) == set(range(1797))
    assert 0.2 < len(test) / 1797 < 0.3
    shown = {split: set() for split in ("train", "test")}
    for split, ids in shown.items():
        for seed in (0, 1):
            dataset = scenes(split=split, seed=seed)
            ids.update(id for i in range(SCENES) for id in dataset.digit_ids(i))
    assert shown["train"] <= set(train.ids.tolist())
    assert shown["test"] <= set(test.ids.tolist())


def test_labels_are_those_of_the_scans():
    from sklearn.datasets import load_digits

    values = load_digits().target
    dataset = scenes()
    for i in range(SCENES):
        expected = [int(values[id]) + 1 for id in dataset.digit_ids(i)]
        assert dataset[i][1]["labels"].tolist() == expected


@pytest.mark.parametrize("size", [12, 25.5, 64])
@pytest.mark.parametrize("aspect", [0.8, 1.25])
@pytest.mark.parametrize(("angle", "shear"), [(0, 0), (-40, 0.3), (180, 0), (0, -1)])
def test_a_drawn_digit_has_the_size_asked_for(size, aspect, angle, shear):
    digits = load_split("test")
    for row in range(0, len(digits), 9):
        opacity = digits.render(row, size, aspect, angle, shear)
        ink = opacity >= INK
        assert abs(max(opacity.shape) - size) <= (1 if angle == shear == 0 else 2)
        assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()
        assert opacity.min() >= 0 and 0.9 < opacity.max() <= 1


def test_turned_digits_are_turned():
    digits = load_split("test")
    for row in range(0, len(digits), 50):
        upright = digits.render(row, 40)
        upside_down = digits.render(row, 40, angle=180)[::-1, ::-1]
        quarter = digits.render(row, 40, angle=90)  # clockwise: the top is to the right
        for turned, expected in ((upside_down, upright), (quarter, np.rot90(upright, -1))):
            height, width = np.minimum(turned.shape, expected.shape)
            difference = turned[:height, :width] - expected[:height, :width]
            assert np.abs(difference).mean() < 0.08


def test_a_sheared_digit_leans():
    digits = load_split("test")
    row = int(np.flatnonzero(digits.values == 1)[0])

    def lean(opacity):
        """How far the ink's middle is to the right above."""
        half = len(opacity) // 2
        across = np.arange(opacity.shape[1])
        top, bottom = opacity[:half].sum(0), opacity[half:].sum(0)
        return (top @ across / top.sum() - bottom @ across / bottom.sum()) / len(opacity)

    upright = lean(digits.render(row, 40))
    assert lean(digits.render(row, 40, shear=0.5)) > upright + 0.1
    assert lean(digits.render(row, 40, shear=-0.5)) < upright - 0.1


def test_warped_scenes_hold_what_scenes_promise():
    dataset, plain = scenes(rotation=45, shear=0.4), scenes()
    assert not any(same(dataset[i], plain[i]) for i in range(9))
    assert same(dataset[4], scenes(rotation=45, shear=0.4)[4])
    for i in range(20):
        target, masks = dataset[i][1], dataset.masks(i)
        for box, mask in zip(target["boxes"].long().tolist(), masks, strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == [int(v) for v in found]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "val"}, ValueError, r"split must be one of \('train', 'test'\), got 'val'"),
        ({"size": 127}, ValueError, r"size must be in \[128, 32768\], got 127"),
        ({"size": (128, 64)}, ValueError, r"size must be in \[128, 32768\], got 64"),
        ({"size": 128.0}, TypeError, r"size must be two integers, got 128.0"),
        ({"size": (128, 128, 3)}, TypeError, r"size must be two integers"),
        ({"length": 0}, ValueError, r"length must be in \[1, .*\], got 0"),
        ({"length": "9"}, TypeError, r"length must be an integer, got '9'"),
        ({"seed": -1}, ValueError, r"seed must be in \[0, .*\], got -1"),
        ({"seed": True}, TypeError, r"seed must be an integer, got True"),
        ({"digit_size": (12, 65)}, ValueError, r"digit_size must be in \[8, 64\], got 65"),
        ({"digit_size": (40, 20)}, ValueError, r"digit_size must not decrease, got \(40, 20\)"),
        ({"digits": (0, 3)}, ValueError, r"digits must be in \[1, 1000\], got 0"),
        ({"rotation": 181}, ValueError, r"rotation must be in \[0, 180\], got 181"),
        ({"shear": "1"}, TypeError, r"shear must be a number, got '1'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        scenes(**arguments)


def test_an_index_out_of_range_is_named():
    with pytest.raises(IndexError, match="index 60 is out of range for 60 scenes"):
        scenes()[SCENES]
    with pytest.raises(IndexError, match="index -61 is out of range"):
        scenes()[-SCENES - 1]


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.digits._load_scans()
