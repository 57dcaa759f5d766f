"""Every method trains a run, and those with a weight of 0 are the baseline to the last bit."""

import json

import pytest
import torch
from fastai.callback.core import Callback
from safetensors.torch import load_file

from adaptseg.cli import main
from adaptseg.datasets.labels import CITYSCAPES_IDS
from adaptseg.evaluation.predict import Predictor
from adaptseg.methods.registry import METHODS
from adaptseg.streets.samples import write_samples
from adaptseg.training.planner import step_bytes
from adaptseg.training.trainer import train
from adaptseg.runs.config import make_config
from inside import PowerCut

TOGETHER = ("adaptseg_multi+selftrain", "minent+fda")
SILENT = {  # method -> the values with which it does no more than let the statistics see the target
    "minent": dict(lambda_ent1=0, lambda_ent2=0),
    "maxsquare": dict(lambda_sq1=0, lambda_sq2=0),
    "advent": dict(lambda_adv1=0, lambda_adv2=0),
    "minent+adaptseg_multi": dict(lambda_ent1=0, lambda_ent2=0, lambda_adv1=0, lambda_adv2=0),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "samples"
    return write_samples(folder, size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")

    def run(method, name=None, **values):
        usual = dict(target="cityscapes", data_root=str(data), out=str(out), precision="fp32", device="cpu")
        values = {**usual, "choice_images": 0, **values}
        return train("tiny", method=method, name=name or method, overwrite=True, **values)

    return run


@pytest.mark.parametrize("method", [m for m in METHODS if "+" not in m] + list(TOGETHER))
def test_method_trains_a_run(method, trained):
    run = trained(method)
    own = [k for k in run.history[-1] if k.startswith("loss_") and not k.startswith("loss_seg")]
    assert bool(own) == (method not in ("source_only", "adabn", "fda")), "its losses are in the history"
    assert all(torch.isfinite(torch.tensor(run.history[-1][k])) for k in own)
    assert "cityscapes/val" in run.metrics and (run.path / "curves.png").is_file()


@pytest.mark.parametrize("method", ["adaptseg_multi", "adaptseg_multi+selftrain"])
def test_sixteen_bits_with_scaled_losses_follow_thirty_two(method, trained):
    values = dict(steps=6, lr=1e-4, log_every=6, val_every=6, source_size="64x32", target_size="64x32")
    rows = [trained(method, f"{method}-{p}", precision=p, **values).history[-1] for p in ("fp32", "fp16")]
    losses = [{k: float(v) for k, v in row.items() if k.startswith("loss_")} for row in rows]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


class LargeScale(Callback):
    "Losses are scaled so much that the first steps are left out, each with half the scale."

    order = 95  # when the scale is there

    def after_create(self):
        self.learn.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)


def test_sixteen_bits_go_on_after_a_power_cut(data, tmp_path):
    "The losses' scale is resumed, and all that is trained beside the network."
    values = dict(method="adaptseg_multi+selftrain", source="gta5", target="cityscapes", data_root=str(data))
    values |= dict(precision="fp16", device="cpu", source_size="64x32", target_size="64x32", choice_images=0)
    whole = train("tiny", out=str(tmp_path / "whole"), cbs=[LargeScale()], **values)
    with pytest.raises(RuntimeError, match="power cut"):
        train("tiny", out=str(tmp_path / "broken"), cbs=[LargeScale(), PowerCut(3)], **values)
    again = train("tiny", out=str(tmp_path / "broken"), cbs=[LargeScale()], resume=True, **values)
    files = sorted(p.name for p in whole.path.glob("*.safetensors"))
    assert files == ["discriminators.safetensors", "teacher.safetensors", "weights.safetensors"]
    for file in files:
        a, b = (load_file(run.path / file) for run in (whole, again))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("method", SILENT)
def test_without_weight_it_is_the_baseline(method, trained):
    silent, baseline = trained(method, f"silent-{method}", **SILENT[method]), trained("adabn", "baseline")
    a, b = (load_file(r.path / "weights.safetensors") for r in (silent, baseline))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "values",
    [
        dict(lambda_mask=1.0, mask_size=16),
        dict(soft=True, sure_per="batch", margin_top=0.1, margin_bottom=0.2),
        dict(lambda_fd=0.005),
        dict(rare_classes=0.1, fourier=0.01, balance=0.5, balance_mix=True),
        dict(accumulate=2, bn_stats="both"),
    ],
    ids=lambda v: "-".join(v),
)
def test_self_training_by_its_switches(values, trained):
    run = trained("selftrain", "switches", **values)
    columns = set(run.history[-1])
    assert {"loss_mix1", "loss_mix2", "sure", "taught"} <= columns
    assert ("loss_mask2" in columns) == ("lambda_mask" in values) and ("loss_fd" in columns) == ("lambda_fd" in values)


def test_teacher_is_kept_and_scored(trained):
    run = trained("selftrain", "kept")
    assert {"cityscapes/val", "cityscapes/val, teacher"} <= set(run.metrics)
    teacher, student = (Predictor.load(run.path / f"{name}.safetensors") for name in ("teacher", "weights"))
    states = (p.model.state_dict() for p in (teacher, student))
    assert any(not torch.equal(a, b) for a, b in zip(*(s.values() for s in states)))


