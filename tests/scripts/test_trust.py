import json
import os
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser
from trust import check_trusted

from disinr_monai.errors import InputError
from disinr_monai.modality import hu_to_image
from disinr_monai.runtime.shown_errors import of_config_language
from tests.conftest import ROOT


def check(tmp_path, content) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    check_trusted([file])


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.json")), ids=lambda file: file.stem)
def test_our_own_configs_pass(file):
    check_trusted([file])


@pytest.mark.parametrize(
    "value",
    [
        "$__import__('os').system('id')",
        "$import os",
        "$import disinr_monai.bundle as bundle; import os",
        "$(lambda: 0)()",
        "$().__class__.__bases__[0].__subclasses__()",
        "$@network.__init__.__globals__['sys']",
        "$bundle.sys.modules['os'].system('id')",
        "$bundle.json.loads('1')",
        "$bundle._frames()",
        "$data.cases.hashlib",
        "$data",
        "$open('/etc/passwd').read()",
        "$getattr(@network, 'x')",
        "$eval('1')",
        "$'{0.__class__}'.format(@network)",
        "$[bundle for bundle in [1]] and bundle.sys",
        "$torch.load('x')",
        "$torch.hub.load('a', 'b')",
        "$monai.bundle.run()",
        "$@f(1)(2).run.func",
        "%/etc/other.json#run",
        "%other.yaml#run",
        "$f'{1}'",
        "$(x := 1)",
    ],
)
def test_what_could_do_harm_is_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"config\.json: a#1 = .* is refused"):
        check(tmp_path, {"a": ["fine", value]})


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "id"},
        {"_target_": "subprocess.run"},
        {"_target_": "disinr_monai.tracking.tracking.os.system"},
        {"_target_": "disinr_monai.runtime.files.tempfile.mkdtemp"},
        {"_target_": "disinr_monai.checkpoints.released.torch.load"},
        {"_target_": "builtins.eval"},
        {"_target_": "$__import__('os').system"},
        {"_target_": "torch.load"},
        {"_target_": "monai.bundle.run"},
        {"_target_": "disinr_monai.nothing.Here"},
        {"_target_": "disinr_monai.fitting.losses.MeasurementLoss", "_mode_": "debug"},
    ],
)
def test_targets_that_are_not_ours_are_refused(tmp_path, node):
    with pytest.raises(InputError, match=r"is refused"):
        check(tmp_path, {"deep": [{"er": node}]})


def test_unreadable_configs(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: expected a JSON config"):
        check_trusted([tmp_path / "none.json"])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: expected a JSON config"):
        check_trusted([tmp_path / "bad.json"])


@pytest.mark.parametrize("trusted", ["true", "false"])
def test_script_stops_before_anything_is_evaluated(tmp_path, trusted):
    mark = tmp_path / "executed"
    config = {"a": f"$open({str(mark)!r}, 'w').close()", "initialize": ["$@a"], "run": ["$print('ran')"]}
    file = tmp_path / "configs" / "evil.json"
    file.parent.mkdir()
    file.write_text(json.dumps(config))
    command = [sys.executable, "scripts/run_bundle.py", "--trusted", trusted, "run", "--config_file", str(file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert mark.exists() == (trusted == "true")
    if trusted == "false":
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {file}: a = ")
        assert "Traceback" not in result.stderr
    else:
        assert result.returncode == 0, result.stderr


INFERENCE = "['configs/inference.json','configs/ct.json']"


def run_bundle(*words, **environment):
    command = [sys.executable, "scripts/run_bundle.py", "--trusted", "true", "run", *words]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["inferenc", "--config_file", INFERENCE], "inferenc"),
        (["inference", "--config_file", "configs/none.json"], "configs/none.json"),
        (["inference"], "config_file"),
        (["inference", "--config_file", INFERENCE, "--acquire::nothing::x", "3"], "nothing"),
        (["inference", "--config_file", INFERENCE, "--seed", "%none.json::x"], "none.json"),
    ],
)
def test_what_monai_cannot_read_is_one_line(words, found):
    result = run_bundle(*words)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(("error: configs or overrides: ", "error: config_file: "))
    assert found in line


def test_its_traceback_is_shown_where_asked_for():
    assert "Traceback" in run_bundle("inference", DISINR_TRACEBACK="1").stderr


def test_a_fault_of_our_own_is_no_config_error():
    with pytest.raises(TypeError) as fault:
        hu_to_image(None)
    assert of_config_language(fault.value) is None
    with pytest.raises(KeyError) as mistake:
        ConfigParser({"a": 1})["b"]
    assert of_config_language(mistake.value).startswith("configs or overrides: ")
