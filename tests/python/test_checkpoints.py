"""Files of weights: what is read, and what an error names."""

import pytest
import torch
from detectors import SMALL, assert_equal_outputs, cpp_model, images_and_targets, python_model, run
from torch.testing import assert_close

from tilewright.models import FasterRCNNCpp

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
