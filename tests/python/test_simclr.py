"""SimCLR: the C++ module and its scriptable twin agree, learn, are saved and name what is wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from self_supervised import (
    assert_exports,
    assert_twins_agree,
    loss_history,
    scripted,
    twins,
)
from sklearn.datasets import load_digits

from tilewright import _C
from tilewright.models import Augmentation, SimCLR, SimCLRCpp

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"widths": [8, 16], "projection_hidden": 12, "projection_features": 6}


def views(channels=1, size=8, count=6, dtype=torch.float64):
    return torch.rand(2, count, channels, size, size, dtype=dtype).unbind()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("options", "channels", "size"),
    [
        (SMALL, 1, 8),
        ({**SMALL, "in_channels": 3, "projection_layers": 3, "temperature": 0.5}, 3, 11),
        ({**SMALL, "projection_layers": 1, "widths": [5]}, 1, 5),
        ({"encoder": "resnet", "projection_hidden": 16, "projection_features": 8}, 1, 8),
        ({"encoder": "resnet", "small_images": False, "in_channels": 3}, 3, 40),
    ],
)
def test_twins_agree(options, channels, size):
    given = views(channels, size)
    assert_twins_agree(*twins(SimCLR, SimCLRCpp, **options), given, given[0])


def test_the_loss_is_nt_xent_of_projections():
    model, twin = twins(SimCLR, SimCLRCpp, **SMALL)
    first, second = views()
    for each in (model, twin):
        each.train()
        # In training mode both views are one batch to batch norm.
        first_z, second_z = each.project(torch.cat([first, second])).chunk(2)
        z = F.normalize(torch.cat([first_z, second_z]), dim=1)
        scores = (z @ z.T / 0.2).fill_diagonal_(-torch.inf)
        right = F.cross_entropy(scores, torch.arange(12).roll(6))
        torch.testing.assert_close(each(first, second), right)


def test_a_small_image_resnet_keeps_the_sides():
    model = SimCLR("resnet").eval()
    maps = model.encoder.body(torch.rand(1, 3, 16, 16))
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert model.encoder.body.stage_strides == [1, 2, 4, 8]
    grey = torch.rand(2, 1, 16, 16)
    found = model.represent(grey)
    torch.testing.assert_close(found, model.encoder(grey.expand(-1, 3, -1, -1)))
    assert found.shape == (2, 512)


@pytest.mark.smoke
@pytest.mark.parametrize("face", [SimCLR, SimCLRCpp])
def test_digits_are_learnt_without_labels(face):
    """Features of 120 steps tell digits better than those of the untrained encoder: of 10 labels of
    each digit, by ridge regression."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).div(16).unsqueeze(1)
    y = torch.tensor(digits.target)
    torch.manual_seed(0)
    train, test = torch.randperm(len(x)).split([1300, 497])
    torch.manual_seed(0)
    model = face(widths=[16, 32, 64])
    with torch.no_grad():
        for _ in range(10):
            model.represent(x[train])  # batch norm's statistics
    untrained = probe(model, x, y, train, test)
    view = Augmentation("digits")

    def batch():
        images = x[train[torch.randint(len(train), (128,))]]
        return view(images), view(images)

    losses = loss_history(model, batch, steps=120, rate=3e-3)
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10]), losses
    trained = probe(model, x, y, train, test)
    assert trained > untrained + 0.02, (untrained, trained)


