"""Settings that nothing reads, that are misspelled, of another kind or undone by the order of files are refused."""

import json
import warnings
from itertools import permutations
from pathlib import Path

import benchmark
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from disinr_monai.errors import InputError
from disinr_monai.runtime.config_files import check_order, read_files
from disinr_monai.runtime.overrides import check_config, hyper_parameters, known_keys
from disinr_monai.runtime.run import RUN
from tests.workflows import CONFIGS, config_files

MODALITIES = ("mri", "ct", "pet", "volume")
# An option of each modality that no other one reads.
OWN = {"mri": {"acceleration": 4}, "ct": {"photons": 1e4}, "pet": {"arc": 90.0}, "volume": {"max_voxels": 10**6}}
FOREIGN = [(m, *option) for m in MODALITIES for other in OWN if other != m for option in OWN[other].items()]


def merged(*names: str, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(*names))
    parser.update(overrides)
    parser.parse()
    return parser


def check(*names: str, **overrides) -> None:
    files = read_files(config_files(*names))
    check_order(files)
    check_config(merged(*names, **overrides).config, files)


def by_command_line(files: list[str], **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        create_workflow(config_file=files, logging_file=False, **options)


def by_workflow(files: list[str], **options) -> None:
    ConfigWorkflow(files, workflow_type="infer", logging_file=False, **options).initialize()


@pytest.mark.parametrize(("modality", "option", "value"), FOREIGN)
@pytest.mark.parametrize("start", [by_command_line, by_workflow])
def test_an_option_of_another_modality_is_refused(tmp_path, start, modality, option, value):
    options = {"output_dir": str(tmp_path / "out"), "dataset_dir": str(tmp_path), option: value}
    with pytest.raises(RuntimeError) as caught:
        start(config_files("inference", modality, "ngp"), **options)
    assert str(caught.value.__cause__).startswith(f"{option}: no such key in the configs of this run; ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("n_views", 7), ("freeze_depth", 2), ("arc", 180.0)])
def test_a_workflow_without_the_command_line_knows_its_files(tmp_path, option, value):
    """MONAI does not say which files it was made from: not all that lie in the folder are the run's."""
    with pytest.raises(RuntimeError) as caught:
        by_workflow(config_files("inference", "mri", "ngp"), output_dir=str(tmp_path), **{option: value})
    assert str(caught.value.__cause__).startswith(f"{option}: no such key")


@pytest.mark.parametrize("modality", ["mri", "ct"])
def test_scripts_refuse_an_option_that_no_run_of_theirs_reads(modality):
    other = OWN["ct" if modality == "mri" else "mri"]
    with pytest.raises(InputError, match="no such key in the configs of these methods"):
        benchmark.check_methods(modality, ["ngp", "tv"], other)
    benchmark.check_methods(modality, ["ngp", "tv"], OWN[modality])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("phase", ["train", "inference"])
def test_every_own_option_is_taken(phase, modality):
    check(phase, modality, "quick", **OWN[modality], seed=3, **{"encoder::out_dim": 8})


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("train", "pet"), {"n_iterations": 3}),  # pet.json has it for inference
        (("inference", "volume", "quick"), {"image_size": 32}),
        (("inference", "mri", "quick"), {"max_epochs": 3}),
        (("inference", "mri", "ngp"), {"n_subjects": 3}),
        (("inference", "mri"), {"classical::tv::tv_weight": 0.1}),  # without baselines
        (("train", "mri"), {"variations": {}}),  # without prior
    ],
)
def test_an_option_that_a_file_has_and_nothing_reads_is_refused(names, options):
    name = next(iter(options)).replace("::", "#")
    with pytest.raises(InputError, match=f"^{name}: no config of this run reads it"):
        check(*names, **options)


def test_what_an_override_refers_to_is_read():
    check("inference", "mri", baselines="@classical", **{"classical::tv::tv_weight": 0.1})
    check("inference", "mri", "ngp", inferer="@classical#tv", n_iterations=3)
    check("inference", "ct", baselines={"tv": {"_target_": "disinr_monai.methods.TotalVariation", "tv_weight": 0.1}})


@pytest.mark.parametrize(
    ("names", "wrong", "right"),
    [
        (("train", "mri"), "max_epoch", "max_epochs"),
        (("inference", "mri"), "n_iteration", "n_iterations"),
        (("train", "ct"), "sed", "seed"),
        (("train", "mri"), "train::dataset::num_worker", "train#dataset#num_workers"),
        (("train", "mri"), "train::trainr", "train#trainer"),
    ],
)
def test_an_unknown_option_names_the_nearest(names, wrong, right):
    with pytest.raises(InputError) as caught:
        check(*names, **{wrong: 3})
    assert str(caught.value).startswith(f"{wrong.replace('::', '#')}: ")
    assert str(caught.value).endswith(f"did you mean {right!r}?")


