"""The code that the docs show runs, and does what they say."""

import importlib
import json
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, list_cases
from disinr_monai.data.readers.reader import READERS
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom, write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.methods import MLEM
from disinr_monai.networks import DisINR
from tests.configs.pages import block, blocks
from tests.conftest import ROOT
from tests.engines import rows_of
from tests.networks import test_contract as encoder_contract
from tests.operators import helpers
from tests.operators import test_contract as operator_contract
from tests.workflows import run


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The case of the file that an example of docs/bring-your-own-data.md writes."""
    monkeypatch.chdir(tmp_path)

    def write(title: str, file: str, modality: str) -> dict:
        exec(block("bring-your-own-data.md", title), {"__name__": "example"})
        (case,) = list_cases(tmp_path / file, modality)
        return case

    return write


def test_sinogram_example(example):
    measured = AcquireCT()(example("", "disc.h5", "ct"))
    image = measured["scan"].operator.direct_inverse(measured["scan"].measurement)[0]
    # Pixels of 2 mm, centre at 39.5: the insert is 25 mm to the right and 10 mm up.
    water, insert, air = image[38:42, 28:32].mean(), image[33:37, 51:54].mean(), image[2:6, 2:6].mean()
    np.testing.assert_allclose([1200 * float(v) - 1000 for v in (water, insert, air)], [0, 200, -1000], atol=60)


def test_pet_example(example):
    case = AcquirePET()(example("pet.py", "pet.h5", "pet"))
    image = MLEM(n_iterations=2, n_subsets=8)(None, None, case=case)[0, 0]
    # Pixels of 4 mm, centre at 47.5: the hot disc is 50 mm to the right and 30 mm up.
    warm, hot, air = image[46:50, 30:34].mean(), image[38:42, 58:62].mean(), image[2:6, 2:6].mean()
    np.testing.assert_allclose([float(hot / warm), float(air / warm)], [5, 0], atol=1.0)


def test_radial_example(example):
    measured = AcquireMRI()(example("radial.py", "radial.h5", "mri"))
    image = torch.linalg.vector_norm(measured["scan"].operator.direct_inverse(measured["scan"].measurement), dim=0)
    assert divmod(int(image.argmax()), 128) == (64, 64)


def test_ismrmrd_example(example):
    pytest.importorskip("ismrmrd")
    measured = AcquireMRI()(example("ismrmrd_scan.py", "scan.h5", "mri"))
    assert measured["info"]["maps"] == "espirit"
    # The middle of the slice: 40 mm up, at the pixel where the transform has its centre.
    np.testing.assert_allclose(measured["affine"].numpy() @ [48, 48, 0, 1], [0, 0, 40, 1], atol=1e-4)


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with the configs and, importable, the files that a page tells the reader to write."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def write(page: str, module: str):
        (tmp_path / f"{module}.py").write_text(block(page, f"{module}.py"))
        (tmp_path / "configs" / f"{module}.json").write_text(block(page, f"configs/{module}.json", "json"))
        modules.append(module)
        importlib.invalidate_caches()
        return importlib.import_module(module)

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_add_an_operator(own_code, tmp_path, monkeypatch):
    module = own_code("how-to/add-an-operator.md", "blur")
    monkeypatch.setattr(helpers, "EXAMPLE_OPERATORS", {})
    exec(block("how-to/add-an-operator.md", ""), vars(helpers) | vars(module))
    (make,) = helpers.EXAMPLE_OPERATORS[module.GaussianBlur]
    for batch in ((), (3,), (2, 3)):
        operator_contract.test_adjoint(make, batch)
        operator_contract.test_shapes_and_batches(make, batch)
    for check in ("gradient_is_the_adjoint", "wrong_shapes_are_named", "norm_squared", "move"):
        getattr(operator_contract, f"test_{check}")(make)
    operator_contract.test_nothing_is_saved_with_a_network(make)
    flat = torch.ones(1, 5, 7)
    torch.testing.assert_close(make()(flat), flat)

    write_phantoms(tmp_path / "ct", "ct", n_subjects=1, size=32)
    options = {"baselines": "@classical", "sigma": 2.0, "device": "cpu", "configs": tmp_path / "configs"}
    options["tiny"] = {"image_size": 32, "slices_per_subject": 1}  # the other options of CT are not read
    run("inference", ["blur", "ngp"], "ct", tmp_path, tmp_path / "out", n_iterations=2, **options)
    assert [row["method"] for row in rows_of(tmp_path / "out")] == ["ngp", "tv"]


def test_add_a_file_format(own_code, tmp_path):
    scan = simulate_kspace(brain_phantom(32, np.random.default_rng(0)), n_coils=3)
    folder = tmp_path / "mri"
    folder.mkdir()
    np.savez(folder / "scan.npz", kspace=np.stack([scan.kspace] * 3), voxel_mm=[2.0, 2.0, 5.0])
    with pytest.raises(InputError, match=r"found 1 others \(1 x .npz\)"):
        list_cases(folder, "mri")
    with mock.patch.dict(READERS):
        own_code("how-to/add-a-file-format.md", "npz_kspace")
        assert READERS["npz_kspace"].name == "NumPy k-space"
        np.savez(tmp_path / "other.npz", image=np.ones(3))
        with pytest.raises(InputError, match=r"other\.npz: expected `kspace` in a \.npz file"):
            list_cases(tmp_path / "other.npz", "mri")
        options = {"slices_per_subject": 2, "n_iterations": 2, "device": "cpu", "configs": tmp_path / "configs"}
        run("inference", ["ngp", "npz_kspace"], "mri", tmp_path, tmp_path / "out", **options)
    assert [row["case"] for row in rows_of(tmp_path / "out")] == ["scan_s001", "scan_s002"]
    assert "read as NumPy k-space" in (tmp_path / "out" / "report.html").read_text()


def test_add_a_backbone(own_code, tmp_path, rng):
    module = own_code("how-to/add-a-backbone.md", "fourier_features")
    points = torch.rand(33, 2, generator=rng) * 2 - 1
    (example,) = (text for _, text in blocks(ROOT / "docs/how-to/add-a-backbone.md", "py"))
    (make,) = eval("{" + example + "}", vars(module)).values()
    encoder_contract.test_width(make, points)
    encoder_contract.test_points_are_encoded_one_by_one(make, points)
    encoder_contract.test_every_parameter_gets_a_gradient(make, points)
    encoder_contract.test_seed_decides_the_start(make)
    encoder_contract.test_reset_gives_the_start_back(make, points)
    encoder_contract.test_saved_and_loaded_it_draws_the_same(make, points, tmp_path)

    overlay = json.loads((tmp_path / "configs" / "fourier_features.json").read_text())
    assert overlay["encoder"]["_target_"] == "fourier_features.FourierFeaturesEncoder"
    network = DisINR(module.FourierFeaturesEncoder, out_channels=2, n_subjects=2)
    assert "points" not in network.shared.state_dict()