def probe(model, x, y, train, test):
    model.eval()
    with torch.no_grad():
        features = model.represent(x).double()
    features = (features - features[train].mean(0)) / (features[train].std(0) + 1e-5)
    features = F.pad(features, (0, 1), value=1.0)
    few = torch.cat([train[y[train] == digit][:10] for digit in range(10)])
    a, b = features[few], F.one_hot(y[few], 10).double()
    eye = torch.eye(a.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(a.T @ a + 10 * eye, a.T @ b)
    return ((features[test] @ weight).argmax(1) == y[test]).double().mean().item()


def test_script_and_export():
    model, _ = twins(SimCLR, SimCLRCpp, **SMALL)
    given = views()
    loaded = scripted(model)
    loss = loaded(*given)
    torch.testing.assert_close(loss, model(*given))
    loss.backward()
    model.eval(), loaded.eval()
    torch.testing.assert_close(loaded.represent(given[0]), model.represent(given[0]))
    torch.testing.assert_close(loaded.project(given[0]), model.project(given[0]))
    assert_exports(model, given[0])
    assert_exports(SimCLR("resnet"), torch.rand(2, 1, 8, 8))


def test_files_go_both_ways(tmp_path):
    model, twin = twins(SimCLR, SimCLRCpp, torch.float32, **SMALL)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01)
    twin.save(str(tmp_path / "cpp.pt"))
    model.load(tmp_path / "cpp.pt")
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    torch.save(model.state_dict(), tmp_path / "python.pt")
    other = SimCLRCpp(**SMALL).load(tmp_path / "python.pt")
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(
        RuntimeError, match=r"blocks\.1\.conv\.weight must have shape \(16, 8, 3, 3"
    ):
        model.load_state_dict(SimCLRCpp(**{**SMALL, "widths": [8, 17]}).state_dict())


@pytest.mark.parametrize("face", [SimCLR, SimCLRCpp])
def test_autocast(face):
    model = face(**SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*views(dtype=torch.float32))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out_features = 7
        self.layer = torch.nn.Linear(64, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))


def test_an_encoder_of_ones_own():
    model = torch.jit.script(SimCLR(Flat(), projection_features=5))
    model(*views(dtype=torch.float32)).backward()
    assert model.encoder.layer.weight.grad.abs().sum() > 0
    assert model.represent(torch.rand(3, 1, 8, 8)).shape == (3, 7)
    assert model.project(torch.rand(3, 1, 8, 8)).shape == (3, 5)


def test_an_encoder_that_is_none():
    with pytest.raises(TypeError, match="encoder must be 'conv', 'resnet' or a module, got 18"):
        SimCLR(18)


def test_options():
    assert SimCLRCpp().options == _C.simclr_options()
    assert SimCLRCpp(widths=[4]).options == {**_C.simclr_options(), "widths": [4]}


@pytest.mark.parametrize("face", [SimCLR, SimCLRCpp])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("in_channels", 0, "SimCLR: in_channels must be positive, got 0"),
        ("encoder", "vit", "SimCLR: encoder must be conv or resnet, got vit"),
        ("widths", [], r"SimCLR: widths must hold positive numbers, at least one, got \[\]"),
        ("widths", [8, -1], r"SimCLR: widths must hold positive numbers, .*got \[8, -1\]"),
        ("widths", "wide", "SimCLR: widths must be a list of integers, got 'wide'"),
        ("widths", 4, "SimCLR: widths must be a list of integers, got 4"),
        ("widths", None, "SimCLR: widths must be a list of integers, got None"),
        ("widths", torch.tensor([4, 8]), "SimCLR: widths must be a list of integers, got tensor"),
        ("projection_layers", 0, "SimCLR: projection_layers must be positive, got 0"),
        ("projection_hidden", -3, "SimCLR: projection_hidden must be positive, got -3"),
        ("projection_features", 0, "SimCLR: projection_features must be positive, got 0"),
        ("temperature", 0.0, "SimCLR: temperature must be positive and finite, got 0"),
        ("temperature", "warm", "SimCLR: temperature must be a number, got 'warm'"),
        (
            "depth",
            18,
            "SimCLR: unknown options {'depth'}, there are in_channels, encoder, .*, temperature$",
        ),
    ],
)
def test_bad_options_are_named(face, option, value, message):
    with pytest.raises((RuntimeError, TypeError), match=f"tilewright::{message}"):
        face(**{option: value})


