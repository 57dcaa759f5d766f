"""Several looks at an image against a loop in float64, images scored one by one, the official scripts on what is
written, and the notebook.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from adaptseg.evaluation.predict import Predictor, evaluate
from adaptseg.evaluation.windows import window_starts
from adaptseg.datasets.domains import load_split
from adaptseg.training.trainer import train
from adaptseg.evaluation.argmax import predict_labels
from adaptseg.evaluation.predict import image_names, save_prediction
from adaptseg.reports.evaluation import evaluate_job, evaluate_weights
from adaptseg.datasets.labels import CITYSCAPES19, IGNORE, read_label
from adaptseg.streets.samples import write_samples
from adaptseg.datasets.splits import load_label

ROOT = Path(__file__).parents[1]
TINY = dict(
    steps=4, batch_size=2, source_size="128x64", target_size="128x64", precision="fp32", device="cpu", choice_images=0
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
def run(data, tmp_path_factory):
    return train(
        "sample",
        **TINY,
        source="gta5",
        target="cityscapes",
        method="source_only",
        data_root=str(data),
        out=str(tmp_path_factory.mktemp("runs")),
    )


class Toy(nn.Module):
    "A network small enough to be followed; like `DeepLabV2` on the outside."

    n_classes = 19

    def __init__(self, stride=8):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.stride = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 19, 3, padding=1), stride

    def forward(self, x):
        return None, self.last(F.avg_pool2d(F.relu(self.first(x)), self.stride))


def looks(size=(64, 96), **values):
    return Predictor(Toy().double(), CITYSCAPES19, size, **values)


def naive(model, x, scales, flip, size):
    "Mean probabilities and labels as one would write it down; a single plain look is read from its logits."
    grid = model(x)[-1].shape[-2:]
    resize = lambda a, to: F.interpolate(a, size=to, mode="bilinear", align_corners=True)
    found = []
    for scale in scales:
        seen = resize(x, (round(x.shape[-2] * scale), round(x.shape[-1] * scale)))
        for mirrored in [False, True] if flip else [False]:
            logits = model(torch.flip(seen, [3]) if mirrored else seen)[-1]
            logits = resize(torch.flip(logits, [3]) if mirrored else logits, grid)
            found.append(torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
    mean = torch.stack(found).mean(0)
    return mean, resize(logits if len(found) == 1 else mean, size).argmax(1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0), (0.5, 1.0, 1.25, 1.75)])
@torch.no_grad()
def test_several_looks_equal_a_loop(scales, flip):
    predictor, x = looks(flip=flip, scales=scales), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    mean, labels = naive(predictor.model, x, scales, flip, (100, 150))
    found = predictor.evidence(x)
    torch.testing.assert_close(found.softmax(1) if predictor.plain else found, mean, rtol=1e-12, atol=1e-14)
    assert torch.equal(predict_labels(found, (100, 150)), labels)


@pytest.mark.parametrize("window", [(32, 32), (40, 64), (64, 50), (100, 33)])
@torch.no_grad()
def test_windows_equal_a_loop(window):
    predictor, x = looks(window=window), torch.randn(1, 3, 64, 96, dtype=torch.float64)
    h, w = min(window[0], 64), min(window[1], 96)
    hat = torch.tensor([[min(i + 1, h - i) * min(j + 1, w - j) for j in range(w)] for i in range(h)])
    total, weight = torch.zeros(1, 19, 64, 96, dtype=torch.float64), torch.zeros(64, 96)
    for top in window_starts(64, h):
        for left in window_starts(96, w):
            logits = predictor.model(x[..., top : top + h, left : left + w])[-1]
            p = F.interpolate(logits, size=(h, w), mode="bilinear", align_corners=True).softmax(1)
            total[..., top : top + h, left : left + w] += p * hat
            weight[top : top + h, left : left + w] += hat
    torch.testing.assert_close(predictor.evidence(x), total / weight, rtol=1e-12, atol=1e-14)


@torch.no_grad()
def test_one_look_is_the_plain_path():
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    assert torch.equal(looks(scales=(1,)).evidence(x), Toy().double()(x)[-1])
    assert not looks(scales=(2.0,)).plain and not looks(flip=True).plain
    assert looks(scales=(2.0, 0.5)).evidence(x).shape[-2:] == (4, 6), "the grid is that of the scale nearest 1"


@torch.no_grad()
def test_mirrored_images_get_mirrored_maps():
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    predictor = looks(flip=True, scales=(0.75, 1.0))
    torch.testing.assert_close(predictor.evidence(x.flip(-1)), predictor.evidence(x).flip(-1))
    same = predictor.evidence(x + x.flip(-1))
    torch.testing.assert_close(same, same.flip(-1))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_at_2048x1024():
    "Less than all classes at full size, which take 152 MiB, with six looks."
    code = """
