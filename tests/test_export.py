"""A network in a file that needs nothing of this kit: read as others read it, with preprocessing by hand."""

import builtins
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from adaptseg.core import Predictor
from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.evaluation.export import export
from adaptseg.networks.backbones import build_network, find_backbone
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.runs.config import make_config
from inside import adaptseg

FAMILIES = {
    "resnet18": dict(width=8, preprocessing="caffe"),
    "vgg16": dict(width=8, method="adaptseg_single"),
    "efficientnet_lite0": dict(head="light"),
    "timm:convnext_atto": dict(head="light", method="adaptseg_single"),
    "timm:vit_tiny_patch16_224": dict(head="light"),
}


def weights(folder, backbone, **values):
    cfg = make_config("tiny", backbone=backbone, init="scratch", **values)
    torch.manual_seed(0)
    net = build_network(n_classes=19, **network_arguments(cfg))
    save_network(folder / "w.safetensors", net, cfg, CITYSCAPES19)
    return folder / "w.safetensors"


@pytest.fixture(scope="module")
def photograph():
    "Smooth colours, of the preset's input size."
    noise = np.random.default_rng(0).normal(0, 1, (64, 128, 3))
    smooth = gaussian_filter(noise, (6, 6, 0))
    return np.uint8(127 + 120 * smooth / abs(smooth).max())


@pytest.mark.parametrize("backbone", FAMILIES)
def test_others_read_what_the_predictor_says(backbone, photograph, tmp_path):
    path = weights(tmp_path, backbone, **FAMILIES[backbone])
    own = Predictor.load(path, device="cpu", precision="fp32")(Image.fromarray(photograph))
    x = np.float32(photograph).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(export(path, tmp_path / "net.onnx"))
    found = [session.run(None, {"image": x})[0]]
    if not find_backbone(backbone).encoder or backbone == "efficientnet_lite0":
        program = torch.export.load(export(path, tmp_path / "net.pt2")).module()
        found.append(program(torch.tensor(x)).detach().numpy())
    for logits in found:
        assert logits.shape == (1, 19, 64, 128)
        assert (logits[0].argmax(0) == own).mean() > 0.999
    assert {p.name for p in tmp_path.iterdir()} <= {"net.onnx", "net.pt2", "w.safetensors"}
    assert session.run(None, {"image": np.concatenate([x] * 3)})[0].shape[0] == 3
    facts = json.loads(session.get_modelmeta().custom_metadata_map["adaptseg"])
    assert facts["size"] == "128x64" and facts["classes"] == list(CITYSCAPES19.names)


def test_command_takes_another_size(tmp_path):
    path = weights(tmp_path, "resnet18", width=8)
    done = adaptseg("export", path, "--size", "96x96")
    assert done.returncode == 0 and "of the pixels in the same class" in done.stdout, done.stderr
    (image,) = onnx.load(tmp_path / "network.onnx").graph.input
    assert [d.dim_value for d in image.type.tensor_type.shape.dim][1:] == [3, 96, 96]


def test_what_stops_it_leaves_no_file(tmp_path, monkeypatch):
    path = weights(tmp_path, "resnet18", width=8)
    with pytest.raises(ValueError, match=".onnx, .pt2"):
        export(path, tmp_path / "net.tflite")
    with pytest.raises(ValueError, match="size such as"):
        export(path, tmp_path / "net.pt2", size="8x8")
    torch.save(build_network("resnet18", 19, width=8).state_dict(), tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:4000])
    with pytest.raises(ValueError, match="completely"):
        export(tmp_path / "half.pth", tmp_path / "net.pt2")
    known, absent = builtins.__import__, ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    def without(name, *args):
        if name == "onnxruntime":
            raise absent
        return known(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"onnxruntime: pip install 'adaptseg\[export\]'"):
        export(path, tmp_path / "net.onnx")
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half.pth", "w.safetensors"]
