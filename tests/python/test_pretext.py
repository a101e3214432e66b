"""Deep InfoMax, rotation prediction and jigsaw patches, and their encoder: shapes, scripting,
gradients, what they compute, and that they learn."""

import io
import math
import re

import pytest
import torch
import torch.nn.functional as F

from tilewright.models import ConvEncoder, DeepInfoMax, Jigsaw, RotationPrediction
from tilewright.models.jigsaw import cut_patches, permutation_set
from tilewright.models.rotation_prediction import turned

pytestmark = pytest.mark.usefixtures("one_thread")


def images(n=6, channels=1, side=12):
    return torch.rand(n, channels, side, side)


def arguments(model, x):
    """What forward takes beside the images, drawn anew."""
    if isinstance(model, Jigsaw):
        count = len(model.permutations)
        return x, torch.rand(len(x), model.grid**2, 2), torch.randint(0, count, (len(x),))
    return (x,)


MODELS = [
    lambda: DeepInfoMax(width=8),
    lambda: DeepInfoMax(3, width=4, depth=2, local_block=-1, prior=True),
    lambda: RotationPrediction(width=8),
    lambda: RotationPrediction(3, width=4, depth=1),
    lambda: Jigsaw(width=8, hidden=16),
    lambda: Jigsaw(3, width=4, depth=2, grid=3, patch=3, permutations=7, hidden=16),
]


@pytest.mark.parametrize("make", MODELS)
def test_scripted_models_do_the_same(make):
    model = make()
    x = images(channels=model.encoder.in_channels)
    given = arguments(model, x)
    scripted = torch.jit.script(make())
    scripted.load_state_dict(model.state_dict())
    loss = scripted(*given)
    assert loss.ndim == 0 and torch.equal(model(*given), loss)
    model.eval(), scripted.eval()
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    represented = model.represent(x)
    assert represented.ndim == 2 and len(represented) == len(x)
    assert torch.equal(loaded.represent(x), represented)


@pytest.mark.parametrize("make", MODELS)
def test_every_parameter_learns(make):
    model = make()
    x = images(channels=model.encoder.in_channels)
    loss = model(*arguments(model, x))
    if isinstance(model, DeepInfoMax) and len(model.discriminator):
        loss = loss + model.prior_loss(x, torch.rand(len(x), model.encoder.out_features))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("side", [8, 9, 32])
