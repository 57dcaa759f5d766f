"""Dark Zurich (Sakaridis et al., ICCV 2019): a city at night."""

import re

from data_prep.prepare import Recipe, run

OFFERED = """
Dark Zurich (Sakaridis, Dai, Van Gool, ICCV 2019): 2,416 train, 50 val and 151 test images of nights; only val has
label maps. Offered at www.trace.ethz.ch/publications/2019/GCMA_UIoU: Dark_Zurich_train_anon.zip,
Dark_Zurich_val_anon.zip, Dark_Zurich_test_anon_withoutGt.zip. For non-commercial use; read the licence there.
"""


def place(name: str) -> str | None:
    "Images of nights, and label maps of train ids; day, twilight, references and other forms are left out."
    found = re.search(
        r"(?:^|/)((?:rgb_anon/(?:train|val|test)/night/[^/]+/[^/.][^/]*_rgb_anon"
        r"|gt/val/night/[^/]+/[^/.][^/]*_gt_labelTrainIds)\.png)$",
        name,
    )
    return found and found[1]


def missing(report) -> str:
    "Each split has an archive."
    return "Each split comes in an archive of its own. "


RECIPE = Recipe("dark_zurich", OFFERED, place, missing=missing)
if __name__ == "__main__":
    run(RECIPE)
