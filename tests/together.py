"""Several processes against one, in float64: started by torchrun or plainly, see test_processes.py.

    torchrun --nproc_per_node 2 tests/together.py train FOLDER KIND[,KIND...] EPOCHS
    torchrun --nproc_per_node 2 tests/together.py adaptseg FOLDER ARGUMENTS    the command, in which only the first
process may write below FOLDER

A kind's run goes on from its checkpoint in FOLDER; weights and losses end up in FOLDER/KIND/state.pt.
"""

import os
import sys
from pathlib import Path

import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from adaptseg.methods.adversarial import AdversarialAdaptation
from adaptseg.methods.self_training import SelfTrain
from adaptseg.networks.backbones import build_network
from adaptseg.networks.deeplab import BasicBlock, DeepLabV2
from adaptseg.training.history import Checkpoint, History
from adaptseg.datasets.labels import IGNORE
from adaptseg.networks.losses import SegmentationLoss
from adaptseg.networks.optimisers import PolySchedule, network_optimiser
from adaptseg.runs.config import make_config
from adaptseg.training.distributed import Processes
from adaptseg.base.distributed import is_main, launched, rank, start, stop, world
from adaptseg.training.trainer import SourceEpoch

CLASSES, BATCH = 5, 2
KINDS = {  # gan, lambda_adv, batches in a step, bn_stats
    "vanilla-multi": ("vanilla", (0.1, 0.2), 1, "frozen"),
    "ls-multi": ("ls", (0.1, 0.2), 1, "frozen"),
    "ls-single": ("ls", (0.3,), 1, "frozen"),
    "accumulated": ("vanilla", (0.1, 0.2), 2, "frozen"),
    "statistics": ("vanilla", (0.1, 0.2), 1, "both"),
    "source": ("vanilla", (0.1, 0.2), 1, "source"),
    "encoder": ("vanilla", (0.1, 0.2), 1, "both"),  # of timm, whose batch norms have an activation inside
    "selftrain": (None, (0.1, 0.2), 1, "both"),  # its teacher's norms share the batch too
    "selftrain-target": (None, (0.1, 0.2), 2, "target"),
}
APART = {"average": ("vanilla", (0.1, 0.2), 1, "both")}  # bn_sync: not the run of one process


class Batches:
    "This process's share of a stream of batches; an epoch is one step."

    def __init__(self, kind, steps):
        self.kind, self.steps, self.epoch = kind, steps, 0

    def __len__(self):
        return self.steps

    def set_epoch(self, epoch):
        self.epoch = epoch
        return self

    def __iter__(self):
        own = slice(rank() * BATCH // world(), (rank() + 1) * BATCH // world())
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            yield tuple(t[own] for t in getattr(self, self.kind)(step))

    def target(self, step):
        return (torch.randn(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(2 * step)).double() - 1,)

    def target_like_source(self, step):
        return (self.target(step)[0][:, :, :48],)

    def source(self, step):
        "Images with unequal shares of labelled pixels; every third step has one without any."
        g = torch.Generator().manual_seed(2 * step + 1)
        y = torch.randint(0, CLASSES, (BATCH, 48, 64), generator=g)
        y[0, : 40 - 3 * (step % 5)], y[1, :4] = IGNORE, IGNORE
        if step % 3 == 2:
            y[0] = IGNORE
        return torch.randn(BATCH, 3, 48, 64, generator=g).double(), y


def learner(kind, folder):
    gan, lambdas, accumulate, bn_stats = (KINDS | APART)[kind]
    torch.manual_seed(rank())  # the first process's weights must become everyone's
    values = dict(levels=len(lambdas), bn_affine=True, bn_stats=bn_stats)
    if kind == "encoder":
        net = build_network("efficientnet_lite0", CLASSES, "light", output_stride=32, **values).double()
    else:
        net = DeepLabV2(BasicBlock, (1, 1, 1, 1), CLASSES, width=8, **values).double()
    cfg = make_config("tiny", accumulate=accumulate, steps=100)
    if gan is None:  # a teacher that is sure of some pixels, as a network of five classes at its start can be
        values = dict(tau=0.21, sure_per="batch", strong=0)  # colours are changed in 32 bits
        cfg = make_config("tiny", method="selftrain", accumulate=accumulate, steps=100, **values)
        adapt = SelfTrain.create(cfg, net, Batches("target_like_source", accumulate))
    else:
        adapt = AdversarialAdaptation(
            Batches("target", accumulate), CLASSES, lambdas, gan, lr=1e-3, width=8, accumulate=accumulate
        )
        adapt.discriminators.double()
    folder.mkdir(parents=True, exist_ok=True)
    cbs = [
        TrainEvalCallback(),
        SourceEpoch(),
        adapt,
        PolySchedule(100, accumulate=accumulate),
        History(folder, cfg),
        Checkpoint(folder),
    ]
    if accumulate > 1:
        cbs.append(GradientAccumulation(accumulate * BATCH // world()))
    if world() > 1:
        cbs.append(Processes(kind if kind in APART else "sync"))
    learn = Learner(
        DataLoaders(Batches("source", accumulate), [], device="cpu"),
        net,
        SegmentationLoss(),
        default_cbs=False,
        cbs=cbs,
    )
    learn.beside = torch.nn.ModuleDict(adapt.modules)
    learn.opt = network_optimiser(net, lr=1e-3)
    return learn


def train(kind, folder, epochs):
    learn = learner(kind, folder)
    done = learn.checkpoint.load() if (folder / "checkpoint.pt").is_file() else 0
    with learn.no_logging():
        learn.fit(epochs, start_epoch=done)
    state = {
        f"{name}.{k}": v for name, m in (("G", learn.model), ("D", learn.beside)) for k, v in m.state_dict().items()
    }
    if is_main():
        torch.save(
            dict(state=state, rows=learn.history.rows, n_unlabelled=int(learn.loss_func.n_unlabelled)),
            folder / "state.pt",
        )


def forbid_writing(folder):
    "Let this process fail at the first change below a folder."

    def hook(event, args):
        changes = (
            event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
            or event == "open"
            and isinstance(args[1], str)
            and set(args[1]) & set("wax+")
        )
        if changes and str(args[0]).startswith(folder):
            raise RuntimeError(f"process {os.environ['RANK']} writes: {event} {args[0]}")

    sys.addaudithook(hook)


if __name__ == "__main__":
    what, folder, *rest = sys.argv[1:]
    if what == "adaptseg":
        if int(os.environ.get("RANK", 0)):
            forbid_writing(folder)
        from adaptseg.cli import main

        main(rest)
    else:
        if launched():
            start("cpu")
        for kind in rest[0].split(","):
            train(kind, Path(folder) / kind, int(rest[1]))
        stop()
