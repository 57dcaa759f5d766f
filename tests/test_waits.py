"""A card stands in for a card: tensors that have no content, so whoever asks for a value in a step is caught."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adaptseg.datasets import loading
from adaptseg.methods.registry import METHODS
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from adaptseg.training.history import History
from adaptseg.training.trainer import load_data, make_learner, make_network, settle

CARD = torch.device("meta")


class Copies(TorchDispatchMode):
    "Inside, counts the copies to the card for which the program waits."

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            if kwargs.get("device") == CARD and not kwargs.get("non_blocking"):
                self.waited.append(tuple(args[0].shape))
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "samples"
    return write_samples(root, size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)


CASES = [
    *sorted(METHODS),
    "adaptseg_multi+selftrain",
    "selftrain,sure_per=class",
    "selftrain,soft=yes,lambda_mask=1,lambda_fd=0.005",
    "fda,lambda_fda=0.005",
    "source_only,fourier=0.01,rare_classes=0.01,clip=1,balance=0.5",
]


@pytest.mark.parametrize("case", CASES)
def test_no_value_is_asked_for_in_a_step(case, data_root, tmp_path, monkeypatch):
    method, *values = case.split(",")
    values = dict(v.split("=") for v in values)
    usual = dict(source="gta5", target="cityscapes", data_root=data_root, out=tmp_path, precision="fp32", device="cpu")
    cfg = make_config("tiny", method=method, steps=3, choice_images=0, val_every=3, **usual, **values)
    data = replace(load_data(cfg), val=None)
    model = make_network(settle(cfg, None), data.source.classes).to(CARD)
    ready = lambda batches, device: (tuple(t.to(device, non_blocking=True) for t in b) for b in batches)
    monkeypatch.setattr(loading, "ahead", ready)  # as for a GPU
    learn = make_learner(cfg, data, model)
    learn.add_cb(History(tmp_path, cfg))
    monkeypatch.setattr(History, "_row", lambda self, step: None)  # a row of the log may wait
    monkeypatch.setattr(History, "after_validate", lambda self: None)
    with learn.no_logging(), learn.no_bar(), Copies() as copies:
        learn.fit(1)
    assert not copies.waited
