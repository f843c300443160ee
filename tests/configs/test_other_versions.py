"""Checkpoints of other versions: there is one format so far, so anything else is refused by its number or its name."""

import json

import pytest
import torch

from disinr_monai.checkpoints.released import FORMAT, load_shared, save_shared, write_bundled
from disinr_monai.errors import InputError
from disinr_monai.handlers.resume import FILE_NAME
from tests.engines import resumable
from tests.problems import small_network


@pytest.fixture
def content(tmp_path):
    save_shared(tmp_path / "now.pt", small_network(), "mri", {"seed": 5})
    return torch.load(tmp_path / "now.pt", weights_only=True)


def _refused(content, path, match):
    torch.save(content, path)
    with pytest.raises(InputError, match=match) as caught:
        load_shared(path, small_network(), "mri")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_there_is_one_format():
    """A second one needs a migration of the first, and a test of it here."""
    assert FORMAT == 1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "format 0, expected 1; it was written by another version of disinr_monai, pre-train again"),
        (2, "format 2, expected 1; it was written by a newer version of disinr_monai, update disinr_monai"),
        ("1", "format of type str, expected 1"),
        (True, "format of type bool, expected 1"),
        (torch.ones(2), "format of type Tensor, expected 1"),
        (None, "format of type NoneType, expected 1"),
    ],
)
def test_another_format_is_named(content, tmp_path, number, said):
    _refused({**content, "format": number}, tmp_path / "model.pt", said)


@pytest.mark.parametrize("key", ["model", "format", "modality", "architecture"])
def test_a_file_from_before_a_key_existed_is_named(content, tmp_path, key):
    content.pop(key)
    _refused(content, tmp_path / "model.pt", "was not written by disinr_monai's training")


def test_a_file_without_notes_is_read(content, tmp_path):
    content.pop("info")
    torch.save(content, tmp_path / "model.pt")
    assert load_shared(tmp_path / "model.pt", small_network(), "mri") == {}


def test_a_bundled_file_of_another_format_is_named(content, tmp_path):
    write_bundled(tmp_path / "now.pt", tmp_path / "bundled.pt")
    state = torch.load(tmp_path / "bundled.pt", weights_only=True)
    state._metadata["disinr_monai"]["format"] = 7
    _refused(state, tmp_path / "bundled.pt", "format 7, expected 1; it was written by a newer version")


def test_renamed_and_reshaped_weights_are_named(content, tmp_path):
    architecture = json.loads(content["architecture"])
    name = next(iter(architecture["shared"]))
    renamed = {**architecture, "shared": {f"old_{k}" if k == name else k: v for k, v in architecture["shared"].items()}}
    _refused({**content, "architecture": json.dumps(renamed)}, tmp_path / "a.pt", "has another architecture: shared")
    model = {k: torch.zeros(3) if k == f"shared.{name}" else v for k, v in content["model"].items()}
    _refused({**content, "model": model}, tmp_path / "b.pt", r"has shape \[3\], its architecture says")
    model = {k: v * float("nan") if k == f"shared.{name}" else v for k, v in content["model"].items()}
    _refused({**content, "model": model}, tmp_path / "c.pt", "holds values that are not finite")


@pytest.mark.parametrize("key", ["settings", "parts", "trainer", "network", "optimizer", "lr_scheduler", "random"])
def test_a_resume_checkpoint_from_before_a_key_existed_is_named(tmp_path, key):
    resumable(tmp_path, max_epochs=1)[0].run()
    state = torch.load(tmp_path / FILE_NAME, weights_only=True)
    state.pop(key)
    torch.save(state, tmp_path / FILE_NAME)
    with pytest.raises(
        InputError, match=r"was written by another version.*start anew|does not fit this network.*start anew"
    ):
        resumable(tmp_path, max_epochs=2, resume=True)
