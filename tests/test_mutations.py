"""Files damaged at random, 300 by seed, through the doors where such files come in. Each is read as it is meant or
refused with words, and nothing half-written stays; run by `make slow`.
"""

import csv
import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from adaptseg.base.images import rgb_image
from adaptseg.cli import main
from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.evaluation.predict import Predictor
from adaptseg.networks.backbones import build_network
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.networks.weights import diagnose
from adaptseg.reports.video import read_frames, write_video
from adaptseg.runs.config import make_config
from adaptseg.unsupervised.folder import segment_images, segment_job
from data_prep import custom, gta5
from data_prep.prepare import run
from test_files import READ, TABLE, Sure, dataset, scene

pytestmark = pytest.mark.slow
SEEDS = range(50)
STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"PK\x03\x04",
    b"II*\x00",
    b"\x80\x02",
    b"<html>",
    b"ustar",
    bytes(8),
)


def flip(data, rng, n=1):
    "Some bits the other way round."
    data = bytearray(data)
    for i in rng.integers(0, len(data), n):
        data[i] ^= 1 << int(rng.integers(8))
    return bytes(data)


MUTATIONS = {
    "a bit": flip,
    "a bit of the header": lambda d, rng: flip(d[:64], rng) + d[64:],
    "many bits": lambda d, rng: flip(d, rng, 40),
    "cut": lambda d, rng: d[: int(rng.integers(len(d)))],
    "longer": lambda d, rng: d + rng.bytes(int(rng.integers(1, 500))),
    "a hole": lambda d, rng: d[: (i := int(rng.integers(len(d))))] + bytes(len(d[i : i + 200])) + d[i + 200 :],
    "a piece gone": lambda d, rng: d[: (i := int(rng.integers(len(d))))] + d[i + int(rng.integers(1, 50)) :],
    "a piece twice": lambda d, rng: d[: (i := int(rng.integers(len(d)))) + 30] + d[i:],
    "another start": lambda d, rng: STARTS[int(rng.integers(len(STARTS)))] + d[8:],
    "nothing": lambda d, rng: b"",
}


def mutated(path, seed):  # what was done
    "Damage a file."
    rng = np.random.default_rng(seed)
    what = list(MUTATIONS)[seed % len(MUTATIONS)]
    path.write_bytes(MUTATIONS[what](path.read_bytes(), rng))
    return what


def called(command, *args):  # "" or what it said at the end
    "A command, which ends well or with words: any other exception is a traceback."
    try:
        command(*args)
    except SystemExit as e:
        return "" if e.code in (0, None) else str(e.code)
    return ""


def prepared(recipe, out, *source):
    return called(run, recipe, [*map(str, source), "--out", str(out), "--jobs", "1"])


def pixels(data):
    "Of an image as Pillow decodes it, which has no doubts."
    return np.array(Image.open(io.BytesIO(data)))


@pytest.fixture(autouse=True)
def said(request, capsys):
    "What a failing test was about."
    yield
    print(request.node.name)


ENDS = (".png", ".jpg", ".bmp", ".tif", ".webp")


@pytest.mark.parametrize("seed", SEEDS)
def test_images(seed, tmp_path):
    "One of four: through data_prep.custom, segment, and the reader of all doors."
    images, labels, table = dataset(tmp_path, READ["ids"], n=4, ends=(ENDS[seed % 5], ".png"))
    file = images / f"shot01{ENDS[seed % 5]}"
    before = rgb_image(file)
    mutated(file, seed)
    try:
        got = rgb_image(file)
        assert file.suffix != ".png" or np.array_equal(got, before)
    except ValueError as e:
        got = None
        assert str(file) in str(e)
    words = prepared(custom.RECIPE, tmp_path / "data", images, labels, table, "--name", "mine")
    mine = tmp_path / "data" / "mine"
    assert mine.exists() == (not words)
    assert words or all(p.read_bytes() == (images / p.name).read_bytes() for p in (mine / "images").rglob("*.*"))
    assert words or got is not None and got.shape == before.shape, "taken, though nobody can read it"
    if seed % 5 == 0:
        job = segment_job(images=str(images), out=str(tmp_path / "seg"), iterations=2, device="cpu")
        folder = segment_images(job)
        done = {p.stem for p in (folder / "labels").glob("*.png")}
        assert done == {p.stem for p in (folder / "overlays").glob("*.png")}
        assert done == {f"shot{i:02}" for i in range(4)} - ({"shot01"} if got is None else set())
        assert (folder / "failed.csv").exists() == (got is None)