def test_bad_images_are_named():
    with pytest.raises(RuntimeError, match="in_channels must be 1 or 3 with a resnet, got 2"):
        SimCLR("resnet", in_channels=2)
    with pytest.raises((RuntimeError, ValueError), match="ResNet: depth must be 18, 34, 50 or 101"):
        SimCLRCpp(encoder="resnet", resnet_depth=19)
    model, twin = twins(SimCLR, SimCLRCpp, torch.float32, **SMALL)
    good = torch.rand(4, 1, 8, 8)
    for each in (model, twin, torch.jit.script(model)):
        with pytest.raises(Exception, match=r"SimCLR: images must have shape \(N, C, H, W\), got"):
            each.represent(good[0])
        with pytest.raises(Exception, match=r"SimCLR: first must have 1 channels, got \(4, 3, 8"):
            each(good.expand(-1, 3, -1, -1), good)
        with pytest.raises(Exception, match=r"second must have first's shape \(4, 1, 8, 8\), got"):
            each(good, good[:3])
        with pytest.raises(Exception, match="SimCLR: second must have first's dtype"):
            each(good, good.double())
        with pytest.raises(Exception, match="nt_xent: first must have at least two rows"):
            each(good[:1], good[:1])


@pytest.mark.parametrize("wrong", [np.ones((4, 1, 8, 8)), [[1.0]], None])
def test_images_that_are_no_tensor(wrong):
    model, good, kind = SimCLR(**SMALL), torch.rand(4, 1, 8, 8), type(wrong).__name__
    for name, call in (
        ("first", lambda: model(wrong, good)),
        ("second", lambda: model(good, wrong)),
        ("images", lambda: model.represent(wrong)),
        ("images", lambda: model.project(wrong)),
    ):
        told = rf"SimCLR: {name} must be a tensor of shape \(N, C, H, W\), got {kind}"
        with pytest.raises(ValueError, match=told):
            call()
    with pytest.raises(ValueError, match=f"ResNetEncoder: images must be .* got {kind}"):
        SimCLR("resnet").encoder(wrong)


@pytest.mark.parametrize("recipe", ["digits", "photographs", "none"])
def test_augmentation_has_one_order(recipe):
    """Of one seed the module, its script and C++ make the same views."""
    options = {"blur": 0.5, "grayscale": 0.3, "hue": 0.2}
    view = Augmentation(recipe, **options)
    x = torch.rand(6, 3, 10, 10)
    found = []
    for run in (view, scripted(view), lambda y: _C.augment(y, recipe, **options)):
        torch.manual_seed(1)
        found.append(run(x))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert found[0].shape == x.shape and not torch.equal(found[0], x)
    plain = torch.rand(2, 1, 7, 9)
    assert torch.equal(Augmentation("none")(plain), plain)
    assert Augmentation(recipe)(plain).shape == plain.shape


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("faces", {}, "recipe must be digits, photographs or none, got faces"),
        ("digits", {"degrees": -1.0}, r"degrees must lie in \[0, 360\], got -1"),
        ("digits", {"zoom": [1.0]}, "zoom must be two positive numbers"),
        ("digits", {"crop_scale": [0.5, 2.0]}, "crop_scale must be two positive numbers"),
        ("none", {"blur_size": 2}, "blur_size must be a positive odd number, got 2"),
        ("none", {"erase": 1.5}, r"erase must lie in \[0, 1\], got 1.5"),
        ("none", {"noise": float("nan")}, "noise must not be negative, and finite, got nan"),
        ("none", {"colour": 1.0}, "unknown options {'colour'}, there are degrees, .*, noise"),
        ("none", {"zoom": 2.0}, "zoom must be a list of numbers, got 2.0"),
        ("none", {"zoom": [torch.nn.Parameter(torch.ones(())), 1]}, "zoom must be a list of numb"),
        ("none", {"blur": True}, "blur must be a number, got True"),
        (3, {}, "recipe must be 'digits', 'photographs' or 'none', got 3"),
        ("none", {"flip": "often"}, "flip must be a number, got 'often'"),
    ],
)
def test_bad_recipes_are_named(recipe, options, message):
    with pytest.raises((RuntimeError, TypeError), match=f"tilewright::Augmentation: {message}"):
        Augmentation(recipe, **options)
