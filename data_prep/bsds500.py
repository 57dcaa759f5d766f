"""BSDS500 (Arbelaez et al., PAMI 2011), for segmentation without labels."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
BSDS500 (Arbelaez, Maire, Fowlkes, Malik; PAMI 2011): 200 train, 100 val and 200 test photographs with the segments
that about five people drew, 70 MB. Offered by UC Berkeley,
www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping: BSR_bsds500.tgz. For non-commercial research and
education.
"""


def place(name: str) -> str | None:
    "BSDS500/data/images/train/ID.jpg and BSDS500/data/groundTruth/train/ID.mat, below whatever folder."
    found = re.search(
        r"(?:^|/)(images/(?:train|val|test)/[^/.]+\.jpg|groundTruth/(?:train|val|test)/[^/.]+\.mat)$", name
    )
    return found and found[1]


RECIPE = Recipe("bsds500", OFFERED, place)
if __name__ == "__main__":
    run(RECIPE)
