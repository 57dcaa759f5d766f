"""Cityscapes (Cordts et al., CVPR 2016): the archives of images and of fine label maps."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
Cityscapes (Cordts et al., CVPR 2016): 2,975 train, 500 val and 1,525 test images of 50 cities, 12 GB.
Offered at www.cityscapes-dataset.com after registration: leftImg8bit_trainvaltest.zip (11 GB) and
gtFine_trainvaltest.zip (241 MB). For research, teaching and publications, not to be passed on; read the licence
there.
"""


def place(name: str) -> str | None:
    "Images, and label maps of ids; the other forms of the labels and what is beyond train, val and test are left out."
    found = re.search(
        r"(?:^|/)((?:leftImg8bit/(?:train|val|test)/[^/]+/[^/.][^/]*_leftImg8bit"
        r"|gtFine/(?:train|val|test)/[^/]+/[^/.][^/]*_gtFine_labelIds)\.png)$",
        name,
    )
    return found and found[1]


def missing(report) -> str:
    "Images come in one archive."
    return "All images are in leftImg8bit_trainvaltest.zip. "


RECIPE = Recipe("cityscapes", OFFERED, place, missing=missing)
if __name__ == "__main__":
    run(RECIPE)