def test_choose_says_what_each_score_would_take(trained, capsys):
    runs = [trained(m, f"choose-{m}", choice_images=2) for m in ("adabn", "minent")]
    main(["choose", str(runs[0].path.parent)])
    said = capsys.readouterr().out
    assert all(f"gta52cityscapes/{run.path.name}" in said for run in runs) and "regret" in said
    assert "silent" not in said, "runs that did not score themselves are left out"
    with pytest.raises(SystemExit, match="no finished run"):
        main(["choose", str(runs[0].path)])


def test_a_few_target_labels_join_the_source(trained, data, tmp_path):
    run = trained("adabn", "few", target_labels=2)
    assert set(run.config["fingerprints"]) >= {"gta5+cityscapes/train", "cityscapes/train"}
    alone = trained("source_only", "alone", source="cityscapes", target_labels=2)
    assert "cityscapes/train" in alone.config["fingerprints"]
    with pytest.raises(ValueError, match="1 to 4 labelled images, found 9"):
        trained("adabn", "too-many", target_labels=9)


def test_picked_frames_are_labelled_and_join(trained, data, tmp_path, capsys):
    "Four frames of a camera: two are worth labelling, get a label map each, and are trained on; the others need none."
    run = trained("adabn", "picker")
    camera = tmp_path / "camera"
    frames = sorted((data / "Cityscapes" / "leftImg8bit" / "train").rglob("*.png"))
    maps = sorted((data / "Cityscapes" / "gtFine" / "train").rglob("*labelIds.png"))
    for kind in ("images", "labels"):
        (camera / kind / "train").mkdir(parents=True)
    for i, frame in enumerate(frames):
        (camera / "images" / "train" / f"frame{i}.png").write_bytes(frame.read_bytes())
    rows = [f"{i},{name},0,0,{i}" for i, name in CITYSCAPES_IDS.ids.items() if i >= 0]
    (camera / "ids.csv").write_text("id,name,red,green,blue\n" + "\n".join(rows) + "\n")
    chosen = tmp_path / "lists" / "chosen.txt"
    domain = f"folder:{camera}"
    main(["pick", str(run.path), "--domain", domain, "--number", "2", "--rule", "uncertain", "--out", str(chosen)])
    assert "2 of 4 frames" in capsys.readouterr().out
    names = chosen.read_text().split()
    assert len(names) == 2
    for name in names:
        (camera / "labels" / "train" / f"{name}.png").write_bytes(maps[int(name.removeprefix("frame"))].read_bytes())
    values = dict(target=domain, target_labels=str(chosen), classes="cityscapes19")
    more = trained("adabn", "picked", **values)
    assert len(more.config["fingerprints"]) and "gta5+" in next(iter(more.config["fingerprints"]))
    with pytest.raises(ValueError, match="1 to 2 labelled images, found 3"):
        trained("adabn", "three", **{**values, "target_labels": "3"})
    with pytest.raises(SystemExit, match="coverage, uncertain"):
        main(["pick", str(run.path), "--domain", domain, "--rule", "best", "--out", str(chosen)])


def test_values_that_cannot_be_mixed_are_refused_at_the_door(trained):
    with pytest.raises(ValueError, match="both must be 128x64, found 64x64"):
        trained("selftrain", "sizes", target_size="64x64")
    with pytest.raises(ValueError, match="balance is 0"):
        trained("selftrain", "weights", balance_mix=True)


@pytest.mark.parametrize("method", ["selftrain", *TOGETHER])
def test_the_planner_knows_it(method):
    values = dict(target="cityscapes", precision="fp32", source_size="256x128", target_size="256x128")
    planned, alone = (step_bytes(make_config("sample", method=m, **values)) for m in (method, "source_only"))
    assert planned > alone


def test_classes_that_are_called_otherwise(data, tmp_path, capfd):
    "A game with Cityscapes' classes, a folder with CamVid's: the eleven of CamVid."
    folder = tmp_path / "harbour"
    for kind, source in (("images", "leftImg8bit"), ("labels", "gtFine")):
        for i, file in enumerate(sorted((data / "Cityscapes" / source / "val").rglob("*.png"))):
            (folder / kind / "val").mkdir(parents=True, exist_ok=True)
            (folder / kind / "train").mkdir(parents=True, exist_ok=True)
            for split in ("train", "val"):
                (folder / kind / split / f"{i}.png").write_bytes(file.read_bytes())
    names = {7: "road", 8: "pavement", 11: "building", 17: "pole", 21: "tree", 23: "sky", 24: "pedestrian", 26: "car"}
    rows = [f"{i},{names.get(i, '')},0,0,{i + 1}" for i in range(-1, 34)]
    (folder / "ids.csv").write_text("id,name,red,green,blue\n" + "\n".join(rows) + "\n")
    run = train(
        "tiny",
        method="source_only",
        target=f"folder:{folder}",
        classes="camvid11",
        data_root=str(data),
        out=str(tmp_path / "runs"),
        choice_images=0,
        device="cpu",
    )
    said = capfd.readouterr().out
    assert "pedestrian = person" in said and "it has no sign, fence, bicyclist" in said
    scores = next(s for where, s in run.metrics.items() if "harbour" in where)
    assert {k for k, v in scores["iou"].items() if v is not None} >= {"road", "car"}
    assert json.loads((run.path / "config.json").read_text())["classes_used"] == "camvid11"
