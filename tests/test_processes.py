"""One run over several processes is that run: two times one image equal one time two, resume works with any number of
them, one of them writes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import together
from adaptseg.networks.deeplab import BasicBlock, DeepLabV2
from adaptseg.streets.samples import write_samples

ROOT = Path(__file__).parents[1]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TINY = dict(preset="tiny", source="gta5", target="cityscapes", batch_size=2, precision="fp32", device="cpu")


def call(*args, **kwargs):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def finished(process, code=0):
    out, err = process.communicate(timeout=200)
    assert (process.returncode == 0) == (code == 0), err[-3000:]
    return out, err


def flags(**values):
    return [s for k, v in values.items() for s in ("-p", k, str(v))]


def error(a, b):
    "Largest relative error; of what should be 0, such as a bias that the next batch norm takes away, 1e8 times it."
    return max(
        ((x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-8)).item() for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_samples(
        tmp_path_factory.mktemp("data") / "samples",
        size=(64, 128),
        n_gta5=(6, 2),
        n_cityscapes=(4, 3),
        n_iitk=(1, 1),
        workers=1,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    "Every kind, five steps, by one process and by two."
    folder = tmp_path_factory.mktemp("together")
    two = call(*TWO, "tests/together.py", "train", folder / "two", ",".join(together.KINDS), 5)
    finished(call("tests/together.py", "train", folder / "one", ",".join(together.KINDS), 5))
    finished(two)
    return folder


def compare(a, b, tolerance=1e-6):
    a, b = torch.load(a / "state.pt"), torch.load(b / "state.pt")
    assert a["state"].keys() == b["state"].keys() and any(k.startswith("D.") for k in a["state"])
    losses = [[[row[k] for k in row if k.startswith("loss_")] for row in s["rows"]] for s in (a, b)]
    assert len(losses[0]) == len(losses[1]) and a["n_unlabelled"] == b["n_unlabelled"]
    errors = (
        error(a["state"].values(), b["state"].values()),
        error(*(torch.tensor(l, dtype=torch.float64) for l in losses)),
    )
    print("weights {:.1e}, losses {:.1e}".format(*errors))
    assert max(errors) < tolerance
    return a


@pytest.mark.parametrize("kind", together.KINDS)
def test_two_processes_equal_one(both, kind):
    state = compare(both / "two" / kind, both / "one" / kind)
    start = together.learner(kind, both / "start" / kind)
    moved = error(
        (v for k, v in state["state"].items() if k.endswith("weight")),
        (
            v
            for n, m in (("G", start.model), ("D", start.beside))
            for k, v in m.state_dict().items()
            if k.endswith("weight")
        ),
    )
    assert moved > 1e-3, "nothing was trained"


def test_batch_norms_that_do_not_share_a_batch(tmp_path):
    "After a step the stem's running mean is that of both processes' own images."
    finished(call(*TWO, "tests/together.py", "train", tmp_path, "average", 1))
    torch.manual_seed(0)
    stem = DeepLabV2(BasicBlock, (1, 1, 1, 1), together.CLASSES, levels=2, width=8, bn_affine=True).double().conv1
    source, target = together.Batches("source", 1).source(0)[0], together.Batches("target", 1).target(0)[0]
    with torch.no_grad():
        own = [
            0.09 * stem(s[None]).mean((0, 2, 3)) + 0.1 * stem(t[None]).mean((0, 2, 3)) for s, t in zip(source, target)
        ]  # momentum 0.1, source first
    found = torch.load(tmp_path / "average" / "state.pt")["state"]["G.bn1.running_mean"]
    torch.testing.assert_close(found, (own[0] + own[1]) / 2, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(*own, rtol=1e-3)


def test_resume_with_other_numbers_of_processes(both, tmp_path):
    "Two processes, then one, then two: the weights of a run that one process made without a stop."
    for until, launcher in ((2, TWO), (4, ()), (5, TWO)):
        finished(call(*launcher, "tests/together.py", "train", tmp_path, "statistics", until))
    compare(tmp_path / "statistics", both / "one" / "statistics")


def test_a_preempted_run_goes_on_with_one_process(data, tmp_path):
    values = dict(TINY, data_root=data, steps=8)
    run, whole = (tmp_path / name / "gta52cityscapes/adaptseg_multi-s0" for name in ("broken", "whole"))
    first = call(*TWO, "tests/together.py", "adaptseg", tmp_path, "train", *flags(**values, out=tmp_path / "broken"))
    end = time.time() + 120
    while not (run / "checkpoint.pt").exists():
        assert time.time() < end and first.poll() is None, first.communicate()[1][-3000:]
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert not (run / "metrics.json").exists()
    finished(call("-m", "adaptseg", "train", *flags(**values, out=tmp_path / "broken", resume=True)))
    finished(call(*TWO, "tests/together.py", "adaptseg", tmp_path, "train", *flags(**values, out=tmp_path / "whole")))
    a, b = (load_file(p / "weights.safetensors") for p in (run, whole))
    assert (
        error(a.values(), (b[k] for k in a)) < 1e-2
    )  # float32, from scratch at a high rate: roundings grow; in float64 see above
    a, b = (json.loads((p / "config.json").read_text()) for p in (run, whole))
    assert (a["processes"], a["processes_before"], b["processes"], b["bn_sync"]) == (1, [2], 2, "sync")
    names = [{p.name for p in r.iterdir()} for r in (run, whole)]
    assert names[0] - names[1] == {"train.ipynb"} and not names[1] - names[0] - {"health.json"}
    a, b = (json.loads((p / "metrics.json").read_text()) for p in (run, whole))
    assert a["cityscapes/val"]["pixels"] == b["cityscapes/val"]["pixels"] and list(
        a["cityscapes/val"]["images_miou"]
    ) == list(b["cityscapes/val"]["images_miou"])


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(target="cityscape"), "unknown domain"),
        (dict(batch_size=3), "multiple of the 2 processes"),
        (dict(name="here"), "is no run: move it away"),
    ],
)
def test_a_mistake_ends_all_processes(data, tmp_path, wrong, words):
    if "name" in wrong:
        (tmp_path / "runs/gta52cityscapes/here/notes").mkdir(parents=True)
    begin = time.time()
    out, err = finished(
        call(*TWO, "-m", "adaptseg", "train", *flags(**{**TINY, "data_root": data, "out": tmp_path / "runs", **wrong})),
        code=1,
    )
    said = [line for line in err.splitlines() if line.startswith("adaptseg train:")]
    assert len(said) == 1 and words in said[0], err[-3000:]
    assert time.time() - begin < 60 and not list((tmp_path / "runs").rglob("config.json"))


def test_other_commands_refuse_to_run_twice():
    _, err = finished(call(*TWO, "-m", "adaptseg", "table"), code=1)
    assert "without accelerate launch or torchrun" in err
