"""Made-up settings (`--key value`): a run that can start, or one line that says what is wrong; never a traceback."""

import os
import resource
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import strategies as st
from monai.bundle import ConfigParser, create_workflow
from monai.utils import set_determinism

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.runtime.shown_errors import one_line
from tests.conftest import ROOT
from tests.fuzz.examples import FEW, MANY, run

CONFIGS = ROOT / "configs"
PHASES = {
    "mri": ("inference", "mri", "ngp", "quick"),
    "ct": ("inference", "ct", "ngp", "quick"),
    "evaluate": ("inference", "evaluate", "mri", "ngp", "quick"),
    "train": ("train", "mri", "quick"),
}
TINY = {"image_size": 24, "slices_per_subject": 1, "n_iterations": 2, "quiet": True}
TINY |= {"encoder::n_levels": 3, "encoder::log2_hashmap_size": 8, "encoder::out_dim": 8, "encoder::hidden_dim": 8}
OF = {
    "mri": {"acs": 8, "acceleration": 2, "n_coils": 2},
    "ct": {"n_views": 8, "n_detectors": 32, "detector_spacing": 20.0, "pixel_spacing": 10.0},
}
_MEMORY = 4 * 2**30  # beyond what is used already
# The config language itself, and a debugger.
_LEFT_OUT = ("imports", "initialize", "run", "_meta_", "_desc_", "_mode_")


def _files(phase):
    return [str(CONFIGS / f"{name}.json") for name in PHASES[phase]]


def _ids(config, prefix=""):
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        name = f"{prefix}{key}"
        if str(key) not in _LEFT_OUT and name != "train::handlers":
            yield name
            if isinstance(value, (dict, list)):
                yield from _ids(value, f"{name}::")


IDS = {phase: sorted(_ids(ConfigParser.load_config_files(_files(phase)))) for phase in PHASES}

_numbers = st.one_of(
    st.integers(-2, 70), st.floats(-2, 2),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-320, 10**9, -(10**9), 10**18, 2**64]),
)  # fmt: skip
# What MONAI itself would read before a line of ours runs (another file, an import) stays out.
_letters = st.characters(blacklist_characters="%/", blacklist_categories=["Cs"])
_words = st.one_of(
    st.text(_letters, max_size=12),
    st.sampled_from([
        "", "nan", "true", "none", "l3", "@nothing", "@lr", "@", "$", "$(", "$1/0", "$nothing", "$@lr + 'a'", "$None",
        "$@network", "cuda:99", "cpu", "x" * 5000, "\0", "..", "a\nb", "\u202egpj.exe", "http:x", "file.txt",
    ]),
)  # fmt: skip
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _words),
    lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(st.text(_letters, max_size=5), x, max_size=2)),
    max_leaves=4,
)  # fmt: skip


@st.composite
def _overrides(draw):
    phase = draw(st.sampled_from(sorted(PHASES)))
    known = st.sampled_from(IDS[phase])
    # Also a name that no file has: at the top, and below a known one.
    names = st.one_of(known, known, known, known, st.sampled_from(["no_such_key", "loss::no_such_key", "lrr"]))
    overrides = draw(st.dictionaries(names, _values, min_size=1, max_size=2))
    # A member of what the same command replaces: MONAI itself looks for it, before a line of ours runs.
    return phase, {k: v for k, v in overrides.items() if not any(k.startswith(f"{group}::") for group in overrides)}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    for modality in OF:
        write_phantoms(folder / modality, modality, n_subjects=1, size=24, seed=1)
    return folder


