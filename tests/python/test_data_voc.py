"""The VOC reader, and the choice of a reader by what lies in a folder, on files that the tests
write: whole ones, and every damage by name."""

import json

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from tilewright.data import DataError, VocDataset, open_folder  # noqa: E402

DOG = ("dog", (1, 1, 40, 30), 0)
CAT = ("cat", (11, 6, 20, 15), 1)


def xml(objects, width=40, height=30):
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, (x1, y1, x2, y2), difficult in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>other.jpg</filename>{size}{parts}</annotation>"


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(path)


def write(root, sets=None):
    """Three images: a dog and a difficult cat, a dog, none; returns the folder."""
    for name, objects in (("a", [DOG, CAT]), ("b", [DOG]), ("c", None)):
        image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        if objects is not None:
            (root / "Annotations" / f"{name}.xml").write_text(xml(objects))
    for name, lines in (sets or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
    return root


def test_a_folder_without_sets(tmp_path):
    data = VocDataset(write(tmp_path), strict=True)
    assert data.class_names == ("background", "cat", "dog")
    assert data.classes.category(2) == "dog" and data.classes.label("cat") == 1
    assert data.image_ids == ["a", "b", "c"]
    target = data[0][1]
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert target["labels"].tolist() == [2, 1]
    assert target["difficult"].tolist() == [False, True] and not target["iscrowd"].any()
    assert target["area"].tolist() == [1200, 100]
    assert data[1][1]["image_id"].item() == 1
    assert data[2][1]["boxes"].shape == (0, 4)
    assert data[0][0].shape == (3, 30, 40)


def test_the_sets_choose(tmp_path):
    root = write(tmp_path, {"train": "b\na\n", "dog_val": "a -1\nb  1\n\n"})
    assert VocDataset(root, "train", strict=True).image_ids == ["b", "a"]
    assert VocDataset(root, "dog_val", strict=True).image_ids == ["a", "b"]
    with pytest.raises(DataError, match=r"val\.txt: cannot be read .*sets there: dog_val, train"):
        VocDataset(root, "val")


def test_a_devkit_has_years(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / "VOCdevkit" / year, {"train": "a\nb\n", "val": "c\n"})
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert len(VocDataset(root)) == 6
        assert len(VocDataset(root, "train", strict=True)) == 4
    assert len(VocDataset(tmp_path / "VOCdevkit" / "VOC2012")) == 3


def test_pixels_may_be_counted_from_0(tmp_path):
    root = write(tmp_path)
    (root / "Annotations" / "a.xml").write_text(xml([("dog", (0, 0, 39, 29), 0)]))
    data = VocDataset(root, first_pixel=0, strict=True)
    assert data.target(0)["boxes"].tolist() == [[0, 0, 40, 30]]
    with pytest.raises(ValueError, match="first_pixel must be 0 or 1, got 2"):
        VocDataset(root, first_pixel=2)


def objects(*rows, **size):
    return lambda root: (root / "Annotations" / "a.xml").write_text(xml(rows, **size))


def text(content):
    return lambda root: (root / "Annotations" / "a.xml").write_text(content)


LEFT_OUT = "annotation left out"
PROBLEMS = [
    (
        text("<annotation>\n <object>"),
        "a.xml: not XML: line 2, column 10: no element found",
        "image",
    ),
    (text('<?xml version="1.0" encoding="none"?><a/>'), "a.xml: ", "image left out"),
    (objects(DOG, width=30, height=40), "a.xml: size: the size is given as 30 x 40", "image left"),
    (objects(DOG, width="wide"), "size/width: must be a whole number, got 'wide'", "not compared"),
    (objects(("", (1, 1, 5, 5), 0)), "object[0]: it has no name", LEFT_OUT),
    (objects(("dog", (1, 1, "x", 5), 0)), "object[0], dog: bndbox/xmax must be a number", LEFT_OUT),
    (objects(("dog", (9, 1, 5, 5), 0)), "has no positive width and height", LEFT_OUT),
    (objects(("dog", ("nan", 1, 5, 5), 0)), "is not finite", LEFT_OUT),
    (objects(("dog", (51, 1, 60, 5), 0)), "is outside of the 40 x 30 image", LEFT_OUT),
    (objects(("dog", (31, 1, 60, 5), 0)), "reaches out of the 40 x 30 image", "box clipped"),
    (
        lambda root: (root / "JPEGImages" / "a.jpg").unlink(),
        "a.jpg: there is no such file",
        "left out",
    ),
    (
        lambda root: (root / "JPEGImages" / "a.jpg").write_text("x"),
        "a.jpg: not an image",
        "left out",
    ),
    (
        lambda root: image(root / "JPEGImages" / "a.png"),
        "a.png has the same name",
        "only the first",
    ),
    (
        lambda root: (root / "Annotations" / "a.xml").unlink(),
        "a.xml: there is no such file",
        "kept",
    ),
    (
        lambda root: (root / "JPEGImages" / "a.gif").write_bytes(b""),
        "a.gif: its name does not end in .jpg",
        "left out",
    ),
    (
        lambda root: (root / "Annotations" / "a.json").write_text("{}"),
        "a.json: its name does not end in .xml",
        "left out",
    ),
    (
        lambda root: (root / "ImageSets/Main/all.txt").write_text("a\nb\nc\na\n"),
        "line 4: 'a'",
        "left",
    ),
]


@pytest.mark.parametrize(("damage", "message", "done"), PROBLEMS)
def test_what_is_wrong_is_told_by_name(tmp_path, damage, message, done):
    root = write(tmp_path, {"all": "a\nb\nc\n"})
    (root / "Annotations" / "c.xml").write_text(xml([]))
    damage(root)
    data = VocDataset(root, "all")
    told = [str(problem) for problem in data.problems]
    assert len(told) == 1 and message in told[0] and done in told[0], told
    assert {"b", "c"} <= set(data.image_ids)
    with pytest.raises(DataError, match="1 problem"):
        VocDataset(root, "all", strict=True)


def test_classes_of_another_data_set(tmp_path):
    classes = VocDataset(write(tmp_path / "one")).classes
    root = write(tmp_path / "two")
    (root / "Annotations" / "b.xml").write_text(xml([("cow", (1, 1, 5, 5), 0), DOG]))
    data = VocDataset(root, classes=classes)
    assert data.target(1)["labels"].tolist() == [2]
    assert "object[0], cow: 'cow' is not among the classes (annotation left out)" in data.report()


def test_a_size_of_zero_is_no_claim(tmp_path):
    root = write(tmp_path)
    (root / "Annotations" / "a.xml").write_text(xml([DOG], width=0, height=0))
    assert VocDataset(root, strict=True).size(0) == (40, 30)


# --- folders ------------------------------------------------------------------------------------


def coco(path, names, classes=("thing",), **changes):
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]}
            for i in range(len(names))
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def ids(split):
    return split.train.image_ids, split.held_out.image_ids


