"""A run sent to TensorBoard, MLflow and Weights & Biases, killed in the middle and gone on with."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adaptseg.runs.folder import Run
from adaptseg.streets.samples import write_samples

ROOT = Path(__file__).parents[1]
VALUES = dict(preset="tiny", source="gta5", target="cityscapes", method="adabn", steps=8, val_every=2, log_every=1)


def start(tmp_path, *more, **environment):
    values = VALUES | dict(data_root=tmp_path / "data/samples", out=tmp_path / "runs", log="tensorboard,mlflow,wandb")
    flags = [word for k, v in values.items() for word in (f"--{k}", str(v))]
    wanted = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "WANDB"))} | environment
    command = [sys.executable, "-m", "adaptseg", "train", *flags, *more]
    return subprocess.Popen(command, cwd=ROOT, env=wanted, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    tmp_path = tmp_path_factory.mktemp("tracked")
    sizes = dict(size=(64, 128), n_gta5=(4, 2), n_cityscapes=(4, 2), n_iitk=(1, 1))
    write_samples(tmp_path / "data/samples", workers=1, **sizes)
    run = tmp_path / "runs/gta52cityscapes/adabn-s0"
    first = start(tmp_path)
    while not (run / "checkpoint.pt").is_file() and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    second = start(tmp_path, "--resume")
    assert second.wait(300) == 0, second.stderr.read()
    return Run(run)


@pytest.mark.slow
def test_mlflow_has_one_run_with_every_number(killed):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{killed.path.parents[1] / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'gta52cityscapes'")
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("adabn-s0", "FINISHED")
    assert found.data.params["method"] == "adabn" and found.data.params["seed"] == "0"
    for column in ("loss_seg2", "lr", "miou"):
        sent = {m.step: m.value for m in client.get_metric_history(found.info.run_id, column)}
        assert sent == {int(row["step"]): row[column] for row in killed.history if row[column] is not None}, column
    assert found.data.metrics["cityscapes/val/miou"] == killed.metrics["cityscapes/val"]["miou"]
    assert {f.path for f in client.list_artifacts(found.info.run_id)} == {"comparison.png", "curves.png"}


@pytest.mark.slow
def test_tensorboard_has_every_number(killed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(killed.path / "tensorboard")).Reload()
    sent = {event.step: event.value for event in read.Scalars("loss_seg2")}
    assert sent == pytest.approx({int(row["step"]): row["loss_seg2"] for row in killed.history}, rel=1e-6)
    assert {"comparison", "curves"} <= set(read.Tags()["images"])


@pytest.mark.slow
def test_wandb_goes_on_under_the_same_name_and_sends_nothing(killed):
    folders = sorted((killed.path.parents[1] / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    [file] = folders[1].glob("*.wandb")
    assert b"cityscapes/val/miou" in file.read_bytes()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_an_error_before_anything_is_made(tmp_path):
    pytest.importorskip("mlflow")
    done = start(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    _, said = done.communicate(timeout=120)
    assert done.returncode == 1 and "MLFLOW_TRACKING_URI=http://127.0.0.1:9 does not answer" in said
    assert not (tmp_path / "runs/gta52cityscapes/adabn-s0/weights.safetensors").exists()
