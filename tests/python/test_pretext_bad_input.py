"""Deep InfoMax, rotation prediction and jigsaw patches name what they cannot take."""

import math

import numpy
import pytest
import torch
from test_pretext import MODELS, arguments, images

from tilewright.models import DeepInfoMax, Jigsaw, RotationPrediction
from tilewright.models.jigsaw import permutation_set
from tilewright.models.rotation_prediction import turned

pytestmark = pytest.mark.usefixtures("one_thread")


def test_orders_that_are_none():
    model = Jigsaw(width=4, patch=4, permutations=7)
    x, places, orders = arguments(model, images(4))
    for each in (model, torch.jit.script(model)):
        for bad in (orders[:3], orders.int(), orders.float(), orders[:, None]):
            with pytest.raises(
                Exception, match=r"orders must have shape \(4,\) and be int64, got "
            ):
                each(x, places, bad)
        for wrong, got in ((7, "0 to 7"), (-1, "-1 to 0")):
            bad = torch.tensor([0, 0, wrong, 0])
            with pytest.raises(Exception, match=rf"Jigsaw: orders must lie in \[0, 7\), got {got}"):
                each(x, places, bad)


@pytest.mark.parametrize("make", MODELS[2:])
def test_no_images_have_no_loss(make):
    model = make()
    x = images(0, model.encoder.in_channels)
    for each in (model, torch.jit.script(model)):
        with pytest.raises(Exception, match=r"images must not be empty, got \(0, "):
            each(*arguments(model, x))
    assert len(model.eval().represent(x)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepInfoMax(local_block=3), r"local_block must be in \[-3, 3\), got 3"),
        (lambda: DeepInfoMax(local_block=1.5), "local_block must be an integer, got 1.5"),
        (lambda: DeepInfoMax(temperature=0.0), "temperature must be positive and finite, got 0.0"),
        (lambda: DeepInfoMax(temperature=math.nan), "temperature must be positive and finite, got"),
        (lambda: DeepInfoMax(temperature=math.inf), "temperature must be positive and finite, got"),
        (lambda: DeepInfoMax(temperature="warm"), "temperature must be positive .* got 'warm'"),
        (
            lambda: DeepInfoMax(projection=0),
            "projection and hidden must be positive, got 0 and 128",
        ),
        (lambda: DeepInfoMax(hidden=-1), "projection and hidden must be positive, got 64 and -1"),
        (
            lambda: DeepInfoMax(projection=6.5),
            "DeepInfoMax: projection must be an integer, got 6.5",
        ),
        (lambda: DeepInfoMax(hidden=True), "DeepInfoMax: hidden must be an integer, got True"),
        (lambda: DeepInfoMax(depth=2.0), "DeepInfoMax: depth must be an integer, got 2.0"),
        (lambda: RotationPrediction(width=8.5), "Prediction: width must be an integer, got 8.5"),
        (lambda: Jigsaw(in_channels=None), "Jigsaw: in_channels must be an integer, got None"),
        (lambda: Jigsaw(grid=2.0), "Jigsaw: grid must be an integer, got 2.0"),
        (lambda: Jigsaw(hidden=0), "Jigsaw: hidden must be positive, got 0"),
        (lambda: DeepInfoMax()(images(), images(5)), r"views must have shape \[6, 1, 12, 12\]"),
        (lambda: DeepInfoMax().prior_loss(images(), images()), "prior_loss needs prior=True"),
        (
            lambda: DeepInfoMax(prior=True).prior_loss(images(), torch.rand(6, 5)),
            r"noise must have shape \[6, 128\], got \[6, 5\]",
        ),
        (lambda: Jigsaw(grid=4), "grid must be 2 or 3, got 4"),
        (lambda: Jigsaw(patch=0), "patch must be positive, got 0"),
        (lambda: Jigsaw(permutations=25), r"count must be in \[2, 24\]"),
        (lambda: permutation_set(2, 10), r"pieces must be in \[2, 9\], got 10"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrong", [numpy.ones((2, 1, 12, 12)), [[1.0]], None])
def test_what_is_no_tensor(wrong):
    infomax, rotation, jigsaw = DeepInfoMax(prior=True), RotationPrediction(), Jigsaw()
    x, places, orders = arguments(jigsaw, images())
    for name, call in (
        ("DeepInfoMax: images", infomax),
        ("ConvEncoder: images", infomax.represent),
        ("ConvEncoder: images", rotation.represent),
        ("RotationPrediction: images", rotation),
        ("turned: images", turned),
        ("Jigsaw: images", lambda wrong: jigsaw(wrong, places, orders)),
        ("cut_patches: images", lambda wrong: jigsaw.shuffled(wrong, places, orders)),
        ("cut_patches: places", lambda wrong: jigsaw(x, wrong, orders)),
        ("Jigsaw: orders", lambda wrong: jigsaw(x, places, wrong)),
        ("DeepInfoMax: noise", lambda wrong: infomax.prior_loss(x, wrong)),
        ("DeepInfoMax: views", lambda wrong: infomax(x, [] if wrong is None else wrong)),
    ):
        with pytest.raises(ValueError, match=f"tilewright::{name} must be a tensor of shape "):
            call(wrong)


def test_integers_of_numpy():
    n = numpy.int64(2)
    infomax = DeepInfoMax(width=n, depth=n, local_block=n - 1, projection=n, hidden=n)
    jigsaw = Jigsaw(width=n, depth=n, grid=n, patch=n, permutations=n, hidden=n)
    for model in (infomax, RotationPrediction(width=n, depth=n), jigsaw):
        torch.jit.script(model)(*arguments(model, images())).backward()


def test_one_example_has_no_negatives():
    with pytest.raises(RuntimeError, match="local_global_infomax"):
        DeepInfoMax().eval()(images(1))
