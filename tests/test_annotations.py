"""To the tools people label with, and back: every form, with independent readers; odd and bad exports."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptseg.annotations.exporting import annotate_job, write_annotations
from adaptseg.base.files import load_json, write_json
from adaptseg.datasets.domains import load_split
from adaptseg.datasets.labels import CITYSCAPES19, IGNORE
from adaptseg.datasets.splits import load_label
from adaptseg.streets.samples import write_samples
from data_prep.annotations import RECIPE
from data_prep.prepare import run
from inside import adaptseg

FORMS = "cvat voc coco labelme label_studio cityscapes".split()
DATA = Path(os.environ.get("ADAPTSEG_SHARED", Path(__file__).parents[2] / "shared")) / "data"


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    "A data root with a few sample streets."
    root = tmp_path_factory.mktemp("streets")
    write_samples(root, size=(128, 256), n_gta5=(1, 1), n_cityscapes=(2, 1), n_iitk=(1, 1), workers=1)
    return root


def labels_by_name(split) -> dict:
    "Image name -> (H, W) uint8 train ids of the split's classes."
    return {Path(item.image).stem: load_label(item, split.classes) for item in split.items}


def sent(domain: str, root: Path, form: str, to: Path, **more) -> None:
    "The domain's train labels in a tool's form; what was a prediction is a label now, as if accepted."
    write_annotations(annotate_job(labels=domain, data_root=str(root), form=form, out=str(to), **more))
    if form == "label_studio":
        tasks = load_json(to / "tasks.json")
        write_json(to / "tasks.json", [dict(data=t["data"], annotations=t["predictions"]) for t in tasks])


def prepare(*words, out: Path) -> int:
    "`python -m data_prep.annotations`; its status."
    with pytest.raises(SystemExit) as e:
        run(RECIPE, [*map(str, words), "--out", str(out), "--jobs", "1"])
    return e.value.code


def compared(original, folder: Path, least: float = 1.0):
    "The split of what came back; every class' IoU over all images is at least so, and 1.0 means every pixel."
    back = load_split(f"folder:{folder}")
    before, found = labels_by_name(original), labels_by_name(back)
    after = {next(k for k in before if name.endswith(k)): x for name, x in found.items()}
    assert set(before) == set(after)
    as_before = np.full(256, IGNORE)
    as_before[: len(back.classes)] = [original.classes.index(name) for name in back.classes.names]
    a = np.concatenate([before[name].ravel() for name in before])
    b = np.concatenate([as_before[after[name]].ravel() for name in before])
    for k, name in enumerate(original.classes.names):
        both, either = ((a == k) & (b == k)).sum(), ((a == k) | (b == k)).sum()
        assert not either or both / either >= least, (name, both / either)
    assert least < 1 or (a == b).all()
    return back


@pytest.mark.parametrize("form", FORMS)
def test_label_maps_go_to_a_tool_and_come_back_as_they_were(streets, form, tmp_path):
    images = form != "cityscapes"
    sent("cityscapes", streets, form, tmp_path / "export", images=images)
    sources = [tmp_path / "export"] if images else [tmp_path / "export", streets / "Cityscapes/leftImg8bit/train"]
    assert prepare(*sources, "--name", "back", "--val", "0", out=tmp_path) == 0
    split = compared(load_split("cityscapes", "train", streets), tmp_path / "back")
    colours = dict(zip(CITYSCAPES19.names, CITYSCAPES19.colours))
    assert split.classes.colours == tuple(colours[name] for name in split.classes.names)


@pytest.mark.parametrize("form", ["cvat", "coco", "labelme", "label_studio"])
@pytest.mark.parametrize("shapes, tolerance, least", [("masks", 0, 1.0), ("polygons", 0.5, 0.9)])
def test_masks_lose_nothing_and_fewer_points_little(streets, form, shapes, tolerance, least, tmp_path):
    sent("cityscapes", streets, form, tmp_path / "export", images=True, shapes=shapes, tolerance=tolerance)
    assert prepare(tmp_path / "export", "--name", "back", "--val", "0", out=tmp_path) == 0
    compared(load_split("cityscapes", "train", streets), tmp_path / "back", least)


@pytest.mark.skipif(not (DATA / "CamVid").is_dir(), reason=f"no CamVid in {DATA}")
def test_real_pictures_come_back(tmp_path):
    names = sorted(p.name for p in (DATA / "CamVid/val").iterdir())[:4]
    for side in ("val", "valannot"):
        (tmp_path / "data/CamVid" / side.replace("val", "train")).mkdir(parents=True)
        for name in names:
            file = next((DATA / "CamVid" / side).glob(Path(name).stem + ".*"))
            (tmp_path / "data/CamVid" / side.replace("val", "train") / file.name).symlink_to(file)
    sent("camvid", tmp_path / "data", "cvat", tmp_path / "frames.zip", images=True)
    assert prepare(tmp_path / "frames.zip", "--name", "back", "--val", "0", out=tmp_path) == 0
    compared(load_split("camvid", "train", tmp_path / "data"), tmp_path / "back")


def mask_of(annotation, size) -> np.ndarray:
    "What datumaro and pycocotools make of a shape."
    from pycocotools import mask as coco

    if annotation.type.name == "polygon":
        rolled = coco.frPyObjects([annotation.points], *size)
        return coco.decode(coco.merge(rolled)).astype(bool)
    return np.asarray(annotation.image, bool)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, of numpy 2
@pytest.mark.parametrize("form, shapes, least", [("cvat", "masks", 1), ("cvat", "polygons", 0.9), ("voc", "masks", 1)])
def test_datumaro_reads_the_same_label_maps(streets, form, shapes, least, tmp_path):
    datumaro = pytest.importorskip("datumaro.components.dataset")
    sent("cityscapes", streets, form, tmp_path / "export", shapes=shapes, images=True)
    found = datumaro.Dataset.import_from(str(tmp_path / "export"), dict(voc="voc_segmentation").get(form, form))
    names = [c.name for c in next(iter(found.categories().values()))]
    before = labels_by_name(load_split("cityscapes", "train", streets))
    assert len(found) == len(before)
    for item in found:
        label = before[Path(item.id).name]
        after = np.full(label.shape, IGNORE, np.uint8)
        for a in sorted(item.annotations, key=lambda a: a.z_order):
            name = names[a.label]
            known = CITYSCAPES19.names.index(name) if name in CITYSCAPES19.names else IGNORE
            after[mask_of(a, label.shape)] = known
        assert (after == label).mean() >= least  # pycocotools rounds outlines to pixels


def test_cityscapes_own_script_draws_the_same_label_maps(streets, tmp_path):
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    sent("cityscapes", streets, "cityscapes", tmp_path / "export")
    split = load_split("cityscapes", "train", streets)
    for item in split.items:
        stem = Path(item.image).stem.removesuffix("_leftImg8bit")
        (file,) = (tmp_path / "export").rglob(f"{stem}*.json")
        values = load_json(file)
        for o in values["objects"]:
            o["label"] = o["label"].replace("unlabelled", "unlabeled")  # as Cityscapes spells it
        write_json(file, values)
        json2labelImg(str(file), str(tmp_path / "drawn.png"), "trainIds")
        drawn, label = np.asarray(Image.open(tmp_path / "drawn.png")), load_label(item, split.classes)
        assert (drawn == label).mean() > 0.9  # it draws an outline's own pixels too


def export_of(folder: Path, shapes: list, size=(64, 48), names=("a.jpg",)) -> Path:
    "labelme's files, as a person would have them, and their photographs."
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, (90, 90, 90)).save(folder / name)
    known = dict(imagePath=names[0], imageWidth=size[0], imageHeight=size[1], shapes=shapes)
    write_json((folder / names[0]).with_suffix(".json"), known)
    return folder


def shape(label, x=5, y=5, side=10) -> dict:
    points = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
    return dict(label=label, shape_type="polygon", points=points)


def test_photographs_that_nobody_labelled_stay_without_a_map(tmp_path, capsys):
    shapes = [shape("lawn"), shape("Void", 20), shape("pond", 8)]
    folder = export_of(tmp_path / "export", shapes, names=("a.jpg", "b.jpg", "c.jpg"))
    assert prepare(folder, "--name", "own", "--val", "0", out=tmp_path) == 0
    assert "1 of 3 photographs are labelled" in capsys.readouterr().out
    split = load_split(f"folder:{tmp_path}/own", labels=False)
    assert (len(split), [p.name for p in (tmp_path / "own/labels/train").iterdir()]) == (3, ["a.png"])
    label = np.asarray(Image.open(tmp_path / "own/labels/train/a.png"))
    assert (label[6, 6], label[6, 10], label[6, 22], label[40, 40]) == (0, 1, IGNORE, IGNORE)
    ids = (tmp_path / "own/ids.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in ids[1:]] == [["0", "lawn"], ["1", "pond"], ["255", ""]]


def test_a_table_says_which_classes_there_are(tmp_path, capsys):
    folder = export_of(tmp_path / "export", [shape("lawn"), shape("pond", 20)])
    table = tmp_path / "ids.csv"
    table.write_text("id,name,red,green,blue\n7,lawn,0,255,0\n0,,0,0,0\n")
    assert "has no pond, which the export has; it has lawn" in prepare(folder, "--table", table, out=tmp_path)
    table.write_text("id,name,red,green,blue\n7,lawn,0,255,0\n9,pond,0,0,255\n")
    assert prepare(folder, "--table", table, "--name", "own", "--val", "0", out=tmp_path) == 0
    assert np.asarray(Image.open(tmp_path / "own/labels/train/a.png"))[[6, 6], [6, 22]].tolist() == [7, 9]
    assert prepare(folder, "--dry-run", out=tmp_path) == 0
    assert "labelme: 1 of 1 photographs are labelled\nclasses: lawn, pond" in capsys.readouterr().out


def test_faults_are_one_line_and_leave_nothing(tmp_path):
    def says(words, *sources):
        status = prepare(*sources, "--name", "own", out=tmp_path)
        assert isinstance(status, str) and words in status and "\n" not in status, status
        assert not [p for p in tmp_path.iterdir() if "own" in p.name]

    good = export_of(tmp_path / "good", [shape("lawn")])
    (tmp_path / "photographs").mkdir()
    other = export_of(tmp_path / "other", [shape("lawn")])
    Image.new("RGB", (32, 24)).save(other / "a.jpg")
    says("a.jpg was labelled at 64x48", other)
    says("holds no photographs", good, tmp_path / "photographs")
    Image.new("RGB", (64, 48)).save(tmp_path / "photographs/z.jpg")
    says("1 labelled pictures have no photograph (a.jpg)", good, tmp_path / "photographs")
    for folder in ("1", "2"):
        (tmp_path / "photographs" / folder).mkdir()
        Image.new("RGB", (64, 48)).save(tmp_path / "photographs" / folder / "a.jpg")
    says("a.jpg of the export may be", good, tmp_path / "photographs")
    says("nobody has labelled anything", export_of(tmp_path / "empty", []))
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../outside.json", json.dumps({}))
    says("outside.json", evil)
    (tmp_path / "bomb").mkdir()
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>'
    (tmp_path / "bomb/annotations.xml").write_text(bomb)
    says("expected CVAT's XML, found DTDForbidden", tmp_path / "bomb")
    (tmp_path / "good.txt").write_text("a.jpg")
    says("expected a zip, a tar or a folder", tmp_path / "good.txt")


def test_pictures_are_found_by_as_much_of_their_names_as_tools_leave(tmp_path):
    for folder in ("day", "night"):
        (tmp_path / "photographs" / folder).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "photographs" / folder / "a.jpg")
    names = ["frames/day/a.jpg", "/night/a"]
    images = [dict(id=i, file_name=name.lstrip("/"), width=64, height=48) for i, name in enumerate(names)]
    row = lambda i: dict(image_id=i, category_id=1, segmentation=[[0, 0, 9, 0, 9, 9, 0, 9]])
    known = dict(images=images, categories=[dict(id=1, name="lawn")], annotations=[row(0), row(1)])
    (tmp_path / "export").mkdir()
    write_json(tmp_path / "export/instances.json", known)
    args = (tmp_path / "export", tmp_path / "photographs", "--name", "own", "--val", "0")
    assert prepare(*args, out=tmp_path) == 0
    assert sorted(p.name for p in (tmp_path / "own/labels/train").iterdir()) == ["day_a.png", "night_a.png"]


def test_command(streets, tmp_path):
    to = tmp_path / "drafts.zip"
    words = ("annotations", "cityscapes", "--data-root", streets, "--form", "label_studio", "--shapes", "masks")
    done = adaptseg(*words, "--out", to, "--prefix", "https://host/frames/")
    assert done.returncode == 0, done.stderr
    assert "2 pictures for label_studio" in done.stdout
    with zipfile.ZipFile(to) as archive:
        (first, _) = json.loads(archive.read("tasks.json"))
    assert first["data"]["image"].startswith("https://host/frames/")
    again = adaptseg(*words, "--out", to)
    assert again.returncode == 1 and "exists" in again.stderr and "--overwrite" in again.stderr
    bad = adaptseg("annotations", "cityscapes", "--form", "yolo", "--out", tmp_path / "x")
    assert bad.returncode == 1 and "form" in bad.stderr and "label_studio" in bad.stderr
