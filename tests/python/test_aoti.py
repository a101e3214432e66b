"""AOTInductor packages with operators of the rooms: written here, run here and by a C++ program."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

import tilewright

PROGRAM = (
    Path(__file__).resolve().parents[2] / "build" / "cmake" / "tests/cpp/tilewright_package_test"
)


class PoolingHead(torch.nn.Module):
    """Pools the boxes that suppression keeps: tests/cpp/package_test.cpp computes the same."""

    def forward(self, fine, coarse, boxes, scores):
        keep = tilewright.nms(boxes, scores, 0.5)
        rois = torch.ops.tilewright.boxes_to_rois([boxes.index_select(0, keep)])
        pooled = torch.ops.tilewright.multiscale_roi_align(
            [fine, coarse], rois, [0.25, 0.125], 7, 7
        )
        return keep, pooled.relu()


def inputs(count):
    corner = torch.rand(count, 2) * 200
    boxes = torch.cat([corner, corner + 4 + torch.rand(count, 2) * 250], dim=1)
    return torch.randn(1, 16, 64, 64), torch.randn(1, 16, 32, 32), boxes, torch.rand(count)


class Losses(torch.nn.Module):
    """One operator each of contrastive and density: package_test.cpp computes the same."""

    def forward(self, query, key, pixels, weight_in, bias_in, weight_out, bias_out):
        weights = (weight_in, bias_in, weight_out, bias_out)
        return tilewright.info_nce(query, key), tilewright.nade(pixels, *weights)


def loss_inputs(count):
    weights = torch.randn(9, 6), torch.randn(9), torch.randn(6, 9), torch.randn(6)
    rows = torch.randn(count, 16), torch.randn(40, 16), torch.rand(count, 6).round()
    return (*rows, *weights)


@pytest.fixture(scope="module")
def loss_package(tmp_path_factory):
    count = torch.export.Dim("count", min=2, max=40)
    shapes = ({0: count}, {}, {0: count}, {}, {}, {}, {})
    program = torch.export.export(Losses(), loss_inputs(12), dynamic_shapes=shapes)
    path = tmp_path_factory.mktemp("aoti") / "losses.pt2"
    return torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def test_the_packaged_losses_are_the_modules(loss_package):
    loaded = torch._inductor.aoti_load_package(loss_package)
    for count in (3, 40):
        example = loss_inputs(count)
        for found, expected in zip(loaded(*example), Losses()(*example), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    count = torch.export.Dim("count", min=2, max=4096)
    shapes = ({}, {}, {0: count}, {0: count})
    program = torch.export.export(PoolingHead(), inputs(40), dynamic_shapes=shapes)
    path = tmp_path_factory.mktemp("aoti") / "head.pt2"
    return torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def test_the_package_gives_what_the_module_gives(package):
    loaded = torch._inductor.aoti_load_package(package)
    for count in (3, 40, 200):
        example = inputs(count)
        keep, pooled = loaded(*example)
        expected_keep, expected_pooled = PoolingHead()(*example)
        assert torch.equal(keep, expected_keep) and len(keep) > 1
        torch.testing.assert_close(pooled, expected_pooled, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not PROGRAM.exists(), reason="the C++ tests are not built")
def test_a_program_without_python_runs_the_packages(package, loss_package):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [PROGRAM],
        env={
            **environment,
            "TILEWRIGHT_PACKAGE": package,
            "TILEWRIGHT_LOSS_PACKAGE": loss_package,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tests from 1 test suite ran" in done.stdout and "PASSED" in done.stdout
    assert "SKIPPED" not in done.stdout
