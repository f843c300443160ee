"""The released prior leaves the border of the image as dark as the inside of the background."""

import numpy as np

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.workflows import run


def test_the_outermost_rows_of_an_image_are_dark(tmp_path):
    write_phantoms(tmp_path / "mri", "mri", n_subjects=1, size=96)
    options = {"device": "cpu", "guard": False, "save_numpy": True, "acceleration": 4, "acs": 16, "n_coils": 4}
    run("inference", [], "mri", tmp_path, tmp_path / "out", tiny={}, image_size=96, **options)
    (file,) = (tmp_path / "out").glob("*/*_recon.npy")
    image = np.load(file)
    border = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert max(rows.mean() for rows in border) < 0.01 * image.max()