MASKS = [(k, end) for k in READ for end in (".png", ".tif", ".bmp", ".gif") if end == ".png" or k in ("ids", "palette")]


@pytest.mark.parametrize("seed", SEEDS)
def test_masks(seed, tmp_path):
    "A label map is the one that was drawn, or, of a form without checksums, what Pillow reads in it."
    kind, end = MASKS[seed * 7 % len(MASKS)]
    images, labels, table = dataset(tmp_path, READ[kind], n=4, ends=(".jpg", end))
    file = labels / f"shot01{end}"
    mutated(file, seed)
    words = prepared(custom.RECIPE, tmp_path / "data", images, labels, table, "--name", "mine")
    mine = tmp_path / "data" / "mine"
    assert mine.exists() == (not words)
    if words:
        assert "shot01" in words
        return
    maps = {p.stem: np.array(Image.open(p)) for p in (mine / "labels").rglob("*.png")}
    assert sorted(maps) == [f"shot{i:02}" for i in range(4)]
    for i in range(4):
        if i != 1 or end == ".png":
            assert np.array_equal(maps[f"shot{i:02}"], scene(i)[1])
    if end != ".png" and kind == "ids":
        assert np.array_equal(maps["shot01"], pixels(file.read_bytes()))


@pytest.mark.parametrize("seed", SEEDS)
def test_tables(seed, tmp_path):
    "Ids stay what they are, and names what a table says, if it says anything."
    images, labels, table = dataset(tmp_path, READ["ids"], n=4)
    table.write_text(
        TABLE.replace("car", "voiture à moteur"), encoding=("utf-8", "utf-16", "cp1252", "utf-8-sig")[seed % 4]
    )
    mutated(table, seed)
    words = prepared(custom.RECIPE, tmp_path / "data", images, labels, table, "--name", "mine")
    mine = tmp_path / "data" / "mine"
    assert mine.exists() == (not words)
    if words:
        return
    for i in range(4):
        found = np.array(Image.open(next((mine / "labels").rglob(f"shot{i:02}.png"))))
        assert np.array_equal(found, scene(i)[1])
    data = table.read_bytes()
    texts = []
    for code in ("utf-8-sig", "cp1252", "utf-16"):
        try:
            texts.append(data.decode(code))
        except UnicodeError:
            pass
    rows = list(csv.DictReader((mine / "ids.csv").open(encoding="utf8", newline="")))
    assert {int(r["id"]) for r in rows} >= {0, 1, 2}
    assert any(all(r["name"] in text for r in rows) for text in texts)


SIGNS = (
    "a",
    "Z",
    "0",
    " ",
    ".",
    "-",
    "_",
    "#",
    "%41",
    "'",
    '"',
    "\n",
    "\t",
    "é",
    "e\u0301",
    "ß",
    "汉",
    "\u202e",
    "<b>",
    "$(x)",
    "*",
    "[",
    "~",
)


@pytest.mark.parametrize("seed", SEEDS)
def test_names(seed, tmp_path):
    "A photograph and its mask of any name are a pair, or there are words."
    images, labels, table = dataset(tmp_path, READ["ids"], n=4)
    rng = np.random.default_rng(seed)
    name = "".join(rng.choice(SIGNS, rng.integers(1, 12)))
    (images / "shot01.jpg").rename(images / f"{name}.jpg")
    (labels / "shot01.png").rename(labels / f"{name}.png")
    words = prepared(custom.RECIPE, tmp_path / "data", images, labels, table, "--name", "mine")
    mine = tmp_path / "data" / "mine"
    assert mine.exists() == (not words)
    maps = {p.stem: p for p in (mine / "labels").rglob("*.png")}
    assert words or maps.keys() == {p.stem for p in (mine / "images").rglob("*.jpg")}
    if len(maps) == 4:
        (odd,) = maps.keys() - {"shot00", "shot02", "shot03"}
        assert np.array_equal(np.array(Image.open(maps[odd])), scene(1)[1])
    assert words or len(maps) == 4 or name.startswith("."), "hidden files are left out"