@pytest.fixture
def limited(tmp_path, monkeypatch):
    """A folder of its own for paths that are made up, and an end to memory that is asked for."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file.txt").touch()
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_AS, before)
    set_determinism(None)


def _start(phase, overrides, phantoms, folder):
    """As `python -m monai.bundle run` up to the engine: every object of the run is made."""
    modality = "ct" if phase == "ct" else "mri"
    options = {**TINY, **OF[modality], "dataset_dir": str(phantoms / modality), "output_dir": str(folder / "out")}
    options |= {"bundle_root": str(folder), "device": "cpu"}
    if phase == "train":
        del options["n_iterations"]
    options |= overrides
    if "encoder" in overrides:  # replaced as a whole, it has no such members any more
        options = {k: v for k, v in options.items() if not k.startswith("encoder::")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work = create_workflow(config_file=_files(phase), logging_file=False, **options)
        work.parser.get_parsed_content("train::trainer" if phase == "train" else "evaluator")
    return work


def _refused(overrides, error):
    line = one_line(error)
    if not line or "\n" in line:
        raise AssertionError(f"{overrides}: {error!r}") from error


def _fuzz(phantoms, folder, n_examples, kind):
    outside = sorted(folder.parent.iterdir())

    def body(example):
        phase, overrides = example
        try:
            _start(phase, overrides, phantoms, folder)
        except Exception as error:
            _refused(overrides, error)

    run(_overrides(), body, n_examples, kind)
    assert sorted(folder.parent.iterdir()) == outside


def test_overrides(phantoms, limited):
    _fuzz(phantoms, limited, FEW, "settings: a run is started")


@pytest.mark.slow
def test_overrides_many(phantoms, limited):
    _fuzz(phantoms, limited, MANY, "settings: a run is started")


_MEASURED = [
    "acceleration", "acs", "n_coils", "noise_std", "image_size", "maps", "pattern", "select", "seed",
    "slices_per_subject",
    "n_views", "photons", "electronic_noise", "pixel_spacing", "n_detectors", "detector_spacing", "source_distance",
    "detector_distance", "ct_geometry", "tv_weight", "lr", "early_stop", "loss::norm",
]  # fmt: skip


def _fuzz_measured(phantoms, folder, n_examples):
    strategy = st.tuples(
        st.sampled_from(["mri", "ct"]), st.dictionaries(st.sampled_from(_MEASURED), _values, max_size=2)
    )

    def body(example):
        phase, overrides = example
        try:
            work = _start(phase, {k: v for k, v in overrides.items() if k in IDS[phase]}, phantoms, folder)
            case = work.parser.get_parsed_content("dataset")[0]
        except Exception as error:
            _refused(overrides, error)
            return
        network, inferer = (work.parser.get_parsed_content(key) for key in ("network", "inferer"))
        points = None if "error" in case else case["points"][None]
        image = inferer(points, network, case=case)
        assert bool(inferer.error) is (image is None)
        assert image is None or bool(torch.isfinite(image).all())

    run(strategy, body, n_examples, "settings: a scan is measured and fitted")


def test_overrides_of_the_measurement(phantoms, limited):
    _fuzz_measured(phantoms, limited, FEW)


@pytest.mark.slow
def test_overrides_of_the_measurement_many(phantoms, limited):
    _fuzz_measured(phantoms, limited, MANY)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"lr": "abc"}, "lr: expected a number, such as 0.003, found 'abc'"),
        ({"lr": float("nan")}, "lr: expected finite numbers, found nan"),
        ({"image_size": [3, float("inf")]}, "image_size: expected finite numbers, found [3, inf]"),
        ({"guard": 3}, "guard: expected true or false, such as True, found 3"),
        ({"experiment_name": 2024}, "experiment_name: expected text, such as 'disinr', found 2024; quote it twice"),
        ({"output_dir": 7}, "output_dir: expected a path, found 7"),
        ({"output_dir": "a\0"}, "output_dir: expected a path, found one with a zero byte"),
        ({"network_def": 3}, "network_def: expected a group of settings"),
        ({"image_size": 0}, "image_size: expected a whole number from 8 to 8192, found 0"),
        ({"image_size": 24.5}, "image_size: expected a whole number, such as 256, found 24.5"),
        ({"loss::norm": "l3"}, "loss: MeasurementLoss: norm must be 'l1' or 'l2', found 'l3' (ValueError;"),
        ({"loss::no_such": 1}, "loss#no_such: MeasurementLoss takes no such option; did you mean 'loss#norm'?"),
        ({"tv_weight": "$1/0"}, "tv_weight: division by zero (ZeroDivisionError;"),
        ({"tv_weight": "@nothing"}, "@nothing` is not defined"),
        ({"evaluator::iteration_update": []}, "evaluator: [] is not a callable object (TypeError;"),
        ({"loss": {"a\nb": "$1/0"}}, "a b: division by zero (ZeroDivisionError;"),
        ({"lrr": 1}, "lrr: no such key in the configs of this run; did you mean 'lr'?"),
    ],
)
def test_what_is_said(phantoms, limited, overrides, said):
    with pytest.raises(Exception) as caught:
        _start("mri", overrides, phantoms, limited)
    assert said in one_line(caught.value)
    assert len(one_line(caught.value).splitlines()) == 1


def test_an_error_in_a_running_engine_keeps_its_traceback():
    from ignite.engine import Engine

    def fail(engine, batch):
        raise KeyError("a fault of the software")

    with pytest.raises(KeyError) as caught:
        Engine(fail).run([1])
    assert one_line(caught.value) is None
    assert one_line(InputError("a: b")) == "a: b"


def test_a_group_that_no_file_has_is_refused_by_monai(phantoms, limited):
    with pytest.raises(KeyError, match="no_such_group"):
        _start("mri", {"no_such_group::x": 1}, phantoms, limited)