import sys; sys.path.insert(0, "tests")
import numpy as np
from test_evaluate import Predictor, Toy, CITYSCAPES19
def mib(what): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(what)) / 1024
net, image = Toy(32).requires_grad_(False), np.zeros((1024, 2048, 3), np.uint8)
from torch import nn
net.first, net.last = nn.AvgPool2d(1), nn.Conv2d(3, 19, 1).requires_grad_(False)
def look(size):
    Predictor(net, CITYSCAPES19, size, flip=True, scales=(.75, 1, 1.25))(image[:2 * size[0], :2 * size[1]])
look((64, 64)); before = mib("VmRSS"); look((512, 1024)); print(mib("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 152


@pytest.mark.parametrize(
    "scales, words",
    [((), "at least one"), ((0.0,), "> 0"), ((-1.0,), "> 0"), ((1.0, 0.4), "found 38x26 at scale 0.4 of 96x64")],
)
def test_bad_scales(scales, words):
    with pytest.raises(ValueError, match=words):
        looks(scales=scales)


def test_images_scored_one_by_one(run, data):
    predictor, split = Predictor.load(run.path, device="cpu", precision="fp32"), load_split("cityscapes", "val", data)
    result = evaluate(predictor, split)
    for name, item in zip(image_names(split), split.items):
        pred, label = predictor(item.image), load_label(item, split.classes)
        ious = []
        for c in set(np.unique(label).tolist()) - {IGNORE}:
            both = ((pred == c) & (label == c)).sum()
            ious.append(both / (((pred == c) & (label != IGNORE)) | (label == c)).sum())
        assert result["images_miou"][name] == pytest.approx(np.mean(ious), abs=1e-4)
    assert (
        result["miou"] == run.metrics["cityscapes/val"]["miou"]
        and run.metrics["cityscapes/val"]["images_miou"] == result["images_miou"]
    )


def test_the_official_scripts_find_and_score_what_is_written(run, data, tmp_path):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    job = evaluate_job(
        weights=str(run.path),
        split="val",
        save=True,
        out=str(tmp_path / "out"),
        device="cpu",
        precision="fp32",
        flip=True,
    )
    result = evaluate_weights(job)
    args = official.CArgs()
    args.__dict__.update(
        vars(official.args),
        evalInstLevelScore=False,
        JSONOutput=False,
        quiet=True,
        predictionPath=str(job.path / "labels"),
        predictionWalk=None,
    )
    truths = [str(i.label) for i in load_split("cityscapes", "val", data).items]
    files = [official.getPrediction(args, t) for t in truths]  # ends the program where it finds none, or two
    assert len(set(files)) == len(truths) == 3
    scores = official.evaluateImgLists(files, truths, args)
    assert scores["averageScoreClasses"] == pytest.approx(result["miou"], rel=1e-12)
    np.testing.assert_allclose(
        [np.nan if v is None else v for v in result["iou"].values()],
        [scores["classScores"][n] for n in result["iou"]],
        rtol=1e-12,
        equal_nan=True,
    )
    assert sorted(p.name for p in (job.path / "colour").iterdir()) == sorted(
        p.name for p in (job.path / "labels").iterdir()
    )


def test_every_class_is_written_as_its_label_id(tmp_path):
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    pred = np.arange(19, dtype=np.uint8)[None]
    save_prediction(tmp_path, "x", pred, CITYSCAPES19)
    assert read_label(tmp_path / "labels" / "x.png").tolist() == [[labels.trainId2label[i].id for i in range(19)]]
    assert np.array(Image.open(tmp_path / "colour" / "x.png"))[0].tolist() == [
        list(labels.trainId2label[i].color) for i in range(19)
    ]


def papermill(notebook, **values):
    given = [s for k, v in values.items() for s in ("-p", k, str(v))]
    return subprocess.run(
        [sys.executable, "-m", "papermill", "nbs/evaluate.ipynb", str(notebook), *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def shown(notebook):
    return "".join(
        "".join(o.get("text", "")) + "".join(o.get("data", {}).get("text/markdown", ""))
        for c in json.loads(notebook.read_text())["cells"]
        for o in c.get("outputs", [])
    )


def test_notebook_with_labels(run, data, tmp_path):
    done = papermill(
        tmp_path / "nb.ipynb",
        weights=run.path,
        save=True,
        scales="1,1.5",
        flip=True,
        n=1,
        out=tmp_path / "out",
        device="cpu",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json",
        "labels",
        "colour",
        "classes.png",
        "confusion.png",
        "selected.png",
        "worst_and_best.png",
    }
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["scored"] == 3 and metrics["job"]["scales"] == "1,1.5" and metrics["job"]["domain"] == "cityscapes"
    assert "pixel accuracy" in shown(tmp_path / "nb.ipynb") and "SAMPLE" not in shown(tmp_path / "nb.ipynb")


def test_notebook_without_labels(run, data, tmp_path):
    photos = tmp_path / "photos/images/val"
    photos.mkdir(parents=True)
    for k, image in enumerate(sorted((data / "IITK/leftImg8bit/val").rglob("*.jpg"))[:3]):
        shutil.copy(image, photos / f"{k}.jpg")
    done = papermill(
        tmp_path / "nb.ipynb",
        weights=run.path,
        domain=f"folder:{tmp_path / 'photos'}",
        out=tmp_path / "out",
        device="cpu",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"metrics.json", "selected.png", "cameras.png"}
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["images"] == 3 and "miou" not in metrics
    assert "NO LABELS" in shown(tmp_path / "nb.ipynb")


def test_samples_are_named_as_such(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTSEG_ROOT", str(tmp_path))
    monkeypatch.setattr("adaptseg.reports.evaluation.dataset_root", lambda root, domain: data)
    shutil.copy(run.path / "weights.safetensors", tmp_path / "w.safetensors")
    result = evaluate_weights(evaluate_job(weights="w.safetensors", domain="iitk", device="cpu"))
    assert "SAMPLE DOMAINS" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "runs/evaluations/w-on-iitk-val/metrics.json").read_text()) == result
        and result["scored"] == 5
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(weights=None), "weights: expected a run folder"),
        (dict(weights="no/such/run"), "no run and no weight file"),
        (dict(scales="1,0"), "scales: expected numbers > 0"),
        (dict(size="12x12"), "both at least 32"),
        (dict(domain="cityscape"), "unknown domain"),
        (dict(split="dev"), "has no split 'dev'"),
        (dict(flipp=True), "Did you mean 'flip'"),
        (dict(scales="0.2"), "at least 32x32"),
        (dict(data_root="no/such"), "does not exist"),
        (dict(precision="fp8"), "'bf16' or 'fp16'"),
    ],
)
def test_mistakes_stop_at_the_door(wrong, words, run, tmp_path):
    values = {"weights": str(run.path), "out": str(tmp_path / "out"), "device": "cpu", **wrong}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        evaluate_weights(evaluate_job(**values))
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_written_into(run):
    before = (run.path / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match="is no evaluation"):
        evaluate_weights(evaluate_job(weights=str(run.path), out=str(run.path), device="cpu"))
    assert (run.path / "metrics.json").read_bytes() == before


def test_notebook_says_what_is_wrong(tmp_path):
    done = papermill(tmp_path / "nb.ipynb", weights="no/such/run")
    assert done.returncode != 0 and "there is no run and no weight file" in done.stderr


def test_a_file_by_its_address(run, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTSEG_WEIGHTS", str(tmp_path / "fetched"))
    address = (run.path / "weights.safetensors").as_uri()
    job = evaluate_job(
        weights=address,
        domain="cityscapes",
        data_root=str(data),
        out=str(tmp_path / "out"),
        device="cpu",
        precision="fp32",
    )
    assert evaluate_weights(job)["miou"] == run.metrics["cityscapes/val"]["miou"]
