"""The runnable notebook and the command line, run as a person would, on tiny sample domains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from safetensors.torch import load_file

from adaptseg.training.trainer import train
from adaptseg.methods.registry import METHODS
from adaptseg.runs.config import Config
from adaptseg.streets.samples import write_samples
from inside import adaptseg

ROOT = Path(__file__).parents[1]
TINY = dict(steps=4, batch_size=2, source_size="128x64", target_size="128x64", precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_samples(
        tmp_path_factory.mktemp("data") / "samples",
        size=(64, 128),
        n_gta5=(6, 2),
        n_cityscapes=(4, 2),
        n_iitk=(1, 1),
        workers=1,
    )


def call(*args):
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )


def flags(**values):
    return [s for k, v in values.items() for s in ("-p", k, str(v))]


@pytest.mark.parametrize("command", [[], ["train"], ["experiments"]])
def test_help_loads_nothing_heavy(command):
    done = call("-X", "importtime", "-m", "adaptseg", *command, "--help")
    assert done.returncode == 0 and "usage: adaptseg" in done.stdout
    assert not re.findall(r"\| +(torch|numpy|pydantic|matplotlib|fastai)\n", done.stderr)


def test_papermill_runs_the_notebook(data, tmp_path):
    done = call(
        "-m",
        "papermill",
        "nbs/train.ipynb",
        str(tmp_path / "out.ipynb"),
        *flags(preset="sample", **TINY, source="gta5", target="iitk", data_root=data, out=tmp_path / "runs"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs/gta52iitk/adaptseg_multi-s0"
    assert {
        "config.json",
        "history.csv",
        "metrics.json",
        "weights.safetensors",
        "discriminators.safetensors",
        "comparison.png",
        "curves.png",
    } <= {p.name for p in run.iterdir()}
    assert not list(run.glob(".*")), "something half-written stayed behind"
    assert not (run / "checkpoint.pt").exists(), "there is nothing to go on with"
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"iitk/val", "gta5/val"} and 0 <= metrics["iitk/val"]["miou"] <= 1


def test_command_keeps_the_notebook_and_does_not_overwrite(data, tmp_path):
    args = flags(
        preset="camvid",
        **TINY,
        source="gta5",
        target="cityscapes+iitk",
        method="adabn",
        data_root=data,
        out=tmp_path / "runs",
        workers=1,
        accumulate=2,
        crop="off",
        scale="off",
        log="tensorboard",
    )
    done = adaptseg("train", *args)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step      4/4" in done.stdout, "progress is shown while it runs"
    run = tmp_path / "runs/gta52cityscapes+iitk/adabn-s0"
    nb = nbformat.read(run / "train.ipynb", 4)
    assert list((run / "tensorboard").iterdir())
    config = json.loads((run / "config.json").read_text())
    assert (config["crop"], config["scale"]) == (None, None), "off reaches the notebook"
    assert [c for c in nb.cells if "injected-parameters" in c.metadata.get("tags", [])]
    before = (run / "weights.safetensors").stat().st_mtime
    again = adaptseg("train", *args)
    assert again.returncode == 1 and "overwrite=True" in again.stderr and "Traceback" not in again.stderr
    assert (run / "weights.safetensors").stat().st_mtime == before


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(sorce="gta5"), "Did you mean 'source'"),
        (dict(steps=-1), "greater than or equal to 0"),
        (dict(method="dacs"), "expected one of adaptseg_single, "),
        (dict(data_root="no/such/folder"), "does not exist"),
        (dict(source="gta6"), "unknown domain"),
        (dict(source="synthia", data_root=None), "none of the sample domains"),
        (dict(bn_stats="frozen", method="adabn"), "needs both or target"),
        (dict(init="no/such/run"), "no weight file"),
    ],
)
def test_mistakes_stop_at_the_door(wrong, words, data, tmp_path):
    done = adaptseg(
        "train", *flags(**{"preset": "sample", **TINY, "data_root": data, "out": tmp_path / "runs", **wrong})
    )
    assert done.returncode == 1 and words in done.stderr, done.stderr[-3000:]
    left = {p.name for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    assert left <= {".claims.lock", ".claims.clock"}, "both stay for whoever claims next; nothing else does"


def test_papermill_stops_at_an_unknown_name(data, tmp_path):
    done = call(
        "-m",
        "papermill",
        "nbs/train.ipynb",
        str(tmp_path / "out.ipynb"),
        *flags(preset="sample", **TINY, data_root=data, out=tmp_path / "runs", lamda_adv2=1),
    )
    assert done.returncode != 0 and "Did you mean 'lambda_adv2'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_notebook_leaves_every_value_to_the_preset():
    (cell,) = (
        c for c in nbformat.read(ROOT / "nbs/train.ipynb", 4).cells if "parameters" in c.metadata.get("tags", [])
    )
    values = {}
    exec(cell.source, values)
    values = {k: v for k, v in values.items() if not k.startswith("__")}
    known = {*Config.model_fields, *(k for m in METHODS.values() for k in m.Values.model_fields)}
    assert set(values) <= known and set(values.values()) == {None}


def test_unlabelled_folder_is_predicted_without_scores(data, tmp_path):
    photos = tmp_path / "photos/images"
    for split in ("train", "val"):
        shutil.copytree(
            data / f"Cityscapes/leftImg8bit/{split}",
            photos / split,
            copy_function=lambda a, b: shutil.copy(a, photos / split),
        )
    run = train(
        "sample",
        **{**TINY, "steps": 2},
        source="gta5",
        target=f"folder:{photos.parent}",
        data_root=str(data),
        out=str(tmp_path / "runs"),
    )
    assert run.path.parent.name == "gta52photos"
    assert run.metrics["folder:" + str(photos.parent) + "/val"]["images"] == 2 and "miou" in run.metrics["gta5/val"]
    assert "miou" not in run.metrics["folder:" + str(photos.parent) + "/val"]


def test_nothing_labelled_to_validate_on(data, tmp_path):
    "As on the real data: IITK has no labels, GTA5 no val split."
    real = shutil.copytree(data, tmp_path / "real")
    shutil.rmtree(real / "IITK/sampleLabels")
    for name in ("GTA5/val.txt", "samples.json"):
        (real / name).unlink()
    with pytest.warns(UserWarning, match="gta5 will not be evaluated"):
        run = train(
            "tiny",
            source="gta5",
            target="iitk",
            data_root=str(real),
            out=str(tmp_path / "runs"),
            device="cpu",
            precision="fp32",
        )
    assert (
        set(run.metrics) == {"iitk/val"} and "miou" not in run.metrics["iitk/val"] and not run.config["sample_domains"]
    )
    choices = json.loads((run.path / "choices.json").read_text())
    assert {"entropy", "information", "density", "agreement", "last"} == set(choices) and all(
        c["regret"] is None for c in choices.values()
    )
    assert (run.path / "comparison.png").is_file() and [row["step"] for row in run.history] == [1, 2, 3, 4]
    with pytest.warns(UserWarning, match="gta5 will not be evaluated"):
        scored = train(
            "tiny",
            source="gta5",
            target="iitk",
            data_root=str(real),
            out=str(tmp_path / "runs"),
            device="cpu",
            precision="fp32",
            name="as-it-is",
            init=str(run.path),
            steps=0,
        )
    a, b = (load_file(r.path / "weights.safetensors") for r in (run, scored))
    assert scored.finished and all(torch.equal(a[k], b[k]) for k in a), (
        "without a step the weights are scored as they are"
    )


def test_core_star_import_is_public():
    names = {}
    exec("from adaptseg.core import *", names)
    names.pop("__builtins__")
    assert not set(names) & set(names["Config"].model_fields), "a star import must not replace a notebook's parameters"
    assert {
        "train",
        "evaluate",
        "Predictor",
        "load_split",
        "Method",
        "dashboard",
        "comparison",
    } <= set(names)
    assert len(names) < 50 and not [n for n in names if n.startswith("_")] and "np" not in names and "Path" not in names


def test_table_and_demo(data, tmp_path):
    out = str(tmp_path / "demo")
    done = adaptseg("demo", *flags(preset="sample", **TINY, data_root=data, out=out))
    assert done.returncode == 0, done.stderr[-3000:]
    picture = Path(done.stdout.split("comparison picture: ")[1].strip())
    assert picture.stat().st_size > 10_000 and "| gta5 -> cityscapes | adaptseg_multi-s0" in done.stdout
    again = adaptseg("demo", *flags(preset="sample", **TINY, data_root=data, out=out))
    assert "step" not in again.stdout, "finished runs are not trained again"
    assert "source_only" in adaptseg("table", out).stdout
