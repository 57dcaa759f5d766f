"""The tools themselves, where they are installed: a Label Studio server (LABEL_STUDIO, or on the path) takes what is
written, keeps it, and gives it back.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from adaptseg.annotations.exporting import annotate_job, write_annotations
from adaptseg.annotations.reading import find_export
from adaptseg.annotations.shapes import paint
from adaptseg.datasets.domains import load_split
from adaptseg.datasets.labels import IGNORE
from adaptseg.datasets.splits import load_label
from adaptseg.streets.samples import write_samples

SERVER = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio")
TOKEN = "0123456789abcdef0123456789abcdef01234567"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Api:
    "A server's address, and what is asked of it."

    def __init__(self, address: str):
        self.address = address

    def __call__(self, path: str, values=None):
        "The JSON of an answer; POST where there are values."
        data = None if values is None else json.dumps(values).encode()
        head = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data, head), timeout=120) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory) -> Api:
    "A server of its own, with a user."
    if not SERVER:
        pytest.skip("no Label Studio here: LABEL_STUDIO=.../label-studio, in an environment of its own")
    home = tmp_path_factory.mktemp("label-studio")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    more = dict(
        LABEL_STUDIO_USERNAME="a@b.org",
        LABEL_STUDIO_PASSWORD="a-long-password",
        LABEL_STUDIO_USER_TOKEN=TOKEN,
        LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN="true",
        LABEL_STUDIO_BASE_DATA_DIR=str(home),
        COLLECT_ANALYTICS="false",
        LATEST_VERSION_CHECK="false",
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with open(home / "server.log", "w") as log:
        words = [SERVER, "start", "--no-browser", "--port", str(port)]
        server = subprocess.Popen(words, cwd=home, env=kept | more, stdout=log, stderr=log)
    api, end = Api(f"http://127.0.0.1:{port}"), time.monotonic() + 600
    try:
        while True:
            try:
                api("/api/projects")
                break
            except (urllib.error.URLError, OSError) as e:
                late = server.poll() is not None or time.monotonic() > end
                assert not late, f"{e}\n{(home / 'server.log').read_text()[-2000:]}"
                time.sleep(2)
        yield api
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_label_studio_gives_back_what_it_took(label_studio, shapes, tmp_path):
    write_samples(tmp_path / "data", size=(96, 192), n_gta5=(1, 1), n_cityscapes=(2, 1), n_iitk=(1, 1), workers=1)
    job = dict(labels="cityscapes", data_root=str(tmp_path / "data"), form="label_studio", shapes=shapes)
    write_annotations(annotate_job(**job, out=str(tmp_path / "out"), prefix="http://127.0.0.1:9/"))
    configuration = (tmp_path / "out/labels.xml").read_text()
    project = label_studio("/api/projects", dict(title=shapes, label_config=configuration))["id"]
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    taken = label_studio(f"/api/projects/{project}/import", tasks)
    assert (taken["task_count"], taken["prediction_count"]) == (2, 2)
    for task in label_studio(f"/api/tasks?project={project}&fields=all")["tasks"]:
        (draft,) = label_studio(f"/api/predictions?task={task['id']}")
        label_studio(f"/api/tasks/{task['id']}/annotations", dict(result=draft["result"]))  # taken as it is
    back = label_studio(f"/api/projects/{project}/export?exportType=JSON")
    (tmp_path / "export").mkdir()
    (tmp_path / "export/project.json").write_text(json.dumps(back))
    split = load_split("cityscapes", "train", tmp_path / "data")
    ids = {name: i for i, name in enumerate(split.classes.names)} | {"unlabelled": IGNORE}
    labels = {Path(item.image).name: load_label(item, split.classes) for item in split.items}
    found = list(find_export(tmp_path / "export").pictures())
    assert {Path(picture.name).name for picture in found} == set(labels)
    for picture in found:
        assert (paint(picture.shapes, picture.size, ids) == labels[Path(picture.name).name]).all()


def test_label_studios_own_converter_reads_brushes(tmp_path):
    if not SERVER:
        pytest.skip("no Label Studio here")
    from adaptseg.annotations.label_studio import brush

    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    (tmp_path / "rle.json").write_text(json.dumps(brush(mask)))
    code = (
        "import json, sys, numpy as np; from label_studio_sdk.converter.brush import decode_rle; "
        "x = decode_rle(json.load(open(sys.argv[1]))); np.save(sys.argv[2], np.reshape(x, (37, 53, 4)))"
    )
    python = Path(SERVER).with_name("python")
    subprocess.run([python, "-c", code, tmp_path / "rle.json", tmp_path / "back.npy"], check=True, env={})
    assert ((np.load(tmp_path / "back.npy") > 0) == mask[..., None]).all()
