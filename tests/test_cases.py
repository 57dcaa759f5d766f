"""The inputs of the shared cases through every door they concern; skipped where these are not at hand."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adaptseg.base.images import read_image, rgb_image
from adaptseg.datasets.domains import load_split
from adaptseg.reports.filming import film_frames
from adaptseg.unsupervised.folder import find_images, segment_job
from data_prep import custom
from data_prep.prepare import run

MAKE = Path(__file__).parents[2] / "shared" / "cases" / "make_cases.py"
pytestmark = pytest.mark.skipif(not MAKE.is_file(), reason=f"there is no {MAKE}")

# through data_prep.custom: images and label maps that come out, or words of the refusal
CUSTOM = {
    **dict.fromkeys(
        "e02_exif e03_exif e06_exif f01_notebook_copies f12_sizes l21_150_classes l23_cvat".split(), (12, 12)
    ),
    **dict.fromkeys(
        "l01_paint_program l02_palette_right l03_one_bit l05_black_white_255 l08_grey_alpha".split(), (12, 12)
    ),
    **dict.fromkeys("l09_rgba l11_sixteen_bit l14_one_based_255 l16_tif_masks l17_bmp_masks".split(), (12, 12)),
    **dict.fromkeys("l18_two_bits l19_palette_with_alpha l24_supervisely l26_same_folder".split(), (12, 12)),
    **dict.fromkeys("t01_semicolons t02_capitals t03_blanks t04_empty_lines t05_windows".split(), (12, 12)),
    **dict.fromkeys("t06_one_more_column t07_cp1252 t08_utf16".split(), (12, 12)),
    **dict.fromkeys("f07_tiff f08_bmp f09_webp f10_mixed f14_names".split(), (12, 0)),
    **{"f02_trash_folders": (10, 0), "f04_links": (13, 0), "f06_composed_names": (10, 10), "f11_one_image": (1, 1)},
    **{"f15_frames": (7, 0), "f16_frame_sizes": (4, 0)},
    "f03_same_stem": "shot03.jpg and .*shot03.png would both be called shot03",
    "f13_one_broken": "would both be called shot07",
    "l04_black_white": "255 may mean void.*In a mask of black and white",
    "l06_jpeg_masks": "lossy images.*Export them as PNG",
    "l07_jpeg_in_png": "come from JPEG",
    "l10_rgba_clear_white": "hidden below transparent pixels",
    "l12_ids_in_three_channels": "All three channels are alike",
    "l13_ids_in_red": "Only red is used",
    "l15_255_not_in_table": "255 may mean void",
    "l20_float_tiff_named_png": "float numbers",
    "l22_300_ids": "1 to 254 classes, found 300",
    "l25_prefix": "12 images have no label map.*12 of 12 label maps have no image",
}
# a folder of images through the doors that need no labels: images that are read, of how many
LISTS = {
    **dict.fromkeys("e02_exif e03_exif e06_exif f01_notebook_copies f07_tiff f08_bmp f09_webp".split(), 12),
    **{"f10_mixed": 12, "f14_names": 12, "f12_sizes": 12, "f02_trash_folders": 10, "f06_composed_names": 10},
    **{"f11_one_image": 1, "f15_frames": 7, "f16_frame_sizes": 4},
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE), str(out)], check=True)
    return out


def images_of(folder):
    return next((folder / n for n in ("IMAGES", "JPEGImages", "ALL", "DOWN") if (folder / n).is_dir()), folder)


@pytest.mark.parametrize("case", CUSTOM)
def test_prepared(case, cases, tmp_path):
    folder, wanted = cases / case, CUSTOM[case]
    labels = next((folder / n for n in ("LABELS", "SegmentationClass", "ALL") if (folder / n).is_dir()), None)
    source = [images_of(folder), *([labels, folder / "ids.csv"] if labels else [])]
    with pytest.raises(SystemExit) as e:
        run(custom.RECIPE, [*map(str, source), "--name", "mine", "--out", str(tmp_path), "--jobs", "1"])
    made = tmp_path / "mine"
    if isinstance(wanted, str):
        assert not made.exists()
        with pytest.raises(ValueError, match="(?s)" + wanted):
            raise ValueError(e.value.code)
    else:
        found = tuple(sum(p.is_file() for p in (made / side).rglob("*")) for side in ("images", "labels"))
        assert (e.value.code, found) == (0, wanted)


@pytest.mark.parametrize("case", LISTS)
def test_the_doors_see_the_same_images(case, cases, tmp_path):
    folder = images_of(cases / case)
    segment = [rgb_image(f) for f in find_images(segment_job(images=str(folder)))[0].values()]
    film = [frame for _, frame in film_frames(folder, 1)]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train").symlink_to(folder)
    split = load_split(f"folder:{tmp_path}", "train", labels=False, classes="cityscapes19")
    training = [np.asarray(read_image(item.image)) for item in split.items]
    assert len(segment) == len(film) == len(training) == LISTS[case]
    as_one = lambda images: sorted((x.shape, x.tobytes()) for x in images)
    assert as_one(segment) == as_one(film) == as_one(training)


def test_one_broken(cases, tmp_path, capsys):
    "Two of eleven cannot be read; a film is made of the others, and segments too."
    faults = {}
    assert len(list(film_frames(cases / "f13_one_broken", 1, faults))) == 9
    assert sorted(faults) == ["shot04.jpg", "shot07.png"]
    files, _ = find_images(segment_job(images=str(cases / "f13_one_broken")))
    assert len(files) == 11 and {"shot07_jpg", "shot07_png"} < files.keys()


def test_frames_in_their_order(cases):
    names = [f.name for f in find_images(segment_job(images=str(cases / "f15_frames")))[0].values()]
    assert names == [*(f"frame{i}.jpg" for i in range(6)), "frame10.jpg"]


def test_linked_cityscapes(cases, tmp_path):
    shutil.copytree(cases / "f05_linked_cityscapes" / "disk", tmp_path / "disk")
    (tmp_path / "Cityscapes").mkdir()
    for side in ("leftImg8bit", "gtFine"):
        (tmp_path / "Cityscapes" / side).symlink_to(tmp_path / "disk" / side)
    assert [len(load_split("cityscapes", s, tmp_path)) for s in ("train", "val")] == [1, 1]
