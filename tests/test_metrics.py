"""Confusion matrices and scores against torchmetrics and the official Cityscapes evaluation."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.torch_core import to_detach
from PIL import Image

from adaptseg.datasets.labels import CITYSCAPES19, CITYSCAPES_IDS, IGNORE, SYNTHIA13, SYNTHIA16, ClassSet
from adaptseg.evaluation.metrics import (
    ConfusionMetric,
    confusion_matrix,
    iou,
    mean_iou,
    pixel_accuracy,
    protocol_miou,
    scores,
    segmentation_metrics,
)


def random_maps(seed, n_classes=19, shape=(3, 48, 64), present=None, right=0.6):
    "A label map with ignored pixels and a prediction that is often right."
    rng = np.random.RandomState(seed)
    label = rng.choice(present if present is not None else n_classes, shape)
    pred = np.where(rng.rand(*shape) < right, label, rng.randint(0, n_classes, shape))
    label[rng.rand(*shape) < 0.1] = IGNORE
    return torch.tensor(pred), torch.tensor(label)


@pytest.mark.parametrize("n_classes", [2, 11, 19, 254])
@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics(n_classes, seed):
    from torchmetrics.classification import MulticlassConfusionMatrix

    pred, label = random_maps(seed, n_classes)
    reference = MulticlassConfusionMatrix(n_classes, ignore_index=IGNORE)
    matrix = confusion_matrix(pred, label, n_classes)
    assert torch.equal(matrix, reference(pred, label)) and matrix.dtype == torch.int64
    assert int(matrix.sum()) == int((label != IGNORE).sum())


@pytest.mark.parametrize("present", [None, (0, 1, 2, 13), (5,)])
def test_equals_the_official_cityscapes_evaluation(tmp_path, present):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    args = official.CArgs()
    args.__dict__.update(vars(official.args), evalInstLevelScore=False, JSONOutput=False, quiet=True)
    pred, label = random_maps(4, present=present, right=0.9)
    if present:
        pred = torch.where(
            torch.isin(pred, torch.tensor((*present, 7))), pred, present[0]
        )  # 7 is predicted, never true; others are absent
    rng, files = np.random.RandomState(5), ([], [])
    for i, (p, l) in enumerate(zip(pred, label)):
        truth = CITYSCAPES_IDS.decode(l.numpy(), CITYSCAPES19)
        truth[truth == 0] = rng.choice(
            [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30], (truth == 0).sum()
        )  # every ignored id
        for side, ids in zip(files, (CITYSCAPES_IDS.decode(p.numpy(), CITYSCAPES19), truth)):
            side.append(str(tmp_path / f"{i}_{len(side)}_{side is files[0]}.png"))
            Image.fromarray(ids).save(side[-1])
    result = official.evaluateImgLists(*files, args)
    matrix = sum(
        confusion_matrix(p, torch.tensor(CITYSCAPES_IDS.encode(np.array(Image.open(f)), CITYSCAPES19)), 19)
        for p, f in zip(pred, files[1])
    )
    expected = [result["classScores"][name] for name in CITYSCAPES19.names]
    np.testing.assert_allclose(iou(matrix).numpy(), expected, rtol=1e-12, equal_nan=True)
    assert mean_iou(matrix) == pytest.approx(result["averageScoreClasses"], rel=1e-12)
    if present:
        assert iou(matrix)[7] == 0 and math.isnan(iou(matrix)[16])


def test_brute_force():
    pred, label = random_maps(6, 4, (2, 9, 7))
    p, l = pred.numpy(), label.numpy()
    for c in range(4):
        inter = ((p == c) & (l == c)).sum()
        union = (((p == c) & (l != IGNORE)) | (l == c)).sum()
        assert iou(confusion_matrix(pred, label, 4))[c].item() == pytest.approx(inter / union, rel=1e-12)
    assert pixel_accuracy(confusion_matrix(pred, label, 4)) == pytest.approx((p == l)[l != IGNORE].mean(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integer_types(dtype):
    pred, label = random_maps(7)
    assert torch.equal(confusion_matrix(pred.to(dtype), label.to(dtype), 19), confusion_matrix(pred, label, 19))


def test_bad_inputs():
    pred, label = random_maps(9)
    for args, message in (
        ((pred[:, 1:], label, 19), "one shape"),
        ((pred.float(), label, 19), "argmax"),
        ((pred, label, 5), "prediction ids 0..4"),
        ((pred.clamp(max=4), label, 5), "label ids 0..4"),
        ((pred - 5, label, 19), "prediction ids"),
        ((pred, label - 1, 19), "label ids"),
    ):
        with pytest.raises(ValueError, match=message):
            confusion_matrix(*args)
    with pytest.raises(ValueError, match="the 13 classes of synthia13"):
        scores(confusion_matrix(pred, label, 19), SYNTHIA13)


def test_scores_are_json():
    matrix = confusion_matrix(*random_maps(10, present=(0, 13)), 19)
    record = json.loads(json.dumps(scores(matrix, CITYSCAPES19), allow_nan=False))
    assert record["miou"] == mean_iou(matrix) and list(record["iou"]) == list(CITYSCAPES19.names)
    assert record["selected"] == mean_iou(matrix, CITYSCAPES19.group("selected")) and record["pixels"] == int(
        matrix.sum()
    )
    empty = json.loads(json.dumps(scores(torch.zeros(19, 19).long(), CITYSCAPES19), allow_nan=False))
    assert empty["miou"] is None and empty["iou"]["road"] is None and empty["selected"] is None


def test_protocols():
    pred, label = random_maps(11)
    matrix = confusion_matrix(pred, label, 19)
    for classes in (SYNTHIA16, SYNTHIA13):
        ids = [CITYSCAPES19.index(n) for n in classes.names]
        assert protocol_miou(matrix, CITYSCAPES19, classes.name) == pytest.approx(iou(matrix)[ids].mean().item())
        masked = torch.where(torch.isin(label, torch.tensor(ids)), label, IGNORE)
        assert protocol_miou(matrix, CITYSCAPES19, classes, ignore_others=True) == pytest.approx(
            mean_iou(confusion_matrix(pred, masked, 19), ids)
        )
    matrix16 = confusion_matrix(*random_maps(12, 16), 16)
    assert protocol_miou(matrix16, SYNTHIA16, "synthia13") == pytest.approx(
        iou(matrix16)[[SYNTHIA16.index(n) for n in SYNTHIA13.names]].mean().item()
    )
    with pytest.raises(ValueError, match="no class 'terrain'"):
        protocol_miou(matrix16, SYNTHIA16, "cityscapes19")


def fake_learner(logits, label):
    return SimpleNamespace(pred=(None, logits), y=label, to_detach=to_detach)


def test_one_count_for_all_metrics(monkeypatch):
    import adaptseg.evaluation.metrics as module

    calls, real = [], module.confusion_matrix
    monkeypatch.setattr(module, "confusion_matrix", lambda *a: calls.append(1) or real(*a))
    metrics = segmentation_metrics(CITYSCAPES19)
    batches = [(torch.randn(n, 19, 6, 8), torch.randint(0, 19, (n, 48, 64))) for n in (2, 2, 1)]
    for _ in range(2):  # two validations: each starts from nothing
        for m in metrics:
            m.reset()
        for logits, label in batches:
            for m in metrics:
                m.accumulate(fake_learner(logits, label))
    assert len(calls) == 6
    up = lambda x: torch.nn.functional.interpolate(x, size=(48, 64), mode="bilinear", align_corners=True).argmax(1)
    expected = sum(real(up(x), y, 19) for x, y in batches)
    assert all(m.counts is metrics[0].counts for m in metrics) and torch.equal(metrics[0].counts.matrix, expected)
    assert [m.name for m in metrics] == ["miou", "pixel_accuracy", "selected_iou"]
    assert [m.value for m in metrics] == [
        mean_iou(expected),
        pixel_accuracy(expected),
        mean_iou(expected, (11, 12, 13, 17, 18)),
    ]


def test_gathered_maps_are_counted():
    "With several processes `to_detach` returns the maps of all of them: those are counted."
    logits, label = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 8, 8))
    counts = ConfusionMetric(3)
    learn = fake_learner(logits, label)
    learn.to_detach = lambda b, cpu=True, gather=True: tuple(torch.cat([x, x]) for x in b)
    counts.accumulate(learn)
    assert int(counts.matrix.sum()) == 2 * 64


def test_a_set_without_selected_classes():
    assert len(segmentation_metrics(ClassSet("two", ("a", "b"), ((0, 0, 0), (1, 1, 1))))) == 2
