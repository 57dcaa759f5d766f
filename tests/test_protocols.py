"""The tables of the published trainings can be run as they stand, and the cluster script runs one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adaptseg.cluster.sweep import sweep_rows
from adaptseg.datasets.domains import get_domain
from adaptseg.runs.config import make_config
from adaptseg.runs.folder import run_path
from adaptseg.runs.record import read_results
from adaptseg.streets.samples import write_samples

ROOT = Path(__file__).parents[1]
PROTOCOLS = ROOT / "nbs" / "protocols"
SCRIPT = PROTOCOLS / "leaderboard.sh"


@pytest.mark.parametrize("table", sorted(PROTOCOLS.glob("*.csv")), ids=lambda p: p.stem)
def test_every_row_is_a_run_of_its_own(table):
    rows = sweep_rows(table, dict(seed="0,1,2"), dict(data_root="data"))
    cfgs = [make_config(**row) for row in rows]
    for cfg in cfgs:
        for name in f"{cfg.source}+{cfg.target}".split("+"):
            get_domain(name)
    assert len({run_path(cfg) for cfg in cfgs}) == len(cfgs) >= 33


def test_one_training_differs_by_what_adapts_alone():
    rows = sweep_rows(PROTOCOLS / "one_training.csv", dict(seed="0"), dict(data_root="data"))
    cfgs = [make_config(**row) for row in rows]
    training = ("backbone", "init", "steps", "batch_size", "optimiser", "lr", "warmup", "crop", "flip", "rare_classes")
    assert len({tuple(getattr(cfg, k) for k in training) for cfg in cfgs}) == 1
    for cfg in cfgs:  # hood and rectification belong to Cityscapes' own pictures
        assert getattr(cfg, "margin_bottom", 0) == (0.23 if cfg.target == "cityscapes" else 0) * (
            "selftrain" in cfg.method
        )


def test_script_is_a_script_and_says_what_it_wants():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    told = subprocess.run(["bash", SCRIPT, "table.csv"], capture_output=True, text=True)
    assert told.returncode == 2 and "TABLE DATA OUT" in told.stderr


SRUN = """#!/bin/bash
"$@" & "$@" & wait
"""


@pytest.mark.slow
def test_script_runs_a_leaderboard_on_two_workers(tmp_path):
    data = write_samples(
        tmp_path / "data", size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1
    )
    table = tmp_path / "table.csv"
    table.write_text("preset,source,target,method\ntiny,gta5,cityscapes,source_only\ntiny,gta5,cityscapes,adabn\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)  # a node of two tasks
    (tmp_path / "bin" / "srun").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "board"
    done = subprocess.run(
        ["bash", SCRIPT, table, data, out, "0,1"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(read_results(out / "results.jsonl")) == 4
    assert (out / "workers.log").read_text().count("Registered to") == 2
    assert (out / "leaderboard.ipynb").is_file() and not list(out.glob("scheduler-*.json"))
