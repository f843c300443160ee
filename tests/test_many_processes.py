"""Two processes on the CPU: every one has its own subjects, all have the same shared pair."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from disinr_monai.data import list_cases, shard
from disinr_monai.data.phantoms import write_phantoms
from disinr_monai.errors import InputError
from tests.conftest import ROOT

CONFIG = "['configs/train.json','configs/mri.json','configs/multi_gpu_train.json']"


@pytest.mark.slow
def test_two_processes_share_the_pair_and_nothing_else(tmp_path):
    write_phantoms(tmp_path / "data", "mri", n_subjects=4, size=32, seed=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", CONFIG, "--dataset_dir", f"{tmp_path}/data"]
    command += ["--output_dir", f"{tmp_path}/out", "--image_size", "32", "--acs", "12", "--max_epochs", "2"]
    command += ["--checkpoint_seconds", "0", "--amp", "false", "--quiet", "true", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    files = [tmp_path / "out" / name for name in ("private_resume_checkpoint.pt", "rank1_private_resume_checkpoint.pt")]
    first, second = (torch.load(file, weights_only=True)["network"] for file in files)
    shared = [name for name in first if name.startswith("shared.")]
    assert shared
    assert all(torch.equal(first[name], second[name]) for name in shared)
    own = [name for name in first if name.endswith("grid.table") and name.startswith("subjects.")]
    assert len(own) == 2  # four subjects on two processes
    assert not any(torch.equal(first[name], second[name]) for name in own)
    assert (tmp_path / "out" / "model.pt").is_file()


def test_shards_are_equally_long_and_cover_everything():
    cases = [{"name": str(i), "index": i} for i in range(5)]
    shards = [shard(cases, rank, 2) for rank in range(2)]
    assert [len(s) for s in shards] == [3, 3]
    assert {case["name"] for s in shards for case in s} == {"0", "1", "2", "3", "4"}
    assert [[case["index"] for case in s] for s in shards] == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(InputError, match="at least one scan per process, found 5 for 6"):
        shard(cases, 0, 6)


def test_list_cases_numbers_them(tmp_path):
    write_phantoms(tmp_path, "mri", n_subjects=3, size=16, seed=0)
    assert [case["index"] for case in list_cases(tmp_path, "mri")] == [0, 1, 2]
