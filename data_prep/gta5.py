"""GTA5 (Richter et al., ECCV 2016): ten archives of images and ten of label maps."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
GTA5, "Playing for Data" (Richter, Vineet, Roth, Koltun; ECCV 2016): 24,966 images of a game with label maps, 57 GB.
Offered by TU Darmstadt, download.visinf.tu-darmstadt.de/data/from_games: 01_images.zip ... 10_images.zip and
01_labels.zip ... 10_labels.zip. For research and education only; read the terms there.
"""
PART = 2500  # images in an archive; the last has fewer


def place(name: str) -> str | None:
    "images/00001.png and labels/00001.png, below whatever folder."
    found = re.search(r"(?:^|/)(images|labels)/(\d{5}\.png)$", name)
    return found and f"{found[1]}/{found[2]}"


def missing(report) -> str:
    "The archives that the missing numbers are in."
    there = {int(r.image[-9:-4]) for r in report.rows if r.image}
    parts = sorted({(n - 1) // PART + 1 for n in range(1, 24_967) if n not in there})
    return (
        f"Missing are images of {', '.join(f'{n:02}_images.zip' for n in parts)} (with their labels). " if parts else ""
    )


RECIPE = Recipe("gta5", OFFERED, place, missing=missing)
if __name__ == "__main__":
    run(RECIPE)
