"""Replay golden trajectories through the library and compare, in float64.

    python tests/golden.py FILE.json [FILE.json ...]

Prints the largest relative error of losses, eval outputs and final state for each configuration of each
file and exits 1 when one is above 1e-6. Networks, discriminators, losses, optimisers, schedule and step are
the library's own; weights and inputs are drawn as the files' makers drew them, from numpy's RandomState with
seeds made of names (weights) and of the step (images and labels). Files with lists hold single functions of the
methods, see golden_methods.py.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from adaptseg.methods.adversarial import AdversarialAdaptation
from adaptseg.networks.deeplab import Bottleneck, DeepLabV2
from adaptseg.unsupervised.kanezaki import Kanezaki, KanezakiNet
from adaptseg.datasets.labels import IGNORE
from adaptseg.networks.losses import SegmentationLoss
from adaptseg.networks.optimisers import PolySchedule, network_optimiser, update_multiplicity
from golden_methods import KINDS, relative

TOLERANCE = 1e-6


def golden_weight(tag, key, tensor):
    "The weight that a golden file means by this name."
    shape = tuple(tensor.shape)
    z = np.random.RandomState(zlib.crc32((tag + key).encode())).standard_normal(shape)
    if key.endswith("running_mean"):
        z = 0.1 * z
    elif key.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif key.endswith("bias"):
        z = 0.01 * z
    elif len(shape) == 4:
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    else:
        z = 1 + 0.05 * z
    return torch.from_numpy(np.asarray(z))


def fill(module, tag):
    "Give every floating-point entry of the state dict its golden weight."
    state = module.state_dict()
    module.load_state_dict({k: golden_weight(tag, k, v) if v.is_floating_point() else v for k, v in state.items()})


def image(seed, size):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 3, *size)) * 50)


def label(seed, size, classes):
    y = np.random.RandomState(seed).randint(0, 20, (1, *size))
    y[(y >= 19) | (y >= classes)] = IGNORE
    return torch.from_numpy(y).long()


class Batches(list):
    "A list of batches with a `DrawLoader`'s interface."

    def set_epoch(self, epoch):
        return self


class Losses(Callback):
    "Collects every step's losses in the file's columns."

    order = 90

    def before_fit(self):
        self.rows = []

    def after_batch(self):
        self.rows.append({**self.loss_func.parts, **self.adversarial_adaptation.losses})


def learner(cfg):
    "The library's Learner for one configuration, with golden weights and inputs."
    net = DeepLabV2(Bottleneck, cfg["layers"], cfg["classes"], branches=2).double()
    fill(net, "G.")
    seeds = [10 * i + 100_000 * cfg["seed"] for i in range(cfg["steps"])]
    source = [(image(s + 1, cfg["source_size"]), label(s + 2, cfg["source_size"], cfg["classes"])) for s in seeds]
    target = Batches((image(s + 3, cfg["target_size"]),) for s in seeds)
    adapt = AdversarialAdaptation(target, cfg["classes"], tuple(cfg["lambda_adv"]), cfg["gan"].lower(), lr=cfg["lr_d"])
    adapt.discriminators.double()
    for i, d in enumerate(adapt.discriminators):
        fill(d, f"D{i + 1}.")
    learn = Learner(
        DataLoaders(source, [], device="cpu"),
        net,
        SegmentationLoss(cfg["lambda_seg"]),
        default_cbs=False,  # fastai's Recorder averages in float32 only
        cbs=[TrainEvalCallback(), adapt, PolySchedule(cfg["num_steps"], cfg["power"]), Losses()],
    )
    learn.opt = network_optimiser(net, cfg["lr"], repeated=cfg["repeated_parameter_updates"])
    return learn


def eval_errors(net, expected, size):
    "Error of both heads' logits before training, in evaluation mode."
    with torch.no_grad():
        out = net.eval()(image(expected["input_seed"], size))
    errors = []
    for name, logits in zip(("conv4", "conv5"), out):
        head = logits.flatten()[: len(expected[f"{name}_head"])]
        found = [logits.sum(), logits.abs().sum(), *head]
        errors.append(relative(found, [expected[f"{name}_sum"], expected[f"{name}_abs"], *expected[f"{name}_head"]]))
        if list(logits.shape) != expected[f"shape_{name}"]:
            errors.append(float("inf"))
    return max(errors)


def rectangles(cfg):
    "The picture of a Kanezaki configuration: six painted rectangles and noise, uint8."
    size, draw = (cfg["height"], cfg["width"]), np.random.RandomState(cfg["image_seed"])
    picture = np.zeros((*size, 3))
    for _ in range(6):
        y, x = (draw.randint(0, n - 8) for n in size)
        h, w = (draw.randint(8, n // 2) for n in size)
        picture[y : y + h, x : x + w] = draw.randint(0, 256, 3)
    return np.clip(picture + draw.standard_normal((*size, 3)) * 8, 0, 255).astype(np.uint8)


def grid(cfg):
    "Superpixels of b x b pixels, numbered row by row."
    b, (y, x) = cfg["superpixel_block"], np.mgrid[: cfg["height"], : cfg["width"]]
    return torch.from_numpy(y // b * -(-cfg["width"] // b) + x // b)[None]


def scribbles(cfg):
    "Two strokes, 255 elsewhere."
    s = torch.full((1, cfg["height"], cfg["width"]), IGNORE)
    s[:, 4:7, 4:14], s[:, -8:-5, -16:-4] = 0, 1
    return s


def replay_kanezaki(run):
    "Errors of one Kanezaki configuration: number of iterations, label counts, losses."
    cfg, rows = run["config"], []
    net = KanezakiNet(cfg["channels"], cfg["conv_blocks"]).double().train()
    fill(net, "K.")
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.reset_running_stats()
    by_superpixel = cfg["kind"] == "superpixel"
    segmenter = Kanezaki(
        torch.from_numpy(rectangles(cfg) / 255).permute(2, 0, 1)[None],
        net,
        grid(cfg) if by_superpixel else None,
        0 if by_superpixel else cfg["continuity_weight"],
        scribbles(cfg) if cfg["scribble"] else None,
        cfg["lr"],
        cfg["momentum"],
        cfg["min_labels"],
    )
    for _ in segmenter.run(
        cfg["iterations"], plateau=-1, callback=lambda it: rows.append([it.n_labels.item(), it.loss.item()])
    ):
        pass
    if len(rows) != len(run["trajectory"]):
        return {"iterations": float("inf")}
    (n, loss), (expected_n, expected_loss) = zip(*rows), zip(*run["trajectory"])
    return {"label counts": float(n != expected_n), "losses": relative(loss, expected_loss)}


def replay(run):
    "Errors of one configuration: eval output, losses, final state, update counts."
    if "trajectory" in run:
        return replay_kanezaki(run)
    learn = learner(run["config"])
    errors = {"eval": eval_errors(learn.model, run["eval_output"], run["config"]["source_size"])}
    with learn.no_logging():
        learn.fit(1)
    found = [[row[c].item() for c in run["columns"]] for row in learn.losses.rows]
    errors["losses"] = relative(found, run["losses"])
    state = learn.model.state_dict()
    errors["state"] = max(relative([state[k].sum(), state[k].abs().sum()], v) for k, v in run["final_state"].items())
    count = update_multiplicity(learn.model)
    errors["multiplicity"] = float(any(count.get(k) != n for k, n in run.get("update_multiplicity", {}).items()))
    return errors


def cases(file):
    "What a file holds: named configurations, or kinds of functions with a list of cases each."
    for name, run in json.loads(Path(file).read_text()).items():
        if isinstance(run, list):
            yield from ((f"{name} {i}", KINDS[name], case) for i, case in enumerate(run, 1))
        else:
            yield name, replay, run


def main(files):
    worst = 0
    for file in files:
        for name, check, run in cases(file):
            errors = check(run)
            worst = max(worst, *errors.values())
            print(f"{Path(file).name} {name}: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
    print(
        f"largest relative error {worst:.1e}, tolerance {TOLERANCE:.0e}: "
        f"{'equal' if worst <= TOLERANCE else 'DIFFERENT'}"
    )
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
