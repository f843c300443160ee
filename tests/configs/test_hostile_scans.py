"""Texts from strangers in a real run: nothing is written outside the output folder, nothing runs in the report."""

import re
from xml.sax.saxutils import escape

import pytest

from disinr_monai.data.case import safe_name, unique_names
from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.hostile import write_ct, write_mri
from tests.output.test_report import Checker
from tests.runs import infer, texts_of
from tests.workflows import workflow

SCRIPT = """"><script>alert('broken in')</script><img src=x onerror="alert(1)">'&"""
PATHS = [
    "../../outside",
    "/outside",
    "..\\..\\outside",
    "a\0b",
    "CON",
    "nul.txt",
    "x" * 300,
    "\u202egpj.exe",
    "~/outside",
    "$HOME",
]
FIELDS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "StudyDescription", "SeriesDescription", "StudyID",
    "AccessionNumber", "InstitutionName", "ReferringPhysicianName", "SeriesNumber", "BodyPartExamined", "Laterality",
    "PatientPosition", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ProtocolName", "StationName",
)  # fmt: skip
_SAFE = re.compile(r"[A-Za-z0-9._-]+")


def _tree(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", PATHS)
def test_a_name_is_one_short_word_that_any_system_takes(name):
    safe = safe_name(name)
    assert _SAFE.fullmatch(safe)
    assert not safe.startswith((".", "-"))
    assert len(safe) <= 120
    assert safe.partition(".")[0].upper() not in {"CON", "NUL", "PRN", "AUX", "COM1", "LPT9"}


def test_long_names_stay_different():
    one, two = (safe_name("x" * 300 + end) for end in "ab")
    assert one != two
    assert unique_names([one, one]) == [one, f"{one}-2"]


@pytest.mark.parametrize("text", [SCRIPT, "../../outside", "/outside", "\u202egpj.exe"])
def test_dicom_fields_neither_leave_the_folder_nor_run_in_the_report(tmp_path, text, capfd):
    data, out = tmp_path / "data", tmp_path / "out"
    # A folder name may hold everything but a slash; two series in one folder are told apart by their SeriesNumber.
    folder = data / (text.replace("/", "-").lstrip("-.") or "x")
    values = dict.fromkeys(FIELDS, text) | {"SeriesInstanceUID": "1.2"}
    write_ct(folder, values)
    write_ct(folder, dict.fromkeys(FIELDS, text), name="b{}.dcm")
    write_ct(data / "other", dict.fromkeys(FIELDS, text) | {"Modality": text})
    (data / "broken.h5").write_bytes(b"no scan")
    before = _tree(tmp_path)
    line = infer(data, out, "ct", dicom=True)
    assert "broken.h5" in line
    assert "\n" not in line
    written = _tree(tmp_path) - before
    assert {path.parts[0] for path in written} == {"out"}
    assert all(_SAFE.fullmatch(part) for path in written for part in path.parts)
    assert len(list(out.glob("*/*_recon.nii.gz"))) == 2
    _check_page((out / "report.html").read_text())


def _check_page(text):
    page = Checker()
    page.feed(text)
    assert page.open == []
    assert page.errors == []
    assert page.scripts == 1
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_an_ismrmrd_header_does_not_run_in_the_report(tmp_path):
    write_mri(tmp_path / "data" / f"{SCRIPT.replace('/', '-')}.h5", "", trajectory=escape(SCRIPT))
    before = _tree(tmp_path)
    assert infer(tmp_path / "data", tmp_path / "out", "mri") == ""
    assert {path.parts[0] for path in _tree(tmp_path) - before} == {"out"}
    text = (tmp_path / "out" / "report.html").read_text()
    assert "broken in" in text  # it is shown, as text
    _check_page(text)


def test_the_run_store_keeps_hostile_texts_as_texts(tmp_path):
    write_ct(tmp_path / "data" / "a", dict.fromkeys(FIELDS, SCRIPT))
    infer(tmp_path / "data", tmp_path / "out", "ct", run_name=SCRIPT, experiment_name="../../outside")
    assert _tree(tmp_path) >= {(tmp_path / "out" / "mlruns.db").relative_to(tmp_path)}
    assert {path.parts[0] for path in _tree(tmp_path)} == {"data", "out"}
    assert all(b"outside" not in name.encode() for name in texts_of(tmp_path / "out"))


def test_one_bad_scan_does_not_stop_the_others(tmp_path):
    folder = tmp_path / "mixed" / "mri"
    write_phantoms(folder, "mri", n_subjects=2, size=32, seed=1)
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    out = tmp_path / "out"
    work = workflow("inference", ["ngp"], "mri", tmp_path / "mixed", out)
    work.initialize()
    with pytest.raises(RuntimeError) as caught:
        work.run()
    assert "1 of 3 scans failed" in str(caught.value.__cause__)
    assert "broken.nii.gz" in str(caught.value.__cause__)
    assert len(list(out.glob("*/*_recon.nii.gz"))) == 2
    assert not (out / "broken").exists()


def test_read_only_output_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError) as caught:
        workflow("train", [], "mri", tmp_path, tmp_path / "file" / "out").initialize()
    assert "output_dir: cannot write to" in str(caught.value.__cause__)
