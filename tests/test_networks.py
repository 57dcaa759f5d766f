"""Every family of networks as a run: trained, broken off, gone on with, loaded, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from adaptseg.core import Predictor, train
from adaptseg.datasets.labels import CITYSCAPES19, SYNTHIA16
from adaptseg.networks.backbones import BACKBONES, build_network, find_backbone
from adaptseg.networks.imagenet import package_state
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.networks.weights import diagnose, load_weights, open_network
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from inside import PowerCut

ROOT = Path(__file__).parents[1]
SLOW_RATES = dict(optimiser="adamw", lr=1e-4, schedule="linear", warmup=2, clip=1.0, layer_decay=0.9)
FAMILIES = {
    "resnet18": dict(width=8),
    "resnet50": dict(width=8, head="light", output_stride=32),
    "vgg16": dict(width=8, method="adaptseg_single"),
    "efficientnet_lite0": dict(head="light", width=64),
    "timm:convnext_atto": dict(head="light", width=64, **SLOW_RATES),
    "timm:vit_tiny_patch16_224": dict(head="light", width=64, checkpointing=True, **SLOW_RATES),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "samples"
    return write_samples(folder, size=(64, 128), n_gta5=(4, 1), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_family_trains_resumes_and_predicts(backbone, data, tmp_path):
    values = dict(
        source="gta5", target="cityscapes", data_root=str(data), backbone=backbone, precision="fp32", device="cpu"
    )
    values |= dict(init="scratch", choice_images=0)
    values |= FAMILIES[backbone]
    whole = train("tiny", out=str(tmp_path / "whole"), **values)
    with pytest.raises(RuntimeError, match="power cut"):
        train("tiny", out=str(tmp_path / "broken"), cbs=[PowerCut(3)], **values)
    again = train("tiny", out=str(tmp_path / "broken"), resume=True, **values)
    a, b = (load_file(run.path / "weights.safetensors") for run in (whole, again))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    start = build_network(n_classes=19, **diagnose(whole.path).head["network"])
    assert any(k.startswith("encoder.") for k in a) == (find_backbone(backbone).encoder is not None)
    assert sum(not torch.equal(a[k], v) for k, v in start.state_dict().items()) > len(a) / 2, "nothing was trained"
    labels = Predictor.load(whole.path)(Image.new("RGB", (150, 70), "grey"))
    assert labels.shape == (70, 150) and labels.max() < 19


def test_weights_of_a_package_start_a_run(data, tmp_path):
    values = dict(
        source="gta5", target="cityscapes", data_root=str(data), backbone="efficientnet_lite0", steps=1, val_every=1
    )
    run = train("tiny", out=str(tmp_path), init="imagenet", head="light", lr=1e-9, bn_affine=False, **values)
    assert run.config["preprocessing"] == "inception"
    trained, own = load_file(run.path / "weights.safetensors"), package_state("efficientnet_lite0")
    kept = [k for k in own if k.endswith("weight") and f"encoder.{k}" in trained]
    assert len(kept) > 90
    for k in kept:
        torch.testing.assert_close(trained[f"encoder.{k}"], own[k], atol=1e-6, rtol=0)


def test_a_file_for_any_encoder(tmp_path):
    "What timm saved, and what a trainer wrapped around it; a file of another encoder is refused."
    whole = timm.create_model("convnext_atto")
    torch.save({"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}}, tmp_path / "wrapped.pth")
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    for name in ("wrapped.pth", "timm.safetensors"):
        found = diagnose(tmp_path / name, "timm:convnext_atto")
        assert (found.kind, found.backbone, found.levels) == ("timm", "timm:convnext_atto", None)
        net = build_network("timm:convnext_atto", 19, head="light")
        report = load_weights(net, found, CITYSCAPES19)
        assert {k.split(".")[0] for k in report.new} == {"layer5", "layer6"}
        assert torch.equal(net.encoder.stem[0].weight, whole.stem[0].weight)
    with pytest.raises(ValueError, match="backbone=timm:NAME"):
        diagnose(tmp_path / "timm.safetensors")
    for other in ("timm:convnext_femto", "timm:vit_tiny_patch16_224"):
        with pytest.raises(ValueError, match=f"no weights of {other}"):
            diagnose(tmp_path / "timm.safetensors", other)


def test_offline_is_said_at_once(tmp_path):
    "One clear error, before half a minute is over, and what would work instead."
    code = (
        "import huggingface_hub, timm\n"  # seconds by themselves, on a busy machine many
        "from time import perf_counter as now\n"
        "from adaptseg.networks.weights import imagenet_weights as get\n"
        "start = now()\n"
        "try: get('timm:convnext_atto')\n"
        "except FileNotFoundError as e: print(e, now() - start)"
    )
    nowhere = {
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PATH": "/usr/bin",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, timeout=300)
    assert "init=FILE" in done.stdout and "backbone=efficientnet_lite0" in done.stdout, done.stderr
    assert float(done.stdout.split()[-1]) < 20


@pytest.mark.parametrize(
    "values, words",
    [
        (dict(backbone="resnet19"), "timm:NAME"),
        (dict(backbone="timm:resnet19"), "did you mean timm:resnet18"),
        (dict(backbone="vgg16", method="adaptseg_single", head="light"), "head: vgg16 has aspp, found light"),
        (dict(backbone="efficientnet_lite0", width=16), "width: efficientnet_lite0 has 64"),
        (dict(backbone="efficientnet_lite0", init="imagenet", preprocessing="imagenet"), "want inception"),
        (dict(backbone="timm:vit_tiny_patch16_224", method="adabn"), "has no batch norm"),
        (dict(warmup=100), "warmup: expected at most"),
        (dict(preprocessing="0.5/0.5"), "mean and deviation"),
        (dict(layer_decay=0), "layer_decay"),
    ],
)
def test_what_a_network_cannot_be(values, words):
    with pytest.raises(ValueError, match=words):
        make_config("tiny", **values)


def test_values_that_suit_the_presets_network_alone_are_left_out():
    "A preset's slim stem, head or stride does not stand in the way of another backbone."
    for preset in ("sample", "tiny", "camvid"):
        for backbone in (*BACKBONES, "timm:vit_tiny_patch16_224"):
            cfg = make_config(preset, backbone=backbone, method="source_only", init="scratch")
            known = find_backbone(backbone)
            assert known.width in (None, cfg.width) and cfg.head in known.heads


def test_a_head_of_its_kind_is_read_class_by_class(tmp_path):
    "A light head's own weights are kept where only the classes differ."
    torch.manual_seed(0)
    cfg = make_config("tiny", backbone="efficientnet_lite0", head="light", init="scratch")
    net = build_network(n_classes=19, **network_arguments(cfg))
    save_network(tmp_path / "w.safetensors", net, cfg, CITYSCAPES19)
    other = build_network("efficientnet_lite0", 16, head="light")
    load_weights(other, diagnose(tmp_path / "w.safetensors"), SYNTHIA16)
    assert torch.equal(other.layer6.mix[0].weight, net.layer6.mix[0].weight)
    rows = [CITYSCAPES19.names.index(n) for n in SYNTHIA16.names]
    assert torch.equal(other.layer6.classify.weight, net.layer6.classify.weight[rows])
    again, classes, head = open_network(tmp_path / "w.safetensors")
    assert classes == CITYSCAPES19 and head["network"]["head"] == "light"
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values()))
