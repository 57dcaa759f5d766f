"""Files as people have them: each is read rightly or refused with words that help, whatever the door."""

import os
import re
import shutil
import struct
import unicodedata
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image

from adaptseg.base.images import IMAGES, LABELS, list_images, rgb_image
from adaptseg.cli import main
from adaptseg.datasets.archives import ARCHIVES
from adaptseg.dashboards.looks import small_image
from adaptseg.datasets.domains import load_split
from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.datasets.loading import read_pair
from adaptseg.evaluation.predict import Predictor
from adaptseg.networks.backbones import build_network
from adaptseg.reports.filming import film_frames
from adaptseg.reports.video import VIDEOS, Frames, read_frames, write_video
from adaptseg.training.trainer import train
from adaptseg.unsupervised.folder import find_images, segment_job
from data_prep import custom, gta5
from data_prep.prepare import run

ROOT = Path(__file__).parents[1]

NAMES, COLOURS = ("", "road", "car"), ((0, 0, 0), (128, 64, 128), (0, 0, 142))
TABLE = "id,name,red,green,blue\n0,,0,0,0\n1,road,128,64,128\n2,car,0,0,142\n"
BLACK_WHITE = "id,name,red,green,blue\n0,background,0,0,0\n1,road,255,255,255\n"


def scene(seed, w=64, h=48):
    "A photograph, and its ids: void above, road below, a car."
    rng = np.random.default_rng(seed)
    ids = np.zeros((h, w), np.uint8)
    ids[h // 2 :] = 1
    x = int(rng.integers(0, w // 2))
    ids[h // 3 : h // 2 + 4, x : x + w // 3] = 2
    base = np.array([[150, 190, 230], [110, 110, 115], [180, 30, 30]])[ids]
    return (base + rng.integers(-12, 13, base.shape)).clip(0, 255).astype(np.uint8), ids


def painted(ids):
    return np.array(COLOURS, np.uint8)[ids]


def by_palette(ids, order=(0, 1, 2)):
    "A palette image; `order` says which class each place of its palette is."
    image = Image.fromarray(np.argsort(order).astype(np.uint8)[ids]).convert("P")
    image.putdata(np.argsort(order).astype(np.uint8)[ids].ravel().tolist())
    image.putpalette([c for i in order for c in COLOURS[i]])
    return image


def alpha(ids, hidden=None):
    "Paint, transparent where it is void; what is hidden there."
    colours = painted(ids)
    if hidden:
        colours[ids == 0] = hidden
    return np.dstack([colours, np.where(ids > 0, 255, 0).astype(np.uint8)])


def dataset(folder, save, n=12, ends=(".jpg", ".png"), table=TABLE, label="{}", image="{}"):
    "IMAGES, LABELS and ids.csv."
    for side in ("IMAGES", "LABELS"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        rgb, ids = scene(i)
        Image.fromarray(rgb).save(folder / "IMAGES" / f"{image.format(f'shot{i:02}')}{ends[0]}")
        mask = save(ids)
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        mask.save(folder / "LABELS" / f"{label.format(f'shot{i:02}')}{ends[1]}")
    (folder / "ids.csv").write_text(table)
    return folder / "IMAGES", folder / "LABELS", folder / "ids.csv"


@pytest.fixture
def prepare(tmp_path, capfd):
    "Call data_prep.custom; gives its status or words, and what it said."

    def call(*source, recipe=custom.RECIPE, **options):
        args = [str(s) for s in source]
        options = {"name": "mine", "out": tmp_path / "data", "jobs": 1, **options}
        if recipe is not custom.RECIPE:
            options.pop("name")
        for k, v in options.items():
            args += [f"--{k.replace('_', '-')}"] + ([] if v is True else [str(v)])
        with pytest.raises(SystemExit) as e:
            run(recipe, args)
        return e.value.code, "".join(capfd.readouterr())

    call.folder = tmp_path / "data" / "mine"
    return call


def right(folder, n=12, void=0):
    "Does the prepared dataset hold the scenes' ids?"
    maps = {p.stem: np.array(Image.open(p)) for p in (folder / "labels").rglob("*.png")}
    assert len(maps) == n
    for i in range(n):
        ids = scene(i)[1]
        assert np.array_equal(maps[f"shot{i:02}"], np.where(ids == 0, void, ids))


READ = {
    "ids": lambda x: x,
    "16 bits": lambda x: x.astype(np.uint16),
    "grey and alpha": lambda x: Image.merge("LA", [Image.fromarray(x), Image.new("L", x.shape[::-1], 255)]),
    "palette": by_palette,
    "paint program's palette": lambda x: by_palette(x, (2, 0, 1)),
    "paint": painted,
    "paint and alpha": alpha,
}


@pytest.mark.parametrize("kind", READ)
def test_masks_that_are_read(kind, prepare, tmp_path):
    code, said = prepare(*dataset(tmp_path, READ[kind]))
    assert code == 0, said
    right(prepare.folder)
    assert ("12 of 12 label maps: the palette is in another order" in said) == (kind == "paint program's palette")


@pytest.mark.parametrize("end", [".tif", ".tiff", ".bmp"])
def test_lossless_endings(end, prepare, tmp_path):
    code, said = prepare(*dataset(tmp_path, READ["ids"], ends=(".jpg", end)))
    assert code == 0, said
    right(prepare.folder)


def test_one_bit(prepare, tmp_path):
    code, said = prepare(*dataset(tmp_path, lambda x: x == 1, table=BLACK_WHITE))
    assert code == 0, said
    found = {int(v) for p in (prepare.folder / "labels").rglob("*.png") for v in np.unique(np.array(Image.open(p)))}
    assert found == {0, 1}


REFUSED = {
    "black and white": (lambda x: (x == 1).astype(np.uint8) * 255, BLACK_WHITE, "255 may mean void"),
    "void of 255": (lambda x: np.where(x == 0, 255, x).astype(np.uint8), TABLE, "the line 255,,0,0,0"),
    "three channels": (lambda x: np.dstack([x] * 3), TABLE, "All three channels are alike"),
    "red": (lambda x: np.dstack([x, 0 * x, 0 * x]), TABLE, "Only red is used"),
    "hidden white": (lambda x: alpha(x, (255, 255, 255)), TABLE, "hidden below transparent pixels"),
    "half a palette": (
        lambda x: by_palette(x, (2, 0, 1)),
        TABLE.replace("128,64,128", "1,2,3"),
        "palette and table contradict each other",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_that_are_refused_with_what_they_may_mean(kind, prepare, tmp_path):
    save, table, words = REFUSED[kind]
    code, _ = prepare(*dataset(tmp_path, save, table=table))
    assert words in str(code) and not prepare.folder.exists()


def test_lossy_masks(prepare, tmp_path):
    code, _ = prepare(*dataset(tmp_path, painted, ends=(".jpg", ".jpg")))
    assert "12 masks are lossy images" in str(code)
    images, labels, table = dataset(tmp_path / "more", painted)
    for p in labels.glob("*.png"):  # JPEG's noise in a PNG
        Image.open(p).save(p.with_suffix(".jpg"), quality=80)
        Image.open(p.with_suffix(".jpg")).save(p)
    code, _ = prepare(images, labels, table)
    assert "come from JPEG" in str(code)


def test_a_prepared_folder_whose_palettes_contradict_its_table(tmp_path):
    folder = tmp_path / "mine"
    for side, end in (("images", "png"), ("labels", "png")):
        (folder / side / "train").mkdir(parents=True)
    for i in range(3):
        rgb, ids = scene(i)
        Image.fromarray(rgb).save(folder / f"images/train/{i}.png")
        by_palette(ids).save(folder / f"labels/train/{i}.png")
    (folder / "ids.csv").write_text(TABLE)
    assert len(load_split(f"folder:{folder}")) == 3
    by_palette(scene(1)[1], (2, 0, 1)).save(folder / "labels/train/1.png")
    with pytest.raises(ValueError, match="1.png: palette and table contradict each other: by number, 0 is 'ignored'"):
        load_split(f"folder:{folder}")


def test_names_of_masks(prepare, tmp_path):
    "One ending more; the image's whole name and one ending more; both in one folder."
    for i, label in enumerate(("{}_labelIds", "{}.jpg")):
        code, said = prepare(*dataset(tmp_path / str(i), READ["ids"], label=label), name=f"n{i}")
        assert code == 0, said
        right(prepare.folder.with_name(f"n{i}"))
    images, labels, table = dataset(tmp_path / "one", READ["ids"], label="{}_mask", ends=(".png", ".png"))
    for p in labels.glob("*"):
        shutil.move(p, images / p.name)
    code, said = prepare(images, images, table)
    assert code == 0, said
    right(prepare.folder)
    code, _ = prepare(*dataset(tmp_path / "other", READ["ids"], label="mask_{}", image="img_{}"), name="other")
    assert "12 images have no label map" in str(code) and "12 of 12 label maps have no image" in str(code)


def test_composed_and_decomposed_names(prepare, tmp_path):
    images, labels, table = dataset(tmp_path, READ["ids"])
    for p in images.glob("*"):
        p.rename(images / unicodedata.normalize("NFD", f"\xe9{p.name}"))
    for p in labels.glob("*"):
        p.rename(labels / unicodedata.normalize("NFC", f"\xe9{p.name}"))
    code, said = prepare(images, labels, table)
    assert code == 0, said
    split = load_split(f"folder:{prepare.folder}")
    assert split.labelled and len(split) == 11


def test_litter_links_and_endings(prepare, tmp_path):
    images, labels, table = dataset(tmp_path, READ["ids"])
    litter = ("@eaDir/shot00.jpg/T.jpg", ".Trash-1000/a.jpg", "__MACOSX/._a.jpg", ".ipynb_checkpoints/a.jpg", "._b.jpg")
    for name in (*litter, "Thumbs.db", "notes.txt"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / "shot00.jpg", images / name)
    (tmp_path / "disk").mkdir()
    shutil.move(images / "shot01.jpg", tmp_path / "disk/shot01.jpg")
    os.symlink("../disk/shot01.jpg", images / "shot01.jpg")
    code, said = prepare(images, labels, table)
    assert code == 0, said
    right(prepare.folder)
    assert "left out (.db: none of" in said and "notes.txt" in said
    os.symlink("nowhere.jpg", images / "gone.jpg")
    code, _ = prepare(images, labels, table, overwrite=True)
    assert "gone.jpg is a link to nothing; --partial leaves it out" in str(code)
    code, said = prepare(images, labels, table, overwrite=True, partial=True)
    assert code == 0 and "left out (a link to nothing): gone.jpg" in said


def test_folders_that_are_links(prepare, tmp_path):
    images, _, _ = dataset(tmp_path / "disk", READ["ids"])
    (tmp_path / "here").mkdir()
    os.symlink(images, tmp_path / "here" / "train")
    found, left = list_images(tmp_path / "here")
    assert len(found) == 12 and not left
    assert prepare(tmp_path / "here")[0] == 0
    assert prepare(tmp_path / "here" / "train", name="other")[0] == 0


def test_one_stem_twice(prepare, tmp_path):
    images, labels, table = dataset(tmp_path, READ["ids"])
    Image.new("RGB", (64, 48)).save(images / "shot03.png")
    code, _ = prepare(images, labels, table)
    assert "shot03.jpg" in str(code) and "shot03.png" in str(code) and "rename one" in str(code)


@pytest.mark.parametrize("what", ["table", "label", "image"])
def test_an_interrupted_preparation_takes_what_was_mended(what, prepare, tmp_path):
    "The first call fails at the last pair; then something that it had copied is mended."
    images, labels, table = dataset(tmp_path, READ["paint"], ends=(".bmp", ".png"))
    good = (labels / "shot11.png").read_bytes()
    (labels / "shot11.png").write_bytes(b"")
    code, _ = prepare(images, labels, table)
    assert "shot11.png: the file is empty" in str(code)
    (labels / "shot11.png").write_bytes(good)
    if what == "table":
        table.write_text(TABLE.replace("2,car", "7,car"))
    elif what == "label":
        shutil.copy(labels / "shot01.png", labels / "shot00.png")
    else:
        shutil.copy(images / "shot01.bmp", images / "shot00.bmp")  # of the same number of bytes
    assert prepare(images, labels, table)[0] == 0
    got = np.array(Image.open(prepare.folder / "labels/train/shot00.png"))
    wanted = scene(1)[1] if what == "label" else scene(0)[1]
    assert np.array_equal(got, np.where(wanted == 2, 7, wanted) if what == "table" else wanted)
    if what == "image":
        assert (prepare.folder / "images/train/shot00.bmp").read_bytes() == (images / "shot01.bmp").read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_an_interrupted_gta5_takes_what_was_mended(packed, prepare, tmp_path):
    "Of the same number of bytes."
    source = tmp_path / "source"
    for side in ("images", "labels"):
        (source / side).mkdir(parents=True)
    for i in (1, 2):
        Image.fromarray(np.full((48, 64, 3), i, np.uint8)).save(source / f"images/{i:05}.png", compress_level=0)
        Image.fromarray(np.full((48, 64), 7, np.uint8)).save(source / f"labels/{i:05}.png", compress_level=0)
    whole = (source / "labels/00002.png").read_bytes()
    (source / "labels/00002.png").write_bytes(whole[:50])

    def given():
        if not packed:
            return source
        with zipfile.ZipFile(tmp_path / "gta5.zip", "w") as z:
            for p in sorted(source.rglob("*.png")):
                z.write(p, p.relative_to(source))
        return tmp_path / "gta5.zip"

    code, _ = prepare(given(), recipe=gta5.RECIPE)
    assert code != 0
    (source / "labels/00002.png").write_bytes(whole)
    before = (source / "labels/00001.png").stat().st_size
    Image.fromarray(np.full((48, 64), 26, np.uint8)).save(source / "labels/00001.png", compress_level=0)
    assert (source / "labels/00001.png").stat().st_size == before
    code, said = prepare(given(), recipe=gta5.RECIPE, partial=True)
    assert code == 0, f"{code} {said}"
    assert np.array(Image.open(tmp_path / "data/GTA5/labels/00001.png")).max() == 26


def test_few_images_and_val(prepare, tmp_path):
    code, said = prepare(*dataset(tmp_path, READ["ids"], n=5))
    assert code == 0 and "no val split: a tenth of 5 is none" in said
    code, said = prepare(*dataset(tmp_path, READ["ids"], n=5), name="two", val=2)
    assert code == 0 and "train 3, val 2" in said
    code, _ = prepare(*dataset(tmp_path, READ["ids"], n=5), name="all", val=5)
    assert "--val: expected a part in 0..1, or a number of images below 5, found 5" in str(code)


def test_frames_in_their_order(prepare, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in (1, 2, 10):
        Image.fromarray(scene(i)[0]).save(folder / f"frame{i}.png")
    assert [p.stem for p in list_images(folder)[0]] == ["frame1", "frame2", "frame10"]
    assert prepare(folder, val=1)[0] == 0
    assert [p.stem for p in (prepare.folder / "images/val").iterdir()] == ["frame10"]


TABLES = {
    "semicolons": TABLE.replace(",", ";").encode(),
    "capitals": TABLE.replace("id,name", "ID,Name").encode(),
    "blanks": TABLE.replace(",", ", ").encode(),
    "empty lines": (TABLE.replace("\n1", "\n\n1") + ",,,,\n").encode(),
    "windows": TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
    "one more column": "\n".join(line + ",x" for line in TABLE.splitlines()).encode(),
    "code page": TABLE.replace("road", "Stra\xdfe").encode("cp1252"),
    "utf-16": TABLE.encode("utf-16"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind, prepare, tmp_path):
    images, labels, table = dataset(tmp_path, READ["ids"])
    table.write_bytes(TABLES[kind])
    code, said = prepare(images, labels, table)
    assert code == 0, f"{code} {said}"
    right(prepare.folder)
    assert (prepare.folder / "ids.csv").read_text().splitlines()[0] == "id,name,red,green,blue"
    assert ("read as Windows' code page 1252" in said) == (kind == "code page")


def test_more_classes_than_fit(prepare, tmp_path):
    images, labels, table = dataset(tmp_path, READ["ids"])
    table.write_text("id,name,red,green,blue\n" + "".join(f"{i},c{i},0,0,0\n" for i in range(300)))
    assert "ids.csv: expected 1 to 254 classes, found 300" in str(prepare(images, labels, table)[0])


@pytest.mark.parametrize(
    "what, endings", [("images", IMAGES), ("label maps", LABELS), ("films", VIDEOS), ("archives", ARCHIVES)]
)
def test_the_page_has_the_lists_of_the_code(what, endings):
    page = (ROOT / "nbs" / "howto" / "files.md").read_text(encoding="utf8")
    assert f"| {what} | {' '.join(f'`{e}`' for e in endings)} |" in page


@pytest.mark.parametrize(
    "matrix, turns",
    [((0, 1, 0, -1, 0, 0, 48, 0), -1), ((-1, 0, 0, 0, -1, 0, 64, 48), 2), ((0, -1, 0, 1, 0, 0, 0, 64), 1)],
)
def test_films_of_a_phone_are_upright(matrix, turns, tmp_path):
    "The display matrix of an mp4 says how the phone was held."
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24], picture[:, :16] = 255, (200, 0, 0)
    write_video(tmp_path / "a.mp4", [picture] * 4, 4)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *(v << 16 for v in matrix), 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    frames = [frame for _, frame in read_frames(tmp_path / "a.mp4")]
    wanted = np.rot90(picture, turns)
    assert len(frames) == 4 and frames[0].shape == wanted.shape
    assert np.abs(frames[0].astype(int) - wanted).mean() < 8
    assert np.array_equal(Frames(tmp_path / "a.mp4")[0], frames[0])


def test_films_whose_pixels_are_not_square(tmp_path):
    with av.open(str(tmp_path / "tv.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(scene(0)[0], format="rgb24")))
        film.mux(stream.encode())
    assert {frame.shape for _, frame in read_frames(tmp_path / "tv.mp4")} == {(48, 96, 3)}


def test_two_folders_need_no_data_root(prepare, tmp_path, capfd):
    for i, name in enumerate(("a", "b")):
        assert prepare(*dataset(tmp_path / name, READ["ids"], n=4), name=name, val=1)[0] == 0
    source, target = (f"folder:{prepare.folder.with_name(name)}" for name in ("a", "b"))
    run = train("tiny", source=source, target=target, method="source_only", out=str(tmp_path / "runs"), choice_images=0)
    assert "SAMPLE" not in "".join(capfd.readouterr()) and not run.config["sample_domains"]
    assert any(k.endswith("b/val") for k in run.metrics)


class Sure:
    "Says that everything is a car."

    classes = CITYSCAPES19

    def __call__(self, image):
        return np.full(image.shape[:2], 13, np.uint8)


def test_films_keep_their_times(tmp_path, monkeypatch):
    "A phone takes frames when it can."
    monkeypatch.setattr(Predictor, "load", classmethod(lambda *args, **kw: Sure()))
    times = [0, 0.1, 0.3, 2.67, 2.7, 4]
    write_video(tmp_path / "phone.mp4", [(t, scene(i)[0]) for i, t in enumerate(times)])
    main(["video", str(tmp_path / "phone.mp4"), str(tmp_path / "out.mp4"), "--weights", "none"])
    assert np.allclose([t for t, _ in read_frames(tmp_path / "out.mp4")], times, atol=1e-3)
    assert np.allclose(pd.read_csv(tmp_path / "out.csv")["second"], times, atol=1e-3)


def test_one_broken_frame_and_one_of_another_size(tmp_path, capsys, monkeypatch):
    "They are named, the film is made, and the status tells."
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(5):
        Image.fromarray(scene(i)[0]).save(frames / f"frame{i}.png")
    (frames / "frame1.png").write_bytes((frames / "frame1.png").read_bytes()[:300])
    Image.fromarray(scene(3, 48, 64)[0]).save(frames / "frame3.png")

    monkeypatch.setattr(Predictor, "load", classmethod(lambda *args, **kw: Sure()))
    with pytest.raises(SystemExit) as e:
        main(["video", str(frames), str(tmp_path / "out.mp4"), "--weights", "none"])
    assert "has 2 faults, frame1.png first" in str(e.value)
    assert len(list(read_frames(tmp_path / "out.mp4"))) == 4
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["second"].tolist() == [0, 2, 3, 4]


def test_a_stream_that_grows(tmp_path, monkeypatch):
    "A camera that was switched to more pixels: the film keeps the size that it began with, and the times are named."
    monkeypatch.setattr(Predictor, "load", classmethod(lambda *args, **kw: Sure()))
    for name, (w, h) in (("a", (64, 48)), ("b", (96, 64))):
        with av.open(str(tmp_path / f"{name}.ts"), "w", format="mpegts") as film:
            stream = film.add_stream("mpeg2video", rate=10)
            stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
            for i in range(6):
                film.mux(stream.encode(av.VideoFrame.from_ndarray(scene(i, w, h)[0], format="rgb24")))
            film.mux(stream.encode())
    (tmp_path / "camera.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(SystemExit) as e:
        main(["video", str(tmp_path / "camera.ts"), str(tmp_path / "out.mp4"), "--weights", "none"])
    assert re.search(r"faults, second 0\.[56]0 first: of 96x64, the film of 64x48: resized", str(e.value))
    assert {frame.shape for _, frame in read_frames(tmp_path / "out.mp4")} == {(48, 64, 3)}


def stills(folder):
    "One picture in every form that a still may have, and what all doors should see."
    rgb, deep = scene(0)[0], np.linspace(0, 65535, 48 * 64).reshape(48, 64)
    clear = Image.fromarray(np.dstack([rgb, np.full((48, 64), 128, np.uint8)]))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    given = {
        "a.bmp": rgb,
        "b.webp": Image.fromarray(rgb),
        "c.avif": Image.fromarray(rgb),
        "d.png": deep.astype(np.uint16),
        "e.tiff": (deep / 65535).astype(np.float32),
        "f.png": clear,
        "g.png": Image.fromarray(rgb).convert("P"),
        "h.png": rgb[..., 0] > 128,
        "i.jpg": Image.fromarray(np.rot90(rgb)),
        "j.jpg": Image.fromarray(rgb).convert("CMYK"),
    }
    for name, image in given.items():
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(folder / name, **(dict(exif=turned) if name == "i.jpg" else {}))
    return {name: rgb_image(folder / name) for name in given}


def test_stills_are_the_same_at_every_door(tmp_path, prepare, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    wanted = stills(photos)
    assert all(x.shape == (48, 64, 3) for x in wanted.values())
    assert np.abs(wanted["a.bmp"].astype(int) - wanted["i.jpg"]).mean() < 8, "turned upright"
    grey = wanted["d.png"].astype(int)
    assert np.array_equal(grey[..., 0], np.round(np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(int) / 257))
    assert np.abs(grey - wanted["e.tiff"]).max() <= 1
    assert np.abs(wanted["f.png"].astype(int) - (255 + wanted["a.bmp"].astype(int)) / 2).max() <= 2, "on white"

    assert prepare(photos, val="0")[0] == 0
    split = load_split(f"folder:{prepare.folder}", "train", labels=False, classes="cityscapes19")
    items = {item.image.name: item for item in split.items}
    predictor = Predictor(build_network("resnet18", 19, width=8), CITYSCAPES19, (48, 64), "imagenet")
    doors = {
        "segment": {f.name: rgb_image(f) for f in find_images(segment_job(images=str(photos)))[0].values()},
        "film": dict(zip(sorted(wanted), (x for _, x in film_frames(photos, 1)))),
        "training": {name: read_pair(item, None)[0].permute(1, 2, 0) for name, item in items.items()},
    }
    for name, image in wanted.items():
        for door, seen in doors.items():
            assert np.array_equal(seen[name], image), (door, name)
        browser = small_image(items[name])  # as JPEG
        assert browser.shape == image.shape and np.abs(browser.mean((0, 1)) - image.mean((0, 1))).max() < 3, name
        assert np.array_equal(predictor(photos / name), predictor(image)), name
        with Image.open(photos / name) as opened:
            assert np.array_equal(predictor(opened), predictor(image)), name
