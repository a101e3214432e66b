"""Fits on CUDA: where the table is, to the model of a fit on the CPU, asking for nothing."""

import os
import subprocess
import sys
from pathlib import Path

import boosting_cuda_cases
import pytest
import torch
from boosting_cuda_cases import CASES, EXACT, options, own_loss, table
from checks import NoSynchronisation, threads
from conftest import MACHINE

import tilewright
from tilewright._C import Booster
from tilewright.trees import GradientBoostingRanker, GradientBoostingRegressor

kernels = pytest.mark.kernels
on_device = pytest.mark.skipif(MACHINE == "cpu", reason="a fit on the CPU takes another way")


@pytest.fixture(scope="module")
def fits_of_the_cpu(tmp_path_factory):
    """{case: what the fit leaves}. The emulated device stands in the place of the CPU, so another
    process fits."""
    if MACHINE != "simt":
        return {name: threads(1, lambda fit=fit: fit("cpu")) for name, fit in CASES.items()}
    path = tmp_path_factory.mktemp("fits") / "cpu.pt"
    packages = [str(Path(tilewright.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "TILEWRIGHT_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }
    command = [sys.executable, boosting_cuda_cases.__file__, path]
    subprocess.run(command, env=environment, check=True)
    return torch.load(path)


@kernels
@pytest.mark.parametrize("name", list(CASES))
def test_every_machine_fits_the_same_model(device, fits_of_the_cpu, name):
    found, expected = CASES[name](device), fits_of_the_cpu[name]
    assert found.keys() == expected.keys()
    if MACHINE != "cuda" or name in EXACT:
        for output, value in found.items():
            assert torch.equal(value, expected[output]), output
        return
    # ATen's functions round otherwise there.
    for output in ("base_score", "predicted"):
        torch.testing.assert_close(found[output], expected[output], rtol=1e-3, atol=1e-4)


class Watch(NoSynchronisation):
    """A callback of rounds: the device is asked for nothing between the first and the last one."""

    def __init__(self, rounds, **profile):
        super().__init__(**profile)
        self.last = rounds - 1

    def __call__(self, round_, _scores):
        if round_ == 0:
            self.__enter__()
            if MACHINE == "cuda":
                torch.cuda.set_sync_debug_mode("error")
        elif round_ == self.last:
            if MACHINE == "cuda":
                torch.cuda.set_sync_debug_mode("default")
            self.__exit__(None, None, None)
        return False


ASKS_FOR_NOTHING = {
    "squared_error": {},
    "draws": {"subsample": 0.5, "colsample_bytree": 0.5, "monotone": [1, 0, 0, 0, -1]},
    "goss": {"goss": True, "learning_rate": 1.0},
    "logistic": {"objective": "logistic"},
    "softmax": {"objective": "softmax", "num_class": 3},
    "poisson": {"objective": "poisson"},
    "huber": {"objective": "huber", "objective_param": 0.9},
    "a function": {"loss": own_loss},
}


@kernels
@on_device
@pytest.mark.parametrize("name", list(ASKS_FOR_NOTHING))
def test_rounds_ask_the_device_for_nothing(device, name):
    given = {"n_estimators": 4, "max_depth": 2, "max_bin": 16} | ASKS_FOR_NOTHING[name]
    loss = given.pop("loss", None)
    x, y = (t.to(device) for t in table(200))
    y = (y > 0).float() if given.get("objective") in ("logistic", "softmax", "poisson") else y
    watch = Watch(4)
    Booster(given, loss).fit(x, y, weight=torch.rand(200, device=device) + 0.5, after_round=watch)
    assert any(event.key == "tilewright::grow_tree" for event in watch.key_averages())


@kernels
@on_device
def test_rounds_leave_their_trees_alone(device):
    """Memory grows by the places of trees: 33 bytes and a float32 answer each."""
    rounds, depth = 10, 4
    x, y = (t.to(device) for t in table(300))
    watch = Watch(rounds, profile_memory=True)
    Booster({"n_estimators": rounds, "max_depth": depth, "max_bin": 16}).fit(
        x, y, after_round=watch
    )
    kind = "self_device_memory_usage" if MACHINE == "cuda" else "self_cpu_memory_usage"
    grown = sum(getattr(event, kind) for event in watch.key_averages())
    places = (rounds - 1) * (2 ** (depth + 1) - 1)
    # An allocator may round each of seven arrays of a tree up.
    assert 0 < grown <= 37 * places + (rounds - 1) * 7 * 512


@kernels
@on_device
def test_estimators_fit_by_operators(device):
    x, y = (t.to(device) for t in table(200))
    model = GradientBoostingRegressor(**options(n_estimators=2))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        model.fit(x, y)
    called = {event.key for event in profile.key_averages()}
    assert {"tilewright::grow_tree", "tilewright::quantize_features"} <= called


REFUSED = {
    "grow_policy 'depthwise', got 'lossguide'": {"grow_policy": "lossguide"},
    "a max_depth from 1 to 16, got any": {"max_depth": None},
    "a max_depth from 1 to 16, got 17": {"max_depth": 17},
    "no max_leaf_nodes, got 7": {"max_leaf_nodes": 7},
    "no colsample_bylevel, got 0.5": {"colsample_bylevel": 0.5},
    "no colsample_bynode, got 0.5": {"colsample_bynode": 0.5},
    "no categorical_features, got column 2": {"categorical_features": [2]},
    "no loss whose leaves are quantiles, got absolute_error": {"loss": "absolute_error"},
    "no loss whose leaves are quantiles, got quantile": {"loss": "quantile", "alpha": 0.3},
}


@kernels
@pytest.mark.no_launch
@on_device
@pytest.mark.parametrize("message", list(REFUSED))
def test_what_a_fit_on_cuda_does_not_take(device, message):
    x, y = (t.to(device) for t in table(50))
    model = GradientBoostingRegressor(**options(**REFUSED[message]))
    with pytest.raises(RuntimeError, match=f"a fit on CUDA takes {message}.*x.cpu"):
        model.fit(x, y)


@kernels
@pytest.mark.no_launch
@on_device
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_ranking_and_sparse_tables_are_refused(device):
    x, y = (t.to(device) for t in table(50))
    with pytest.raises(RuntimeError, match="takes no loss of ranking, got lambdarank"):
        GradientBoostingRanker(n_estimators=1).fit(x, (y > 0).long(), group=[20, 30])
    sparse = x.nan_to_num(0.0).relu().to_sparse_csr()
    with pytest.raises(RuntimeError, match=r"dense (tables|ones may)"):
        GradientBoostingRegressor(n_estimators=1).fit(sparse, y)


@kernels
@on_device
def test_gradients_that_are_not_finite_count_as_nothing(device):
    x, y = (t.to(device) for t in table(100))

    def loss(scores, labels):
        rows = torch.arange(labels.shape[0], device=labels.device)
        return torch.where(rows == 7, (scores - labels) * float("inf"), (scores - labels) ** 2)

    model = GradientBoostingRegressor(**options(n_estimators=2), loss=loss, hessian=2.0).fit(x, y)
    assert model.predict(x).isfinite().all()


@kernels
@pytest.mark.no_launch
def test_labels_that_are_not_finite_are_named(device):
    x, y = (t.to(device) for t in table(100))
    y[7] = float("nan")
    with pytest.raises((RuntimeError, ValueError), match="y must be finite; that of row 7 is nan"):
        Booster({"n_estimators": 1}).fit(x, y)
    with pytest.raises(RuntimeError, match="y must be 0 or 1; that of row 3 is 2"):
        y = torch.ones(100, device=device)
        y[3] = 2
        Booster({"n_estimators": 1, "objective": "logistic"}).fit(x, y)


@pytest.mark.skipif(MACHINE != "cuda", reason="two machines")
@kernels
def test_sets_of_evaluation_stay_where_they_are(device):
    x, y = table(300)
    both = [(x.to(device), y.to(device)), (x, y)]
    for training in both:
        model = GradientBoostingRegressor(**options()).fit(*training, eval_set=both)
        first, second = model.eval_history_
        assert first["rmse"] == pytest.approx(second["rmse"], rel=1e-6)


def test_an_ensemble_follows_x_to_another_device():
    """Copies of the arrays are made once a device."""
    x, y = table(100)
    ensemble = GradientBoostingRegressor(**options()).fit(x, y).to_module().to_ensemble(5)
    elsewhere = torch.empty(7, 5, device="meta")
    assert ensemble.predict(elsewhere).shape == (7, 1)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        assert ensemble.predict(elsewhere).device.type == "meta"
    assert "aten::_to_copy" not in {event.key for event in profile.key_averages()}
