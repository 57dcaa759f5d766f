"""Domains and splits: genuine layouts in small, bad input at the door, and the real CamVid where it is at hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptseg.datasets.domains import domain_names, get_domain, load_split, read_ids
from adaptseg.datasets.labels import CAMVID11, CITYSCAPES19, SYNTHIA16, SYNTHIA13
from adaptseg.datasets.splits import check_split, fingerprint, load_label
from test_labels import png16

CAMVID = Path(__file__).parents[2] / "shared/data/CamVid"
SIZE = (12, 16)


def image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def label(path, ids=(7, 26, 11, 0), size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(ids, np.uint8), size)).save(path)


def make_gta5(root, n=6):
    for i in range(n):
        image(root / f"GTA5/images/{i:05}.png", seed=i)
        label(root / f"GTA5/labels/{i:05}.png")


def make_synthia(root, n=4):
    for i in range(n):
        image(root / f"SYNTHIA/RGB/{i:07}.png")
        path = root / f"SYNTHIA/GT/LABELS/{i:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            png16(np.dstack([np.full(SIZE, 3, np.uint16), np.full(SIZE, 40_000, np.uint16), np.zeros(SIZE, np.uint16)]))
        )


def make_cityscapes(root):
    for split, cities in dict(train=("aachen", "ulm"), val=("munster",), test=("berlin",)).items():
        for city in cities:
            for i in range(2):
                stem = f"{split}/{city}/{city}_00000{i}_000019"
                image(root / f"Cityscapes/leftImg8bit/{stem}_leftImg8bit.png")
                for kind, ids in (
                    ("labelIds", (7, 26) if split != "test" else (0,)),
                    ("instanceIds", (26,)),
                    ("color", (1,)),
                ):
                    label(root / f"Cityscapes/gtFine/{stem}_gtFine_{kind}.png", ids)


def make_iitk(root, sample=False):
    for split, n in dict(train=3, val=2).items():
        for camera in range(1, 6):
            for i in range(n):
                image(root / f"IITK/leftImg8bit/{split}/camera{camera}/JPEGImages/{i:05}.jpg")
                if sample:
                    label(root / f"IITK/sampleLabels/{split}/camera{camera}/{i:05}.png")


def make_acdc(root):
    for weather, n in dict(fog=1, night=2, rain=1, snow=3).items():
        for split in ("train", "val", "test"):
            for i in range(n):
                film = f"{weather}/{split}/GOPR0{len(weather)}"
                image(root / f"ACDC/rgb_anon/{film}/GOPR0_frame_{i:06}_rgb_anon.png", seed=i)
                image(root / f"ACDC/rgb_anon/{film.replace(split, f'{split}_ref')}/GOPR0_frame_{i:06}_rgb_ref_anon.png")
                for kind in ("labelIds", "labelTrainIds", "labelColor") if split != "test" else ():
                    label(root / f"ACDC/gt/{film}/GOPR0_frame_{i:06}_gt_{kind}.png")


def make_dark_zurich(root):
    for split, hour, n in (("train", "night", 3), ("train", "day", 2), ("val", "night", 2), ("test", "night", 1)):
        for i in range(n):
            film = f"{split}/{hour}/GOPR0356"
            image(root / f"DarkZurich/rgb_anon/{film}/GOPR0356_frame_{i:06}_rgb_anon.png", seed=i)
            if split == "val":
                label(root / f"DarkZurich/gt/{film}/GOPR0356_frame_{i:06}_gt_labelTrainIds.png", (0, 18, 255))
                label(root / f"DarkZurich/gt/{film}/GOPR0356_frame_{i:06}_gt_labelColor.png")


def make_camvid(root, ending="png"):
    for split, names in dict(
        train=[f"0001TP_{i:03}" for i in range(5)] + ["0006R0_1", "0016E5_1"],
        val=["0016E5_8"],
        test=["0001TP_9", "Seq05VD_1", "Seq05VD_2"],
    ).items():
        for name in names:
            image(root / f"CamVid/{split}/{name}.{ending}")
            label(root / f"CamVid/{split}annot/{name}.png", (3, 8, 11))


def make_folder(root, splits=("train",)):
    for split in splits:
        for name in "ab":
            image(root / f"own/images/{split}/{name}.jpg")
            label(root / f"own/labels/{split}/{name}.png", (0, 1, 2))
    (root / "own/ids.csv").write_text("id,name,red,green,blue\n0,,0,0,0\n1,water,0,0,255\n2,boat,255,0,0\n")
    return f"folder:{root / 'own'}"


def fails(error, message, *args, **kwargs):
    with pytest.raises(error) as e:
        load_split(*args, **kwargs)
    assert message in str(e.value), str(e.value)


@pytest.fixture
def root(tmp_path):
    "Every domain in small."
    for make in (make_gta5, make_synthia, make_cityscapes, make_iitk, make_camvid, make_acdc, make_dark_zurich):
        make(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "domain, split, size, classes, labelled",
    [
        ("gta5", "train", 6, CITYSCAPES19, True),
        ("synthia", "train", 4, SYNTHIA16, True),
        ("cityscapes", "train", 4, CITYSCAPES19, True),
        ("cityscapes", "val", 2, CITYSCAPES19, True),
        ("cityscapes", "test", 2, CITYSCAPES19, False),
        ("iitk", "train", 15, CITYSCAPES19, False),
        ("iitk", "val", 10, CITYSCAPES19, False),
        ("acdc", "train", 7, CITYSCAPES19, True),
        ("acdc", "test", 7, CITYSCAPES19, False),
        ("acdc_fog", "val", 1, CITYSCAPES19, True),
        ("acdc_night", "val", 2, CITYSCAPES19, True),
        ("acdc_rain", "train", 1, CITYSCAPES19, True),
        ("acdc_snow", "train", 3, CITYSCAPES19, True),
        ("dark_zurich", "train", 3, CITYSCAPES19, False),
        ("dark_zurich", "val", 2, CITYSCAPES19, True),
        ("dark_zurich", "test", 1, CITYSCAPES19, False),
        ("camvid", "train", 7, CAMVID11, True),
        ("camvid", "val", 1, CAMVID11, True),
        ("camvid", "test", 3, CAMVID11, True),
        ("camvid_day", "train", 2, CAMVID11, True),
        ("camvid_day", "val", 1, CAMVID11, True),
        ("camvid_day", "test", 2, CAMVID11, True),
        ("camvid_dusk", "train", 3, CAMVID11, True),
        ("camvid_dusk", "val", 2, CAMVID11, True),
        ("camvid_dusk", "test", 1, CAMVID11, True),
    ],
)
def test_every_domain(root, domain, split, size, classes, labelled):
    found = load_split(domain, split, root)
    assert (len(found), found.classes, found.labelled, found.weights) == (size, classes, labelled, (1.0,))
    assert {i.domain for i in found.items} == {domain}
    for item in found.items:
        if labelled:
            assert load_label(item, classes).shape == SIZE
    assert not load_split(domain, split, root, labels=False).labelled


def test_every_registered_domain_is_tested_above():
    weather = {f"acdc_{w}" for w in ("fog", "night", "rain", "snow")}
    camvid = {"camvid", "camvid_day", "camvid_dusk"}
    assert set(domain_names()) == {"gta5", "synthia", "cityscapes", "iitk", "acdc", "dark_zurich"} | weather | camvid


def test_dark_zurich_has_train_ids(root):
    split = load_split("dark_zurich", "val", root)
    assert set(np.unique(load_label(split.items[0], split.classes))) == {0, 18, 255}


def test_labels_are_those_of_the_image(root):
    found = load_split("cityscapes", "train", root)
    for item in found.items:
        assert (
            item.image.name.replace("leftImg8bit", "gtFine_labelIds") == item.label.name
            and item.image.parent.name == item.label.parent.name
        )
    for item in load_split("camvid", "train", root).items:
        assert item.image.stem == item.label.stem


def test_synthia_ids_come_from_the_first_channel(root):
    item = load_split("synthia", "train", root).items[0]
    assert set(np.unique(load_label(item, SYNTHIA13))) == {0}


def test_sample_labels_of_iitk(tmp_path):
    make_iitk(tmp_path, sample=True)
    assert load_split("iitk", "val", tmp_path).labelled
    assert not load_split("iitk", "val", tmp_path, labels=False).labelled
    (tmp_path / "IITK/sampleLabels/val/camera2/00001.png").unlink()
    fails(ValueError, "found none for camera2/00001", "iitk", "val", tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg", "JPG", "jpeg"])
def test_camvid_endings(tmp_path, ending):
    make_camvid(tmp_path, ending)
    assert len(load_split("camvid", "train", tmp_path)) == 7


def test_the_halves_of_dusk_do_not_meet(root):
    train, val = (load_split("camvid_dusk", s, root).items for s in ("train", "val"))
    names = [i.image.stem for i in (*train, *val)]
    assert names == sorted(set(names)) and len(names) == 5
    assert [i.image.stem for i in load_split("camvid_dusk", "train", root, labels=False).items] == [
        i.image.stem for i in train
    ]


@pytest.mark.parametrize("domain, folder, stem", [("gta5", "GTA5", "00002"), ("synthia", "SYNTHIA", "0000002")])
def test_held_out_stems(root, domain, folder, stem):
    fails(FileNotFoundError, f"{folder} has no val split of its own: list the stems to hold out", domain, "val", root)
    (root / folder / "val.txt").write_text(f"{stem}\n\n", encoding="utf-8-sig")  # as an editor of Windows writes it
    val, train = load_split(domain, "val", root), load_split(domain, "train", root)
    assert [i.image.stem for i in val.items] == [stem]
    assert stem not in [i.image.stem for i in train.items] and len(train) == (5 if domain == "gta5" else 3)
    (root / folder / "val.txt").write_text("elsewhere\n")
    fails(ValueError, "without an image, such as elsewhere", domain, "train", root)


# What is missing


def test_unknown_names(root):
    fails(ValueError, "unknown domain 'kitti': use one of gta5, synthia, cityscapes", "kitti", "train", root)
    fails(ValueError, "unknown domain ''", "gta5+", "train", root)
    fails(ValueError, "camvid has no split 'trainval': use one of train, val, test", "camvid", "trainval", root)
    fails(ValueError, "gta5 has no split 'test'", "gta5", "test", root)
    fails(ValueError, "unknown class set 'seven'", "gta5", "train", root, classes="seven")


def test_missing_folders(tmp_path):
    fails(
        FileNotFoundError,
        f"the data root {tmp_path / 'data'} does not exist. Point data_root to the folder that holds GTA5",
        "gta5",
        "train",
        tmp_path / "data",
    )
    fails(
        FileNotFoundError,
        f"expected RGB/0000000.png, GT/LABELS/0000000.png, and val.txt for a val split in "
        f"{tmp_path / 'SYNTHIA'}, which does not exist",
        "synthia",
        "train",
        tmp_path,
    )
    make_gta5(tmp_path)
    for path in (tmp_path / "GTA5/labels").iterdir():
        path.unlink()
    (tmp_path / "GTA5/labels").rmdir()
    fails(FileNotFoundError, f"there is no folder {tmp_path / 'GTA5/labels'}", "gta5", "train", tmp_path)
    assert len(load_split("gta5", "train", tmp_path, labels=False)) == 6


@pytest.mark.parametrize(
    "domain, folder",
    [
        ("gta5", "GTA5/images"),
        ("cityscapes", "Cityscapes/leftImg8bit/train"),
        ("iitk", "IITK/leftImg8bit/train"),
        ("camvid", "CamVid/train"),
    ],
)
def test_empty_splits(tmp_path, domain, folder):
    (tmp_path / folder).mkdir(parents=True)
    fails(FileNotFoundError, "found no image of this split", domain, "train", tmp_path, labels=False)


def test_images_without_labels_are_counted(root):
    for i in range(5):
        (root / f"GTA5/labels/{i:05}.png").unlink()
    fails(
        ValueError,
        "gta5: expected a label map for every image, found none for 00000, 00001, 00002 ... (5 in all)",
        "gta5",
        "train",
        root,
    )


def test_labels_without_images_are_counted(root):
    for i in range(4):
        (root / f"GTA5/images/{i:05}.png").unlink()
    fails(
        ValueError,
        "gta5: expected an image for every label map, found none for 00000, 00001, 00002 ... (4 in all)",
        "gta5",
        "train",
        root,
    )
    (root / "CamVid/val/0016E5_8.png").unlink()
    image(root / "CamVid/val/0016E5_9.png")
    label(root / "CamVid/valannot/0016E5_9.png", (3,))
    fails(ValueError, "found none for 0016E5_8", "camvid_day", "val", root)


def test_two_files_for_one_image(root):
    image(root / "CamVid/train/0006R0_1.jpg")
    fails(ValueError, "stand for the same image", "camvid", "train", root)


# What is wrong in the files


def test_unequal_sizes(root):
    label(root / "Cityscapes/gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png", size=(12, 17))
    fails(ValueError, "ulm_000001_000019_leftImg8bit.png (16x12, its label 17x12)", "cityscapes", "train", root)


def test_gta5_drops_the_few_unequal_pairs(root):
    label(root / "GTA5/labels/00003.png", size=(13, 16))
    with pytest.warns(UserWarning, match=r"gta5: dropped 1 of 6 pairs of unequal size: .*00003.png"):
        found = load_split("gta5", "train", root)
    assert [i.image.stem for i in found.items] == ["00000", "00001", "00002", "00004", "00005"]
    label(root / "GTA5/labels/00004.png", size=(13, 16))
    fails(ValueError, "gta5: expected image and label map of one size", "gta5", "train", root)


@pytest.mark.parametrize("side", ["images", "labels"])
def test_truncated_files_are_named(root, side):
    path = root / f"GTA5/{side}/00005.png"
    if side == "labels":
        Image.fromarray(np.random.RandomState(0).choice([7, 11], SIZE).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    fails(ValueError, f"{path}: cannot be decoded", "gta5", "train", root)
    assert len(load_split("gta5", "train", root, check=False)) == 6


def test_truncated_image_of_an_unlabelled_target(root):
    path = root / "IITK/leftImg8bit/train/camera5/JPEGImages/00002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    fails(ValueError, f"{path}: cannot be decoded", "iitk", "train", root)


def test_unknown_ids_are_named_with_their_file(root):
    label(root / "GTA5/labels/00000.png", (7, 99, 200))
    fails(
        ValueError,
        f"{root / 'GTA5/labels/00000.png'}: unknown ids 99, 200: cityscapes ids holds -1..34",
        "gta5",
        "train",
        root,
    )


def test_a_label_map_in_colours(root):
    image(root / "GTA5/labels/00000.png")
    fails(ValueError, "00000.png: expected one class id a pixel, found colours", "gta5", "train", root)


def test_blank_labels(root):
    for path in (root / "GTA5/labels").iterdir():
        label(path, (0,))
    fails(ValueError, "none of the 6 label maps looked at has a pixel of cityscapes19", "gta5", "train", root)


def test_the_first_and_the_last_item_are_always_looked_at(tmp_path):
    make_gta5(tmp_path, 9)
    split = load_split("gta5", "train", tmp_path)
    good = (tmp_path / "GTA5/images/00003.png").read_bytes()
    for i, seen in ((0, True), (3, False), (4, True), (8, True)):
        path = tmp_path / f"GTA5/images/{i:05}.png"
        whole = path.read_bytes()
        path.write_bytes(good[:-60])
        if seen:
            with pytest.raises(ValueError, match=path.name):
                check_split(split, full=3)
        else:
            check_split(split, full=3)
        path.write_bytes(whole)


# Unions


def test_unions(root):
    found = load_split("cityscapes+iitk", "train", root, labels=False)
    assert (found.name, list(map(len, found.members)), found.weights, len(found.items)) == (
        "cityscapes+iitk",
        [4, 15],
        (0.5, 0.5),
        19,
    )
    assert load_split("cityscapes + iitk", "train", root, labels=False) == found
    assert load_split("cityscapes+iitk", "train", root, labels=False, mix="proportional").weights == (4 / 19, 15 / 19)
    assert load_split("cityscapes+iitk", "train", root, labels=False, mix="1,3").weights == (0.25, 0.75)
    assert not load_split("cityscapes+iitk", "train", root).labelled
    both = load_split("gta5+cityscapes", "train", root)
    assert both.labelled and both.classes == CITYSCAPES19


def test_unions_that_cannot_be(root):
    fails(
        ValueError,
        "gta5 has cityscapes19, synthia has synthia16. Name the set to use with classes",
        "gta5+synthia",
        "train",
        root,
    )
    both = load_split("gta5+synthia", "train", root, classes="synthia13")
    assert both.classes == SYNTHIA13 and all(0 in load_label(i, SYNTHIA13) for i in both.items)
    fails(ValueError, "names each domain once", "gta5+gta5", "train", root)
    for mix in ("report", "0.5", "0.5,0.5,0.5", "often", "0,1", "-1,2"):
        fails(ValueError, "use equal, proportional", "gta5+camvid", "train", root, labels=False, mix=mix)


# A user's own folder


def test_own_folder(tmp_path, monkeypatch):
    name = make_folder(tmp_path, ("train", "val", "test"))
    found = load_split(name, "test")
    assert (found.classes.name, found.classes.names, len(found), found.labelled) == ("own", ("water", "boat"), 2, True)
    assert set(np.unique(load_label(found.items[0], found.classes))) == {0, 1, 255}
    monkeypatch.chdir(tmp_path)
    relative = load_split("folder:own", "test")
    assert relative.items[0].image == found.items[0].image


def test_own_folder_as_a_target(tmp_path):
    for i in range(2):
        image(tmp_path / f"own/images/train/{i}.png")
    name = f"folder:{tmp_path / 'own'}"
    assert not load_split(name, classes="cityscapes19", labels=False).labelled
    fails(ValueError, "Give classes (those of the source)", name, labels=False)
    fails(FileNotFoundError, f"there is no folder {tmp_path / 'own/labels/train'}", name, classes="cityscapes19")
    label(tmp_path / "own/labels/train/0.png")
    label(tmp_path / "own/labels/train/1.png")
    fails(FileNotFoundError, "found no ids.csv", name, classes="cityscapes19")
    fails(FileNotFoundError, "which does not exist", f"folder:{tmp_path / 'nowhere'}", labels=False)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "found nothing"),
        ("id,name,r,g,b\n", "expected the columns id,name,red,green,blue"),
        ("1,a,0,0,0\n1,b,0,0,0\n", "line 3: expected a new id"),
        ("a,b,0,0,0\n", "line 2: expected whole numbers"),
        ("1,a,0,0,256\n", "line 2: expected colours"),
        ("1,,0,0,0\n", "at least one id with a name"),
    ],
)
def test_bad_ids_csv(tmp_path, text, message):
    head = "" if message.startswith(("found nothing", "expected the columns")) else "id,name,red,green,blue\n"
    (tmp_path / "ids.csv").write_text(head + text)
    with pytest.raises(ValueError) as e:
        read_ids(tmp_path / "ids.csv")
    assert message in str(e.value)


# Fingerprints


def test_fingerprint(root, tmp_path):
    split = load_split("gta5", "train", root)
    before = fingerprint(split)
    assert before == fingerprint(load_split("gta5", "train", root)) and len(before) == 12
    assert fingerprint(load_split("gta5", "train", root, labels=False)) != before
    (tmp_path / "other").mkdir()
    (root / "GTA5").rename(tmp_path / "other/GTA5")
    moved = load_split("gta5", "train", tmp_path / "other")
    assert fingerprint(moved) == before
    with open(moved.items[2].image, "ab") as f:
        f.write(b"\0")
    assert fingerprint(moved) != before


# The real CamVid


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the real CamVid is not beside this checkout (../shared/data/CamVid)")
@pytest.mark.parametrize(
    "domain, split, size",
    [
        ("camvid", "train", 367),
        ("camvid", "val", 101),
        ("camvid_day", "train", 305),
        ("camvid_day", "val", 101),
        ("camvid_dusk", "train", 31),
        ("camvid_dusk", "val", 31),
    ],
)
def test_real_camvid(domain, split, size):
    found = load_split(domain, split, CAMVID.parent)
    assert len(found) == size and found.labelled
    assert {i.image.stem.startswith("0001TP") for i in found.items} == {
        "camvid_dusk": {True},
        "camvid_day": {False},
    }.get(domain, {True, False} if split == "train" else {False})
    item = found.items[size // 2]
    train = load_label(item, CAMVID11)
    assert train.shape == (360, 480) and (train == CAMVID11.index("road")).mean() > 0.05


def test_domains_name_their_layout():
    for name in domain_names():
        assert get_domain(name).layout and get_domain(name).splits[0] == "train"
