"""ACDC (Sakaridis et al., ICCV 2021): streets in fog, at night, in rain and in snow."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
ACDC (Sakaridis, Dai, Van Gool, ICCV 2021): 1,600 train, 406 val and 2,000 test images in fog, at night, in rain and
in snow. Offered at acdc.vision.ee.ethz.ch after registration: rgb_anon_trainvaltest.zip and gt_trainval.zip.
For non-commercial use; read the licence there.
"""


def place(name: str) -> str | None:
    "Images in adverse conditions, and label maps of ids; references in good weather and other forms are left out."
    found = re.search(
        r"(?:^|/)((?:rgb_anon/(?:fog|night|rain|snow)/(?:train|val|test)/[^/]+/[^/.][^/]*_rgb_anon"
        r"|gt/(?:fog|night|rain|snow)/(?:train|val)/[^/]+/[^/.][^/]*_gt_labelIds)\.png)$",
        name,
    )
    return found and found[1]


def missing(report) -> str:
    "Images come in one archive."
    return "All images are in rgb_anon_trainvaltest.zip. "


RECIPE = Recipe("acdc", OFFERED, place, missing=missing)
if __name__ == "__main__":
    run(RECIPE)
