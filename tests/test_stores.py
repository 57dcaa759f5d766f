"""Photographs and results in a store: an S3 server of its own, a command killed, an address that is dead."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.networks.deeplab import deeplab
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.runs.config import make_config

ROOT = Path(__file__).parents[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server():
    "An S3 server with an empty bucket, and its client."
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=address, **KEYS)
    for _ in range(200):
        try:
            client.create_bucket(Bucket="campus")
            break
        except Exception:
            time.sleep(0.1)
    yield address, client
    process.kill()
    process.wait()


KEYS = dict(aws_access_key_id="nobody", aws_secret_access_key="nothing", region_name="us-east-1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "Photographs and a network on this machine."
    place, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for i in range(30):
        file = place / "photographs" / f"gate {i % 2}" / f"ü{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(file)
    (place / "photographs/gate 0/ü0.jpg").write_bytes(b"\xff\xd8 broken")
    cfg = make_config("tiny", source="gta5", target="cityscapes", method="source_only")
    torch.manual_seed(0)
    named = cfg.model_copy(update=dict(preprocessing="imagenet"))
    save_network(place / "weights.safetensors", deeplab(n_classes=19, **network_arguments(cfg)), named, CITYSCAPES19)
    return place


def start(server, place, images, out, *more, home="home"):
    there = dict(AWS_ENDPOINT_URL=server, ADAPTSEG_CACHE=str(place / home))
    environment = os.environ | there | {key.upper(): value for key, value in KEYS.items() if key != "region_name"}
    command = [sys.executable, "-m", "adaptseg", "predict", images, "--weights", place / "weights.safetensors"]
    return subprocess.Popen(
        [*map(str, command), "--out", str(out), *more], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True
    )


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def stored(client, prefix):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="campus", Prefix=prefix)
    return {o["Key"].removeprefix(prefix): o for page in pages for o in page.get("Contents", [])}


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_what_lies_in_a_store_is_predicted_into_it_and_gone_on_with(server, place, more):
    address, client = server
    top = f"s3://campus/{'some' if more else 'one'}"
    name = top.removeprefix("s3://campus/")
    for file in (place / "photographs").rglob("*.jpg"):
        client.upload_file(str(file), "campus", f"{name}/{file.relative_to(place / 'photographs').as_posix()}")
    first = start(address, place, top, f"{top}/out", "--cutouts", *more)
    while first.poll() is None and len([k for k in stored(client, f"{name}/out/") if k.startswith("labels/")]) < 5:
        time.sleep(0.02)
    first.kill()
    first.communicate()
    status, _, error = ended(start(address, place, top, f"{top}/out", "--cutouts", *more, home="another"))
    assert status == 1 and "1 of 30 could not be read, gate 0/ü0 first" in error, error
    status, _, error = ended(start(address, place, place / "photographs", place / f"here-{name}", "--cutouts"))
    assert status == 1, error
    found = stored(client, f"{name}/out/")
    here = {p.relative_to(place / f"here-{name}").as_posix(): p for p in (place / f"here-{name}").rglob("*.*")}
    pictures = {key for key, p in here.items() if p.is_file() and key.startswith(("labels/", "cutouts/"))}
    assert {key for key in found if key.startswith(("labels/", "cutouts/"))} == pictures and len(pictures) >= 29
    for key in pictures:
        body = client.get_object(Bucket="campus", Key=f"{name}/out/{key}")["Body"].read()
        assert body == here[key].read_bytes(), key
    sent = pd.read_csv(client.get_object(Bucket="campus", Key=f"{name}/out/table.csv")["Body"])
    free = ["file", "changed", "seconds", "fault"]
    pd.testing.assert_frame_equal(sent.drop(columns=free), pd.read_csv(here["table.csv"]).drop(columns=free))
    assert not [key for key in found if "part" in key] and {"predictions.json", "sheet.png"} <= set(found)
    assert (
        "nobody" not in client.get_object(Bucket="campus", Key=f"{name}/out/predictions.json")["Body"].read().decode()
    )
    before = {key: o["LastModified"] for key, o in found.items() if key.startswith("labels/")}
    status, *_ = ended(start(address, place, top, f"{top}/out", "--cutouts", *more, home="a third"))
    after = {key: o["LastModified"] for key, o in stored(client, f"{name}/out/").items() if key.startswith("labels/")}
    assert status == 1 and after == before, "what is done is not done again, on whatever machine"


@pytest.mark.slow
def test_an_archive_in_a_store_and_another_network(server, place, tmp_path):
    address, client = server
    shutil.make_archive(str(tmp_path / "frames"), "zip", place / "photographs/gate 1")
    client.upload_file(str(tmp_path / "frames.zip"), "campus", "zips/frames.zip")
    status, said, error = ended(start(address, place, "s3://campus/zips/frames.zip", tmp_path / "out"))
    assert status == 0 and "15 label maps" in said, error
    inside = "zip://::s3://campus/zips/frames.zip"
    status, said, error = ended(start(address, place, inside, "s3://campus/zipped"))
    assert status == 0 and "s3://campus/zipped: 15 label maps" in said, error
    status, _, error = ended(start(address, place, inside, "s3://campus/zipped", "--flip"))
    assert status == 1 and "was made with another flip" in error
    status, _, error = ended(start(address, place, inside, "s3://campus/zips"))
    assert status == 1 and "s3://campus/zips exists and holds no predictions" in error


@pytest.mark.slow
@pytest.mark.parametrize("given", ["photographs", "out"])
def test_a_store_that_does_not_answer_is_one_line(place, tmp_path, given):
    images, out = (
        ("s3://campus/frames", tmp_path / "x") if given == "photographs" else (place / "photographs", "s3://c/x")
    )
    status, _, error = ended(start(f"http://127.0.0.1:{free_port()}", place, images, out))
    assert status == 1 and "Traceback" not in error
    assert re.search(r"s3://c\S* could not be used: \w+", error), error
