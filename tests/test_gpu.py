"""What only a card can show; `make gpu` runs it there. Elsewhere it is skipped, visibly, but for the report itself."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from gpu import METHODS, parts, report
from safetensors.torch import load_file

from adaptseg.base.devices import ahead, pick_device, pick_precision
from adaptseg.cli import parser
from adaptseg.evaluation.metrics import confusion_matrix
from adaptseg.methods.combined import find_methods
from adaptseg.networks.backbones import build_network
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from adaptseg.training.trainer import load_data, make_learner, make_network, settle, train

card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SHORT = dict(source="gta5", target="cityscapes", batch_size=2, source_size="128x64", target_size="128x64")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "samples"
    return write_samples(root, size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)


def run(tmp_path, data_root, name, **values):
    usual = dict(steps=8, val_every=4, log_every=1, data_root=data_root, name=name, out=tmp_path, choice_images=0)
    return train("sample", **{**SHORT, **usual, **values})


class Interrupt(Callback):
    "In the second epoch, after a checkpoint."

    order, run_valid = 99, False

    def before_batch(self):
        if self.epoch == 1:
            raise KeyboardInterrupt


class Watch(Callback):
    "Makes whatever waits for the card an error, from the third step on."

    order, run_valid = 99, False

    def __init__(self):
        self.seen = 0

    def before_batch(self):
        torch.cuda.set_sync_debug_mode("error" if self.iter > 1 else "default")

    def after_batch(self):
        torch.cuda.set_sync_debug_mode("default")
        self.seen += 1


def test_the_report_says_what_failed_and_what_was_said(tmp_path):
    lines = {"Good": [sys.executable, "-c", "print('fine')"], "Bad": [sys.executable, "-c", "raise SystemExit('no')"]}
    assert not report(lines, tmp_path / "report.md", "a card")
    text = (tmp_path / "report.md").read_text()
    assert "a card" in text and "## Good: well" in text and "fine" in text and "## Bad: FAILED (1)" in text


def test_its_commands_are_right():
    for line in parts(2).values():
        if "adaptseg" in line:
            parser().parse_args(line[line.index("adaptseg") + 1 :])
    assert all(find_methods(text.split(",")[0]) for text in METHODS.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_it_says_so():
    done = subprocess.run([sys.executable, "tests/gpu.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("no CUDA device here")


@card
def test_counts_are_the_same(tmp_path):
    torch.manual_seed(0)
    pred, label = torch.randint(0, 19, (2, 64, 64)), torch.randint(0, 20, (2, 64, 64))
    label[label == 19] = 255
    matrix = confusion_matrix(pred.cuda(), label.cuda(), 19)
    assert matrix.is_cuda and torch.equal(matrix.cpu(), confusion_matrix(pred, label, 19))


@card
@pytest.mark.parametrize("backbone", ["resnet101", "efficientnet_lite0"])
def test_a_network_says_the_same_on_both(backbone):
    torch.manual_seed(0)
    net, x = build_network(backbone, 19, "light").eval(), torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        ours, theirs = net(x)[1], net.cuda()(x.cuda())[1].cpu()
    assert (ours - theirs).abs().max() < 1e-2 * ours.abs().max()  # TF32 has ten bits


@card
@pytest.mark.parametrize("method", ["source_only", "adaptseg_multi", "fda", "selftrain", "adaptseg_multi+selftrain"])
def test_a_step_waits_for_nothing(method, data_root, tmp_path):
    cfg = make_config("sample", method=method, steps=6, data_root=data_root, out=tmp_path, device="cuda", **SHORT)
    data = load_data(cfg)
    model = make_network(settle(cfg, None), data.source.classes)
    learn = make_learner(cfg, data, model)
    watch = Watch()
    learn.add_cb(watch)
    with learn.no_logging(), learn.no_bar():
        learn.fit(1)
    assert watch.seen == 6


@card
def test_copies_go_on_beside_the_network():
    device, work = pick_device(), torch.randn(4096, 4096, device="cuda")
    batches = [(torch.randn(2**24).pin_memory(),) for _ in range(6)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for (x,) in ahead(iter(batches), device):
            for _ in range(20):
                work = (work @ work).clamp(-1, 1)
            x.add_(1)
        torch.cuda.synchronize()
    events = [(e.name, e.time_range.start, e.time_range.end) for e in profile.events() if e.device_type.name == "CUDA"]
    copies = [e for e in events if "HtoD" in e[0]]
    kernels = [e for e in events if "Mem" not in e[0]]
    beside = [c for c in copies if any(a < c[2] and c[1] < b for _, a, b in kernels)]
    assert len(beside) >= len(copies) - 1, "the first may be alone"


@card
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["adaptseg_multi", "adaptseg_multi+selftrain"])
def test_it_trains_and_goes_on(method, precision, data_root, tmp_path):
    if precision == "bf16" and pick_precision("auto", pick_device()) != "bf16":
        pytest.skip("this card has no bfloat16")
    values = dict(method=method, precision=precision)
    whole = run(tmp_path, data_root, "whole", **values)
    assert whole.config["device_used"].startswith("cuda")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data_root, "broken", cbs=(Interrupt(),), **values)
    broken = run(tmp_path, data_root, "broken", resume=True, **values)
    losses = [pd.read_csv(r.path / "history.csv").filter(like="loss_") for r in (whole, broken)]
    assert losses[0].notna().all(None)
    pd.testing.assert_frame_equal(*losses, rtol=0.05)  # kernels add up in any order
    a, b = (load_file(r.path / "weights.safetensors") for r in (whole, broken))
    print("resumed bit by bit:", all(torch.equal(a[k], b[k]) for k in a))


@card
def test_memory_is_as_planned(data_root, tmp_path):
    from adaptseg.training.planner import step_bytes

    cfg = make_config("sample", source="gta5", target="cityscapes", method="adaptseg_multi")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(cfg.model_copy(update=dict(steps=2, val_every=2, choice_images=0, out=str(tmp_path))))
    took = torch.cuda.max_memory_allocated() - before
    assert 0.5 < took / step_bytes(cfg) < 2
