"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016)."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016): 9,400 rendered images with label maps, about 20 GB.
Offered at synthia-dataset.net as SYNTHIA_RAND_CITYSCAPES.rar, which you unpack yourself (unar, 7z x): give the folder
then. Creative Commons BY-NC-SA 3.0: not for commercial use; read the terms there.
"""


def place(name: str) -> str | None:
    "RGB/0000000.png and GT/LABELS/0000000.png, below whatever folder; colours and depth are left out."
    found = re.search(r"(?:^|/)((?:RGB|GT/LABELS)/\d{7}\.png)$", name)
    return found and found[1]


RECIPE = Recipe("synthia", OFFERED, place)
if __name__ == "__main__":
    run(RECIPE)
