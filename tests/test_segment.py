"""Segmentation without labels: scores against loops, batches against single images, files of every kind, notebook and
command.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import label as components

from adaptseg.cli import main
from adaptseg.unsupervised.segmenter import ReferenceSegmenter, Segmenter
from adaptseg.unsupervised.scores import segment_scores
from adaptseg.datasets.annotators import read_truths
from adaptseg.unsupervised.kanezaki import Kanezaki, seeded_networks
from adaptseg.base.images import rgb_image
from adaptseg.base.notebooks import run_notebook
from adaptseg.streets.render import render
from inside import adaptseg

ROOT = Path(__file__).parents[1]
BSDS = ROOT.parent / "shared" / "data" / "BSDS500"
SMALL = dict(channels=16, iterations=12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTSEG_CACHE", str(tmp_path / "cache"))


def street(seed=0, size=(64, 96)):
    return render("cityscapes", seed=seed, size=size)[0]


def masks(labels):
    "Every 4-connected segment of a map as a mask, label by label."
    found = []
    for value in np.unique(labels):
        pieces = components(labels == value, connectivity=1)
        found += [pieces == k for k in range(1, pieces.max() + 1)]
    return found


def scores_by_loops(predictions, truths):
    "Both protocols as the papers tell them, one pair of masks at a time."
    iou = lambda a, b: (a & b).sum() / (a | b).sum()
    best, ranked = {"all": [], "fine": [], "coarse": []}, []
    regions = 0
    first = {0.5: {}, 0.7: {}}
    for image, (prediction, maps) in enumerate(zip(predictions, truths)):
        segments = masks(prediction)
        people = [[t == v for v in np.unique(t)] for t in maps]
        per_person = [[max(iou(s, r) for s in segments) for r in rs] for rs in people]
        best["all"] += sum(per_person, [])
        best["fine"] += max(per_person, key=len)
        best["coarse"] += min(per_person, key=len)
        regions += sum(map(len, people))
        for s in segments:
            ranked.append((s.sum(), max(iou(s, r) for rs in people for r in rs)))
        for p, rs in enumerate(people):
            for r, region in enumerate(rs):
                match = max(segments, key=lambda s: iou(s, region))
                for t in first:
                    if iou(match, region) > t:
                        first[t][image, p, r] = match.sum()
    out = {k: np.mean(v) for k, v in best.items()}
    for t in first:
        area, recall_before = 0, 0
        for size in sorted({s for s, _ in ranked}, reverse=True):
            taken = [right > t for s, right in ranked if s >= size]
            recall = sum(s >= size for s in first[t].values()) / regions
            area, recall_before = area + np.mean(taken) * (recall - recall_before), recall
        out[f"ap{int(100 * t)}"] = area
    return out


def test_scores_equal_loops():
    g = np.random.default_rng(3)
    coarse = lambda k: np.kron(g.integers(0, k, (4, 5)), np.ones((4, 5), int))
    truths = [[coarse(3), coarse(6)], [coarse(2)], [coarse(9), coarse(4), coarse(2)]]
    predictions = [np.where(g.random(t[0].shape) < 0.05, 7, t[0]) for t in truths]
    found, expected = segment_scores(predictions, truths), scores_by_loops(predictions, truths)
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.skipif(not BSDS.is_dir(), reason="BSDS500 is not here")
def test_real_ground_truth_and_image():
    truth = read_truths(BSDS / "groundTruth" / "val", "101085")
    assert len(truth) >= 4 and truth[0].shape == rgb_image(BSDS / "images" / "val" / "101085.jpg").shape[:2]
    small = [t[::8, ::8] for t in truth]
    found, expected = segment_scores([small[0]], [small]), scores_by_loops([small[0]], [small])
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("variant", ["superpixel", "continuity"])
def test_side_by_side_is_one_by_one_in_float64(variant):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 20, 30, dtype=torch.float64)
    grid = (torch.arange(20)[:, None] // 4 * 8 + torch.arange(30) // 4).expand(4, -1, -1)
    drawn = torch.full((4, 20, 30), 255)
    drawn[1, :3] = 2
    drawn[1, -3:] = 0

    def run(which):
        seeds = [5 + i for i in which]
        loop = Kanezaki(
            x[which],
            seeded_networks(seeds, 10, 2).double(),
            grid[which] if variant == "superpixel" else None,
            mu=2.0 * (variant == "continuity"),
            scribble=drawn[which],
        )
        rows = []
        ends = {
            which[i]: (response, labels)
            for i, response, labels in loop.run(
                80,
                plateau=0.005,
                patience=4,
                callback=lambda it: rows.append((it.i, [which[i] for i in it.images], it.loss.tolist())),
            )
        }
        return ends, {(i, k): loss for i, images, losses in rows for k, loss in zip(images, losses)}

    together, losses = run([0, 1, 2, 3])
    assert len({max(i for i, k in losses if k == image) for image in range(4)}) > 1, (
        "images stop at different times, or this shows little"
    )
    for image in range(4):
        ends, single = run([image])
        response, labels = ends[image]
        assert torch.equal(together[image][1], labels)
        assert torch.allclose(together[image][0], response, rtol=1e-9, atol=1e-10)
        assert {k: v for k, v in losses.items() if k[1] == image} == pytest.approx(single, rel=1e-9)


@pytest.mark.parametrize("variant", ["superpixel", "continuity"])
def test_batches_do_not_change_a_segmenters_maps(variant):
    images = [street(s) for s in range(3)] + [street(4, (96, 64))]
    alone, together = (dict(Segmenter(variant, **SMALL, batch=n, precision="fp64").many(images)) for n in (1, 3))
    for i in alone:
        assert len(np.unique(alone[i])) > 1 and np.array_equal(alone[i], together[i])
    scribble = np.full(images[0].shape[:2], 255)
    scribble[:5] = 1
    scribble[-5:] = 2
    drawn = [scribble, None, None, None]
    alone, together = (
        dict(Segmenter(variant, channels=16, iterations=40, batch=n, precision="fp64").many(images, drawn))
        for n in (1, 3)
    )
    for i in alone:
        assert np.array_equal(alone[i], together[i]), "one image's scribble is no business of the others"


def test_files_of_every_kind(tmp_path):
    picture = Image.fromarray(street())
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.new("L", picture.size, 128))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.array(picture.convert("L")).astype(np.uint16) * 257
    kinds = {
        "grey.png": picture.convert("L"),
        "alpha.png": alpha,
        "palette.gif": picture.convert("P"),
        "deep.png": Image.fromarray(deep),
        "cmyk.jpg": picture.convert("CMYK"),
        "one.png": Image.new("RGB", (1, 1), "red"),
        "uniform.bmp": Image.new("RGB", (40, 30), "blue"),
        "thin.tif": picture.crop((0, 0, 96, 1)),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    picture.save(tmp_path / "turned.jpg", exif=exif)
    paths = sorted(tmp_path.glob("*.*"))
    maps = {paths[i].name: m for i, m in Segmenter(**SMALL).many(paths)}
    assert maps["turned.jpg"].shape == picture.size  # upright: height and width swapped
    for name, image in kinds.items():
        assert maps[name].shape == image.size[::-1], name
    assert maps["one.png"].max() == maps["uniform.bmp"].max() == 0
    assert len(np.unique(maps["deep.png"])) > 1


def test_twenty_megapixels():
    small = street(size=(364, 548))
    image = np.kron(small, np.ones((10, 10, 1), np.uint8))
    with pytest.warns(UserWarning, match="5480x3640 pixels is segmented at"):
        labels = Segmenter(**SMALL)(image)
    assert labels.shape == (3640, 5480) and len(np.unique(labels)) > 1


def test_reference_file_is_checked(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="no readable safetensors"):
        ReferenceSegmenter.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        ReferenceSegmenter.load(tmp_path / "none.safetensors")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "truth").mkdir()
    for s in range(2):
        image, label = render("cityscapes", seed=s, size=(64, 96))
        Image.fromarray(image).save(tmp_path / "photos" / f"p{s}.png")
        Image.fromarray(label.astype(np.uint8)).save(tmp_path / "truth" / f"p{s}.png")
    return tmp_path


def test_notebook(folder):
    values = dict(
        images=str(folder / "photos"),
        truth=str(folder / "truth"),
        out=str(folder / "out"),
        variant="superpixel",
        **SMALL,
    )
    run_notebook("segment", folder, values)
    result = folder / "out" / "photos-superpixel-s0"
    assert {p.name for p in result.iterdir()} == {
        "labels",
        "overlays",
        "segments.json",
        "scores.csv",
        "metrics.json",
        "contact_sheet.png",
    }
    metrics = json.loads((result / "metrics.json").read_text())
    assert metrics["images"] == 2 and 0 < metrics["all"] <= 1


def test_command_and_going_on(folder):
    argv = [
        "segment",
        "-p",
        "images",
        str(folder / "photos"),
        "-p",
        "out",
        str(folder / "out"),
        "-p",
        "channels",
        "16",
        "-p",
        "iterations",
        "8",
    ]
    done = adaptseg(*argv)
    assert done.returncode == 0, done.stderr
    result = folder / "out" / "photos-continuity-s0"
    assert (result / "segment.ipynb").is_file()
    before = (result / "labels" / "p1.png").read_bytes()
    (result / "labels" / "p1.png").unlink()
    assert "2 images, 1 of them done before" in adaptseg(*argv).stdout
    assert (result / "labels" / "p1.png").read_bytes() == before
    notebook = (result / "segment.ipynb").read_bytes()
    other = adaptseg(*argv, "-p", "mu", "3")
    assert (
        other.returncode == 1
        and "was made with another mu" in other.stderr
        and (result / "segment.ipynb").read_bytes() == notebook
    )


@pytest.mark.parametrize(
    "values, words",
    [
        (("image", "x"), "Did you mean 'images'?"),
        (("variant", "kmeans"), "'continuity' or 'superpixel'"),
        (("channels", "1"), "greater than or equal to 2"),
        (("images", "nowhere.png"), "is no image and no folder"),
    ],
)
def test_mistakes(values, words):
    done = adaptseg("segment", "-p", *values)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


SMALL_BENCHMARK = dict(
    n=0,
    repeats=1,
    steps=1,
    backbone="resnet18",
    source_size="160x96",
    target_size="128x64",
    methods="",
    imports=0,
    loader=0,
)
ROWS = ("kit, fp32", "share of peak", "convolution, backward")
WHOLE = dict(
    n=1,
    iterations=2,
    backbones="efficientnet_lite0",
    methods="adabn selftrain,lambda_mask=1",
    imports=1,
    loader=2,
    pairs=8,
    photographs=2,
    gone_past=20,
    explored=40,
)
MORE_ROWS = (
    "SAMPLE STREETS",
    "direct, superpixel",
    "vote by one count",
    "training, images/s",
    "selftrain,lambda_mask=1",
    "times its memory",
    "of the bare network's rate",
    "photographs  seconds",
    "adaptseg.core",
)


@pytest.mark.parametrize("more, rows", [({}, ROWS), pytest.param(WHOLE, ROWS + MORE_ROWS, marks=pytest.mark.slow)])
def test_benchmark_notebook(more, rows, tmp_path):
    small = SMALL_BENCHMARK | more
    main(["benchmark", "--out", str(tmp_path / "out"), *(s for k, v in small.items() for s in ("-p", k, str(v)))])
    cells = json.loads((tmp_path / "out" / "benchmark.ipynb").read_text())["cells"]
    shown = "".join(
        "".join(o.get("data", {}).get("text/plain", o.get("text", ""))) for c in cells for o in c.get("outputs", [])
    )
    for row in rows:
        assert row in shown


def test_workers_segment_in_chunks(tmp_path):
    "Two workers make what one process makes; what is there is not made again."
    (tmp_path / "in").mkdir()
    for i in range(5):
        Image.fromarray(street(i)).save(tmp_path / f"in/{i}.png")
    args = [
        s
        for k, v in dict(images=tmp_path / "in", out=tmp_path / "out", device="cpu", **SMALL).items()
        for s in ("-p", k, str(v))
    ]
    call = lambda *more: subprocess.run(
        [sys.executable, "-m", "adaptseg", "segment", *args, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    for name, more in (("many", ("--workers", "2")), ("one", ())):
        done = call("-p", "name", name, *more)
        assert done.returncode == 0, done.stderr[-3000:]
        if more:
            assert "5/5 images" in done.stdout and "5 images, 5 of them done before" in done.stdout
    for i in range(5):
        assert np.array_equal(
            *(np.array(Image.open(tmp_path / "out" / name / f"labels/{i}.png")) for name in ("many", "one"))
        )
    assert (tmp_path / "out/many/scores.csv").read_text() == (tmp_path / "out/one/scores.csv").read_text()
    assert "5/5" not in call("-p", "name", "many", "--workers", "2").stdout


def test_a_broken_photograph_is_named_and_the_others_are_segmented(folder, tmp_path):
    photos = tmp_path / "mine"
    photos.mkdir()
    for name, ending in (("a", "png"), ("c", "webp"), ("d", "BMP")):
        Image.open(next((folder / "photos").iterdir())).convert("RGB").resize((24, 16)).save(
            photos / f"{name}.{ending}"
        )
    (photos / "b.png").write_text("<html>")
    options = ["--out", str(tmp_path / "out"), "--channels", "8", "--iterations", "3"]
    for _ in range(2):
        done = adaptseg("segment", "--images", str(photos), *options)
        assert done.returncode == 1 and "1 images could not be read, b first" in done.stderr, done.stderr
        assert "b.png: this is text, not an image" in done.stderr
        labels = tmp_path / "out/mine-continuity-s0/labels"
        assert sorted(p.stem for p in labels.iterdir()) == ["a", "c", "d"]
    (photos / "b.png").unlink()
    assert adaptseg("segment", "--images", str(photos), *options).returncode == 0
