"""Class sets, ids and label files: parity with the official Cityscapes table, and every bad file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from adaptseg.base.images import image_size, read_image, rgb_image
from adaptseg.datasets.labels import (
    CAMVID11,
    CAMVID_IDS,
    CITYSCAPES19,
    CITYSCAPES_IDS,
    CLASS_SETS,
    IGNORE,
    SYNTHIA13,
    SYNTHIA16,
    SYNTHIA_IDS,
    IdTable,
    class_set,
    read_label,
)


def png16(array: np.ndarray) -> bytes:
    "A 16-bit PNG of an (H, W) or (H, W, C) array, written chunk by chunk."
    height, width, channels = array.shape if array.ndim == 3 else (*array.shape, 1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def ids():
    return np.random.RandomState(0).randint(0, 23, (37, 53)).astype(np.uint8)


def test_cityscapes_table_is_the_official_one():
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for label in official:
        train = CITYSCAPES_IDS.encode(np.array([[label.id]]), CITYSCAPES19)[0, 0]
        assert train == (label.trainId if label.trainId not in (-1, 255) else IGNORE), label.name
        if train != IGNORE:
            assert CITYSCAPES19.names[train] == label.name
            assert CITYSCAPES19.colours[train] == label.color


def test_protocols_are_subsets_by_published_train_ids():
    where = [CITYSCAPES19.index(n) for n in SYNTHIA16.names]
    assert where == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]
    assert [CITYSCAPES19.index(n) for n in SYNTHIA13.names] == [0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]


def test_synthia_table():
    published = {
        3: 0,
        4: 1,
        2: 2,
        21: 3,
        5: 4,
        7: 5,
        15: 6,
        9: 7,
        6: 8,
        16: 9,
        1: 10,
        10: 11,
        17: 12,
        8: 13,
        18: 14,
        19: 15,
        20: 16,
        12: 17,
        11: 18,
    }
    train = SYNTHIA_IDS.encode(np.arange(23)[None], CITYSCAPES19)[0]
    assert train.tolist() == [published.get(i, IGNORE) for i in range(23)]


@pytest.mark.parametrize(
    "table, classes",
    [(CITYSCAPES_IDS, CITYSCAPES19), (CITYSCAPES_IDS, SYNTHIA13), (SYNTHIA_IDS, SYNTHIA16), (CAMVID_IDS, CAMVID11)],
)
def test_decode_inverts_encode(table, classes):
    train = np.array([[*range(len(classes)), IGNORE]])
    raw = table.decode(train, classes)
    assert raw.dtype == np.uint8
    assert table.encode(raw, classes).tolist() == train.tolist()


def test_encode_equals_a_pixel_by_pixel_dictionary():
    raw = np.random.RandomState(1).randint(-1, 35, (64, 96)).astype(np.int16)
    name = CITYSCAPES_IDS.ids
    slow = [
        [SYNTHIA16.names.index(name[i]) if name[i] in SYNTHIA16.names else IGNORE for i in row] for row in raw.tolist()
    ]
    assert CITYSCAPES_IDS.encode(raw, SYNTHIA16).tolist() == slow


@pytest.mark.parametrize(
    "raw, message",
    [
        (np.array([[255]], np.uint8), "unknown ids 255: cityscapes ids"),
        (np.array([[35, 40]]), "unknown ids 35, 40"),
        (np.array([[-2]]), "unknown ids -2"),
        (np.array([[65536]]), "unknown ids 65536"),
        (np.arange(100, 120)[None], "and 15 more"),
        (np.zeros((2, 2), np.float32), "float32"),
        (np.zeros((2, 2, 3), np.uint8), "(2, 2, 3)"),
    ],
)
def test_encode_refuses(raw, message):
    with pytest.raises(ValueError) as e:
        CITYSCAPES_IDS.encode(raw, CITYSCAPES19)
    assert message in str(e.value)


def test_table_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="share no class name"):
        IdTable("cats", {0: "cat"}).encode(np.zeros((2, 2), int), CITYSCAPES19)


def test_tables_of_one_name_are_not_confused():
    one, two = IdTable("t", {0: "road", 1: "car"}), IdTable("t", {0: "car", 1: "road"})
    raw = np.array([[0, 1]])
    assert one.encode(raw, CITYSCAPES19).tolist() == [[0, 13]] and two.encode(raw, CITYSCAPES19).tolist() == [[13, 0]]


@pytest.mark.parametrize("name", CLASS_SETS)
def test_colours(name):
    classes = class_set(name)
    painted = classes.colourise(np.array([[*range(len(classes)), IGNORE]], np.uint8))
    assert painted.shape == (1, len(classes) + 1, 3) and painted.dtype == np.uint8
    assert [tuple(c) for c in painted[0].tolist()] == [*classes.colours, (0, 0, 0)]
    assert len(set(classes.colours)) == len(classes)


def test_unknown_class_set():
    with pytest.raises(ValueError, match="use one of cityscapes19, synthia16, synthia13, camvid11"):
        class_set("city")


@pytest.mark.parametrize("kind", ["grey", "palette", "palette4", "grey16", "rgb16", "rgba16"])
def test_every_form_of_label_file(tmp_path, ids, kind):
    path, noise = tmp_path / "label.png", np.random.RandomState(2).randint(0, 65536, (37, 53)).astype(np.uint16)
    if kind == "palette4":
        ids = ids % 16
    if kind == "grey":
        Image.fromarray(ids).save(path)
    elif kind.startswith("palette"):
        image = Image.new("P", (53, 37))
        image.putpalette([v for c in CITYSCAPES19.colours for v in c])
        image.putdata(ids.ravel().tolist())
        image.save(path, bits=4 if kind == "palette4" else 8)
    else:
        channels = dict(grey16=1, rgb16=3, rgba16=4)[kind]
        path.write_bytes(
            png16(
                np.dstack([ids.astype(np.uint16), noise, noise, noise][:channels])
                if channels > 1
                else ids.astype(np.uint16)
            )
        )
    read = read_label(path)
    assert read.tolist() == ids.tolist() and read.ndim == 2 and read.dtype.kind in "iu"
    assert image_size(path) == (37, 53)


def test_ids_above_255_survive(tmp_path):
    wide = np.array([[0, 256, 65535]], np.uint16)
    for name, array in (("grey.png", wide), ("colour.png", np.dstack([wide] * 3))):
        (tmp_path / name).write_bytes(png16(array))
        assert read_label(tmp_path / name).tolist() == wide.tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_label_in_colours_is_refused(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "painted.png")
    with pytest.raises(ValueError, match=f"painted.png: expected one class id a pixel, found colours .mode {mode}"):
        read_label(tmp_path / "painted.png")


@pytest.mark.parametrize("kind", ["grey", "rgb16", "jpeg", "header", "empty", "text"])
@pytest.mark.parametrize("read", [read_label, read_image])
def test_damaged_files_are_named(tmp_path, kind, read):
    path = tmp_path / ("broken.jpg" if kind == "jpeg" else "broken.png")
    noise = np.random.RandomState(3).randint(0, 255, (200, 300)).astype(np.uint8)
    if kind == "rgb16":
        data = png16(np.dstack([noise.astype(np.uint16)] * 3))
    else:
        Image.fromarray(noise).save(path)
        data = path.read_bytes()
    path.write_bytes(
        {"header": data[:20], "empty": b"", "text": b"<html>not found</html>"}.get(kind, data[: 2 * len(data) // 3])
    )
    with pytest.raises(ValueError) as e:
        read(path)
    words = {"empty": "the file is empty", "text": "this is text, not an image"}.get(kind, "damaged or incomplete")
    assert str(path) in str(e.value) and words in str(e.value)


@pytest.mark.parametrize("read", [read_label, read_image])
def test_a_tiff_that_pillow_does_not_know_is_not_called_damaged_alone(tmp_path, read):
    "As scikit-image's multipage_rgb.tif, whose colours are floating-point numbers."
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "floats.tif", np.zeros((8, 9, 3), np.float32), photometric="rgb")
    with pytest.raises(ValueError, match="or of a kind that Pillow does not know .* or save it as PNG"):
        read(tmp_path / "floats.tif")


@pytest.mark.parametrize("read", [read_label, read_image, image_size])
def test_absent_files_are_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read(tmp_path / "absent.png")


def test_images_become_rgb(tmp_path):
    for mode in ("L", "RGB", "RGBA", "P"):
        Image.new(mode, (5, 4)).save(tmp_path / "image.png")
        image = read_image(tmp_path / "image.png")
        assert (image.mode, image.size) == ("RGB", (5, 4))
    (tmp_path / "deep.png").write_bytes(png16(np.full((4, 5), 257 * 80, np.uint16)))
    assert (np.array(read_image(tmp_path / "deep.png")) == 80).all(), "scaled, not cut"


def test_both_doors_see_the_same_pixels(tmp_path):
    "A photograph that is turned by EXIF, and one with a transparent pixel, for a network and for segments."
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.RandomState(0).randint(0, 255, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "phone.jpg", exif=turned)
    Image.new("RGBA", (4, 2), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    for name, size in (("phone.jpg", (96, 64)), ("clear.png", (2, 4))):
        assert np.array_equal(np.array(read_image(tmp_path / name)), rgb_image(tmp_path / name))
        assert rgb_image(tmp_path / name).shape[:2] == image_size(tmp_path / name) == size
    assert (rgb_image(tmp_path / "clear.png") == 255).all()


def test_a_label_of_one_bit_has_two_ids(tmp_path):
    Image.fromarray(np.eye(3, dtype=bool)).save(tmp_path / "bits.png")
    assert np.array_equal(read_label(tmp_path / "bits.png"), np.eye(3))
