"""A run that dies is resumed by the command line and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adaptseg.streets.samples import write_samples

ROOT = Path(__file__).parents[1]
FLAGS = dict(
    source="gta5",
    target="cityscapes",
    steps=8,
    val_every=2,
    log_every=1,
    batch_size=2,
    source_size="128x64",
    target_size="128x64",
    device="cpu",
)


def start(out, data, **more):
    args = [s for k, v in {**FLAGS, "data_root": data, "out": out, **more}.items() for s in ("-p", k, str(v))]
    return subprocess.Popen(
        [sys.executable, "-c", "from adaptseg.cli import main; main()", "train", *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path, seconds=120):
    end = time.time() + seconds
    while not path.exists():
        assert time.time() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("method", ["adaptseg_multi", pytest.param("selftrain", marks=pytest.mark.slow)])
def test_killed_run_resumes_exactly(method, tmp_path):
    values = dict(method=method, precision="fp32", preset="sample")
    data = write_samples(
        tmp_path / "samples", size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1
    )
    whole, broken = (tmp_path / name / f"gta52cityscapes/{method}-s0" for name in ("whole", "broken"))
    assert start(tmp_path / "whole", data, **values).wait(300) == 0
    first = start(tmp_path / "broken", data, **values)
    wait_for(broken / "checkpoint.pt")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (broken / "metrics.json").exists()
    refused = start(tmp_path / "broken", data, **values)
    assert refused.wait(300) == 1 and "resume=True" in refused.stderr.read()
    assert start(tmp_path / "broken", data, **values, resume=True).wait(300) == 0
    files = sorted(p.name for p in whole.glob("*.safetensors"))  # what the method trains beside the network as well
    assert len(files) == 2 and files == sorted(p.name for p in broken.glob("*.safetensors"))
    for file in files:
        a, b = (load_file(path / file) for path in (whole, broken))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (whole / "metrics.json").read_text() == (broken / "metrics.json").read_text()
