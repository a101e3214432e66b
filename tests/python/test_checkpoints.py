"""Files of weights: what is read, and what an error names."""

import pytest
import torch
from detectors import SMALL, assert_equal_outputs, cpp_model, images_and_targets, python_model, run
from torch.testing import assert_close

from tilewright.models import FasterRCNN, FasterRCNNCpp, read_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.smoke
def test_save_and_load(device, tmp_path):
    model = python_model(device)
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    expected = run(twin, False, images, targets)
    twin.save(str(tmp_path / "model.pt"))
    other = FasterRCNNCpp(4, **SMALL).to(device)
    other.load(str(tmp_path / "model.pt"))
    assert_equal_outputs(run(other, False, images, targets), expected)
    torch.jit.script(model).save(tmp_path / "scripted.pt")
    another = FasterRCNNCpp(4, **SMALL).to(device)
    another.load(str(tmp_path / "scripted.pt"))
    assert_equal_outputs(run(another, False, images, targets), expected)


def test_loads_weights_of_frozen_batch_norm():
    """They lack the counter of batches."""
    source = FasterRCNNCpp(4, **SMALL).state_dict()
    state = {name: value for name, value in source.items() if "num_batches" not in name}
    assert len(state) < len(source)
    model = FasterRCNNCpp(4, **SMALL)
    model.load_state_dict(state)
    assert_close(
        model.state_dict()["backbone.body.conv1.weight"], state["backbone.body.conv1.weight"]
    )