def packed(folder, out, kind):
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
            for p in sorted(folder.rglob("*.png")):
                z.write(p, p.relative_to(folder))
    else:
        with tarfile.open(out, "w:gz" if kind == "tar.gz" else "w") as t:
            for p in sorted(folder.rglob("*.png")):
                t.add(p, p.relative_to(folder))
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_archives(seed, tmp_path):
    "Of GTA5: what comes out is what went in."
    source, kind = tmp_path / "source", ("zip", "tar.gz", "tar")[seed % 3]
    for side in ("images", "labels"):
        (source / side).mkdir(parents=True)
    for i in range(1, 5):
        rgb, ids = scene(i)
        Image.fromarray(rgb).save(source / f"images/{i:05}.png")
        Image.fromarray(ids + 7).save(source / f"labels/{i:05}.png")
    archive = packed(source, tmp_path / f"gta5.{kind}", kind)
    mutated(archive, seed)
    words = prepared(gta5.RECIPE, tmp_path / "data", archive, "--partial")
    made = tmp_path / "data" / "GTA5"
    assert made.exists() == (not words)
    for p in made.rglob("*.png"):
        same = source / p.relative_to(made)
        assert same.exists(), f"{p} was not in it"
        assert np.array_equal(pixels(p.read_bytes()), pixels(same.read_bytes()))


@pytest.mark.parametrize("seed", SEEDS)
def test_films(seed, tmp_path, monkeypatch, capsys):
    "A film comes out with the frames that there are, and where some are missing, words."
    monkeypatch.setattr(Predictor, "load", classmethod(lambda *args, **kw: Sure()))
    file, out = tmp_path / f"a.{('mp4', 'mov', 'mkv')[seed % 3]}", tmp_path / "out.mp4"
    write_video(tmp_path / "a.mp4", [(i / 10, scene(i)[0]) for i in range(12)])
    if file.suffix != ".mp4":
        repacked(tmp_path / "a.mp4", file)
    mutated(file, seed)
    words = called(main, ["video", str(file), str(out), "--weights", "none"])
    heard = words + "".join(capsys.readouterr())
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*part*"))
    if out.exists():
        frames = list(read_frames(out))
        assert all(a < b for (a, _), (b, _) in zip(frames, frames[1:]))
        assert len(frames) == 12 or words, f"{len(frames)} of 12 frames, and no word: {heard}"
        assert all(f.shape == (48, 64, 3) for _, f in frames) or words
    else:
        assert words


def repacked(source, to):
    "The same packets in another box."
    import av

    with av.open(str(source)) as a, av.open(str(to), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    "Files of one small network."
    folder, cfg = tmp_path_factory.mktemp("weights"), make_config("tiny", source="gta5", target="iitk")
    net = build_network(n_classes=19, **network_arguments(cfg))
    save_network(folder / "w.safetensors", net, cfg, CITYSCAPES19)
    torch.save(net.state_dict(), folder / "w.pth")
    return folder


@pytest.mark.parametrize("seed", SEEDS)
def test_weights(seed, weights, tmp_path):
    "Every weight is the one that was saved."
    file = weights / ("w.safetensors", "w.pth")[seed % 2]
    whole = diagnose(file).tensors
    copy = shutil.copy(file, tmp_path)
    mutated(tmp_path / file.name, seed)
    try:
        found = diagnose(copy).tensors
    except ValueError as e:
        assert str(copy) in str(e)
        return
    assert found.keys() == whole.keys() and all(torch.equal(found[k], v) for k, v in whole.items())
