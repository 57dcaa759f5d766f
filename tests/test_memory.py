"""The reference configuration must fit an ordinary machine; minutes long, so it is run by `make slow`."""
import subprocess
import sys

import pytest

STEP = """
import resource, sys, torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from adaptseg.adversarial import AdversarialAdaptation
from adaptseg.deeplab import deeplab
from adaptseg.losses import SegmentationLoss
from adaptseg.optimisers import PolySchedule, network_optimiser

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
    "Peak memory in GB of one step of ResNet-101, two levels, batch 1, 1280x720 and 1024x512, fp32 on the CPU, PyTorch included."
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
