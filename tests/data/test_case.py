from disinr_monai.data.case import safe_name, subjects_of, unique_names
from disinr_monai.runtime.names import case_seed


def test_slices_of_one_subject_are_one_subject():
    stems = ["TCGA-17-Z013_054", "ACRIN_001_z075", "ACRIN_001_u005", "sub-02_T1w", "sub-02_T2w", "M2208_T2w", "brain"]
    assert subjects_of(stems) == ["TCGA-17-Z013", "ACRIN_001", "ACRIN_001", "sub-02", "sub-02", "M2208_T2w", "brain"]


def test_names_are_portable_and_unique():
    assert safe_name("../a b/c:ü") == "a-b-c"
    assert safe_name("...") == "case"
    assert unique_names(["a", "A", "b", "a"]) == ["a", "A-2", "b", "a-3"]


def test_case_seed_is_stable_and_differs():
    assert case_seed(0, "a") == 2649998842
    assert len({case_seed(seed, name) for seed in (0, 1) for name in "ab"}) == 4


def test_a_long_number_is_a_subject_of_its_own():
    stems = ["file_brain_AXT2_200_2000001", "file_brain_AXT2_200_2000002"]
    assert subjects_of(stems) == stems