def test_an_unknown_leaf_is_refused_also_where_nothing_is_built_of_it():
    for name, taken in (("loss::norrm", "loss#norm"), ("classical::sense::l2", "classical#sense#l2_weight")):
        with pytest.raises(InputError, match=f"takes no such option; did you mean '{taken}'"):
            check("inference", "evaluate", "mri", **{name: 1})
    with pytest.raises(InputError, match=r"handlers#0#namm: Progress takes no such option; did you mean .*#name'"):
        check("inference", "mri", **{"handlers::0::namm": "x"})
    check("inference", "mri", **{"loss::precondition": True, "adaptation::patience": 8})
    check("inference", "mri", **{"select::contrast": 1})  # an open group


def test_a_missing_modality_says_which_overlays_there_are():
    for names in (("inference",), ("train", "quick"), ("inference", "evaluate", "ngp")):
        with pytest.raises(InputError, match=r"^config_file: expected .*\(mri, ct, pet or volume\), found none"):
            check(*names)


@pytest.mark.parametrize(
    ("names", "later", "earlier", "key"),
    [
        (("inference", "ngp", "pet"), "pet", "ngp", "network_def"),
        (("inference", "disinr_paper", "ct"), "ct", "disinr_paper", "tv_weight"),
        (("inference", "quick", "mri"), "mri", "quick", "image_size"),
        (("evaluate", "inference", "mri"), "inference", "evaluate", "baselines"),
        (("inference", "transmission", "pet"), "pet", "transmission", "scan"),
        (("inference", "mri", "imjense", "siren"), "siren", "imjense", "lr"),
    ],
)
def test_an_order_that_undoes_a_file_is_refused(names, later, earlier, key):
    with pytest.raises(InputError) as caught:
        check(*names)
    message = str(caught.value)
    assert message.startswith("config_file: ")
    assert f"{later}.json after " in message
    assert f"{earlier}.json undoes its " in message
    right = ConfigParser.load_config_files(json.loads(message.partition("the rest: ")[2].replace("'", '"')))
    assert right[key] == json.loads((CONFIGS / f"{earlier}.json").read_text())[key]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("inference", "train", "mri"), "expected one phase, found "),
        (("inference", "mri", "ct"), "expected one modality, found "),
        (("inference", "mri", "siren", "nerf"), "siren.json has no effect: the files after it replace all"),
        (("inference", "mri", "quick", "quick2"), "quick.json has no effect: the files after it replace all"),
        (("train", "mri", "strainer", "meta"), "meta.json replaces the network of "),
        (("inference", "mri", "siren", "imjense"), "siren.json has no effect"),
    ],
)
def test_a_file_without_effect_is_refused(tmp_path, names, message):
    files = config_files(*names)
    if "quick2" in names:
        files[-1] = str(tmp_path / "quick2.json")
        content = {"image_size": 1, "slices_per_subject": 2, "max_epochs": 1, "n_iterations": 1}
        Path(files[-1]).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        check_order(read_files(files))


@pytest.mark.parametrize("names", [("inference", "evaluate", "mri", "ngp", "quick"), ("train", "ct", "siren", "prior")])
def test_every_order_gives_the_same_config_or_is_refused(names):
    expected = ConfigParser.load_config_files(config_files(*names))
    taken = 0
    for order in permutations(names):
        try:
            check_order(read_files(config_files(*order)))
        except InputError:
            continue
        found = ConfigParser.load_config_files(config_files(*order))
        assert {key: value for key, value in found.items() if key != "_desc_"} == {
            key: value for key, value in expected.items() if key != "_desc_"
        }, order
        taken += 1
    assert taken


@pytest.mark.parametrize("option", ["image_size", "n_iterations", "seed", "slices_per_subject"])
def test_a_fraction_of_a_whole_number_is_refused(option):
    with pytest.raises(InputError, match=f"^{option}: expected a whole number, such as .* found 35.9996"):
        check("inference", "mri", **{option: 35.9996})
    check("inference", "mri", **{option: 36.0})


def test_what_may_have_a_fraction_is_taken():
    check("inference", "mri", acceleration=2.5, pattern="poisson")
    check("train", "mri", checkpoint_seconds=0.5)


def test_an_order_that_undoes_nothing_is_taken():
    check("inference", "ngp", "mri")
    check("inference", "mri", "evaluate", "quick", "ngp")


def test_known_keys_are_those_that_are_read():
    assert {"lr", "n_iterations", "acceleration", "baselines"} <= known_keys(config_files("inference", "mri"))
    assert not {"n_views", "variations", "classical", "run"} & known_keys(config_files("inference", "mri"))


def test_settings_of_the_run_are_flat():
    RUN.begin(merged("inference", "mri", "ngp").config)
    try:
        found = hyper_parameters()
    finally:
        RUN.begin({})
    assert found["acceleration"] == 6
    assert found["names#paths#0"] == "@dataset_dir"
    assert "_desc_" not in found
    assert hyper_parameters() == {}
