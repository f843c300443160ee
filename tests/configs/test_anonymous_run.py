"""With `--anonymize true` a real run names no person: in no file, file name, run store, log line or error."""

import csv
import hashlib
import subprocess
import sys

import pytest

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.runtime.run import RUN
from tests.conftest import ROOT
from tests.hostile import write_ct, write_mri
from tests.runs import OF, infer, texts_of
from tests.workflows import run

PERSON = {
    "PatientName": "Muellerschmidt^Annegret", "PatientID": "PID8830417", "IssuerOfPatientID": "ISSUER5521904",
    "PatientBirthDate": "19431217", "InstitutionName": "St Elsewhere", "AccessionNumber": "ACC5550199",
    "ReferringPhysicianName": "Quackenbush^Hugo", "StudyID": "STID44170932", "StudyDescription": "for Quackenbush",
    "StudyDate": "19990228", "StudyInstanceUID": "1.2.826.77.1", "FrameOfReferenceUID": "1.2.826.77.2",
    "SeriesInstanceUID": "1.2.826.77.3", "DeviceSerialNumber": "SN998812", "StationName": "SCANNERROOM7",
    "PatientComments": "lives in Springfield",
}  # fmt: skip
WORDS = ["Muellerschmidt", "Annegret", "8830417", "5521904", "19431217", "Elsewhere", "5550199", "Quackenbush"]
# Long enough not to stand in a random UID by chance.
WORDS += ["44170932"]
WORDS += ["19990228", "1.2.826.77", "998812", "SCANNERROOM7", "Springfield", "ward_of_secrets"]
WORDS += [hashlib.sha256(PERSON["PatientID"].encode()).hexdigest()[:8]]  # unsalted: whoever guesses the number knows
FOLDER = "Muellerschmidt Annegret 19431217"
INSIDE = (
    "<subjectInformation><patientName>Muellerschmidt</patientName><patientID>PID8830417</patientID>"
    "<patientBirthdate>1943-12-17</patientBirthdate></subjectInformation>"
    "<acquisitionSystemInformation><institutionName>St Elsewhere</institutionName></acquisitionSystemInformation>"
)


def _named(text: bytes) -> list[str]:
    return [word for word in WORDS if word.lower().encode() in text.lower()]


def _check(folder, printed, line):
    files = texts_of(folder)
    assert _named(files.pop("private_names.csv"))  # who is who, for the user alone
    assert {"metrics.csv", "report.html", "mlruns.db"} <= files.keys()
    assert {name: _named(name.encode()) for name in files if _named(name.encode())} == {}
    assert {name: _named(content) for name, content in files.items() if _named(content)} == {}
    assert _named(printed.encode()) == []
    assert _named(line.encode()) == []


def _printed(capfd):
    out, error = capfd.readouterr()
    return out + error


def test_a_dicom_run_names_nobody(tmp_path, capfd):
    data = tmp_path / "ward_of_secrets"
    write_ct(data / FOLDER, PERSON)
    write_ct(data / "19431217_Annegret", PERSON | {"SeriesInstanceUID": "1.2.826.77.4", "SeriesNumber": "8830417"})
    (data / "Muellerschmidt.h5").write_bytes(b"no scan")
    (data / "Muellerschmidt.dcm").write_bytes(b"no scan")
    line = _infer(data, tmp_path / "out", "ct", dicom=True, save_numpy=True)
    assert line.startswith("2 of 4 scans failed: ")
    _check(tmp_path / "out", _printed(capfd), line)


def test_an_ismrmrd_run_names_nobody(tmp_path, capfd):
    write_mri(tmp_path / "ward_of_secrets" / f"{FOLDER}.h5", INSIDE)
    line = _infer(tmp_path / "ward_of_secrets", tmp_path / "out", "mri", save_complex=True, save_numpy=True)
    assert line == ""
    _check(tmp_path / "out", _printed(capfd), line)


def test_an_error_before_any_scan_is_listed_names_nobody(tmp_path, capfd):
    (tmp_path / "ward_of_secrets").mkdir()
    (tmp_path / "ward_of_secrets" / f"{FOLDER}.h5").write_bytes(b"no scan")
    line = _infer(tmp_path / "ward_of_secrets", tmp_path / "out", "mri")
    assert "expected a readable HDF5 file" in line
    assert _named((line + _printed(capfd)).encode()) == []


@pytest.mark.parametrize("anonymize", [None, False])
def test_without_it_everything_keeps_its_name(tmp_path, capfd, anonymize):
    write_ct(tmp_path / "ward_of_secrets" / FOLDER, PERSON)
    assert infer(tmp_path / "ward_of_secrets", tmp_path / "out", "ct", anonymize=anonymize) == ""
    files, printed = texts_of(tmp_path / "out"), _printed(capfd)
    assert any(name.startswith("Muellerschmidt-Annegret-19431217") for name in files)
    assert FOLDER in printed
    # Even so a DICOM header does not get into tables, report or log.
    header = [word for word in WORDS if word not in ("Muellerschmidt", "Annegret", "19431217", "ward_of_secrets")][:-1]
    content = b"".join(files.values()) + printed.encode()
    assert [word for word in header if word.encode() in content] == []


def _infer(data, out, modality, **options):
    try:
        return RUN.hidden(infer(data, out, modality, anonymize=True, **options))  # as the excepthook shows it
    finally:
        RUN.begin({})


def test_every_output_on_request_under_neutral_names(tmp_path):
    phantoms, out = tmp_path / "phantoms", tmp_path / "out"
    write_phantoms(phantoms / "mri", "mri", n_subjects=2, size=32, seed=1)
    options = {"dicom": "true", "save_numpy": "true", "save_complex": "true", "anonymize": "true"}
    work = run("inference", ["ngp"], "mri", phantoms, out, **options)
    for name in ("case-001", "case-002"):
        expected = {f"{name}_recon{end}" for end in (".nii.gz", ".png", ".npy", "_complex.nii.gz", "_complex.npy")}
        assert {path.name for path in (out / name).iterdir()} == expected | {"dicom"}
        assert (out / name / "dicom" / f"{name}.dcm").is_file()
    assert (out / "private_names.csv").read_text().count("phantom-00") == 4
    told = "".join((out / name).read_text() for name in ("report.html", "metrics.csv"))
    assert "case-002" in told
    assert "phantom-00" not in told
    assert str(out) not in told
    assert str(phantoms) not in told
    same = run("inference", ["ngp"], "mri", phantoms, tmp_path / "named")
    rows = [[row["psnr"] for row in csv.DictReader((f / "metrics.csv").open())] for f in (out, tmp_path / "named")]
    assert rows[0] == rows[1], "hiding names changed the images"
    assert work is not same


@pytest.mark.slow
def test_the_command_line_names_nobody(tmp_path):
    """As a user runs it: MONAI's own log lines repeat the command line."""
    write_ct(tmp_path / "ward_of_secrets" / FOLDER, PERSON)
    (tmp_path / "ward_of_secrets" / "Muellerschmidt.h5").write_bytes(b"no scan")
    configs = [f"configs/{name}.json" for name in ("inference", "ct", "ngp", "quick")]
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(configs)]
    options = OF["ct"] | {"logging_file": "configs/logging.conf", "n_iterations": 2, "anonymize": "true"}
    options |= {"dataset_dir": tmp_path / "ward_of_secrets", "output_dir": tmp_path / "out"}
    command += [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 2 scans failed: case-001: expected a readable HDF5 file")
    assert "Traceback" not in result.stderr
    assert "> dataset_dir: '(hidden)" in result.stdout
    _check(tmp_path / "out", result.stdout + result.stderr, last)
