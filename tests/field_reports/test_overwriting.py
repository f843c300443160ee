"""A folder that holds a pre-training is not trained into without a word, with any overlay."""

from __future__ import annotations

import pytest

from disinr_monai.handlers.resume import FILE_NAME
from disinr_monai.runtime.shown_errors import one_line
from tests.workflows import workflow


@pytest.mark.parametrize("overlays", [[], ["prior"], ["strainer"], ["meta"]])
@pytest.mark.parametrize("name", ["model.pt", FILE_NAME])
def test_an_earlier_pre_training_is_kept(tmp_path, overlays, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"weights")
    with pytest.raises(RuntimeError) as caught:
        workflow("train", overlays, "mri", tmp_path, tmp_path / "out").initialize()
    line = one_line(caught.value)
    assert line.startswith(f"output_dir: {tmp_path / 'out'} holds {name} of an earlier pre-training")
    assert line.endswith("--resume true to go on with it, or --overwrite true to replace it")
    assert (tmp_path / "out" / name).read_bytes() == b"weights"


@pytest.mark.parametrize("option", ["overwrite", "resume"])
def test_it_is_replaced_or_gone_on_from_where_asked_for(tmp_path, option):
    """As far as the first thing that these folders lack: scans."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE_NAME).write_bytes(b"weights")
    with pytest.raises(RuntimeError) as caught:
        workflow("train", [], "mri", tmp_path, tmp_path / "out", **{option: "true"}).initialize()
    assert "expected a file or folder with scans" in one_line(caught.value)
    assert (tmp_path / "out" / FILE_NAME).exists() == (option == "resume")