def test_the_encoder(side):
    encoder = ConvEncoder(3, [4, 8, 16, 32]).eval()
    x = images(2, 3, side)
    maps = encoder.maps(x)
    sides = [side]
    for _ in range(3):
        sides.append((sides[-1] + 1) // 2)
    assert [m.shape for m in maps] == [(2, 4 << i, s, s) for i, s in enumerate(sides)]
    assert encoder.out_features == 32
    torch.testing.assert_close(encoder(x), maps[-1].flatten(2).mean(2))
    expected = F.adaptive_avg_pool2d(maps[-2], 2).flatten(1)
    assert torch.equal(encoder.quarters(x), expected)


def test_what_the_encoder_refuses():
    for name in ("in_channels", "width", "depth"):
        with pytest.raises(ValueError, match=f"RotationPrediction: {name} must be positive, got 0"):
            RotationPrediction(**{name: 0})
    with pytest.raises(ValueError, match="in_channels and each of widths must be positive, got"):
        ConvEncoder(1, [])
    with pytest.raises(RuntimeError, match=r"images must have 1 channels, got \(2, 3, 8, 8\)"):
        ConvEncoder()(images(2, 3, 8))
    with pytest.raises(RuntimeError, match="must be of a floating dtype; bytes are divided by 255"):
        ConvEncoder()(images(2, 1, 8).to(torch.uint8))
    with pytest.raises(RuntimeError, match=r"must have shape \(N, C, H, W\), got \(2, 8, 8\)"):
        ConvEncoder()(images(2, 1, 8)[:, 0])


def test_deep_infomax_is_the_loss_of_its_definition():
    """Scores of all vectors and places, written out."""
    model = DeepInfoMax(width=4, temperature=0.5).double().eval()
    first, second = images(5).double(), images(5).double()

    def projected(x):
        maps = model.encoder.maps(x)
        whole = F.normalize(model.whole(maps[-1].mean((2, 3))), dim=1)
        return whole, F.normalize(model.local(maps[1]).flatten(2).transpose(1, 2), dim=2)

    def loss(whole, local):
        scores = torch.einsum("id,jld->ijl", whole, local) / 0.5
        terms = []
        for i in range(5):
            others = torch.cat([scores[i, j] for j in range(5) if j != i])
            for own in scores[i, i]:
                terms.append(torch.cat([own[None], others]).logsumexp(0) - own)
        return torch.stack(terms).mean()

    a, b = projected(first), projected(second)
    torch.testing.assert_close(model(first), loss(*a))
    torch.testing.assert_close(model(first, second), 0.5 * (loss(a[0], b[1]) + loss(b[0], a[1])))


def test_the_prior_turns_the_gradient_of_the_encoder():
    model = DeepInfoMax(width=4, prior=True).eval()
    x, noise = images(), torch.rand(6, 16)
    loss = model.prior_loss(x, noise)
    squashed = torch.sigmoid(model.encoder(x))
    plain = F.softplus(-model.discriminator(noise)).mean()
    plain = plain + F.softplus(model.discriminator(squashed)).mean()
    torch.testing.assert_close(loss, plain)
    for part, sign in ((model.encoder, -1.0), (model.discriminator, 1.0)):
        weight = next(iter(part.parameters()))
        ours, theirs = (
            torch.autograd.grad(value, weight, retain_graph=True)[0] for value in (loss, plain)
        )
        torch.testing.assert_close(ours, sign * theirs)


def test_turned():
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    found = turned(x)
    assert found.shape == (8, 1, 2, 2)
    assert torch.equal(found[:2], x)
    assert found[2, 0].tolist() == [[1, 3], [0, 2]]  # against the clock
    assert torch.equal(found[4:6], x.flip(2, 3))
    assert torch.equal(turned(found[2:4])[6:], x), "270 degrees more are a whole turn"
    with pytest.raises(ValueError, match=r"shape \(N, C, S, S\), got \[2, 1, 2, 3\]"):
        turned(torch.zeros(2, 1, 2, 3))


def test_cut_patches():
    x = torch.arange(2 * 7 * 9.0).reshape(2, 1, 7, 9)
    first = cut_patches(x, 2, 3, torch.zeros(2, 4, 2))
    assert first.shape == (2, 4, 1, 3, 3)
    assert torch.equal(first[1, 0], x[1, :, :3, :3]) and torch.equal(first[1, 1], x[1, :, :3, 4:7])
    assert torch.equal(first[0, 2], x[0, :, 3:6, :3]) and torch.equal(
        first[0, 3], x[0, :, 3:6, 4:7]
    )
    places = torch.zeros(2, 4, 2)
    places[1, 3, 1] = 0.99
    last = cut_patches(x, 2, 3, places)
    assert torch.equal(last[1, 3], x[1, :, 3:6, 5:8]) and torch.equal(last[0], first[0])
    with pytest.raises(ValueError, match="images must have 8 pixels a side"):
        cut_patches(x, 2, 4, places)
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\), got \[1, 7, 9\]"):
        cut_patches(x[0], 2, 3, places)
    for bad in (torch.zeros(2, 9, 2), places[:1], places.long(), places[0]):
        told = r"places must have shape \(2, 4, 2\) and be floating, got "
        with pytest.raises(ValueError, match=told + re.escape(f"{list(bad.shape)} {bad.dtype}")):
            cut_patches(x, 2, 3, bad)
    for bad, got in (
        (places + 0.5, "0.5 to 1.49"),
        (places - 0.5, "-0.5 to "),
        (0 / places, "nan"),
    ):
        with pytest.raises(RuntimeError, match=rf"places must lie in \[0, 1\), got {got}"):
            cut_patches(x, 2, 3, bad)


def test_shuffled_patches_are_in_their_order():
    model = Jigsaw(width=4, patch=4, permutations=24)
    x, places, orders = arguments(model, images(4))
    patches = cut_patches(x, 2, 4, places)
    found = model.shuffled(x, places, orders)
    for n in range(4):
        for place, piece in enumerate(model.permutations[orders[n]].tolist()):
            assert torch.equal(found[n, place], patches[n, piece])


def test_permutations_are_unlike_each_other():
    every = permutation_set(24, 4)
    assert len({tuple(row) for row in every.tolist()}) == 24
    apart = permutation_set(4, 4)
    distance = (apart[:, None] != apart).sum(2)
    assert distance[~torch.eye(4, dtype=torch.bool)].min() == 4, "a Latin square"
    many = permutation_set(30, 6)
    distance = (many[:, None] != many).sum(2)[~torch.eye(30, dtype=torch.bool)]
    assert distance.min() >= 4 and many[0].tolist() == list(range(6))
    random = torch.stack([torch.randperm(6) for _ in range(30)])
    assert distance.double().mean() >= (random[:, None] != random).sum(2).double().mean()


def digits_like(n):
    """Images whose halves, places and turns differ: a bright corner, a dark one, a little noise."""
    x = 0.1 * torch.rand(n, 1, 12, 12)
    rows = torch.arange(n)
    length = torch.randint(3, 9, (n,))
    for i in rows:
        x[i, 0, 1:3, 1 : 1 + length[i]] += 0.8
        x[i, 0, 3 : 3 + length[n - 1 - i] // 2, 1:3] += 0.5
    return x


@pytest.mark.parametrize(
    ("make", "chance"),
    [
        (lambda: DeepInfoMax(width=8), None),
        (lambda: RotationPrediction(width=8), 4),
        (lambda: Jigsaw(width=8, patch=5), 24),
    ],
)
def test_a_little_training_helps(make, chance):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        x = digits_like(32)
        loss = model(*arguments(model, x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if chance is None:  # of 36 places each of 32 images
        assert losses[-1] < math.log(1 + 31 * 36) - 0.1 < losses[0]
    else:
        assert losses[0] > 0.8 * math.log(chance) > 1.3 * losses[-1]
