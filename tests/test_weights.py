"""Weight files of every kind, made here from the names and shapes that the kinds are known by; what is no weight file;
and downloads.
"""

import hashlib
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models import get_model

from adaptseg.base.downloads import fetch
from adaptseg.evaluation.predict import Predictor
from adaptseg.datasets.labels import CAMVID11, CITYSCAPES19, SYNTHIA13, SYNTHIA16, ClassSet
from adaptseg.runs.config import make_config
from adaptseg.training.trainer import initial_weights, make_network, settle
from adaptseg.networks.backbones import build_network
from adaptseg.networks.weights import convert, diagnose, diagnose_state, load_weights, locate, open_network

WIDTH, BLOCKS = 8, (3, 4, 23, 3)


def names_and_shapes(width=WIDTH, heads=(("layer5", 16), ("layer6", 32)), n_classes=19):
    "The reference's state dict as FACTS describes it: name -> shape."
    bn = lambda name, n: {f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")}
    out, n_in = {"conv1.weight": (width, 3, 7, 7), **bn("bn1", width)}, width
    for stage, n in enumerate(BLOCKS):
        planes = width * 2**stage
        for block in range(n):
            at = f"layer{stage + 1}.{block}"
            for conv, shape in (
                ("1", (planes, n_in, 1, 1)),
                ("2", (planes, planes, 3, 3)),
                ("3", (4 * planes, planes, 1, 1)),
            ):
                out |= {f"{at}.conv{conv}.weight": shape, **bn(f"{at}.bn{conv}", shape[0])}
            if not block:
                out |= {f"{at}.downsample.0.weight": (4 * planes, n_in, 1, 1), **bn(f"{at}.downsample.1", 4 * planes)}
            n_in = 4 * planes
    for head, factor in heads:
        for i in range(4):
            out |= {
                f"{head}.conv2d_list.{i}.weight": (n_classes, factor * width, 3, 3),
                f"{head}.conv2d_list.{i}.bias": (n_classes,),
            }
    return out


def filled(shapes, seed=0):
    g = torch.Generator().manual_seed(seed)
    make = lambda name, shape: (
        torch.rand(shape, generator=g) + 0.5
        if name.endswith(("running_var", "bn1.weight"))
        else 0.2 * torch.randn(shape, generator=g) / (1 if len(shape) < 2 else shape[1] ** 0.5)
    )
    return {name: make(name, shape) for name, shape in shapes.items()}


def reference_forward(s, x, branches=2, stages=(1, 2, 3, 4)):
    """The reference's network, written with functions from its state dict: stride on the first 1x1, stages 3 and 4
    dilated, two branches summed.
    """
    conv = lambda x, name, **kw: F.conv2d(x, s[f"{name}.weight"], **kw)
    norm = lambda x, name: F.batch_norm(
        x, s[f"{name}.running_mean"], s[f"{name}.running_var"], s[f"{name}.weight"], s[f"{name}.bias"]
    )
    x = F.max_pool2d(F.relu(norm(conv(x, "conv1", stride=2, padding=3), "bn1")), 3, 2, 1, ceil_mode=True)
    out = {}
    for stage in stages:
        for block in range(BLOCKS[stage - 1]):
            at, stride, d = f"layer{stage}.{block}", 2 if stage == 2 and not block else 1, {3: 2, 4: 4}.get(stage, 1)
            y = F.relu(norm(conv(x, f"{at}.conv1", stride=stride), f"{at}.bn1"))
            y = F.relu(norm(conv(y, f"{at}.conv2", padding=d, dilation=d), f"{at}.bn2"))
            y = norm(conv(y, f"{at}.conv3"), f"{at}.bn3")
            x = F.relu(y + (x if block else norm(conv(x, f"{at}.downsample.0", stride=stride), f"{at}.downsample.1")))
        out[stage] = x
    head = lambda x, name: sum(
        F.conv2d(x, s[f"{name}.conv2d_list.{i}.weight"], s[f"{name}.conv2d_list.{i}.bias"], padding=d, dilation=d)
        for i, d in zip(range(branches), (6, 12, 18, 24))
    )
    return {
        name: head(out[stage], name)
        for name, stage in (("layer5", 3 if "layer6.conv2d_list.0.weight" in s else 4), ("layer6", 4))
        if f"{name}.conv2d_list.0.weight" in s
    }


def saved(path, state, **wrap):
    torch.save(wrap and {**wrap, "state_dict": state} or state, path)
    return path


def image(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("prefix, wrap", [("", {}), ("module.", {}), ("", {"iteration": 5})])
def test_reference_checkpoint(tmp_path, prefix, wrap):
    state = filled(names_and_shapes())
    path = saved(tmp_path / "GTA5_50000.pth", {prefix + k: v for k, v in state.items()}, **wrap)
    found = diagnose(path)
    assert (found.kind, found.backbone, found.width, found.levels, found.n_classes) == (
        "reference",
        "resnet101",
        WIDTH,
        2,
        19,
    )
    assert (found.aspp_branches, found.preprocessing, found.classes.names) == (2, "caffe", CITYSCAPES19.names)
    model, classes, head = open_network(path)
    x = image(65, 97)
    with torch.no_grad():
        ours = dict(zip(("layer5", "layer6"), model(x)))
    for name, theirs in reference_forward(state, x).items():
        torch.testing.assert_close(ours[name], theirs, rtol=1e-4, atol=1e-5)
    report = load_weights(model, found, classes)
    assert set(report.loaded) == set(state) and report.new == () and report.dropped == {}


def test_full_size_names_and_shapes():
    with torch.device("meta"):
        ours = build_network("resnet101", 19, branches=2).state_dict()
    assert {k: tuple(v.shape) for k, v in ours.items() if not k.endswith("num_batches_tracked")} == names_and_shapes(64)


def test_single_head_reference(tmp_path):
    state = filled(names_and_shapes(heads=(("layer5", 32),)))
    model, _, head = open_network(saved(tmp_path / "single.pth", state))
    assert diagnose(tmp_path / "single.pth").kind == "reference_single" and head["network"]["levels"] == 1
    x = image(65, 65)
    with torch.no_grad():
        none, ours = model(x)
    torch.testing.assert_close(ours, reference_forward(state, x)["layer5"], rtol=1e-4, atol=1e-5)
    assert none is None


def test_vgg_reference(tmp_path):
    at = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)
    n = [WIDTH * f for f in (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8, 16, 16)]
    shapes = {
        f"features.{i}.{k}": s for i, a, b in zip(at, [3, *n], n) for k, s in (("weight", (b, a, 3, 3)), ("bias", (b,)))
    }
    shapes |= {
        f"classifier.conv2d_list.{i}.{k}": s
        for i in range(4)
        for k, s in (("weight", (19, 16 * WIDTH, 3, 3)), ("bias", (19,)))
    }
    state = filled(shapes)
    model, _, head = open_network(saved(tmp_path / "vgg.pth", state))
    y = x = image(64, 80)
    for i in at:
        d = 4 if i > 28 else 2 if i > 21 else 1
        if i in (5, 10, 17):
            y = F.max_pool2d(y, 2)
        y = F.relu(F.conv2d(y, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=d, dilation=d))
    theirs = sum(
        F.conv2d(
            y,
            state[f"classifier.conv2d_list.{i}.weight"],
            state[f"classifier.conv2d_list.{i}.bias"],
            padding=d,
            dilation=d,
        )
        for i, d in ((0, 6), (1, 12))
    )
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1], theirs, rtol=1e-4, atol=1e-5)
    assert (diagnose(tmp_path / "vgg.pth").kind, head["preprocessing"]) == ("reference_vgg", "caffe")