def test_cocos_own_layout(tmp_path):
    for part, count in (("train2017", 3), ("val2017", 2)):
        names = [f"{i}.png" for i in range(count)]
        for name in names:
            image(tmp_path / part / name)
        coco(tmp_path / "annotations" / f"instances_{part}.json", names)
        coco(tmp_path / "annotations" / f"person_keypoints_{part}.json", names)
        (tmp_path / "annotations" / f"captions_{part}.json").write_text('{"annotations": []}')
    split = open_folder(tmp_path)
    assert ids(split) == ([0, 1, 2], [0, 1])
    assert split.train.path(0) == str(tmp_path / "train2017" / "0.png")
    assert "annotations/instances_train2017.json" in split.how
    assert split.report().startswith("images to train on: 3, held out: 2 (")
    for part in ("train2017", "val2017"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / part).rename(tmp_path / "images" / part)
    assert ids(open_folder(tmp_path)) == ([0, 1, 2], [0, 1])
    one = open_folder(tmp_path / "annotations" / "instances_val2017.json")
    assert sorted(i for part in ids(one) for i in part) == [0, 1]


def test_annotations_beside_the_images(tmp_path):
    for part in ("train", "valid", "test"):
        image(tmp_path / part / "a.png")
        coco(tmp_path / part / "_annotations.coco.json", ["a.png"])
    split = open_folder(tmp_path)
    assert split.held_out.path(0) == str(tmp_path / "valid" / "a.png")


