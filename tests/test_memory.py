"""The reference configuration must fit an ordinary machine, and the planner must be right; minutes long, so both are
run by `make slow`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import resource, sys, torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from adaptseg.methods.adversarial import AdversarialAdaptation
from adaptseg.networks.deeplab import deeplab
from adaptseg.networks.losses import SegmentationLoss
from adaptseg.networks.optimisers import PolySchedule, network_optimiser

class Batches(list):
    def set_epoch(self, epoch): return self

net = deeplab('resnet101', 19, checkpointing=sys.argv[1] == 'checkpointing')
source = [(torch.randn(1, 3, 720, 1280), torch.randint(0, 19, (1, 720, 1280)))]
adapt = AdversarialAdaptation(Batches([(torch.randn(1, 3, 512, 1024),)]), 19)
learn = Learner(DataLoaders(source, [], device='cpu'), net, SegmentationLoss(), cbs=[adapt, PolySchedule(100)])
learn.opt = network_optimiser(net)
with learn.no_logging(): learn.fit(1)
print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


def peak(mode):
    """Peak memory in GB of one step of ResNet-101, two levels, batch 1, 1280x720 and 1024x512, fp32 on the CPU, PyTorch
    included.
    """
    done = subprocess.run([sys.executable, "-c", STEP, mode], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.split("peak")[-1])


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mode, limit", [("plain", 20), ("checkpointing", 10)])
def test_reference_step_fits(mode, limit):
    found = peak(mode)
    print(f"{mode}: {found:.1f} GB")
    assert found < limit


TRAINING = """
import gc, json, sys, torch
import adaptseg.core
from adaptseg.training.planner import expected_bytes
from adaptseg.runs.config import make_config
from adaptseg.training.trainer import prepare

def kept(what): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024

cfg = make_config(sys.argv[1], source="gta5", target="cityscapes", out=sys.argv[3], init="scratch",
                  steps=3, workers=0, **json.loads(sys.argv[2]))
expected = expected_bytes(cfg)
gc.collect()
before = kept("VmRSS")
learn = prepare(cfg)[3]
learn._do_epoch_validate = lambda *args, **kwargs: None
with learn.no_bar(), learn.no_logging(): learn.fit(1)
print("measured", expected, kept("VmHWM") - before)
"""
CONFIGURATIONS = [
    (
        "tsai2018",
        dict(
            method="adaptseg_lsgan",
            checkpointing=True,
            source_size="448x256",
            target_size="320x192",
            batch_size=2,
            precision="fp32",
        ),
    ),
    ("tsai2018", dict(backbone="resnet50", source_size="640x384", target_size="512x256", precision="bf16")),
    ("camvid", dict(batch_size=16, precision="fp32")),
    (
        "tsai2018",
        dict(
            backbone="resnet18",
            method="adabn",
            source_size="480x320",
            target_size="480x320",
            batch_size=2,
            precision="fp32",
        ),
    ),
    (
        "tsai2018",
        dict(
            backbone="vgg16",
            method="adaptseg_single",
            checkpointing=True,
            source_size="512x288",
            target_size="480x256",
            precision="fp32",
        ),
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc to read a process's memory from")
@pytest.mark.parametrize("preset, values", CONFIGURATIONS, ids=["resnet101", "resnet50", "camvid", "adabn", "vgg16"])
def test_planner_expects_what_training_takes(preset, values, tmp_path):
    """The most memory of a process that trains, on top of what it had, against the planner's word; none of these had a
    part in its allowance.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, preset, json.dumps(values), tmp_path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected, measured = map(int, done.stdout.split("measured")[-1].split())
    print(
        f"{preset} {values}: expected {expected / 2**30:.2f} GiB, measured {measured / 2**30:.2f}: "
        f"{expected / measured - 1:+.0%}"
    )
    assert abs(expected / measured - 1) < 0.15
