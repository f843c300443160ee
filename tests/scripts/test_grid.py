"""`scripts/benchmark.py grid`: cells, persons, going on after an interruption, and the page made of it."""

import json
import sys

import benchmark
import grid
import pytest
import write_grid

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from tests.conftest import ROOT

TINY = "--image_size 32 --n_detectors 64 --detector_spacing 12 --pixel_spacing 8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    write_phantoms(folder / "scans", "ct", n_subjects=3, size=32, seed=1)
    files = sorted(file.name for file in (folder / "scans").iterdir())
    persons = [
        {"person": f"P{i}", "source": f"S{i % 2}", "scans": {f"scans/{name}": "CT"}} for i, name in enumerate(files)
    ]
    (folder / "persons.json").write_text(json.dumps({"ct": persons}))
    return folder


def run(monkeypatch, folder, options: str) -> None:
    words = f"grid --task ct --quiet --data_dir {folder} --persons_file {folder}/persons.json {TINY} {options}"
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words.split()])
    benchmark.main()


def test_the_grids_are_those_of_the_page():
    assert len(grid.GRIDS["mri"].cells) == 20
    assert len(grid.GRIDS["ct"].cells) == 12
    assert [grid.cell_name(cell) for cell in grid.GRIDS["real"].cells] == ["uniform/4", "uniform/6", "poisson/6"]
    assert grid.chosen_cells(grid.GRIDS["ct"], "60/1e5,30/5000") == [(60, 1e5), (30, 5e3)]
    assert grid.chosen_cells(grid.GRIDS["mri"], "4/0.030") == [(4, 0.03)]
    with pytest.raises(InputError, match=r"cells: expected some of 3/0\.01, .* found '5/0\.1'"):
        grid.chosen_cells(grid.GRIDS["mri"], "5/0.1")


def test_the_test_persons_are_enough_and_of_several_contrasts():
    persons = json.loads((ROOT / "benchmarks" / "test_persons.json").read_text())
    mri = persons["mri"]
    assert len({p["person"] for p in mri}) == len(mri) >= 8
    assert len({p["source"] for p in mri}) >= 4
    assert {c for p in mri for c in p["scans"].values()} == {"T1", "T2", "FLAIR", "T1 with contrast"}
    assert len({p["person"] for p in persons["ct"]}) == len(persons["ct"]) == 14


def test_an_interrupted_grid_goes_on(folder, monkeypatch, capsys):
    output = f"--methods fbp,sirt --output {folder}/g.json"
    run(monkeypatch, folder, f"{output} --cells 60/1e5 --persons 2")
    first = json.loads((folder / "g.json").read_text())
    rows = first["cells"]["60/1e5"]["rows"]
    assert [(row["subject"], row["method"]) for row in rows] == [(p, m) for p in ("P0", "P1") for m in ("fbp", "sirt")]
    assert all(row["psnr_body"] > 5 and row["psnr_soft"] > 5 for row in rows)
    # Killed in the next cell: the first one stays, nothing is measured twice.
    with monkeypatch.context() as killed:
        killed.setattr(benchmark, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, folder, f"{output} --cells 60/1e5,30/5e3 --persons 2")
    assert json.loads((folder / "g.json").read_text()) == first
    capsys.readouterr()
    run(monkeypatch, folder, f"{output} --cells 60/1e5,30/5e3 --persons 2")
    assert "cell 1 of 2, 60/1e5: 0 of 4 rows to measure" in (said := capsys.readouterr().out)
    assert "cell 2 of 2, 30/5e3: 4 of 4 rows to measure" in said
    both = json.loads((folder / "g.json").read_text())
    assert list(both["cells"]) == ["30/5e3", "60/1e5"]
    assert both["cells"]["60/1e5"] == first["cells"]["60/1e5"]  # to the second that each row took
    # One person more: only that one is measured.
    run(monkeypatch, folder, f"{output} --cells 60/1e5")
    more = json.loads((folder / "g.json").read_text())["cells"]["60/1e5"]["rows"]
    assert more[:4] == rows
    assert [row["subject"] for row in more[4:]] == ["P2", "P2"]
    with pytest.raises(SystemExit, match="output: expected seed 1"):
        run(monkeypatch, folder, f"{output} --seed 1")


def test_persons_whom_the_weights_have_seen_are_left_out(tmp_path, capsys):
    persons = [{"person": name, "seen_by": ["abc"] * (name == "A")} for name in "AB"]
    (tmp_path / "p.json").write_text(json.dumps({"ct": persons}))
    assert [p["person"] for p in grid.unseen_persons(tmp_path / "p.json", "ct", "abc", None)] == ["B"]
    assert "pre-trained on them: A" in capsys.readouterr().out
    assert len(grid.unseen_persons(tmp_path / "p.json", "ct", "other", None)) == 2
    with pytest.raises(InputError, match="persons_file: expected JSON with a list 'mri'"):
        grid.unseen_persons(tmp_path / "p.json", "mri", "abc", None)


def test_a_missing_scan_is_named(tmp_path):
    persons = [{"person": "A", "source": "S", "scans": {"none.nii.gz": "CT"}}]
    with pytest.raises(InputError, match=r"data_dir: expected none\.nii\.gz of A"):
        grid.link_scans(persons, str(tmp_path), tmp_path / "links")


def test_the_page_compares_with_the_best_classical_method_of_the_cell():
    """Two persons: gains of 1 and 0.5 over the method with the best mean, not over the best of each."""
    numbers = {"disinr": (31, 32), "tv": (30, 31.5), "sense": (25, 31.8)}
    rows = [
        {"subject": person, "source": "S", "contrast": "T1", "scan": person, "case": person, "method": method,
         "psnr": values[i], "psnr_body": values[i] - 1, "ssim": 0.9, "seconds": 1.0, "classical_share": i}
        for method, values in numbers.items() for i, person in enumerate(("A", "B"))
    ]  # fmt: skip
    cell = {"setting": {"acceleration": 4, "noise_std": 0.03}, "rows": rows, "hardware": "x", "versions": {}}
    result = {"task": "mri", "seed": 0, "weights": "w", "options": {"n_coils": 8}, "cells": {"4/0.03": cell}}
    page = "\n".join(write_grid.grid_section(result))
    assert "## MRI grid, 8 coils (2 persons, 1 source)" in page
    (row,) = write_grid.claim({"mri": {"cells": {"4/0.06": cell}}})[2:]
    assert row.startswith(
        "| simulated MRI, acceleration 4, noise_std 0.03 | 2 | 31.50 ± 0.50 | 30.75 ± 0.75 (tv) | +0.75"
    )
    assert "| 31.50 ± 0.50 | 30.75 ± 0.75 | 28.40 ± 3.40 | +0.75 ± 0.25 (+0.50) |" in page
    assert "| 0.50 (1 of 2) |" in page
    assert "| A | T1 | 4 | 31.00 (+1.00) |" in page
    assert "| B | T1 | 4 | 32.00 (+0.50) |" in page
