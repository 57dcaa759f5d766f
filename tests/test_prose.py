"""What README and the pages say in words of the results is what the files in nbs/results hold."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adaptseg.reports.leaderboard import class_scores, regrets
from adaptseg.reports.standings import ORACLE, pairs_of, standings
from adaptseg.runs.config import EXPERIMENTS
from adaptseg.runs.record import read_results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "nbs" / "results"


def page(name):
    "The text of a page, with blanks for line ends."
    return " ".join((ROOT / name).read_text(encoding="utf8").replace("\\n", " ").split())


@cache
def results(file):
    return read_results(RESULTS / file)


def methods(file):
    "Runs of the one pair of a results file, by method."
    (found,) = pairs_of(results(file)).values()
    return found


@cache
def board(file):
    "Standings of its methods."
    return standings(results(file)).set_index("method")


def lost(file):
    "Regret of each label-free rule, as prose has it."
    return regrets(results(file)).set_index("rule")["regret"].map("{:.1f}".format)


def by_name(file):
    return {run.path.name: run for run in results(file)}


def score(runs, domain, key="miou"):
    "Mean over seeds, in percent."
    return 100 * np.mean([run.metrics[domain][key] for run in runs])


def iou(run, name):
    "Of a class on the target, in whole percent, as prose has it."
    return f"{100 * run.metrics[run.config['target'] + '/val']['iou'][name]:.0f}"


def streets():
    of, gaps, regret = methods("streets.jsonl"), board("streets.jsonl")["gap"], lost("streets.jsonl")
    selected = lambda name: f"{score(of[name], 'cityscapes/val', 'selected'):.1f}"
    at_home = lambda name: f"{score(of[name], 'gta5/val'):.1f}"
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
    yield f"`agreement` lost {regret['agreement']}, `information` {regret['information']}"
    yield f"{sum(run.minutes for run in results('streets.jsonl')) / 60:.1f} hours in all"


def dusk():
    of = {name: runs[0] for name, runs in methods("methods_camvid.jsonl").items()}
    tries = by_name("camvid_tries.jsonl")
    source, taught = of["source_only"], of["selftrain"]
    turn = lambda name: f"{iou(source, name)} to {iou(taught, name)}"
    back = lambda name: f"({turn(name)})"
    miou = lambda name: f"{score([tries[name]], 'camvid_dusk/val'):.1f}"
    balanced = tries["balanced-s0"]
    yield (
        f"road goes from {turn('road')} and pavement from {turn('pavement')}, above the oracle's "
        f"{iou(of[ORACLE], 'pavement')}, while tree {back('tree')}, bicyclist {back('bicyclist')}, sign "
        f"{back('sign')} and pole {back('pole')}"
    )
    yield (
        f"with rare classes drawn more often {miou('selftrain_rare-s0')}, with them, feature distance and masks "
        f"{miou('mic-s0')}. Nor do `fda`'s colours beside it, {miou('selftrain_fourier-s0')}, nor soft labels, "
        f"{miou('soft-s0')}"
    )
    yield (
        f"signs and poles stay ({iou(balanced, 'sign')} and {iou(balanced, 'pole')}), but road and pavement are not "
        f"won ({iou(balanced, 'road')} and {iou(balanced, 'pavement')}): {miou('balanced-s0')}"
    )
    yield (
        f"self-training has {miou('even-s0')} where `source_only` has {miou('even_source-s0')} and the oracle "
        f"{miou('even_oracle-s0')}"
    )
    yield f"gives {miou('class-s7')} after 500 steps, where `source_only` has {miou('source-s7')}"
    yield (
        f"give {miou('sourcefrozen-s7')} without adaptation and {miou('fdafrozen-s7')} with `fda`; with its statistics "
        f"moved to the target `fda` has {miou('fda-s7')}"
    )
    teacher = f"{score([tries['selftrain_both-s7']], 'camvid_dusk/val, teacher'):.1f}"
    yield (
        f"give {miou('selftrain_both-s7')}, its teacher {teacher}, where `source_only` has {miou('source_only-s7')}. "
        f"With `fda`'s colours beside it {miou('fdast_both-s7')}; with the target's statistics, but from the finished "
        f"source-only network and 500 steps more, {miou('warm-s7')}; `fda` with the source's statistics has "
        f"{miou('fda_source-s7')}"
    )
    seeds, gains = methods("camvid.jsonl"), board("camvid.jsonl")
    both, mean = gains.loc["selftrain_both"], lambda *where: f"{score(seeds['selftrain_both'], *where):.1f}"
    by_day = f"{score(seeds['source_only'], 'camvid_day/val'):.1f}"
    yield (
        f"self-training with both has {both['mIoU']:.1f} ± {both['std']:.1f}, its teacher (`RUN#teacher`) "
        f"{mean('camvid_dusk/val, teacher')}, where `source_only` has {gains['mIoU']['source_only']:.1f}: "
        f"{both['source_only']:.1f} points (95%: {both['source_only low']:+.1f} to {both['source_only high']:+.1f}), "
        f"{both['gap']:.0f}% of the gap; by day it loses nothing ({mean('camvid_day/val')}; {by_day})"
    )


def whose_statistics():
    alone, gains = methods("methods_camvid.jsonl")["selftrain"], board("camvid.jsonl")["mIoU"].round(1)
    yield (
        f"self-training has {score(alone, 'camvid_dusk/val'):.1f} (one seed), with those of source and mixture "
        f"together, as its authors' code has them, {gains['selftrain_both']}"
    )


def drawn_to_real():
    runs, gaps = by_name("synthetic.jsonl"), board("synthetic.jsonl")["gap"]
    source, taught, alone = (runs[f"{name}-s0"] for name in ("source_only", "fda+selftrain", "selftrain"))
    turn = lambda name: f"{iou(source, name)} to {iou(taught, name)}"
    selected = [f"{score([run], 'camvid_day/val', 'selected'):.1f}" for run in (source, taught)]
    yield f"wins {gaps['fda+selftrain']:.0f}% of it"
    yield (
        f"the IoU rises from {' to '.join(selected)} (car {turn('car')}, pedestrian {turn('pedestrian')}, bicyclist "
        f"{turn('bicyclist')}), building from {turn('building')}, pavement from {turn('pavement')}, tree from "
        f"{turn('tree')}, sign from {turn('sign')}; sky falls from {turn('sky')}, and of fences "
        f"({iou(source, 'fence')}) little is left ({iou(taught, 'fence')})"
    )
    yield f"pavement ({iou(alone, 'pavement')}), road ({iou(alone, 'road')}) and sky ({iou(alone, 'sky')}) pay for it"


def campus():
    scores = pd.read_csv(RESULTS / "experiments.csv").set_index(["method", "experiment"])
    columns = ["mIoU", "selected", "accuracy"]
    for name in EXPERIMENTS:
        shown = [f"{scores.loc[(method, name), c]:.1f}" for method in ("adaptseg_multi", "selftrain") for c in columns]
        yield f"| {' | '.join(shown)} |"
    of = {method: scores.loc[method] for method in ("adaptseg_multi", "selftrain")}
    above = (of["adaptseg_multi"] - of["adaptseg_multi"].loc["gta5_cityscapes"]).drop("gta5_cityscapes")
    more = (of["selftrain"] - of["adaptseg_multi"]).drop("gta5_cityscapes")
    alone = more.drop("gta5_cityscapes+iitk_scratch")["mIoU"]
    words = dict(
        enumerate("no one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split())
    )
    between = lambda column: f"{words[round(column.min())]} to {words[round(column.max())]}"
    yield (
        f"networks adapted to the campus are {between(above['mIoU'])} points above the one that is not, "
        f"on the selected objects {between(above['selected'])}"
    )
    yield f"has {between(alone)} points more where the campus is the only target"
    yield f"up to {words[round(-more['selected'].min())]} points less"


def few_labels():
    runs = results("labels_camvid.jsonl")
    named = lambda name: f"{score([r for r in runs if r.path.name.startswith(f'{name}-s')], 'camvid_dusk/val'):.1f}"
    yield (
        f"beside the source {named('source_labels4')} after 500 steps (three seeds), with none "
        f"{named('source_labels0')}, with none and `fda` {named('fda_labels0')}; with all 31 frames "
        f"{named('source_labelsall')}, and {named('alone_labelsall')} with these alone"
    )


def adversarial():
    table, regret = board("adversarial.jsonl"), lost("adversarial.jsonl")
    miou, above, gap = table["mIoU"].round(1), table["adabn"].round(1), table["gap"].map("{:.0f}%".format)
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
    best = table.drop(ORACLE)["gap"].idxmax()
    yield (
        f"wins {gap[best]} of the gap between `source_only` and the oracle, `adabn` {gap['adabn']}, and "
        f"self-training {board('streets.jsonl')['gap']['selftrain']:.0f}%"
    )
    yield (
        f"`entropy` loses {regret['entropy']} points, `information` {regret['information']}, `agreement` "
        f"{regret['agreement']} and `density` {regret['density']}"
    )
    of = methods("adversarial.jsonl")
    sure = [
        np.mean([r.history[-1]["entropy"] for r in of[k]]) for k in ("adaptseg_single", "single_1e-2", "single_1e-1")
    ]
    yield "with 0.001, 0.01 and 0.1 the entropy on the target is {:.3f}, {:.3f} and {:.3f}".format(*sure)


def weights():
    two = board("adversarial.jsonl").loc["multi_1e-2"]
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
        cells = lost(file)[["entropy", "information", "density", "agreement"]]
        yield f"| {label} | {' | '.join(cells)} |"


def statistics():
    miou, dusk = (board(file)["mIoU"] for file in ("adversarial.jsonl", "camvid.jsonl"))
    yield (
        f"source-only has {miou['source_only']:.1f} mIoU, statistics alone {miou['adabn']:.1f}, one level of an "
        f"adversarial loss on top {miou['single_1e-2']:.1f}, the same loss without them "
        f"{miou['single_1e-2_source']:.1f}"
    )
    yield f"{dusk['adabn']:.1f} where source-only has {dusk['source_only']:.1f}"
    mean = lambda run, domain: f"{score([run], domain):.1f}"
    both, alone = dusk["selftrain_both"], methods("methods_camvid.jsonl")["selftrain"][0]
    drawn = by_name("synthetic.jsonl")
    yield (
        f"At dusk that is better than the target's statistics alone ({both:.1f} rather than "
        f"{mean(alone, 'camvid_dusk/val')}"
    )
    yield (
        f"from drawn streets to photographs it is worse ({mean(drawn['selftrain_both-s0'], 'camvid_day/val')} rather "
        f"than {mean(drawn['selftrain-s0'], 'camvid_day/val')}, one seed"
    )


def day_and_dusk():
    file = "camvid.jsonl"
    of, table, regret = methods(file), board(file), lost(file)
    miou, gained, gap = table["mIoU"].round(1), table["source_only"].round(1), table["gap"].map("{:.0f}%".format)
    seen = class_scores(of).map("{:.0f}".format)
    turn = lambda name: f"{seen.loc['source_only', name]} to {seen.loc['selftrain_both', name]}"
    by_day = lambda name: f"{score(of[name], 'camvid_day/val'):.1f}"
    yield (
        f"By day the source-only network has {by_day('source_only')} mIoU; at dusk it falls to {miou['source_only']}, "
        f"where the oracle has {miou[ORACLE]}"
    )
    yield f"`fda` gains {gained['fda']} points on source-only, {gap['fda']} of the gap. `adabn` gains {gained['adabn']}"
    yield (
        f"it gains {gained['selftrain_both']} in the mean, {gap['selftrain_both']} of the gap: road goes from "
        f"{turn('road')}, pavement from {turn('pavement')}, sky from {turn('sky')}, but tree falls from "
        f"{turn('tree')}, bicyclist from {turn('bicyclist')}, sign from {turn('sign')} and pole from {turn('pole')}"
    )
    yield (
        f"it has {by_day('selftrain_both')}, source-only {by_day('source_only')}, `fda` {by_day('fda')} and `adabn` "
        f"{by_day('adabn')}"
    )
    (worst,) = set(regret)
    yield (
        f"all four scores take self-training, which is best, and of its three seeds the one that is worst: {worst} "
        f"points"
    )


PAGES = {
    "nbs/tutorials/camvid.ipynb": (day_and_dusk,),
    "nbs/explanation/dusk.ipynb": (dusk,),
    "README.md": (campus, streets, weights, whose_statistics, drawn_to_real, few_labels),
    "nbs/explanation/adversarial.ipynb": (adversarial,),
    "nbs/explanation/choosing.md": (choices,),
    "nbs/explanation/batch_norm.md": (statistics,),
}


@pytest.mark.parametrize("name, claims", [(name, c) for name, of in PAGES.items() for c in of])
def test_pages_say_what_was_measured(name, claims):
    text = page(name)
    for claim in claims():
        assert claim in text, f"{name}: expected {claim!r}"
