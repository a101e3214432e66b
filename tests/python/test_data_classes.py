"""COCO's categories and fields: two files are matched by the names of their classes, and a field of
the wrong type is told."""

import pytest

pytest.importorskip("PIL.Image", reason="pip install pillow")

import torch
from test_data_coco import content, write

from tilewright.data import CocoDataset, DataError


def renumbered(ids):
    """The file with other category ids: new by old."""
    data = content()
    for entry in data["categories"]:
        entry["id"] = ids[entry["id"]]
    for entry in data["annotations"]:
        entry["category_id"] = ids[entry["category_id"]]
    return data


def with_classes(folder, data, **arguments):
    """The file `data` with the labels of the usual one."""
    classes = CocoDataset(*write(folder)).classes
    return CocoDataset(*write(folder, data), classes=classes, **arguments)


def labels(data):
    return [data.target(i)["labels"].tolist() for i in range(len(data))]


def told(data):
    return [str(problem).partition("instances.json: ")[2] for problem in data.problems]


@pytest.mark.parametrize("ids", [{18: 44, 44: 90, 90: 18}, {18: 3, 44: 2, 90: 1}])
def test_other_ids_of_the_same_names(tmp_path, ids):
    data = with_classes(tmp_path, renumbered(ids), strict=True)
    assert data.class_names == ("background", "dog", "cup", "kite")
    assert labels(data) == labels(CocoDataset(*write(tmp_path))) == [[1, 2], [3], []]
    assert [data.classes.category(label) for label in (1, 2, 3)] == list(ids.values())


def test_a_subset_of_the_names(tmp_path):
    other = renumbered({18: 1, 44: 18, 90: 2})
    del other["categories"][1], other["annotations"][0]  # the dog
    data = with_classes(tmp_path, other, strict=True)
    assert labels(data) == [[2], [3], []]
    # The file says 18 of a cup: a dog has no number in its results.
    assert [data.classes.category(label) for label in (1, 2, 3)] == [None, 18, 2]
    assert data.classes.label(18) == 2 and data.classes.label(None) is None
    found = {
        "boxes": torch.tensor([[0.0, 0, 2, 2]] * 3),
        "labels": torch.tensor([1, 2, 3]),
        "scores": torch.ones(3),
    }
    assert [row["category_id"] for row in data.results(0, found)] == [18, 2]
    same = content()
    del same["categories"][1], same["annotations"][0]
    again = with_classes(tmp_path, same, strict=True)
    assert [again.classes.category(label) for label in (1, 2, 3)] == [18, 44, 90]


def test_a_name_that_is_not_among_the_classes(tmp_path):
    other = content()
    other["categories"][1]["name"] = "wolf"
    other["categories"] += [{"id": 0, "name": "animals", "supercategory": "none"}]
    data = with_classes(tmp_path, other)
    assert labels(data) == [[2], [3], []]
    assert told(data) == [
        "categories[1], id 18: 'wolf' is not among the classes (category left out with 1 "
        "annotations)"
    ]
    with pytest.raises(DataError, match="'wolf' is not among the classes"):
        with_classes(tmp_path, other, strict=True)


def test_a_category_above_the_others_without_objects(tmp_path):
    """Roboflow's exports begin with one, id 0."""
    data = content()
    data["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    read = CocoDataset(*write(tmp_path, data), strict=True)
    assert read.class_names == ("background", "things", "dog", "cup", "kite")
    other = CocoDataset(*write(tmp_path, data), classes=read.classes, strict=True)
    assert other.classes == read.classes and labels(other) == labels(read) == [[2, 3], [4], []]
    assert labels(with_classes(tmp_path, data, strict=True)) == [[1, 2], [3], []]


def test_two_categories_of_one_name_are_one_class(tmp_path):
    data = content()
    data["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})
    read = CocoDataset(*write(tmp_path, data))
    assert told(read) == [
        "categories[0], id 0: 'dog' is also the name of category 18 (both are one class)"
    ]
    assert read.class_names == ("background", "dog", "cup", "kite")
    assert [read.classes.label(i) for i in (0, 18, 44)] == [1, 1, 2]
    assert read.classes.category(1) == 18  # the one with objects
    data["annotations"][2]["category_id"] = 0
    assert labels(CocoDataset(*write(tmp_path, data))) == [[1, 1], [3], []]
    assert labels(with_classes(tmp_path, data)) == [[1, 1], [3], []]
    with pytest.raises(DataError, match="'dog' is also the name of category"):
        CocoDataset(*write(tmp_path, data), strict=True)


@pytest.mark.parametrize(
    ("field", "message", "crowd"),
    [
        ({"iscrowd": "1"}, 'iscrowd must be 0 or 1, got "1" (kept, as a crowd)', True),
        ({"iscrowd": "0"}, 'iscrowd must be 0 or 1, got "0" (kept, as no crowd)', False),
        ({"iscrowd": 7}, "iscrowd must be 0 or 1, got 7 (kept, as a crowd)", True),
        ({"area": "big"}, 'area must be a number and at least 0, got "big" (the box', False),
        ({"area": -3}, "area must be a number and at least 0, got -3 (the box's area", False),
        ({"area": float("nan")}, "area must be a number and at least 0, got NaN", False),
        ({"area": True}, "area must be a number and at least 0, got true", False),
    ],
)
def test_a_field_of_the_wrong_type_is_told(tmp_path, field, message, crowd):
    data = content()
    data["annotations"][0].update({"area": None, **field})
    read = CocoDataset(*write(tmp_path, data))
    (line,) = told(read)
    assert line.startswith("annotations[0], id 1: ") and message in line
    assert read.target(0)["iscrowd"].tolist() == [crowd, False]
    assert read.target(0)["area"].tolist() == [210, 100]  # the boxes' own
    with pytest.raises(DataError, match="1 problem"):
        CocoDataset(*write(tmp_path, data), strict=True)


@pytest.mark.parametrize("crowd", [True, False, None, 0, 1, 1.0])
def test_ways_to_say_crowd_that_are_no_problem(tmp_path, crowd):
    data = content()
    data["annotations"][0]["iscrowd"] = crowd
    read = CocoDataset(*write(tmp_path, data), strict=True)
    assert read.target(0)["iscrowd"].tolist() == [bool(crowd), False]
