"""What README and the pages say in words of the results is what the files in nbs/results hold."""

from pathlib import Path

import numpy as np
import pytest

from adaptseg.reports.leaderboard import class_scores, regrets
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
    both = tries["selftrain_both-s7"]
    teacher = f"{100 * both.metrics['camvid_dusk/val, teacher']['miou']:.1f}"
    by_day = lambda run: f"{score([run], 'camvid_day/val'):.1f}"
    longer = tries["source_only-s7"]
    yield (
        f"self-training has {miou(both)} where `source_only` has {miou(longer)}, its teacher (`RUN#teacher`) "
        f"{teacher}, and by day nothing is lost, {by_day(both)} and {by_day(longer)}"
    )
    yield (
        f"add nothing to that, {miou(tries['fdast_both-s7'])}; with the target's statistics and from the finished "
        f"source-only network, 500 steps more, it has {miou(tries['warm-s7'])}; `fda` with the source's statistics has "
        f"{miou(tries['fda_source-s7'])}"
    )


def drawn_to_real():
    runs = read_results(RESULTS / "synthetic.unfinished.jsonl")
    source, taught = (next(r for r in runs if r.path.name == f"{name}-s0") for name in ("source_only", "selftrain"))
    turn = lambda name: f"{iou(source, name)} to {iou(taught, name)}"
    selected = [f"{score([run], 'camvid_day/val', 'selected'):.1f}" for run in (source, taught)]
    before, after = (f"{score([run], 'camvid_day/val'):.1f}" for run in (source, taught))
    yield f"`source_only` has {before}, `selftrain` {after}"
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


def adversarial():
    runs = read_results(RESULTS / "adversarial.jsonl")
    board = standings(runs).set_index("method")
    drawn = standings(read_results(RESULTS / "streets.jsonl")).set_index("method")
    miou, above, gap = (board[column].round(1) for column in ("mIoU", "adabn", "gap"))
    lost = regrets(runs).set_index("rule")
    yield (
        f"with the paper's 0.001 one level ends at {miou['adaptseg_single']}, {above['adaptseg_single']} points above "
        f"`adabn`; with 0.01 at {miou['single_1e-2']}, {above['single_1e-2']} above; with 0.1 at "
        f"{miou['single_1e-1']}, {-above['single_1e-1']:.1f} below"
    )
    yield (
        f"Two levels end at {miou['adaptseg_multi']} with the paper's weights and at {miou['multi_1e-2']} with ten "
        f"times these"
    )
    yield f"Least squares has {miou['adaptseg_lsgan']} with the authors' 0.01 and {miou['lsgan_1e-1']} with 0.1"
    yield (
        f"With the source's statistics the loss of 0.01 ends at {miou['single_1e-2_source']}, where `source_only` has "
        f"{miou['source_only']}"
    )
    yield (
        f"one level then ends at {miou['single_1e-2_warm']} rather than {miou['single_1e-2']}, two at "
        f"{miou['multi_1e-2_warm']} rather than {miou['multi_1e-2']}"
    )
    best = board.drop(ORACLE)["gap"].idxmax()
    yield (
        f"wins {gap[best]:.0f}% of the gap between `source_only` and the oracle, `adabn` {gap['adabn']:.0f}%, and "
        f"self-training {drawn['gap']['selftrain']:.0f}%"
    )
    spread = {rule: f"{lost['regret'][rule]:.1f}" for rule in lost.index}
    yield (
        f"`entropy` loses {spread['entropy']} points, `information` {spread['information']}, `agreement` "
        f"{spread['agreement']} and `density` {spread['density']}"
    )


def weights():
    board = standings(read_results(RESULTS / "adversarial.jsonl")).set_index("method")
    two = board.loc["multi_1e-2"]
    yield (
        f"With ten times the published weights `adaptseg_multi` has {two['mIoU']:.1f}, {two['adabn']:.1f} points above "
        f"`adabn` and {two['gap']:.0f}% of the gap"
    )


def choices():
    for label, file in (
        ("eleven methods, three seeds, sample streets", "streets.jsonl"),
        ("eleven methods, one seed, CamVid at dusk", "methods_camvid.jsonl"),
        ("one adversarial loss with ten weights and variants, three seeds, sample streets", "adversarial.jsonl"),
    ):
        lost = regrets(read_results(RESULTS / file)).set_index("rule")["regret"]
        cells = [f"{lost[rule]:.1f}" for rule in ("entropy", "information", "density", "agreement")]
        yield f"| {label} | {' | '.join(cells)} |"


def statistics():
    board = standings(read_results(RESULTS / "adversarial.jsonl")).set_index("method")["mIoU"]
    dusk = {name: score(runs, "camvid_dusk/val") for name, runs in methods("camvid_seeds.unfinished.jsonl").items()}
    yield (
        f"source-only has {board['source_only']:.1f} mIoU, statistics alone {board['adabn']:.1f}, one level of an "
        f"adversarial loss on top {board['single_1e-2']:.1f}, the same loss without them "
        f"{board['single_1e-2_source']:.1f}"
    )
    yield f"{dusk['adabn']:.1f} where source-only has {dusk['source_only']:.1f}"


def day_and_dusk():
    runs = read_results(RESULTS / "camvid_seeds.unfinished.jsonl")
    of, board = methods("camvid_seeds.unfinished.jsonl"), standings(runs).set_index("method")
    miou, gap = (board[column].round(1) for column in ("mIoU", "gap"))
    above = board["source_only"].map("{:+.1f}".format)
    seen = class_scores(of).map("{:.0f}".format)
    turn = lambda name: f"{seen.loc['source_only', name]} to {seen.loc['selftrain_both', name]}"
    lost = regrets(runs).set_index("rule")["regret"].map("{:.1f}".format)
    yield (
        f"By day the source-only network has {score(of['source_only'], 'camvid_day/val'):.1f} mIoU; at dusk it falls "
        f"to {miou['source_only']}, where the oracle has {miou[ORACLE]}"
    )
    yield f"`fda` is {above['fda']} points above source-only, {gap['fda']:.0f}% of the gap"
    yield f"`adabn` {above['adabn']}"
    yield (
        f"{above['selftrain_both']} in the mean: road goes from {turn('road')}, pavement from "
        f"{turn('pavement')}, sky from "
        f"{turn('sky')}, but tree falls from {turn('tree')}, bicyclist from {turn('bicyclist')}, sign from "
        f"{turn('sign')} and pole from {turn('pole')}"
    )
    yield (
        f"`entropy` loses {lost['entropy']} points, `information` {lost['information']}, `density` {lost['density']} "
        f"and `agreement` {lost['agreement']}"
    )


PAGES = {
    "nbs/tutorials/camvid.ipynb": (day_and_dusk,),
    "README.md": (streets, weights, dusk, drawn_to_real, few_labels),
    "nbs/explanation/adversarial.ipynb": (adversarial,),
    "nbs/explanation/choosing.md": (choices,),
    "nbs/explanation/batch_norm.md": (statistics,),
}


@pytest.mark.parametrize("name, claims", [(name, c) for name, of in PAGES.items() for c in of])
def test_pages_say_what_was_measured(name, claims):
    text = page(name)
    for claim in claims():
        assert claim in text, f"{name}: expected {claim!r}"