def test_errors_of_loading(tmp_path):
    model = FasterRCNNCpp(4, **SMALL)
    path = str(tmp_path / "model.pt")
    with pytest.raises(RuntimeError, match=r"tilewright::load_module: no file .*model\.pt"):
        model.load(path)
    (tmp_path / "text.pt").write_text("not an archive")
    with pytest.raises(RuntimeError, match=r"text\.pt is not a torch archive"):
        model.load(str(tmp_path / "text.pt"))
    with pytest.raises(RuntimeError, match=r"save_module: cannot write .*nowhere/model\.pt"):
        model.save(str(tmp_path / "nowhere" / "model.pt"))
    FasterRCNNCpp(7, **SMALL).save(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError) as error:
        model.load(path)
    message = str(error.value)
    assert (
        f"{path}: roi_heads.box_predictor.cls_score.weight must have shape (4, 64), got (7, 64)"
        in message
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # nothing was written
    state = dict(model.state_dict())
    state["extra.weight"] = state.pop("rpn.head.cls_logits.bias")
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(state)
    assert "key rpn.head.cls_logits.bias is missing" in str(error.value)
    assert "key extra.weight is not in the model" in str(error.value)


FACES = {"python": FasterRCNN, "cpp": FasterRCNNCpp}


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_unchanged(model, before):
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def reason_of_failed_load(face, path, **options):
    """The message, once it is sure that nothing was written."""
    model = FACES[face](4, **{**SMALL, **options})
    before = snapshot(model)
    with pytest.raises(RuntimeError) as error:
        model.load(path)
    assert str(path) in str(error.value)
    assert_unchanged(model, before)
    return str(error.value)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("wrap", [dict, lambda state: state], ids=["dict", "ordered"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_state_dicts_of_torch_save(face, wrap, zipped, tmp_path):
    source = FasterRCNN(4, **SMALL).state_dict()
    path = tmp_path / "weights.pth"
    torch.save(wrap(source), path, _use_new_zipfile_serialization=zipped)
    model = FACES[face](4, **SMALL)
    assert model.load(path) is model
    assert_unchanged(model, source)


@pytest.mark.parametrize("face", FACES)
def test_both_faces_read_what_the_other_saves(face, tmp_path):
    source = FACES[face](4, **SMALL)
    if face == "python":
        torch.save(source.state_dict(), tmp_path / "weights.pt")
    else:
        source.save(str(tmp_path / "weights.pt"))
    for other in FACES.values():
        assert_unchanged(other(4, **SMALL).load(tmp_path / "weights.pt"), source.state_dict())
    assert list(read_checkpoint(tmp_path / "weights.pt")) == list(source.state_dict())


@pytest.mark.parametrize("face", FACES)
def test_keys_that_do_not_fit_are_named(face, tmp_path):
    state = FasterRCNN(4, **SMALL).state_dict()
    state["head.weight"] = state.pop("rpn.head.cls_logits.bias")
    state["backbone.fpn.inner_blocks.0.0.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "foreign.pth")
    message = reason_of_failed_load(face, tmp_path / "foreign.pth")
    assert "key rpn.head.cls_logits.bias is missing" in message
    assert "key head.weight is not in the model" in message
    assert "backbone.fpn.inner_blocks.0.0.bias must have shape (32,), got (7,)" in message


@pytest.mark.parametrize("face", FACES)
def test_another_models_weights(face, tmp_path):
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "linear.pth")
    message = reason_of_failed_load(face, tmp_path / "linear.pth")
    assert "key backbone.body.conv1.weight is missing" in message
    assert "more like this; key weight is not in the model" in message
    deeper = FasterRCNN(4, **SMALL, resnet_depth=34)
    torch.save(deeper.state_dict(), tmp_path / "deeper.pth")
    message = reason_of_failed_load(face, tmp_path / "deeper.pth")
    assert "key backbone.body.layer1.2.conv1.weight is not in the model" in message


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.99])
def test_truncated_files(face, zipped, share, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(FasterRCNN(4, **SMALL).state_dict(), whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    (tmp_path / "part.pth").write_bytes(content[: int(len(content) * share)])
    reason_of_failed_load(face, tmp_path / "part.pth")


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"weight": torch.zeros(1)}}, "entry model must be a tensor, got a dict"),
        ({"epoch": 3}, "entry epoch must be a tensor, got a int"),
        ([torch.zeros(1)], "must hold a dict of tensors, got a list"),
        (torch.nn.Linear(1, 1), "holds other objects than tensors"),
    ],
)
def test_files_of_something_else(face, content, message, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    assert message in reason_of_failed_load(face, tmp_path / "other.pth")


def test_state_dict_of_something_else():
    model = FasterRCNNCpp(4, **SMALL)
    with pytest.raises(TypeError, match="entry model must be a tensor, got <class 'dict'>"):
        model.load_state_dict({"model": {}})
    state = dict(model.state_dict())
    state["rpn.head.cls_logits.bias"] = torch.zeros(3, device="meta")
    with pytest.raises(RuntimeError, match="must hold numbers, got a meta tensor"):
        model.load_state_dict(state)


def test_the_twin_writes_nothing_when_a_key_does_not_fit():
    model = FasterRCNN(4, **SMALL)
    before = snapshot(model)
    state = {name: torch.ones_like(value) for name, value in before.items()}
    state["rpn.head.cls_logits.bias"] = torch.ones(5)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"bias must have shape \(3,\), got \(5,\)"):
            model.load_state_dict(state, strict=strict)
        assert_unchanged(model, before)
    part = {"rpn.head.cls_logits.bias": torch.ones(3)}
    model.load_state_dict(part, strict=False)
    assert torch.equal(model.rpn.head.cls_logits.bias, torch.ones(3))


@pytest.mark.parametrize("face", FACES)
def test_counters_of_batches_do_not_matter(face):
    live, frozen = (FACES[face](4, **SMALL, frozen_batch_norm=value) for value in (False, True))
    frozen.load_state_dict(live.state_dict())
    live.load_state_dict(frozen.state_dict())
    assert len(live.state_dict()) > len(frozen.state_dict())


@pytest.mark.parametrize("face", FACES)
def test_weights_of_another_dtype_are_converted(face):
    source = FasterRCNN(4, **SMALL).state_dict()
    model = FACES[face](4, **SMALL)
    model.load_state_dict({name: value.double() for name, value in source.items()})
    assert_unchanged(model, source)
