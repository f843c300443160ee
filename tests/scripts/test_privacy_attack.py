"""The attacks on released weights: that they find a leak where there is one, and none in the shipped weights."""

import json
import sys
from pathlib import Path

import privacy_attack
import pytest
import torch

from tests.problems import blob


def test_resemblance_looks_past_brightness_and_contrast(rng):
    image = blob()[None]
    same = privacy_attack.resemblance(3 * image + 7, image)
    assert same["render_correlation"] == pytest.approx(1, abs=1e-6)
    assert same["render_psnr"] > 100
    turned = privacy_attack.resemblance(image.flip(-2), image)
    assert turned["render_correlation"] < 0.95
    nothing = privacy_attack.resemblance(torch.randn(image.shape, generator=rng), image)
    assert abs(nothing["render_correlation"]) < 0.2


def test_comparison_finds_a_leak_and_only_a_leak():
    leaking = [{"seen": i < 8, "render_correlation": 0.5 + 0.01 * i + 0.3 * (i < 8)} for i in range(16)]
    (found,) = privacy_attack.compare(leaking)
    assert found["auc"] == 1
    assert found["p"] < 1e-3
    alike = [{"seen": i % 2 == 0, "render_correlation": 0.5 + 0.01 * i} for i in range(16)]
    (found,) = privacy_attack.compare(alike)
    assert found["p"] > 0.3
    assert "| render, correlation |" in privacy_attack.markdown([found])


@pytest.mark.slow
def test_shipped_ct_field_shows_no_subject_that_it_was_trained_on(data_dir, tmp_path, monkeypatch):
    """Without any measurement: 14 unseen subjects, and the rest of the same collections, nearly all seen (36)."""
    persons = json.loads(Path("benchmarks/test_persons.json").read_text())["ct"]
    unseen = {Path(scan).name for person in persons for scan in person["scans"]}
    for path in (data_dir / "ct2d").glob("*.nii.gz"):
        folder = tmp_path / "split" / ("test" if path.name in unseen else "pretraining")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path)
    words = ["privacy_attack.py", "--task", "ct", "--attacks", "render", "--output", str(tmp_path / "out.json")]
    words += ["--pretraining_dir", str(tmp_path / "split" / "pretraining"), "--test_dir", str(tmp_path / "split/test")]
    monkeypatch.setattr(sys, "argv", [*words, "--n_views", "1", "--image_size", "128", "--pixel_spacing", "2.0"])
    privacy_attack.main()
    found = {entry["attack"]: entry for entry in json.loads((tmp_path / "out.json").read_text())["comparison"]}
    entry = found["render, correlation"]
    assert entry["n_seen"] >= 36
    assert entry["n_unseen"] == 14
    assert entry["p"] > 0.01
    assert entry["seen_max"] < entry["unseen_max"] + 0.1