def test_deeplab_initialisation_keeps_the_body_and_drops_the_heads(tmp_path):
    state = filled(names_and_shapes(heads=(("layer5", 32),), n_classes=21))
    found = diagnose(saved(tmp_path / "init.pth", {f"Scale.{k}": v for k, v in state.items()}))
    assert (found.kind, found.levels, found.preprocessing, found.aspp_branches) == ("deeplab_init", None, "caffe", None)
    net = build_network("resnet101", 19, width=WIDTH, levels=2)
    drawn = net.layer6.conv2d_list[0].weight.clone()
    report = load_weights(net, found, CITYSCAPES19)
    body, heads = ({k for k in state if k.startswith("layer5") == is_head} for is_head in (False, True))
    assert (
        set(report.loaded) == body
        and set(report.dropped) == heads
        and {k.split(".")[0] for k in report.new} == {"layer5", "layer6"}
    )
    assert torch.equal(net.layer6.conv2d_list[0].weight, drawn) and torch.equal(
        net.layer4[2].conv3.weight, state["layer4.2.conv3.weight"]
    )
    assert "another task" in str(report)
    with pytest.raises(ValueError, match="no head"):
        open_network(tmp_path / "init.pth")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_resnet(tmp_path, name):
    theirs = get_model(name, weights=None).eval()
    found = diagnose(saved(tmp_path / "imagenet.pth", theirs.state_dict()))
    assert (found.kind, found.backbone, found.preprocessing) == ("torchvision_resnet", name, "imagenet") and set(
        found.dropped
    ) == {"fc.weight", "fc.bias"}
    ours = build_network(name, 19, stride_in_3x3=True).eval()
    report = load_weights(ours, found, CITYSCAPES19)
    assert {k.split(".")[0] for k in report.new} == {"layer5", "layer6"} and len(report.loaded) == len(
        theirs.state_dict()
    ) - 2
    x = image(65, 65)  # a size at which the pooling's ceil_mode makes no difference
    stem = lambda net, x: net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
    with torch.no_grad():
        torch.testing.assert_close(stem(ours.double(), x.double()), stem(theirs.double(), x.double()))
    for k in report.loaded:
        assert torch.equal(ours.state_dict()[k], theirs.state_dict()[k])


