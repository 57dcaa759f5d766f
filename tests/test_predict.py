"""Photographs in, label maps out, by the command line."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from adaptseg.datasets.domains import load_split
from adaptseg.datasets.labels import CITYSCAPES19, CITYSCAPES_IDS
from adaptseg.evaluation.predict import Predictor, evaluate
from adaptseg.networks.deeplab import deeplab
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from inside import adaptseg

ROOT = Path(__file__).parents[1]


@pytest.fixture
def network(tmp_path):
    cfg = make_config("tiny", source="gta5", target="cityscapes", method="source_only")
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    model = deeplab(n_classes=19, **network_arguments(cfg))
    save_network(file, model, cfg.model_copy(update=dict(preprocessing="imagenet")), CITYSCAPES19)
    return file


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        file = tmp_path / "photographs" / f"day{i % 2}" / f"ü {i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40 + i, 60, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photographs"


def test_predict_a_folder(network, photographs, tmp_path):
    out = tmp_path / "out"
    call = lambda *more: adaptseg("predict", photographs, "--weights", network, "--out", out, *more)
    looked = call("--dry-run")
    assert looked.returncode == 0 and "4 photographs" in looked.stdout and not out.exists()
    done = call("--overlays", "--confidence", "--ids", "cityscapes")
    assert done.returncode == 0, done.stderr
    table, predictor = pd.read_csv(out / "table.csv"), Predictor.load(network)
    assert list(table["image"]) == ["day0/ü 0", "day0/ü 2", "day1/ü 1", "day1/ü 3"]
    for name, file in zip(table["image"], table["file"]):
        label = np.asarray(Image.open(out / "labels" / f"{name}.png"))
        assert (CITYSCAPES_IDS.encode(label, CITYSCAPES19) == predictor(file)).all()
        assert (out / "overlays" / f"{name}.jpg").is_file() and (out / "confidence" / f"{name}.png").is_file()
    mixed = call()
    assert mixed.returncode == 1 and "was made with another ids, overlays, confidence" in mixed.stderr
    assert call("--overwrite").returncode == 0 and len(pd.read_csv(out / "table.csv")) == 4


def test_predict_goes_on_past_what_is_broken(network, photographs, tmp_path):
    out, broken = tmp_path / "out", photographs / "day0" / "half.png"
    whole = photographs / "day0" / "ü 0.jpg"
    broken.write_bytes(whole.read_bytes()[:200])
    done = adaptseg("predict", photographs, "--weights", network, "--out", out)
    assert done.returncode == 1 and "1 of 5 could not be read, day0/half first" in done.stderr
    assert len(list((out / "labels").rglob("*.png"))) == 4
    times = {p: p.stat().st_mtime_ns for p in (out / "labels").rglob("*.png")}
    shutil.copy(whole, broken)  # mended
    assert adaptseg("predict", photographs, "--weights", network, "--out", out).returncode == 0
    assert (out / "labels/day0/half.png").is_file() and all(p.stat().st_mtime_ns == t for p, t in times.items())
    none = adaptseg("predict", tmp_path / "nowhere", "--weights", network, "--out", out)
    assert none.returncode == 1 and "no photograph and no folder" in none.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_picture_that_finds_no_room_is_no_result(network, photographs, tmp_path):
    "Pillow takes half a JPEG for a whole one: a file that may grow to 8 KiB stands for a full disk."
    rgb = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(photographs / "day0/a.jpg")
    call = [sys.executable, "-m", "adaptseg", "predict", photographs, "--weights", network, "--overlays", "--out"]
    small = "import os, resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    small += "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run(
        [sys.executable, "-c", small, *map(str, call), tmp_path / "out"], cwd=ROOT, capture_output=True
    )
    assert full.returncode == 1 and b"Traceback" not in full.stderr, full.stderr
    assert not (tmp_path / "out/overlays/day0/a.jpg").exists(), "nothing half-written"
    for out in ("out", "other"):
        assert adaptseg(*call[3:], tmp_path / out).returncode == 0
    ours, others = ({p.name: p.read_bytes() for p in (tmp_path / d).rglob("*.jpg")} for d in ("out", "other"))
    assert ours == others and len(ours) == 5 and len(ours["a.jpg"]) > 8192


def test_a_domain_needs_no_labels(network, tmp_path):
    data = write_samples(
        tmp_path / "data", size=(64, 128), n_gta5=(1, 1), n_cityscapes=(1, 2), n_iitk=(1, 1), workers=1
    )
    shutil.rmtree(data / "Cityscapes/gtFine")
    call = ("predict", "cityscapes", "--data-root", data, "--weights", network, "--out", tmp_path / "out")
    done = adaptseg(*call)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/labels").rglob("*.png"))) == 2


def test_a_domain_in_shards(network, tmp_path):
    from data_prep.custom import RECIPE
    from data_prep.prepare import run

    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(12):
            picture = np.full((40, 60, 3), 20 * i, np.uint8) if kind == "images" else np.full((40, 60), i % 2, np.uint8)
            Image.fromarray(picture).save(tmp_path / kind / f"{i}.png")
    (tmp_path / "ids.csv").write_text("id,name,red,green,blue\n0,lawn,0,200,0\n1,path,90,90,90\n")
    own = [str(tmp_path / n) for n in ("images", "masks", "ids.csv")]
    for argv in ([*own, "--name", "own"], ["--shards", "--name", "own"]):
        with pytest.raises(SystemExit) as e:
            run(RECIPE, [*argv, "--out", str(tmp_path / "data")])
        assert e.value.code == 0
    call = ("predict", f"folder:{tmp_path / 'data/shards/own'}", "--split", "train", "--weights", network)
    for _ in range(2):  # the second finds all done
        done = adaptseg(*call, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/labels").rglob("*.png"))) == len(pd.read_csv(tmp_path / "out/table.csv")) > 5


def test_a_submission_gets_the_same_score_from_the_official_scripts(network, tmp_path):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    data = write_samples(
        tmp_path / "data", size=(64, 128), n_gta5=(1, 1), n_cityscapes=(1, 3), n_iitk=(1, 1), workers=1
    )
    zipped, out = tmp_path / "server.zip", tmp_path / "out"
    words = ("predict", "cityscapes", "--weights", network, "--data-root", data, "--out", out)
    done = adaptseg(*words, "--submission", zipped)
    assert done.returncode == 0 and "3 label maps as the server of cityscapes" in done.stdout, done.stderr
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "sent")
    split = load_split("cityscapes", "val", data)
    args = official.CArgs()
    more = dict(evalInstLevelScore=False, JSONOutput=False, quiet=True, predictionPath=str(tmp_path / "sent"))
    args.__dict__.update(vars(official.args), **more, predictionWalk=None)
    truths = [str(item.label) for item in split.items]
    files = [official.getPrediction(args, truth) for truth in truths]  # ends the program where it finds none, or two
    score = official.evaluateImgLists(files, truths, args)["averageScoreClasses"]
    assert score == pytest.approx(evaluate(Predictor.load(network), split)["miou"], rel=1e-12)
    elsewhere = adaptseg("predict", "gta5", *words[2:], "--submission", zipped, "--overwrite")
    assert elsewhere.returncode == 1 and "that has a server" in elsewhere.stderr


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(network, tmp_path):
    rng, shots, out = np.random.default_rng(0), tmp_path / "shots", tmp_path / "out"
    shots.mkdir()
    for i in range(120):
        Image.fromarray(rng.integers(0, 255, (60, 120, 3), dtype=np.uint8)).save(shots / f"{i}.png")
    words = ("predict", shots, "--weights", network, "--out", out, "--workers", "2")
    call, env = [sys.executable, "-m", "adaptseg", *map(str, words)], {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(call, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    table, end = out / "table.csv", time.time() + 150
    while not table.is_file() or len(table.read_text().splitlines()) < 2:
        assert time.time() < end and process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
    # of its processes the one that has most in memory: a worker, which holds a network
    max(psutil.Process(process.pid).children(recursive=True), key=lambda p: p.memory_info().rss).kill()
    assert len(table.read_text().splitlines()) < 110
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert list(pd.read_csv(table)["image"]) == list(range(120))  # each once, in natural order
    predictor = Predictor.load(network)
    for i in range(120):
        assert (np.asarray(Image.open(out / "labels" / f"{i}.png")) == predictor(shots / f"{i}.png")).all()
    assert not [p for p in out.rglob(".*")]  # nothing half-written
