"""What goes on for long takes no more at its end than at its beginning: memory, open files, bytes on the disk.

STEPS says how many steps are taken, CHANGES how often somebody looks at something else.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from adaptseg.base.files import write_json
from adaptseg.dashboards.dataset_view import DatasetBrowser, DatasetView
from adaptseg.dashboards.explorer import Explorer
from adaptseg.dashboards.explorer_view import ExplorerView
from adaptseg.dashboards.monitor import MonitorView
from adaptseg.dashboards.reviewer import Reviewer
from adaptseg.dashboards.reviewer_view import ReviewerView
from adaptseg.dashboards.workbench import Workbench
from adaptseg.dashboards.workbench_view import WorkbenchView
from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.evaluation.label_free import RULES
from adaptseg.networks.deeplab import deeplab
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.reports.photographs import predict_job
from adaptseg.reports.predicting import predict_folder
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples

ROOT, STEPS, CHANGES = (
    Path(__file__).parents[1],
    int(os.environ.get("STEPS", 10_000)),
    int(os.environ.get("CHANGES", 50)),
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SLACK = 1.02  # of what was there after a tenth

TRAINING = """
import gc, json, sys
from pathlib import Path
import psutil
from fastai.callback.core import Callback
from adaptseg.runs.config import make_config
from adaptseg.training.trainer import train

data, out, method, steps = sys.argv[1:]
steps = int(steps)


class Watch(Callback):
    order, run_valid = 95, False

    def after_batch(self):
        step = self.epoch * self.n_iter + self.iter + 1
        if step % (steps // 20) == 0:
            gc.collect()
            me, folder = psutil.Process(), self.path
            bytes = {f.name: f.stat().st_size for f in folder.rglob("*") if f.is_file()}
            full = me.memory_full_info()
            row = dict(step=step, memory=full.uss + getattr(full, "swap", 0), files=me.num_fds())
            row |= dict(threads=me.num_threads(), bytes=bytes)
            print("WATCH", json.dumps(row), flush=True)


values = dict(source="gta5", target="cityscapes", data_root=data, out=out, device="cpu", choice_images=2)
train("tiny", method=method, steps=steps, val_every=steps // 20, log_every=steps // 200, cbs=(Watch(),), **values)
"""


def taken(process):
    "Bytes that are this process's alone, in memory or out of it."
    full = process.memory_full_info()
    return full.uss + getattr(full, "swap", 0)


def kept(rows, key):
    "Is the most that was seen in the last half within the slack of what a tenth had?"
    first = max(r[key] for r in rows[: len(rows) // 10 + 1])
    last = max(r[key] for r in rows[len(rows) // 2 :])
    assert last <= SLACK * first, f"{key}: {first} after a tenth, {last} later"


@pytest.mark.parametrize("method", ["adaptseg_multi+selftrain"])
def test_thousands_of_steps(method, tmp_path):
    data = write_samples(
        tmp_path / "data", size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ADAPTSEG_CACHE": str(tmp_path / "cache")}
    line = [sys.executable, "-c", TRAINING, str(data), str(tmp_path / "runs"), method, str(STEPS)]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line.removeprefix("WATCH ")) for line in done.stdout.splitlines() if line.startswith("WATCH ")]
    print([(r["step"], round(r["memory"] / 2**20), r["files"], r["threads"]) for r in rows])
    assert len(rows) == 20 and rows[-1]["step"] == STEPS
    for key in ("memory", "files", "threads"):
        kept(rows, key)
    sizes = [r["bytes"] for r in rows[2:]]
    weights = [[n for n in files if n.startswith("step-") and n.endswith(".safetensors")] for files in sizes]
    assert max(map(len, weights)) <= len(RULES) + 3, "one for each rule, the best, the last: others are removed"
    growing = {n for n in sizes[-1] if not n.startswith("step-") and sizes[-1][n] > SLACK * sizes[0].get(n, 0)}
    assert growing <= {"history.csv", "checkpoint.pt", "health.json"}, growing  # a row for each look, and what was said
    assert sizes[-1]["checkpoint.pt"] < sizes[0]["checkpoint.pt"] + 300_000, (
        "it holds the history, and nothing else grows"
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Three runs, a hundred images, two folders of predictions."
    root = tmp_path_factory.mktemp("long")
    n = dict(n_gta5=(4, 4), n_cityscapes=(4, 60), n_iitk=(4, 10))
    data = write_samples(root / "data", size=(96, 192), workers=2, **n)
    for seed in range(3):
        cfg = make_config("tiny", source="gta5", target="cityscapes", seed=seed, method="source_only", steps=100)
        folder = root / "runs/gta52cityscapes" / f"source_only-s{seed}"
        folder.mkdir(parents=True)
        torch.manual_seed(seed)
        model = deeplab(n_classes=19, **network_arguments(cfg))
        save_network(folder / "weights.safetensors", model, cfg, CITYSCAPES19)
        write_json(folder / "config.json", {**cfg.model_dump(), "classes_used": "cityscapes19"})
        rows = "\n".join(f"{i},{i},0.01,{1 / i:.3f}" for i in range(1, 100))
        (folder / "history.csv").write_text(f"step,seconds,lr,loss_seg2\n{rows}\n")
        if seed < 2:
            values = dict(images="cityscapes", weights=str(folder), data_root=str(data), confidence=True)
            predict_folder(predict_job(**values, out=str(root / f"runs/predictions{seed}")))
    return root


def explorer(root):
    "Another run, domain and image."
    view = ExplorerView(Explorer(root / "runs", str(root / "data")), root / "views")

    def change(i):
        view.domain.value = ("cityscapes", "iitk", "gta5")[i % 3]
        view.runs.value = [view.runs.options[i % 3]]
        view.press("ArrowRight")
        view.mode.value = ("classes", "errors")[i % 2]

    return change


def monitor(root):
    "Another run."
    view = MonitorView(root / "runs", every=None)
    return lambda i: setattr(view.run, "value", view.run.options[i % 3][1])


def datasets(root):
    "Another domain and image."
    view = DatasetView(DatasetBrowser(str(root / "data")))

    def change(i):
        view.domain.value = ("cityscapes", "iitk", "gta5")[i % 3]
        view.do(view.browser.next)

    return change


def reviewer(root):
    "Another folder and photograph, in another look."
    view = ReviewerView(Reviewer(root / "runs"))

    def change(i):
        view.folder.value = f"predictions{i % 2}"
        view.mode.value = ("classes", "photograph", "confidence")[i % 3]
        view.press("ArrowRight")
        view.click(0.5, 0.5)

    return change


def workbench(root):
    "Another image."
    view = WorkbenchView(Workbench(), root / "segments")
    files = sorted((root / "data").rglob("*_leftImg8bit.png"))
    return lambda i: view._do(lambda: view.bench.open(files[i % len(files)]))


@pytest.mark.parametrize("dashboard", [explorer, monitor, datasets, reviewer, workbench])
def test_somebody_looks_at_one_thing_after_the_other(dashboard, folders):
    change, me, rows = dashboard(folders), psutil.Process(), []
    for i in range(2 * CHANGES):  # the first half fills what is kept
        change(i)
        gc.collect()
        rows.append(dict(memory=taken(me), files=me.num_fds(), threads=me.num_threads()))
    print([round(r["memory"] / 2**20) for r in rows[:: CHANGES // 5]])
    for key in ("memory", "files", "threads"):
        first, last = (max(r[key] for r in half) for half in (rows[:CHANGES], rows[CHANGES:]))
        assert last <= SLACK * first, f"{key}: {first} in the first half, {last} in the second"