def test_torchvision_vgg(tmp_path):
    theirs = get_model("vgg16", weights=None).eval()
    found = diagnose(saved(tmp_path / "vgg16.pth", theirs.state_dict()))
    ours = build_network("vgg16", 19).eval()
    report = load_weights(ours, found, CITYSCAPES19)
    assert {k.rsplit(".", 1)[0] for k in report.new if k.startswith("features")} == {
        "features.29",
        "features.31",
    } and all(k.startswith("classifier") for k in report.dropped)
    assert torch.equal(ours.features[27].weight, theirs.features[28].weight)
    x = image(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.features[:23](x), theirs.features[:23](x))


def test_classes_change_by_name(tmp_path):
    state = filled(names_and_shapes())
    found = diagnose(saved(tmp_path / "w.pth", state))
    net = build_network("resnet101", 16, width=WIDTH, branches=2)
    report = load_weights(net, found, SYNTHIA16)
    rows = [CITYSCAPES19.index(n) for n in SYNTHIA16.names]
    assert torch.equal(
        net.layer6.conv2d_list[1].weight, state["layer6.conv2d_list.1.weight"][rows]
    ) and "16 of 16 classes by name" in str(report)
    net = build_network("resnet101", 11, width=WIDTH, branches=2)
    drawn = net.layer6.conv2d_list[0].weight.clone()
    load_weights(net, found, CAMVID11)
    for n in CAMVID11.names:
        here = net.layer6.conv2d_list[0].weight[CAMVID11.index(n)]
        there = (
            state["layer6.conv2d_list.0.weight"][CITYSCAPES19.index(n)]
            if n in CITYSCAPES19.names
            else drawn[CAMVID11.index(n)]
        )
        assert torch.equal(here, there), n


