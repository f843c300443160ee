"""The checks of projections hold at every door, and what is listed is what is read."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireCT, AcquirePET
from disinr_monai.data.cases import list_cases
from disinr_monai.errors import InputError
from disinr_monai.methods import DirectInverse
from tests.data.readers import nexus_files
from tests.field_reports.scans import integrals, write

HALF_TURN = np.arange(120) * math.pi / 120
RIGHT = integrals(HALF_TURN, 128)

# --- Other doors ---


@pytest.mark.parametrize(
    ("change", "message"), [(lambda y: np.exp(-y), "transmission I / I0"), (lambda y: -y, "wrong sign")]
)
def test_cil_files_and_volumes_are_checked(tmp_path, change, message):
    geometry = nexus_files.system(**nexus_files.CONE)
    data = change(nexus_files.measured(geometry)[:, 0])
    (listed,) = list_cases(nexus_files.write(tmp_path / "a.nxs", geometry, data), "ct")
    with pytest.raises(InputError, match=message):
        AcquireCT(image_size=40)(listed)


def test_pet_is_checked(tmp_path):
    def pet(scan="emission", **more):
        angles = np.arange(60) * math.pi / 60
        lines = integrals(angles, 64, 4.0, [(20.0, 10.0, 80.0, 0.0096)], 1e6)
        content = {"sinogram": np.random.default_rng(0).poisson(100 * np.maximum(lines, 0)), "angles": angles}
        blank = np.full(lines.shape, 1000.0)
        content = {"transmission": blank * np.exp(-lines), "blank": blank, "angles": angles, **content}
        with h5py.File(tmp_path / "p.h5", "w") as file:
            file.attrs["bin_spacing"] = more.pop("bin_spacing", 4.0)
            for key, value in {**content, **more}.items():
                if value is not None:
                    file[key] = value
        (listed,) = list_cases(tmp_path / "p.h5", "pet", scan=scan)
        return AcquirePET(scan=scan)(listed), content

    case, content = pet()
    assert len(case["info"]["unverified"]) == 2
    with pytest.raises(InputError, match="must be in radians"):
        pet(angles=np.degrees(content["angles"]))
    assert pet(angles=None, angles_deg=np.degrees(content["angles"]))[0]["info"]["assumed"] == ["no blur (fwhm)"]
    with pytest.raises(InputError, match="lengths in m"):
        pet(bin_spacing=0.004)
    assert any("cm instead of mm" in text for text in pet(bin_spacing=0.4)[0]["info"]["unverified"])
    with pytest.raises(InputError, match="axes are exchanged"):
        pet(sinogram=content["sinogram"][:, 2:62].T, transmission=None, blank=None)
    with pytest.raises(InputError, match="correction factors"):
        pet(attenuation=60 * np.exp(-content["transmission"] / 1000))
    with pytest.raises(InputError, match="store it as `attenuation_factors`"):
        pet(attenuation=content["transmission"] / 1000)

    case, _ = pet("transmission")
    assert all("lengths" not in text for text in case["info"]["unverified"])
    with pytest.raises(InputError, match="exchanged"):
        pet("transmission", transmission=content["blank"], blank=content["transmission"])
    with pytest.raises(InputError, match="line integrals or correction factors"):
        pet("transmission", transmission=abs(np.log(content["transmission"] / content["blank"])))
    assert any("cm instead" in text for text in pet("transmission", bin_spacing=0.4)[0]["info"]["unverified"])


# --- One truth for listing and reading ---


def ball(angles):
    """A ball of water seen by a cone beam, ``(view, row, column)``."""
    u, v = (np.arange(20) - 9.5) * 8.0, (np.arange(16) - 7.5)[:, None] * 8.0
    sinogram = []
    for angle in angles:
        n, e = np.array([-np.sin(angle), np.cos(angle), 0]), np.array([np.cos(angle), np.sin(angle), 0])
        ray = 500.0 * n + u[:, None] * e + v[..., None] * np.array([0, 0, 1.0])
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        centre = np.array([10.0, -5.0, 4.0]) + 300.0 * n
        sinogram.append(0.04 * np.sqrt(np.maximum(25.0**2 - centre @ centre + (ray @ centre) ** 2, 0)))
    return np.array(sinogram)


def test_what_the_user_says_of_a_cone_beam_counts_in_the_list_too(tmp_path):
    angles = np.arange(24) * math.pi / 12
    path = tmp_path / "cone.h5"
    with h5py.File(path, "w") as file:
        file["sinogram"], file["angles"] = ball(angles), angles
    given = {"geometry": "cone", "detector_spacing": 8.0, "source_distance": 300.0, "detector_distance": 200.0}
    given |= {"pixel_spacing": 5.0, "image_shape": (20, 20, 16)}
    (listed,) = list_cases(path, "ct", ct_geometry=given)
    case = AcquireCT(file_geometry=given)(listed)
    image = DirectInverse()(None, None, case=case)[0, 0]
    y, x, z = np.mgrid[:20, :20, :16]
    x, y, z = (x - 9.5) * 5.0 - 10, (9.5 - y) * 5.0 + 5, (z - 7.5) * 5.0 - 4
    inside = torch.from_numpy(np.sqrt(x**2 + y**2 + z**2) < 15)
    assert float(1200 * image[inside].mean() - 1000) == pytest.approx(0, abs=40)
    # Without the word it says what is missing, rather than 24 scans that each fail.
    with pytest.raises(InputError, match=r"for a cone beam .* add `geometry` 'cone', or give --ct_geometry"):
        list_cases(path, "ct")


def test_what_the_user_says_of_a_stack_counts_in_the_list_too(tmp_path):
    path = write(tmp_path / "a.h5", np.stack([RIGHT] * 3), HALF_TURN, geometry="cone")
    assert len(list_cases(path, "ct", ct_geometry={"geometry": "parallel"})) == 3
    given = {"geometry": "parallel"}
    cases = [AcquireCT(file_geometry=given)(c) for c in list_cases(path, "ct", ct_geometry=given)]
    assert all(case["scan"].operator.range_shape == (1, 120, 128) for case in cases)
    with pytest.raises(InputError, match="ct_geometry: expected a dictionary"):
        list_cases(path, "ct", ct_geometry="cone")
