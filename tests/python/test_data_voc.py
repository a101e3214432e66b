"""The VOC reader on files that the tests write: whole ones, and every damage by name."""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from tilewright.data import Classes, DataError, VocDataset  # noqa: E402

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


def rename(folder, old, new):
    return lambda root: (root / folder / old).rename(root / folder / new)


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
        "Annotations/a.xml: JPEGImages has no image of this name (.jpg, .jpeg",
        "image left out with 2 annotations",
    ),
    (
        rename("JPEGImages", "a.jpg", "a.gif"),
        "JPEGImages/a.gif: its name does not end in .jpg",
        "image left out with 2 annotations",
    ),
    (
        rename("JPEGImages", "a.jpg", "a"),
        "JPEGImages/a: its name does not end in .jpg",
        "image left out with 2 annotations",
    ),
    (
        lambda root: (root / "ImageSets/Main/all.txt").write_text("a\nb\nc\nz\n"),
        "Main/all.txt: line 4: 'z' has neither an image nor an XML file",
        "left out",
    ),
    (
        lambda root: (root / "JPEGImages" / "more.jpeg2000").mkdir(),
        "JPEGImages/more.jpeg2000: it is a folder",
        "left out",
    ),
    (
        lambda root: (root / "Annotations" / "a.XML").write_text(xml([])),
        "a.xml has the same name",
        "only the first",
    ),
    (text("<html/>"), "a.xml: expected <annotation>, got <html>", "image left out"),
    (text(f"<root>{xml([DOG])}</root>"), "expected <annotation>, got <root>", "image left out"),
    (
        text(
            xml([DOG]).replace("<object>", "<all><Object>").replace("</object>", "</Object></all>")
        ),
        "a.xml: it has an <object> that is not directly in <annotation>",
        "image left out",
    ),
    (
        objects(("dog", (1, 1, 5, 5), "2")),
        "object[0], dog: difficult must be 0 or 1, got '2'",
        "kept, as not difficult",
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


def test_endings_and_tags_count_in_any_case(tmp_path):
    root = write(tmp_path)
    (root / "Annotations" / "b.xml").unlink()
    content = xml([DOG, CAT])
    for tag in ("annotation", "object", "name", "difficult", "bndbox", "xmin"):
        content = content.replace(f"<{tag}>", f"<{tag.title()}>")
        content = content.replace(f"</{tag}>", f"</{tag.title()}>")
    (root / "Annotations" / "b.XML").write_text(content)
    data = VocDataset(root, strict=True)
    assert data.image_ids == ["a", "b", "c"]
    for key, value in data.target(0).items():
        assert key == "image_id" or value.tolist() == data.target(1)[key].tolist()


def test_difficult_is_read_in_words_too(tmp_path):
    root = write(tmp_path)
    for words, expected in ((("1", "true", "Yes", " 1 "), True), (("0", "False", "no", ""), False)):
        rows = [("dog", (1, 1, 9, 9), word) for word in words]
        (root / "Annotations" / "a.xml").write_text(xml(rows))
        assert VocDataset(root, strict=True).target(0)["difficult"].tolist() == [expected] * 4


def test_a_list_may_begin_with_the_mark_of_utf8(tmp_path):
    root = write(tmp_path, {"train": "\ufeffa\nb\n"})
    assert VocDataset(root, "train", strict=True).image_ids == ["a", "b"]


def test_nothing_is_said_twice_of_a_name_without_files(tmp_path):
    """Without a set, and where the image is there but not read, and has no XML file."""
    root = write(tmp_path, {"all": "a\nc\n"})
    (root / "JPEGImages" / "c.jpg").rename(root / "JPEGImages" / "c.gif")
    for image_set in ("all", None):
        told = [str(problem) for problem in VocDataset(root, image_set).problems]
        assert len(told) == 1 and "c.gif: its name does not end in .jpg" in told[0]


def test_classes_are_matched_by_name(tmp_path):
    data = VocDataset(
        write(tmp_path), classes=Classes(("background", "dog", "cat"), (90, 7)), strict=True
    )
    assert data.target(0)["labels"].tolist() == [1, 2]
    assert data.classes.category(1) == "dog" and data.classes.label("cat") == 2
