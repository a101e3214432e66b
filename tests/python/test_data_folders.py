"""The choice of a reader by what lies in a folder: which files train, which are held out, and which
are set aside."""

import json

import pytest

pytest.importorskip("PIL.Image", reason="pip install pillow")

from test_data_voc import image, write

from tilewright.data import DataError, open_folder


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
    (line,) = split.unused
    assert line.startswith(
        "annotations/captions_train2017.json, annotations/captions_val2017.json,"
    )
    assert line.endswith(": files named instances_*.json come first")
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
    line = "not used: test/_annotations.coco.json: one file trains, and one is held out"
    assert line in split.report().splitlines()


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
    assert open_folder(tmp_path / "sets").unused == ("the sets test of ImageSets/Main",)
    assert open_folder(tmp_path / "tested").unused == open_folder(tmp_path / "none").unused == ()
    train, held_out = ids(open_folder(tmp_path / "none"))
    assert sorted(train + held_out) == ["a", "b", "c"] and len(held_out) == 1


def test_lists_that_not_every_year_has_are_named(tmp_path):
    write(tmp_path / "VOC2007", {"train": "a", "dog_train": "a 1"})
    write(tmp_path / "VOC2012", {"train": "a", "val": "b\nc"})
    write(tmp_path / "VOC2013")
    split = open_folder(tmp_path)
    assert len(split.train) + len(split.held_out) == 9 and "at random" in split.how
    assert (
        "not used: the sets of ImageSets/Main: train and val, or trainval and test must be in "
        "every folder; VOC2007 has train; VOC2012 has train, val; VOC2013 has none"
    ) in split.report().splitlines()
    one = open_folder(tmp_path / "VOC2007").unused
    assert len(one) == 1 and one[0].endswith("must be in the folder; VOC2007 has train")
    write(tmp_path / "own", {"dog_train": "a", "dog_val": "b"})
    assert open_folder(tmp_path / "own").unused[0].endswith("own has dog_train, dog_val")


def test_voc_folders_beside_a_coco_file_are_named(tmp_path):
    root = write(tmp_path)
    coco(root / "all.json", ["JPEGImages/a.jpg", "JPEGImages/b.jpg"])
    split = open_folder(root)
    assert sorted(i for part in ids(split) for i in part) == [0, 1]
    line = "not used: Annotations and JPEGImages, Pascal VOC's folders: COCO's files come first"
    assert line in split.report().splitlines()


def test_the_halves_are_matched_by_the_names_of_classes(tmp_path):
    for part, names in (("train", ["cat", "dog"]), ("valid", ["dog", "cat"])):
        image(tmp_path / part / "a.png")
        coco(tmp_path / part / "_annotations.coco.json", ["a.png"], classes=names)
    split = open_folder(tmp_path, strict=True)
    assert split.train.class_names == split.held_out.class_names == ("background", "cat", "dog")
    assert split.train.target(0)["labels"].tolist() == [1]  # category 1 of both files
    assert split.held_out.target(0)["labels"].tolist() == [2]


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
