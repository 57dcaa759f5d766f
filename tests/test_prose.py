"""What README and the pages say in words of the results is what the files in nbs/results hold."""

from pathlib import Path

import numpy as np
import pytest

from adaptseg.reports.leaderboard import regrets
from adaptseg.reports.standings import ORACLE, pairs_of, standings
from adaptseg.runs.record import read_results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "nbs" / "results"


def page(name):
    "The text of a page, with blanks for line ends."
    return " ".join((ROOT / name).read_text(encoding="utf8").replace("\\n", " ").split())


def methods(file):
    "Runs of the one pair of a results file, by method."
    (found,) = pairs_of(read_results(RESULTS / file)).values()
    return found


def score(runs, domain, key="miou"):
    "Mean over seeds, in percent."
    return 100 * np.mean([run.metrics[domain][key] for run in runs])


def iou(run, name):
    "Of a class on the target, in whole percent, as prose has it."
    return f"{100 * run.metrics[run.config['target'] + '/val']['iou'][name]:.0f}"


def streets():
    runs = read_results(RESULTS / "streets.jsonl")
    of, gaps = methods("streets.jsonl"), standings(runs).set_index("method")["gap"]
    selected = lambda name: f"{score(of[name], 'cityscapes/val', 'selected'):.1f}"
    at_home = lambda name: f"{score(of[name], 'gta5/val'):.1f}"
    lost = regrets(runs).set_index("rule")["regret"]
    yield f"Statistics of the target alone (`adabn`) win back {gaps['adabn']:.0f}% of the gap."
    yield f"Self-training wins {gaps['selftrain']:.0f}%"
    yield (
        f"the mean IoU is {selected('source_only')} with source-only, {selected('adabn')} with `adabn`, "
        f"{selected('adaptseg_multi')} with `adaptseg_multi`, {selected('selftrain')} with `selftrain` and "
        f"{selected(ORACLE)} with the oracle"
    )
    yield (
        f"(source-only has {at_home('source_only')} there): `adabn` falls to {at_home('adabn')}, `selftrain` keeps "
        f"{at_home('selftrain')}"
    )
    yield f"`agreement` lost {lost['agreement']:.1f}, `information` {lost['information']:.1f}"
    yield f"{sum(run.minutes for run in runs) / 60:.1f} hours in all"


def dusk():
    of = {name: runs[0] for name, runs in methods("methods_camvid.jsonl").items()}
    more = {run.path.name: run for run in read_results(RESULTS / "camvid_selftrain.unfinished.jsonl")}
    tries = {run.path.name: run for run in read_results(RESULTS / "camvid_tries.unfinished.jsonl")}
    source, taught = of["source_only"], of["selftrain"]
    turn = lambda name: f"{iou(source, name)} to {iou(taught, name)}"
    back = lambda name: f"({turn(name)})"
    miou = lambda run: f"{score([run], 'camvid_dusk/val'):.1f}"
    balanced = more["balanced-s0"]
    yield (
        f"road goes from {turn('road')} and pavement from {turn('pavement')}, above the oracle's "
        f"{iou(of[ORACLE], 'pavement')}, while tree {back('tree')}, bicyclist {back('bicyclist')}, sign "
        f"{back('sign')} and pole {back('pole')}"
    )
    yield (
        f"with rare classes drawn more often {miou(more['selftrain_rare-s0'])}, with them, feature distance and masks "
        f"{miou(more['mic-s0'])}, with `fda`'s colours {miou(more['selftrain_fourier-s0'])}; nor did soft labels, "
        f"{miou(more['soft-s0'])}"
    )
    yield (
        f"signs and poles stay ({iou(balanced, 'sign')} and {iou(balanced, 'pole')}), but road and pavement are not "
        f"won ({iou(balanced, 'road')} and {iou(balanced, 'pavement')}): {miou(balanced)}"
    )
    yield (
        f"self-training has {miou(more['even-s0'])} where `source_only` has {miou(more['even_source-s0'])} and the "
        f"oracle {miou(more['even_oracle-s0'])}"
    )
    yield (
        f"after 500 steps with another seed {miou(tries['class-s7'])}, and {miou(tries['sourcefrozen-s7'])} without "
        f"adaptation and {miou(tries['fdafrozen-s7'])} with `fda`, where `source_only` has {miou(tries['source-s7'])}, "
        f"`fda` {miou(tries['fda-s7'])} and the oracle {miou(tries['oracle-s7'])}"
    )


def drawn_to_real():
    runs = read_results(RESULTS / "synthetic.unfinished.jsonl")
    source, taught = (next(r for r in runs if r.path.name == f"{name}-s0") for name in ("source_only", "selftrain"))
    turn = lambda name: f"{iou(source, name)} to {iou(taught, name)}"
    selected = [f"{score([run], 'camvid_day/val', 'selected'):.1f}" for run in (source, taught)]
    yield f"`source_only` has {score([source], 'camvid_day/val'):.1f}, `selftrain` {score([taught], 'camvid_day/val'):.1f}"
    yield (
        f"the IoU rises from {' to '.join(selected)} (car {turn('car')}, pedestrian {turn('pedestrian')}, bicyclist "
        f"{turn('bicyclist')}), building from {turn('building')}, tree from {turn('tree')}, sign from {turn('sign')}; "
        f"pavement falls from {turn('pavement')}, road from {turn('road')}, sky from {turn('sky')}"
    )


def few_labels():
    runs = read_results(RESULTS / "labels_camvid.jsonl")
    named = lambda name: f"{score([r for r in runs if r.path.name.startswith(f'{name}-s')], 'camvid_dusk/val'):.1f}"
    yield (
        f"beside the source {named('source_labels4')} after 500 steps (three seeds), with none "
        f"{named('source_labels0')}, with none and `fda` {named('fda_labels0')}; with all 31 frames "
        f"{named('source_labelsall')}, and {named('alone_labelsall')} with these alone"
    )


@pytest.mark.parametrize("claims", [streets, dusk, drawn_to_real, few_labels], ids=lambda claims: claims.__name__)
def test_readme_says_what_was_measured(claims):
    text = page("README.md")
    for claim in claims():
        assert claim in text, f"README.md: expected {claim!r}"
