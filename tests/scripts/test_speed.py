"""What the speed suite measures and rests on; the suite itself runs in `test_the_suite_runs` (slow)."""

import json
import subprocess
import sys

import pytest
import speed
import torch

from benchmarks.plain import PlainDisINR
from benchmarks.slices import together
from benchmarks.steps import Step, interleaved
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from tests.conftest import ROOT
from tests.problems import changed, mri_case, small_naive, small_network


def test_the_plain_network_is_the_same_function_with_the_same_gradient():
    network = small_network()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("table"):
                parameter.mul_(1e4)
    plain, subject = PlainDisINR(network), network.subjects[0]
    flat = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = [network.render(flat), plain(flat)]
    torch.testing.assert_close(*images)
    fast, slow = ([*subject.parameters()], [*plain.subject.parameters()])
    gradients = [torch.autograd.grad(i.square().sum(), p) for i, p in zip(images, (fast, slow), strict=True)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))
    assert not any(p.requires_grad for p in (*plain.shared.parameters(), *plain.decoder.parameters()))


@pytest.mark.parametrize("method", ["disinr", "ngp", "plain"])
def test_a_timed_iteration_fits_and_its_parts_run(method):
    case, start = mri_case(), small_naive() if method == "ngp" else small_network()
    step = Step(method, case, MeasurementLoss(), start)
    losses = [float(step.loss_of(step()).detach()) for _ in range(40)]
    assert losses[-1] < losses[0]
    times = interleaved(step.parts(), rounds=1)
    assert set(times) == {"encode", "mlp", "operator", "optimiser"}
    assert all(seconds > 0 for seconds in times.values())


def test_slices_together_are_the_slices_one_by_one():
    cases, fitted = [mri_case(shift=shift) for shift in (0.0, 0.2)], []
    for way in ("one by one", "together"):
        steps = [Step("disinr", case, MeasurementLoss(), small_network(), amp=False) for case in cases]
        together(steps)[way]()
        fitted.append([p.detach().clone() for step in steps for p in step.parameters])
    for a, b in zip(*fitted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_changes_image_and_gradient_by_its_rounding_only():
    """Not the quality of whole fits: of one this small, any rounding makes another, decibels away."""
    case = mri_case()
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=150, lr=2e-3, amp=False, quiet=True)
    inferer(case["points"][None], small_network(), case=case)
    network, points, found = inferer.fitted, case["points"].flatten(1).t(), []
    for amp in (False, True):
        network.set_amp(amp)
        image = network.render(points).t().reshape(2, 24, 20)
        loss = MeasurementLoss().one(image, changed(case, measurement=case["scan"].measurement * 1.1)["scan"])
        gradient = torch.autograd.grad(loss, [*network.subjects[0].parameters()])
        found.append((image.detach(), torch.cat([part.flatten() for part in gradient])))
    (image, gradient), (rounded, of_rounded) = found
    assert 0 < float((rounded - image).norm()) < 0.02 * float(image.norm())
    assert float(torch.cosine_similarity(gradient, of_rounded, 0)) > 0.99


def test_a_pretraining_step_touches_the_sampled_subject_only():
    """Also one that was sampled before: Adam's momentum must not move it on."""
    network = small_network(n_subjects=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    case = mri_case()

    def visit(subject: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        MeasurementLoss()(network(case["points"][None], subject), [case]).backward()
        optimizer.step()

    visit(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    visit(1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("subjects")} == {"1"}
    assert any(name.startswith("shared") for name in changed)
    assert not any(p in optimizer.state for p in network.subjects[2].parameters())


def test_growth_exponent():
    assert speed.exponent([(2.0, 12.0), (4.0, 48.0), (3.0, 1.0)]) == pytest.approx(2.0)


@pytest.mark.slow
def test_the_suite_runs(tmp_path):
    output = tmp_path / "speed.json"
    command = [sys.executable, "scripts/benchmark.py", "speed", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert set(result) == {"header", "rows", "ratios"}
    assert len(result["ratios"]) == 13
    assert {"disinr", "ngp", "plain", "tv", "fbp", "disinr floor"} <= {row["method"] for row in result["rows"]}
