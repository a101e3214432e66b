"""Runs the demo as a user does, and holds its parts to their promises: resuming, comparing."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tilewright.data import CLASS_NAMES
from tilewright.models import FasterRCNNCpp

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("one_thread")
sys.path.insert(0, str(EXAMPLES))
for name in ("tqdm", "matplotlib", "pycocotools", "sklearn"):
    pytest.importorskip(name, reason="the demo's requirements: pip install 'tilewright[demo]'")

evaluation, export, recipe, training = (
    importlib.import_module(f"detector_demo.{name}")
    for name in ("evaluation", "export", "recipe", "training")
)
TINY = dataclasses.replace(recipe.SMOKE, steps=6, warmup=2, checkpoint_every=2)


def trainer(folder, settings=TINY):
    torch.manual_seed(settings.seed)
    model = FasterRCNNCpp(**settings.model)
    return training.Trainer(model, settings, folder / "checkpoint.pt")


def demo(output, *arguments):
    """The command line of a smoke run and its environment: tests share the cores with others."""
    command = [sys.executable, str(EXAMPLES / "train_detector.py"), "--smoke", "--output"]
    return {
        "args": [*command, str(output), *arguments],
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
        "text": True,
    }


def test_the_demo_survives_ctrl_c_and_resumes_to_its_end(tmp_path):
    """Interrupts the smoke run, checks what it left, and lets it go on through every stage."""
    checkpoint = tmp_path / "checkpoint.pt"
    running = subprocess.Popen(**demo(tmp_path), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "--resume goes on" in errors

    state = torch.load(checkpoint, weights_only=True)
    assert 0 < state["step"] < recipe.SMOKE.steps
    assert len(state["losses"]) == state["step"]
    FasterRCNNCpp(**recipe.SMOKE.model).load_state_dict(state["model"])

    done = subprocess.run(**demo(tmp_path, "--resume"), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resumed after step {state['step']} of {recipe.SMOKE.steps}" in done.stdout
    assert "the C++ program found the same" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images_seen"] == recipe.SMOKE.steps * recipe.SMOKE.batch
    assert report["result"]["images"] == recipe.SMOKE.held_out
    for picture in ("detections.png", "losses.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.partial"))
    check_the_program(tmp_path)


class Doubled(torch.nn.Module):
    """A TorchScript file of something else."""

    def forward(self, x):
        return 2 * x


def check_the_program(output):
    """The C++ program reports what it cannot read, and reads a PPM that others wrote."""

    def run(*files):
        command = [output / "cpp_detector" / "cpp_detector", *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    model, scene = output / "detector.pt", output / "scenes" / "0.ppm"
    pixels = scene.read_bytes()
    commented = output / "commented.ppm"
    commented.write_bytes(pixels.replace(b"P6\n", b"P6 # by hand\n# twice\n", 1))
    whole, again = run(model, scene), run(model, commented)
    assert whole.returncode == again.returncode == 0, again.stderr
    assert whole.stdout.splitlines()[1:] == again.stdout.splitlines()[1:]

    for name, other in (("doubled", Doubled()), ("empty", torch.nn.Module())):
        torch.jit.script(other).save(str(output / f"{name}.pt"))
    short, png = output / "short.ppm", output / "detections.png"
    short.write_bytes(pixels[:-1])
    for files, message in [
        ((output / "none.pt", scene), "none.pt: cannot be opened"),
        ((scene, scene), "0.ppm: not a TorchScript file"),
        (
            (output / "doubled.pt", scene),
            "doubled.pt: expected a detector that tilewright exported",
        ),
        ((output / "doubled.pt", scene), "it has forward(Tensor x) -> Tensor"),
        ((output / "empty.pt", scene), "empty.pt: expected a detector"),
        ((model, output / "none.ppm"), "none.ppm: cannot be opened"),
        ((model, png), "detections.png: not a binary PPM image (P6)"),
        ((model, short), "short.ppm: the file is cut short"),
    ]:
        failed = run(*files)
        assert failed.returncode == 1
        assert message in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
    assert run(model).returncode == 2


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = trainer(tmp_path)
    whole.run()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = trainer(tmp_path / "first")
    first.run(until=3)
    torch.manual_seed(99)  # what happened since must not matter
    second = trainer(tmp_path / "first")
    second.resume()
    assert second.step == 3
    second.run()
    assert second.losses == whole.losses
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_the_schedule_warms_up_and_ends_at_zero(tmp_path):
    settings = dataclasses.replace(TINY, steps=100, warmup=10)
    rates = [trainer(tmp_path, settings).learning_rate(step) for step in (0, 9, 50, 99, 100)]
    assert rates[0] < rates[1] > rates[2] > rates[3] > rates[4]
    assert rates[1] == pytest.approx(settings.learning_rate, rel=0.05)
    assert rates[4] == pytest.approx(0, abs=1e-12)


def test_an_interrupted_write_leaves_the_file_before(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.write_whole(path, fail)
    assert path.read_text() == "before"


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(training.CheckpointError, match="there is no checkpoint"):
        trainer(tmp_path).resume()
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(training.CheckpointError, match="cannot be read"):
        trainer(tmp_path).resume()
    torch.save({"format": 0}, tmp_path / "checkpoint.pt")
    with pytest.raises(training.CheckpointError, match="was written by another version"):
        trainer(tmp_path).resume()
    torch.save({"model": 0}, tmp_path / "checkpoint.pt")
    with pytest.raises(training.CheckpointError, match="is no checkpoint of this program"):
        trainer(tmp_path).resume()
    trainer(tmp_path).save()
    other = dataclasses.replace(TINY, batch=3)
    told = r"other settings \(batch was 2, and is 3 now\): give those again"
    with pytest.raises(training.CheckpointError, match=told):
        trainer(tmp_path, other).resume()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["recipe"]["data"] = "x"
    torch.save(state, tmp_path / "checkpoint.pt")
    other = dataclasses.replace(TINY, model={**TINY.model, "min_size": 64})
    told = r"\(model\.min_size was 128, and is 64 now; data was 'x', and is not set now\)"
    with pytest.raises(training.CheckpointError, match=told):
        trainer(tmp_path, other).resume()


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    broken = trainer(tmp_path)
    with torch.no_grad():
        broken.parameters[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        broken.run()


def targets(scenes):
    return [target for _, target in scenes]


def evaluate(detections, scenes):
    return evaluation.evaluate(detections, targets(scenes), CLASS_NAMES)


def truth(scenes):
    """Detections that are right: the ground truth with a score of 1."""
    return [{**target, "scores": torch.ones(len(target["labels"]))} for target in targets(scenes)]


def test_the_evaluation_tells_right_from_wrong():
    scenes = dataclasses.replace(TINY, held_out=40).held_out_scenes()
    right = truth(scenes)
    perfect = evaluate(right, scenes)
    assert perfect.map50 == perfect.map5095 == perfect.recall == pytest.approx(1.0)
    assert perfect.images == 40
    assert perfect.objects == sum(len(found["labels"]) for found in right)

    shifted = truth(scenes)
    for found in shifted:
        sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
        found["boxes"] += 0.15 * sides.repeat(1, 2)
    moved = evaluate(shifted, scenes)
    assert moved.map50 > 0.95 and 0.05 < moved.map5095 < 0.5
    confused = [{**found, "labels": found["labels"] % 10 + 1} for found in right]
    assert evaluate(confused, scenes).map50 < 0.1
    nothing = [{key: value[:0] for key, value in found.items()} for found in right]
    assert evaluate(nothing, scenes).map50 == 0


def detections():
    return [
        {
            "boxes": torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 70.0, 80.0]]),
            "labels": torch.tensor([3, 4]),
            "scores": torch.tensor([0.9, 0.8]),
        }
    ]


def test_the_comparison_accepts_what_is_the_same():
    assert export.compare(detections(), detections()) == 2
    reordered = [{key: value.flip(0) for key, value in detections()[0].items()}]
    assert export.compare(detections(), reordered) == 2
    close = detections()
    close[0]["boxes"] += 5e-4
    assert export.compare(detections(), close) == 2
    nothing = [{key: value[:0] for key, value in detections()[0].items()}]
    assert export.compare(nothing, nothing) == 0


@pytest.mark.parametrize(("key", "change"), [("boxes", 2e-3), ("scores", 2e-5), ("labels", 1)])
def test_the_comparison_finds_each_difference(key, change):
    other = detections()
    other[0][key][1] += change
    with pytest.raises(export.ExportError, match="image 0: 1 detections have no partner"):
        export.compare(detections(), other)


def test_the_comparison_counts():
    short = [{key: value[:1] for key, value in detections()[0].items()}]
    with pytest.raises(export.ExportError, match="2 detections expected, got 1"):
        export.compare(detections(), short)
    with pytest.raises(export.ExportError, match="1 images expected, got 0"):
        export.compare(detections(), [])


def test_a_ppm_holds_the_quantised_image(tmp_path):
    image = torch.rand(3, 5, 7)
    read_back = export.write_ppm(tmp_path / "a.ppm", image)
    content = (tmp_path / "a.ppm").read_bytes()
    assert content.startswith(b"P6\n7 5\n255\n") and len(content) == 11 + 3 * 5 * 7
    assert (read_back - image).abs().max() <= 0.5 / 255 + 1e-6
    assert content[11] == round(image[0, 0, 0].item() * 255)


def test_a_tool_that_fails_shows_what_it_said():
    command = [sys.executable, "-c", "import sys; sys.exit('the reason')"]
    with pytest.raises(export.ExportError, match="the reason"):
        export._run(command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "argument --steps: must be at least 1, got 0"),
        (["--steps", "many"], "argument --steps: must be a whole number, got 'many'"),
        (["--seed", "-1"], "argument --seed: must be at least 0, got -1"),
        (["--seed", "9" * 23], "argument --seed: must be at most 9223372036854775807, got 999"),
        (["--min-size", "64"], "--min-size needs --data"),
        (["--mirror"], "--mirror needs --data"),
    ],
)
def test_bad_arguments_of_the_demo_are_refused(arguments, message, monkeypatch, capsys):
    job = importlib.import_module("detector_demo.job")
    monkeypatch.setattr(sys, "argv", ["train_detector.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        job.main()
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_the_largest_seed_trains(tmp_path):
    trainer(tmp_path, dataclasses.replace(TINY, seed=2**63 - 1)).run(until=1)
