"""Paths that code derives from its own place, which moves with the code."""

import pytest

from disinr_monai.checkpoints.of_run import n_prior_passes
from disinr_monai.data.case import safe_name
from disinr_monai.runtime.shown_errors import of_config_language
from disinr_monai.runtime.versions import _git_commit
from tests.conftest import ROOT


def test_the_commit_of_a_checkout_is_found():
    assert (_git_commit() == "not a checkout") != (ROOT / ".git").exists()


def test_an_error_in_any_room_of_the_package_is_no_mistake_in_a_config():
    with pytest.raises((AttributeError, TypeError)) as caught:
        safe_name(None)
    assert of_config_language(caught.value) is None


def test_the_shipped_checkpoint_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert n_prior_passes(None, "ct") == 4
