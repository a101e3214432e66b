"""The COCO reader on files that are damaged: every damage is told by name, none is passed over."""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from test_data_coco import content, write  # noqa: E402

from tilewright.data import CocoDataset, DataError, ImageError  # noqa: E402

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
