"""The demo on a user's data: COCO and VOC folders that the tests write, tiny and wrong ones too."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tilewright.data import CLASS_NAMES, DataError, DigitScenes
from tilewright.models import FasterRCNNCpp

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("one_thread")
sys.path.insert(0, str(EXAMPLES))
for name in ("tqdm", "matplotlib", "pycocotools", "sklearn", "PIL"):
    pytest.importorskip(name, reason="the demo's requirements: pip install 'tilewright[demo]'")
from PIL import Image, ImageChops  # noqa: E402

evaluation, own_data, training = (
    importlib.import_module(f"detector_demo.{name}")
    for name in ("evaluation", "own_data", "training")
)


def pixels(image):
    return Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy())


def write_coco(root, count, part="train", one_class=False, image_format="png"):
    """Scenes of digits of various sizes as a COCO folder; category ids are digit * 10 + 5."""
    folder = root / part
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        size = (128 + 16 * (i % 3), 128 + 24 * (i % 2))
        image, target = DigitScenes(part, size, count, seed=1)[i]
        pixels(image).save(folder / f"{i}.{image_format}")
        images.append(
            {"id": 100 + i, "file_name": f"{i}.{image_format}", "height": size[0], "width": size[1]}
        )
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            x1, y1, x2, y2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + i,
                    "category_id": 5 if one_class else (label - 1) * 10 + 5,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    names = ["digit"] if one_class else CLASS_NAMES[1:]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 10 * i + 5, "name": name} for i, name in enumerate(names)],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return content


def demo(data, output, *arguments):
    """A smoke run of the demo on `data`, finished."""
    command = [sys.executable, EXAMPLES / "train_detector.py", "--smoke", "--steps", "4"]
    return subprocess.run(
        [*command, "--data", data, "--output", output, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_coco_folder_goes_through_every_stage(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    content = write_coco(data, 5)
    write_coco(data, 6, "test")
    content["annotations"][0]["category_id"] = 999
    (data / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (data / "train" / "4.png").write_bytes(b"no image")
    done = demo(data, output)
    assert done.returncode == 0, done.stderr
    assert "images to train on: 4, held out: 6" in done.stdout
    assert "annotations[0], id 1: category_id 999 is not among the categories" in done.stdout
    assert "train/4.png: not an image that Pillow can read" in done.stdout
    assert "6 held-out images:\nclass  objects  mAP@.5" in done.stdout
    assert "the C++ program found the same" in done.stdout
    report = json.loads((output / "report.json").read_text())
    assert report["result"]["images"] == 6
    assert report["class_names"] == list(CLASS_NAMES)
    assert report["recipe"]["model"]["min_size"] == 96
    for picture in ("detections.png", "losses.png"):
        assert (output / picture).read_bytes().startswith(b"\x89PNG")
    assert (output / "detector.pt").exists()

    (data / "test" / "0.png").unlink()
    other = demo(data, output, "--resume")
    assert other.returncode == 1
    assert "was trained with other settings (held_out was 6, and is 5 now; data was" in other.stderr
    assert ", 4 and 6 images; " in other.stderr and ", 4 and 5 images; " in other.stderr


def test_a_single_image_of_a_single_class(tmp_path, capsys):
    write_coco(tmp_path, 1, one_class=True, image_format="jpg")
    recipe = own_data.own_data_recipe(tmp_path, smoke=True, steps=2)
    told = capsys.readouterr().out
    assert "the only image is both; what is measured says nothing of new ones" in told
    assert "objects of 1 class;" in told
    model = FasterRCNNCpp(**recipe.model)
    training.Trainer(model, recipe, tmp_path / "checkpoint.pt").run()
    result = evaluation.evaluate(
        *evaluation.detect(model, recipe.held_out_scenes()), recipe.class_names
    )
    assert result.images == 1 and result.objects >= 1 and set(result.classes) == {"digit"}


def test_a_voc_folder(tmp_path):
    for i in range(3):
        image, target = DigitScenes("train", 128, 3)[i]
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder).mkdir(exist_ok=True)
        pixels(image).save(tmp_path / "JPEGImages" / f"{i}.png")
        objects = "".join(
            f"<object><name>digit</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2 in target["boxes"].int().tolist()
        )
        (tmp_path / "Annotations" / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    recipe = own_data.own_data_recipe(tmp_path, smoke=True)
    assert recipe.class_names == ("background", "digit")
    assert len(recipe.training_scenes()) == recipe.steps * recipe.batch
    assert len(recipe.held_out_scenes()) == 1


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "nowhere: there is no such folder or file"),
        (lambda root: root.mkdir(), "expected COCO annotations"),
        (lambda root: write_coco(root, 1) and (root / "train" / "0.png").unlink(), "none of its"),
    ],
)
def test_a_wrong_path_is_told_in_a_line(tmp_path, prepare, message):
    prepare(tmp_path / "nowhere")
    done = demo(tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_data_without_objects_is_refused(tmp_path):
    content = write_coco(tmp_path, 2)
    content["annotations"] = []
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="the training images have no objects to learn"):
        own_data.own_data_recipe(tmp_path)


def test_rounds_show_every_image_once(tmp_path):
    write_coco(tmp_path, 5)
    recipe = own_data.own_data_recipe(tmp_path, smoke=True)
    images = recipe.split.train

    def shown(rounds, first):
        return [image.sum().item() for image, _ in (rounds[first + i] for i in range(len(images)))]

    rounds = own_data.ShuffledRounds(images, 20, 0, mirror=False)
    all_sums = sorted(image.sum().item() for image, _ in images)
    assert sorted(shown(rounds, 0)) == sorted(shown(rounds, len(images))) == all_sums
    orders = {tuple(shown(rounds, len(images) * turn)) for turn in range(4)}
    assert len(orders) > 1
    assert shown(rounds, 0) == shown(own_data.ShuffledRounds(images, 8, 0, False), 0)


def test_a_mirrored_image_has_mirrored_boxes(tmp_path):
    write_coco(tmp_path, 3)
    images = own_data.own_data_recipe(tmp_path, smoke=True).split.train
    plain, mirrored = (own_data.ShuffledRounds(images, 40, 0, mirror) for mirror in (False, True))
    changed = 0
    for i in range(40):
        (image, target), (other, other_target) = plain[i], mirrored[i]
        assert torch.equal(target["labels"], other_target["labels"])
        if torch.equal(image, other):
            assert torch.equal(target["boxes"], other_target["boxes"])
            continue
        changed += 1
        assert torch.equal(image.flip(2), other)
        for (x1, y1, x2, y2), (a, b, c, d) in zip(
            target["boxes"].int().tolist(), other_target["boxes"].int().tolist(), strict=True
        ):
            assert torch.equal(image[:, y1:y2, x1:x2].flip(2), other[:, b:d, a:c])
    assert 5 < changed < 35


def test_the_recipe_fits_the_images(tmp_path):
    write_coco(tmp_path, 12)
    recipe = own_data.own_data_recipe(tmp_path)
    assert 128 <= recipe.model["min_size"] <= 160
    sizes = np.array(recipe.model["anchor_sizes"])
    assert sizes.shape == (5, 2) and (np.diff(sizes.flatten()) > 0).all() and 8 <= sizes[0, 0] < 32
    few = len(recipe.split.train)
    assert recipe.steps * recipe.batch >= 100 * few and recipe.steps < own_data.FULL.steps
    assert own_data.own_data_recipe(tmp_path, min_size=64, steps=7).model["min_size"] == 64


def test_data_are_known_by_what_they_are(tmp_path):
    """So that --resume takes them wherever they lie, and no others of the same name."""

    def told(path):
        return own_data.own_data_recipe(path).data

    write_coco(tmp_path / "data", 4)
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    shutil.copytree(tmp_path / "data", tmp_path / "others" / "data")
    first = told(tmp_path / "data")
    assert told(tmp_path / "data" / "annotations" / "..") == told(tmp_path / "moved") == first
    image = next((tmp_path / "others" / "data").rglob("*.png"))
    picture = Image.open(image)
    ImageChops.invert(picture.convert("RGB")).save(image)
    assert told(tmp_path / "others" / "data") != first
    (annotations,) = (tmp_path / "moved" / "annotations").glob("*.json")
    changed = json.loads(annotations.read_text())
    changed["annotations"][0]["bbox"][2] -= 1
    annotations.write_text(json.dumps(changed))
    assert told(tmp_path / "moved") != first


def test_an_output_that_is_a_file_is_told(tmp_path, monkeypatch, capsys):
    job = importlib.import_module("detector_demo.job")
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(sys, "argv", ["train_detector.py", "--smoke", "--output", str(file)])
    assert job.main() == 1
    told = f"train_detector: the output must be a folder, got {file}, and {file} is a file\n"
    assert capsys.readouterr().err == told


def test_ignored_objects_do_not_count():
    """A detection on a crowd or a difficult object is no false alarm, and none is missed."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]])
    target = {
        "boxes": boxes,
        "labels": torch.ones(3, dtype=torch.int64),
        "iscrowd": torch.tensor([False, True, False]),
        "difficult": torch.tensor([False, False, True]),
    }
    names = ("background", "thing", "never")
    found = {**target, "scores": torch.tensor([0.5, 0.9, 0.8])}
    for chosen in ([0], [0, 1, 2]):
        detection = {key: value[chosen] for key, value in found.items()}
        result = evaluation.evaluate([detection], [target], names)
        assert result.objects == 1 and result.map50 == pytest.approx(1.0)
    assert result.classes == {
        "thing": (1, pytest.approx(1.0), pytest.approx(1.0)),
        "never": (0, None, None),
    }
    assert "(1 classes do not occur in the held-out images)" in result.table()
    plain = {key: target[key] for key in ("boxes", "labels")}
    wrong = evaluation.evaluate([{**found, "boxes": boxes + 100}], [plain], names)
    assert wrong.objects == 3 and wrong.map50 == 0