def test_training_takes_what_the_file_needs(tmp_path):
    path = saved(tmp_path / "w.pth", filled(names_and_shapes()))
    cfg = make_config("tsai2018", init=str(path), width=WIDTH)
    settled = settle(cfg, initial_weights(cfg))
    assert (settled.aspp_branches, settled.preprocessing) == (2, "caffe")
    net = make_network(cfg, CITYSCAPES19)
    assert net.layer6.branches == 2 and not net.stride_in_3x3
    assert Predictor.load(path).mode == "caffe"


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_a_pickle_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"conv1.weight": Runs(marker)}, tmp_path / "zip.pth")
    torch.save({"conv1.weight": Runs(marker)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Runs(marker)))
    for name in ("zip", "legacy", "bare"):
        with pytest.raises(ValueError, match="not run|no file that torch.save wrote"):
            diagnose(tmp_path / f"{name}.pth")
    assert not marker.exists()


@pytest.mark.parametrize(
    "kind, words",
    [
        ("empty", "is empty"),
        ("html", "web page"),
        ("half", "completely"),
        ("legacy_half", "damaged|completely"),
        ("vit", "not known here"),
        ("list", "expected a state dict"),
        ("nan", "no numbers"),
        ("none", "no weight file"),
        ("safetensors", "no readable safetensors"),
        ("deep", r"found Bottlenecks \(3, 4, 30, 3\)"),
    ],
)
def test_wrong_files_say_what_they_are(tmp_path, kind, words):
    state, path = filled(names_and_shapes()), tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "empty":
        path.touch()
    if kind == "html":
        path.write_text("\n<html><body>Sign in</body></html>")
    if kind == "half":
        saved(path, state)
        os.truncate(path, path.stat().st_size // 2)
    if kind == "legacy_half":
        torch.save(state, path, _use_new_zipfile_serialization=False)
        os.truncate(path, path.stat().st_size // 2)
    if kind == "vit":
        saved(path, {"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)})
    if kind == "list":
        torch.save([1, 2, 3], path)
    if kind == "nan":
        saved(path, {**state, "bn1.running_mean": torch.full((WIDTH,), float("nan"))})
    if kind == "safetensors":
        save_file({"a": torch.zeros(100)}, path)
        os.truncate(path, 200)
    if kind == "deep":
        saved(path, state | {f"layer3.{i}.conv1.weight": torch.zeros(1) for i in range(30)})
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        diagnose(path)


def test_another_network_changes_nothing(tmp_path):
    found = diagnose(saved(tmp_path / "w.pth", filled(names_and_shapes())))
    for other in (
        build_network("resnet18", 19, width=WIDTH),
        build_network("resnet101", 19, width=16),
        build_network("vgg16", 19, width=WIDTH),
    ):
        before = {k: v.clone() for k, v in other.state_dict().items()}
        with pytest.raises(ValueError, match="another one"):
            load_weights(other, found, CITYSCAPES19)
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_link_is_fetched_once_and_a_dead_one_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    saved(tmp_path / "served/w.pth", filled(names_and_shapes()))
    (tmp_path / "served/page.pth").write_text("<!doctype html><p>404")
    quiet = type(
        "Quiet",
        (SimpleHTTPRequestHandler,),
        {
            "log_message": lambda *a: None,
            "__init__": lambda self, *a: SimpleHTTPRequestHandler.__init__(self, *a, directory=tmp_path / "served"),
        },
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("ADAPTSEG_WEIGHTS", str(tmp_path / "here"))
    assert diagnose(locate(f"{url}/w.pth")).kind == "reference"
    with pytest.raises(ValueError, match="web page"):
        diagnose(locate(f"{url}/page.pth"))
    with pytest.raises(FileNotFoundError, match="put it at .*gone.pth"):
        locate(f"{url}/gone.pth")
    server.shutdown()
    assert locate(f"{url}/w.pth").is_file(), "what is there is not asked for again"
    monkeypatch.setattr("adaptseg.networks.weights.RELEASED", {"dead": "http://127.0.0.1:9/m-ed35151c.pth"})
    with pytest.raises(FileNotFoundError, match="SHA-256 begins with ed35151c"):
        locate("dead")


HEAD_NAMES = {
    f"{head}.conv2d_list.{i}.{k}" for head in ("layer5", "layer6") for i in range(4) for k in ("weight", "bias")
}


def of(head):
    return {k for k in HEAD_NAMES if k.startswith(head)}


@pytest.fixture(scope="module")
def two_heads():
    return diagnose_state(filled(names_and_shapes()))


def test_real_file_of_full_size(tmp_path):
    state = {k: torch.full(shape, 0.5) for k, shape in names_and_shapes(64).items()}
    body = sum(v.numel() for k, v in get_model("resnet101", weights=None).named_parameters() if not k.startswith("fc."))
    assert len(state) == 536 and sum(v.numel() for k, v in state.items() if "running" not in k) == body + 4 * 19 * (
        9 * 1024 + 1
    ) + 4 * 19 * (9 * 2048 + 1)
    found = diagnose(saved(tmp_path / "w.pth", {f"module.{k}": v for k, v in state.items()}))
    report = load_weights(build_network("resnet101", 19, branches=2), found, CITYSCAPES19)
    assert (set(report.loaded), report.new, report.dropped) == (set(state), (), {}) and "loaded 536" in str(report)


@torch.no_grad()
def test_torchvision_dilated_stages_agree():
    """torchvision gives a dilated stage's first block the dilation before it; once that is changed, all four stages are
    the same.
    """
    theirs = get_model("resnet50", weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    for block, d in ((theirs.layer3[0], (2, 2)), (theirs.layer4[0], (4, 4))):
        block.conv2.dilation = block.conv2.padding = d
    ours = build_network("resnet50", 19, stride_in_3x3=True).eval()
    load_weights(ours, diagnose_state(theirs.state_dict()), CITYSCAPES19)
    a = b = image(65, 97).double()
    for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        a, b = getattr(ours, part).double()(a), getattr(theirs, part).double()(b)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("heads", [(("layer5", 16), ("layer6", 32)), (("layer5", 32),)], ids=("two", "one"))
@torch.no_grad()
def test_conversion_changes_no_output(tmp_path, heads):
    path = saved(tmp_path / "w.pth", filled(names_and_shapes(heads=heads, n_classes=13)))
    out = convert(path, tmp_path / "weights.safetensors")
    (theirs, classes, head), (ours, same_classes, same_head) = open_network(path), open_network(tmp_path)
    assert (
        diagnose(out).kind == "kit"
        and classes == same_classes == SYNTHIA13
        and same_head == json.loads(json.dumps(head))
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pth", "weights.safetensors"]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(theirs(image(65, 97)), ours(image(65, 97))))


def test_heads_may_differ_in_number(two_heads):
    one = diagnose_state(filled(names_and_shapes(heads=(("layer5", 32),))))
    report = load_weights(build_network("resnet101", 19, width=WIDTH, levels=2), one, CITYSCAPES19)
    assert (set(report.new), report.dropped) == (of("layer5"), {})
    report = load_weights(build_network("resnet101", 19, width=WIDTH, levels=1), two_heads, CITYSCAPES19)
    assert report.new == () and set(report.dropped) == of("layer5")


def test_classes_without_names(tmp_path):
    "The same count is taken on trust, and said to be; another count leaves the heads as drawn."
    found = diagnose(saved(tmp_path / "w.pth", filled(names_and_shapes(n_classes=11))))
    report = load_weights(build_network("resnet101", 11, width=WIDTH), found, CAMVID11)
    assert found.classes is None and report.new == () and str(report).count("on trust") == 2
    report = load_weights(build_network("resnet101", 19, width=WIDTH), found, CITYSCAPES19)
    assert set(report.new) == set(report.dropped) == HEAD_NAMES
    with pytest.raises(ValueError, match="11 classes without names"):
        open_network(tmp_path / "w.pth")


def test_no_class_in_common(two_heads):
    things = ClassSet("things", tuple(f"thing {i}" for i in range(19)), CITYSCAPES19.colours)
    report = load_weights(build_network("resnet101", 19, width=WIDTH), two_heads, things)
    assert set(report.new) == set(report.dropped) == HEAD_NAMES


@pytest.mark.parametrize(
    "other",
    [dict(backbone="resnet50"), dict(backbone="resnet18"), dict(width=16), dict(backbone="vgg16", levels=1)],
    ids=str,
)
@pytest.mark.parametrize("classes", [CITYSCAPES19, SYNTHIA16], ids=lambda c: c.name)
def test_a_shallower_network_is_another_one_too(two_heads, other, classes):
    net = build_network(**{"backbone": "resnet101", "width": WIDTH, "n_classes": len(classes)} | other)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match="another one .resnet101 8 wide"):
        load_weights(net, two_heads, classes)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    "name", ["resnet34", "resnet152", "wide_resnet50_2", "resnext50_32x4d", "vgg13", "vgg16_bn", "vgg19"]
)
def test_relatives_are_not_mistaken(name):
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in get_model(name, weights=None).state_dict().items()}
    own = build_network("vgg16", 19) if name.startswith("vgg") else build_network("resnet50", 19)
    with pytest.raises(ValueError, match="not known here|expected a ResNet|another one"):
        load_weights(own, diagnose_state({k: torch.zeros(()).expand(s) for k, s in shapes.items()}), CITYSCAPES19)


@pytest.mark.parametrize("content", [bytes(range(7, 256)) * 20, b"just some text", b"%PDF-1.4"])
def test_noise_is_not_called_a_pickle(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match="is no weight file"):
        diagnose(tmp_path / "w.pth")


def test_a_head_must_be_whole_to_segment(tmp_path):
    state = filled(names_and_shapes())
    del state["layer6.conv2d_list.1.weight"]
    with pytest.raises(ValueError, match="layer6.conv2d_list.1.weight"):
        open_network(saved(tmp_path / "w.pth", state))
    with pytest.raises(ValueError, match="one class count"):
        diagnose_state(filled(names_and_shapes()) | {"layer6.conv2d_list.1.bias": torch.zeros(5)})


CONTENT = bytes(range(256)) * 4000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Moody(BaseHTTPRequestHandler):
    """The address says how it answers: /good, /broken (stops half-way, once), /norange (the same, and cannot go on),
    /gone.
    """

    def do_GET(self):
        manner, wanted = self.path.split("/")[1], self.headers.get("Range")
        self.server.asked.append(wanted)
        if manner == "gone":
            return self.send_error(404)
        start = int(wanted[6:-1]) if wanted and manner != "norange" else 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if manner == "good" or len(self.server.asked) > 1 else body[: len(CONTENT) // 2])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    server.asked, server.at = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


def visible(folder):
    "What a person sees there: a lock's file stays, hidden, since somebody else may wait on it."
    return [p for p in folder.iterdir() if not p.name.startswith(".")]


@pytest.mark.parametrize(
    "manner, again", [("broken", f"bytes={len(CONTENT) // 2}-"), ("norange", f"bytes={len(CONTENT) // 2}-")]
)
def test_an_interrupted_download(tmp_path, server, manner, again):
    get = lambda: fetch(f"{server.at}/{manner}/w-{SHA[:8]}.pth", tmp_path / "kept", progress=False)
    with pytest.raises(FileNotFoundError, match="calling again goes on"):
        get()
    assert [p.suffix for p in visible(tmp_path / "kept")] == [".part"]
    assert get().read_bytes() == CONTENT and get().name == f"w-{SHA[:8]}.pth"
    assert server.asked == [None, again] and len(visible(tmp_path / "kept")) == 1


def test_two_at_once_download_once(tmp_path, server):
    get = lambda _: fetch(f"{server.at}/good/w-{SHA[:8]}.pth", tmp_path / "kept", progress=False).read_bytes()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(get, range(2))) == [CONTENT] * 2
    assert server.asked == [None] and len(visible(tmp_path / "kept")) == 1


@pytest.mark.parametrize("name, sha256", [("w-0123abcd.pth", None), ("w.pth", "0" * 64)])
def test_a_wrong_hash_leaves_nothing(tmp_path, server, name, sha256):
    with pytest.raises(ValueError, match=f"{sha256 or '0123abcd'}.*found {SHA[:8]}"):
        fetch(f"{server.at}/good/{name}", tmp_path / "kept", sha256, progress=False)
    assert not visible(tmp_path / "kept")
    path = fetch(f"{server.at}/good/own", tmp_path / "kept", SHA, "own.pth", progress=False)
    path.write_bytes(b"changed")
    with pytest.raises(ValueError, match=SHA):
        fetch(f"{server.at}/good/own", tmp_path / "kept", SHA, "own.pth", progress=False)


@pytest.mark.parametrize(
    "url",
    ["{at}/gone/w-0123abcd.pth", "http://127.0.0.1:9/w-0123abcd.pth", "http://nowhere.invalid/w-0123abcd.pth"],
    ids=["404", "refused", "no such host"],
)
def test_a_dead_link_says_where_the_file_belongs(tmp_path, server, url):
    with pytest.raises(
        FileNotFoundError, match=f"issue tracker.*{tmp_path / 'w-0123abcd.pth'}; its SHA-256 begins with 0123abcd"
    ):
        fetch(url.format(at=server.at), tmp_path, progress=False)


PREFIXES = ("_orig_mod.", "model.", "net.", "model.encoder.", "backbone.", "module._orig_mod.", "encoder.module.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrap", [None, "model", "ema", "state_dict"])
def test_prefixes_and_wrappers(tmp_path, prefix, wrap):
    own = get_model("resnet18", weights=None).state_dict()
    state = {prefix + k: v for k, v in own.items()}
    torch.save({wrap: state, "epoch": 7, "optimizer": {"state": {0: {}}}} if wrap else state, tmp_path / "a.pth")
    found = diagnose(tmp_path / "a.pth")
    assert found.kind == "torchvision_resnet" and all(torch.equal(found.tensors[k], own[k]) for k in found.tensors)
    assert len(found.tensors) == len(own) - 2


def test_several_networks_in_one_file(tmp_path):
    first, second = (get_model("resnet18", weights=None).state_dict() for _ in range(2))
    torch.save(dict(model=first, teacher=second), tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"several networks \(model, teacher\): say which, such as .*two.pth#teacher"):
        diagnose(tmp_path / "two.pth")
    key = "layer1.0.conv1.weight"
    for part, state in (("model", first), ("teacher", second)):
        assert torch.equal(diagnose(f"{tmp_path}/two.pth#{part}").tensors[key], state[key])
    with pytest.raises(ValueError, match="no network called 'ema', but model, teacher"):
        diagnose(f"{tmp_path}/two.pth#ema")
    with pytest.raises(FileNotFoundError, match="none.pth"):
        diagnose(f"{tmp_path}/none.pth#ema")


def test_kind_by_content_not_by_ending(tmp_path):
    state = get_model("resnet18", weights=None).state_dict()
    for name in ("a.SAFETENSORS", "b.pth", "c.bin"):
        save_file(state, tmp_path / name)
    for name in ("d.safetensors", "e.tar", "f.ckpt"):
        torch.save(state, tmp_path / name)
    for path in tmp_path.iterdir():
        assert diagnose(path).kind == "torchvision_resnet", path.name
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "program.pth"))
    with pytest.raises(ValueError, match="is a TorchScript program.*state dict"):
        diagnose(tmp_path / "program.pth")
