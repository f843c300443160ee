"""Objects that reach or leave the field of view: abdomen and pelvis, and heads in a field of view that is too small."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.case import describe
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.resample import resample_slice
from disinr_monai.data.simulate.mri import oversampled, simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.joint_coils import JointAdaptation
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import prepare_training_batch
from disinr_monai.methods import L1Wavelet, TotalVariation
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.prior import LearnedPrior
from disinr_monai.scan import Scan
from tests.data.coils.test_espirit import wrapped
from tests.problems import small_network

TV = TotalVariation(tv_weight=5e-4, n_iterations=80)
MAPS = ("simulated", "espirit")


@pytest.fixture(scope="module")
def pelvis(tmp_path_factory):
    """A slice that is tissue from edge to edge, as of a pelvis in a small field of view."""
    y, x = np.mgrid[:96, :96] / 95 * 2 - 1
    image = 400 + 150 * np.sin(5 * x + 2 * y) * np.cos(4 * y)
    image[(x - 0.2) ** 2 + (y + 0.3) ** 2 < 0.09] = 900
    image[(x + 0.5) ** 2 + (y - 0.4) ** 2 < 0.04] = 120
    folder = tmp_path_factory.mktemp("pelvis")
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32)[..., None], np.diag([2.0, 2, 4, 1])), folder / "p.nii.gz")
    return list_cases(folder, "mri")[0]


@pytest.fixture(scope="module")
def heads():
    """K-space of a head and of the same head with 66 % of its field of view along the lines, which it leaves."""
    kspace = simulate_kspace(brain_phantom(96, np.random.default_rng(5)), 8, 0.02, seed=2).kspace
    return kspace, wrapped(kspace, 64)


def _psnr(case: dict, image: torch.Tensor) -> float:
    return image_metrics(to_display(image, "mri", case["image_scale"]), case["reference"])["psnr"]


def test_tissue_at_the_edge_is_as_good_as_with_the_true_maps(pelvis):
    cases = {maps: AcquireMRI(acceleration=4, image_size=96, acs=20, maps=maps)(pelvis) for maps in MAPS}
    found = {maps: _psnr(case, TV(None, None, case=case)[0]) for maps, case in cases.items()}
    assert found["simulated"] > 30
    assert found["espirit"] > found["simulated"] - 1.5
    info = cases["espirit"]["info"]
    assert info["oversampled"] == [120, 120]
    assert "measured with oversampling, 120 x 120" in describe(info)
    # The image is that of the source: its voxels lie where those of the file lie.
    assert cases["espirit"]["reference"].shape == (1, 96, 96)
    source = nibabel.load(pelvis["path"])
    points = source.affine @ np.array([[0, 95], [0, 95], [0, 0], [1, 1]])
    own = cases["espirit"]["affine"].numpy() @ np.array([[0, 95], [0, 95], [0, 0], [1, 1]])
    np.testing.assert_allclose(np.sort(own[:2]), np.sort(points[:2]), atol=0.02)
    restored = cases["espirit"]["reference"][0].numpy()
    truth = source.get_fdata()[..., 0]
    assert np.corrcoef(restored.ravel(), truth.ravel())[0, 1] > 0.99


def test_only_the_axes_that_the_object_reaches_are_oversampled():
    image = np.zeros((40, 48), np.float32)
    image[:, 12:36] = 1
    larger = oversampled(image)
    assert larger.shape == (52, 48)
    np.testing.assert_array_equal(larger[6:46], image)
    assert larger[0].max() < 0.05
    assert larger[5, 20] > 0.95
    np.testing.assert_array_equal(oversampled(image[:, :12]), image[:, :12])
    centred = np.pad(image[:, 12:36], 6)
    assert oversampled(centred) is centred


def test_a_wrapped_head_is_near_the_unwrapped_one(heads, write_hdf5, caplog):
    """Inside the part without overlap (48 dB without wrapping, 42 with); one set of maps fails there too."""
    whole, cut = (list_cases(write_hdf5(name, kspace=k[None]), "mri")[0] for name, k in zip("ab", heads, strict=True))
    acquire = {n: AcquireMRI(acceleration=3, acs=24, map_sets=n) for n in (None, 1)}
    cases = {"whole": acquire[None](whole), "two": acquire[None](cut), "one": acquire[1](cut)}
    assert [case["scan"].operator.domain_shape[0] for case in cases.values()] == [2, 4, 2]
    assert "2 sets of maps because the object wraps" in describe(cases["two"]["info"])
    truth = cases["whole"]["reference"][0] * cases["whole"]["output_scale"]
    free = slice(16 + 20, 16 + 44)
    found = {}
    for name, case in cases.items():
        image = to_display(TV(None, None, case=case)[0], "mri", case["image_scale"] * case["output_scale"])[0]
        part = image[:, free] if name == "whole" else image[:, 20:44]
        found[name] = -10 * np.log10(float((part - truth[:, free]).square().mean()) / float(truth.max()) ** 2)
    assert found["two"] > max(found["whole"] - 6, 41)
    assert found["two"] > found["one"] + 8


def test_a_real_head_in_70_percent_of_its_field_of_view(data_dir, tmp_path, write_hdf5):
    """Within 1 dB of what the true maps of both parts of the object give, inside the part without overlap."""
    (tmp_path / "head.nii.gz").symlink_to(data_dir / "mri3d" / "TCGA-DU-7294_FLAIR_1mm_brain.nii.gz")
    source = read_image(list_cases(tmp_path / "head.nii.gz", "mri", 1)[0], "mri")
    scan = simulate_kspace(resample_slice(source.image, source.affine, 256)[0], 8, 0.0316, seed=1)
    truth, body = scan.reference[0, :, 38:218], scan.reference[0] > 0.02 * scan.reference.max()
    beyond = np.zeros((9, 256, 180), np.complex64)  # what lies beyond the field of view comes in at the other side
    both = np.concatenate((scan.maps, body[None]))
    beyond[..., :38], beyond[..., -38:] = both[..., 218:], both[..., :38]
    folded = beyond[-1].real > 0
    case = AcquireMRI(acceleration=4, acs=24)(list_cases(write_hdf5(kspace=wrapped(scan.kspace, 180)[None]), "mri")[0])
    true = case["scan"].operator.with_maps(torch.from_numpy(np.stack((scan.maps[..., 38:218], beyond[:-1] * folded))))
    found = []
    for operator in (case["scan"].operator, true):
        image = TV.solve(Scan(operator, case["scan"].measurement))
        shown = to_display(image, "mri", case["image_scale"] * case["output_scale"])[0].numpy()
        error = (shown - truth)[(truth > 0.02 * truth.max()) & ~folded]
        found.append(-10 * np.log10((error**2).mean() / truth.max() ** 2))
    assert found[0] > 33
    assert found[0] > found[1] - 1


def test_every_method_takes_two_sets(heads, write_hdf5):
    case = AcquireMRI(acceleration=3, acs=24)(list_cases(write_hdf5(kspace=heads[1][None]), "mri")[0])
    level = _psnr(case, TV(None, None, case=case)[0])
    wavelet = L1Wavelet(n_iterations=40)
    assert _psnr(case, wavelet(None, None, case=case)[0]) > level - 8
    fit = AdaptationInferer(MeasurementLoss(norm="l1"), n_iterations=250, lr=1e-2, quiet=True)
    image = fit(case["points"][None], small_network(), case=case)[0]
    assert image.shape == (4, 96, 64)
    assert torch.equal(case["scan"].operator.visible(image), image)
    zero_filled = case["scan"].operator.adjoint(case["scan"].measurement)
    assert _psnr(case, image) > 26
    assert float((image[2:] - zero_filled[2:]).norm() / zero_filled[2:].norm()) < 1  # the second field is fitted too
    assert fit.at(case["points"], image).shape == (4, 96, 64)
    prior = LearnedPrior(2, TotalVariation(tv_weight=7e-4, n_iterations=40), 0.3, normalise=True)
    inputs = prior.inputs(case["scan"])
    assert inputs.features.shape == (2, 8, 96, 64)
    torch.testing.assert_close(inputs.image(inputs.frame(image)), image, atol=1e-5, rtol=1e-4)
    # Untrained, the correction is 0: what is left is total variation brought nearer to the data.
    assert _psnr(case, prior.reconstruct(inputs, prior.tempered(case["scan"]))) > level - 3
    with pytest.raises(InputError, match=r"imjense: .* wraps .*--map_sets 1"):
        JointAdaptation(MeasurementLoss(norm="l1")).start_scan(case["scan"])
    with pytest.raises(InputError, match=r"wraps around .*leave it out of pre-training, or use --map_sets 1"):
        prepare_training_batch([case])


def test_the_number_of_sets_is_1_2_or_found():
    with pytest.raises(InputError, match=r"map_sets: expected 1, 2 or null .from the data., found 3"):
        AcquireMRI(map_sets=3)
