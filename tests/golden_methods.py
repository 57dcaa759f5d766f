"""The methods' pure functions against values that their authors' own code gave; `golden.py` calls this."""

import numpy as np
import torch

from adaptseg.datasets.labels import IGNORE
from adaptseg.datasets.rare import rare_class_probabilities
from adaptseg.methods.entropy import entropy_loss, max_square_loss, self_information, weighted_max_square_loss
from adaptseg.methods.fourier import fourier_transfer
from adaptseg.methods.mixing import mixed_labels, pasted, pseudo_labels, weighted_loss
from adaptseg.methods.teacher import follow, kept_share

LOSSES = dict(minent=entropy_loss, max_square=max_square_loss, max_square_iw=weighted_max_square_loss)


def relative(found, expected):
    "Largest |found - expected| / |expected| (absolute where expected is tiny)."
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        return float("inf")
    error = np.abs(found - expected) / np.maximum(np.abs(expected), 1e-12)
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0))


def summary(tensor):
    "Sum, projection on a fixed direction, first four values; as parts of the tensor's size."
    x = tensor.detach().numpy().ravel()
    return dict(sum=x.sum(), projection=x @ np.random.RandomState(99).standard_normal(x.size), first=x[:4])


def apart(tensor, expected):
    "How far a tensor is from what the file says, as a part of its norm."
    scale = max(float(tensor.detach().norm()), 1e-12)
    return max(
        float(np.max(np.abs(np.asarray(v) - np.asarray(expected[k]))) / scale) for k, v in summary(tensor).items()
    )


def losses(case):
    draws = np.random.RandomState(case["seed"]).standard_normal(case["shape"]) * case["scale"]
    logits, errors = torch.from_numpy(draws).requires_grad_(), {}
    for name in LOSSES.keys() & case.keys():
        loss = LOSSES[name](logits)
        (gradient,) = torch.autograd.grad(loss, logits)
        errors[name] = relative(loss.item(), case[name]["loss"])
        errors[f"{name} gradient"] = apart(gradient, case[name]["grad"])
    return errors | {"self information": apart(self_information(logits), case["self_information"])}


def fourier(case):
    rng, shape = np.random.RandomState(case["seed"]), (3, *case["size"])
    source = rng.randint(0, 256, shape).astype(float)
    target = rng.randint(0, 256, shape) * 0.4 + 20
    found = fourier_transfer(torch.from_numpy(source)[None], torch.from_numpy(target)[None], case["beta"])
    return {"picture": apart(found[0], case["result"])}


def mixing(case):
    rng, (n, c, h, w) = np.random.RandomState(case["seed"]), case["shape"]
    teacher, student = (torch.from_numpy(rng.standard_normal(case["shape"]) * scale) for scale in (4, 1))
    label = torch.from_numpy(rng.randint(0, c + 1, (n, h, w)))
    label[label == c] = IGNORE
    picked = torch.zeros(n, IGNORE + 1, dtype=torch.bool)
    for image, classes in zip(picked, case["picked"]):
        image[classes] = True
    paste, errors = pasted(label, picked), {}
    for per in ("batch", "image"):
        pseudo, sure = pseudo_labels(teacher, case["tau"], per)
        labels, weight = mixed_labels(label, pseudo, sure, paste)
        found = dict(q=sure.tolist(), label_sum=labels.sum().item(), weight_sum=weight.sum().item())
        found |= dict(loss=weighted_loss(student, labels, weight).item())
        errors[per] = max(relative(v, case[per][k]) for k, v in found.items())
    return errors


def average(case):
    rng = np.random.RandomState(case["seed"])
    teacher, student = (torch.nn.Linear(1, 1, bias=False).double() for _ in range(2))
    found = []
    for t in range(case["steps"]):
        student.weight.data.fill_(rng.standard_normal())
        follow(teacher, student, kept_share(t, case["alpha"]))
        found.append(teacher.weight.item())
    return {"average": relative(found, case["average"])}


def rare_classes(case):
    found = rare_class_probabilities(np.array(case["counts"]), case["temperature"])
    return {"probability": relative(found, case["probability"])}


KINDS = dict(losses=losses, fourier=fourier, mixing=mixing, average=average, rare_classes=rare_classes)