def test_one_file_is_divided_by_the_seed(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    for name in names:
        image(tmp_path / "images" / name)
    coco(tmp_path / "all.json", names)
    train, held_out = ids(open_folder(tmp_path))
    assert len(train) == 16 and len(held_out) == 4
    assert sorted(train + held_out) == list(range(20))
    assert ids(open_folder(tmp_path)) == (train, held_out)
    assert ids(open_folder(tmp_path / "all.json")) == (train, held_out)
    assert ids(open_folder(tmp_path, seed=1)) != (train, held_out)
    assert len(open_folder(tmp_path, held_out=0.5).held_out) == 10
    assert len(open_folder(tmp_path, held_out=0.001).held_out) == 1


def test_few_images(tmp_path):
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    coco(tmp_path / "x.json", ["a.png", "b.png"])
    assert sorted(i for part in ids(open_folder(tmp_path)) for i in part) == [0, 1]
    coco(tmp_path / "x.json", ["a.png"])
    split = open_folder(tmp_path)
    assert ids(split) == ([0], [0])
    assert "the only image is both" in split.report()


def test_problems_of_a_divided_set_are_told_once(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    coco(tmp_path / "x.json", ["a.png", "b.png", "c.png"])
    split = open_folder(tmp_path)
    assert split.report().count("c.png: there is no such file") == 1
    with pytest.raises(DataError, match=r"c\.png"):
        open_folder(tmp_path, strict=True)


def test_voc_folders(tmp_path):
    write(tmp_path / "sets", {"train": "a\n", "val": "b\nc\n", "test": "c"})
    assert ids(open_folder(tmp_path / "sets")) == (["a"], ["b", "c"])
    write(tmp_path / "tested", {"trainval": "a\nb\n", "test": "c"})
    assert ids(open_folder(tmp_path / "tested", strict=False)) == (["a", "b"], ["c"])
    write(tmp_path / "none")
    train, held_out = ids(open_folder(tmp_path / "none"))
    assert sorted(train + held_out) == ["a", "b", "c"] and len(held_out) == 1


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such folder or file"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"expected COCO annotations .* found an empty folder"):
        open_folder(tmp_path)
    image(tmp_path / "photos" / "a.png")
    (tmp_path / "settings.json").write_text('{"a": 1}')
    with pytest.raises(
        DataError, match=r"expected COCO annotations .* found photos, settings\.json"
    ):
        open_folder(tmp_path)
    (tmp_path / "broken.json").write_text('{"images": [}')
    with pytest.raises(DataError, match=r"broken\.json: not JSON: line 1, column 13"):
        open_folder(tmp_path)
    with pytest.raises(ValueError, match=r"held_out must be in \(0, 1\), got 1"):
        open_folder(tmp_path, held_out=1)


def test_several_files_must_say_what_they_are(tmp_path):
    image(tmp_path / "a.png")
    for names in (["one", "two"], ["train", "two"], ["train", "val", "train_more"]):
        for file in tmp_path.glob("*.json"):
            file.unlink()
        for name in names:
            coco(tmp_path / f"{name}.json", ["a.png"])
        with pytest.raises(DataError, match="of several annotation files one must have 'train'"):
            open_folder(tmp_path)


def test_images_that_are_nowhere(tmp_path):
    coco(tmp_path / "instances_train.json", ["a.png"])
    with pytest.raises(DataError, match=r"none of its images, such as 'a\.png', is in "):
        open_folder(tmp_path)
