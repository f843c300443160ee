import csv

import pytest

from disinr_monai.data import SkipFailed
from disinr_monai.errors import InputError
from disinr_monai.runtime.names import Names

CASES = [
    {"name": "Doe_John_s001", "subject": "Doe_John", "path": "/scans/ward 7/Doe_John.nii.gz", "slice": 1},
    {"name": "Doe_John_s002", "subject": "Doe_John", "path": "/scans/ward 7/Doe_John.nii.gz", "slice": 2},
    {"name": "MUELLER", "subject": "patient-ab12", "path": ["/scans/MUELLER/1.dcm", "/scans/MUELLER/2.dcm"]},
]


def names(anonymize=True) -> Names:
    return Names(CASES, ["/scans", "OUT", None], anonymize)


def test_neutral_names_count_cases_and_subjects():
    assert list(names().cases.values()) == ["case-001", "case-002", "case-003"]
    assert names().subjects == {"Doe_John": "subject-001", "patient-ab12": "subject-002"}
    row = names().row({"case": "MUELLER", "subject": "patient-ab12", "psnr": 30.0})
    assert row == {"case": "case-003", "subject": "subject-002", "psnr": 30.0}
    assert names().row(row) == row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/scans/ward 7/Doe_John.nii.gz: broken", "case-001: broken"),
        ("Doe_John_s002: not finite", "case-002: not finite"),
        ("/scans/MUELLER (2 DICOM files): gaps", "case-003 (2 DICOM files): gaps"),
        ("uniform pattern, 8 coils", "uniform pattern, 8 coils"),
    ],
)
def test_texts_lose_what_names_a_person(text, expected):
    assert names().text(text) == expected


def test_settings_lose_paths_and_keep_the_rest():
    paths = {"dataset_dir": "/scans", "output_dir": "OUT", "store": "sqlite:////users/doe/x.db", "home": "/users/doe/w"}
    others = {"expression": "$data.list_cases(@dataset_dir)", "lr": 0.1, "method": "disinr"}
    hidden = names().settings(paths | others)
    assert hidden == dict.fromkeys(paths, "(hidden)") | others


@pytest.mark.parametrize(
    ("value", "everywhere", "on_servers"),
    [(None, False, True), ("null", False, True), ("True", True, True), ("false", False, False)],
)
def test_where_names_are_hidden(value, everywhere, on_servers):
    assert (names(value).everywhere, names(value).on_servers) == (everywhere, on_servers)


def test_another_value_is_refused():
    with pytest.raises(InputError, match="anonymize: expected true, false or nothing, found 'maybe'"):
        names("maybe")


def test_who_is_who_stays_in_a_private_table(tmp_path):
    for anonymize, elsewhere, written in (
        (None, False, False),
        (False, True, False),
        (None, True, True),
        (True, False, True),
    ):
        names(anonymize).write_table(tmp_path, elsewhere)
        assert (tmp_path / "private_names.csv").exists() is written
        (tmp_path / "private_names.csv").unlink(missing_ok=True)
    names().write_table(tmp_path)
    rows = list(csv.DictReader((tmp_path / "private_names.csv").open()))
    assert [(row["alias"], row["name"]) for row in rows] == [
        (f"case-00{i + 1}", c["name"]) for i, c in enumerate(CASES)
    ]
    assert rows[0]["source"] == CASES[0]["path"]


def test_a_case_is_renamed_after_it_was_measured():
    seen = []

    def acquire(case):
        seen.append(case["name"])
        return {"name": case["name"], "subject": case["subject"], "info": {"source": "Doe_John.nii.gz", "slice": 1}}

    case = names()(SkipFailed(acquire)(CASES[0]))
    assert seen == ["Doe_John_s001"]  # noise and coils go by it
    read = {"slice": 1, "read_as": "read as unknown format"}
    assert (case["name"], case["subject"], case["info"]) == ("case-001", "subject-001", read)
    same = names(None)(SkipFailed(acquire)(CASES[0]))
    assert same["name"] == "Doe_John_s001"


def test_the_reason_of_a_failure_is_renamed_too():
    def acquire(case):
        raise InputError(f"{case['path']}: expected k-space, found none")

    case = names()(SkipFailed(acquire)(CASES[0]))
    assert case["error"] == "case-001: expected k-space, found none"
