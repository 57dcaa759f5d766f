"""The dashboards as an app in a real browser: click, type, draw, and see the picture change. Screenshots stay in the
folder ADAPTSEG_SCREENSHOTS, or tests/screenshots.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from PIL import Image

from adaptseg.dashboards.guard import PROTOCOL
from adaptseg.dashboards.app import ask_for, served_notebook, voila_command, voila_environment
from adaptseg.networks.deeplab import deeplab
from adaptseg.datasets.labels import CITYSCAPES19
from adaptseg.runs.config import make_config
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.reports.photographs import predict_job
from adaptseg.reports.predicting import predict_folder
from adaptseg.base.files import write_json
from adaptseg.streets.samples import write_samples
from browser import CHROMIUM, SHOTS, needs_browser

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = needs_browser


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Tiny sample domains and two untrained runs, one of them half-way."
    root = tmp_path_factory.mktemp("app")
    data = write_samples(root / "data", size=(96, 192), n_gta5=(1, 1), n_cityscapes=(1, 4), n_iitk=(1, 3), workers=1)
    for seed, method in ((0, "source_only"), (1, "adaptseg_multi")):
        cfg = make_config("tiny", source="gta5", target="cityscapes", seed=seed, method=method, steps=100)
        folder = root / "runs" / "gta52cityscapes" / f"{method}-s{seed}"
        folder.mkdir(parents=True)
        torch.manual_seed(seed)
        save_network(
            folder / "weights.safetensors",
            deeplab(n_classes=19, **network_arguments(cfg)),
            cfg.model_copy(update=dict(preprocessing="imagenet")),
            CITYSCAPES19,
        )
        write_json(folder / "config.json", {**cfg.model_dump(), "classes_used": "cityscapes19"})
    weights = root / "runs/gta52cityscapes"
    for i, method in enumerate(("source_only-s0", "adaptseg_multi-s1")):
        values = dict(images="cityscapes", weights=str(weights / method), data_root=str(data), confidence=True)
        predict_folder(predict_job(**values, out=str(root / f"runs/predictions{i}")))
    (folder / "history.csv").write_text(
        "step,seconds,lr,loss_seg1,loss_seg2,loss_D1,loss_D2\n"
        + "".join(f"{s},{s / 2},1e-4,{2 - s / 50},{1.5 - s / 50},0.3,0.4\n" for s in range(10, 60, 10))
    )
    return root


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fetch(address):
    "Status and text of an address."
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.read().decode("utf8", "replace")
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode("utf8", "replace")


def serve(folders, password=""):
    "The app as `adaptseg app` starts it: process and address."
    port, place = free_port(), folders / f"served-{time.time_ns()}"
    place.mkdir()
    notebook = served_notebook(place, str(folders / "runs"), str(folders / "data"), str(folders / "views"))
    if password:
        ask_for(place, password)
    env = {
        **voila_environment(notebook),
        "ADAPTSEG_CACHE": str(folders / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    process = subprocess.Popen(
        voila_command(notebook, port),
        cwd=place,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    answers(process, f"http://127.0.0.1:{port}/static/")
    return process, f"http://127.0.0.1:{port}/"


def answers(process, address):
    "Wait until a server is there."
    for _ in range(600):
        try:
            return fetch(address)
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"{address} does not answer")


@pytest.fixture(scope="module")
def app(folders):
    process, address = serve(folders)
    yield address
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def lab(folders):
    "The same notebook in JupyterLab."
    port, place = free_port(), folders / "lab"
    place.mkdir()
    served_notebook(place, str(folders / "runs"), str(folders / "data"), str(folders / "views"))
    settings = {
        "ServerApp.token": "",
        "ServerApp.password": "",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "LabApp.expose_app_in_browser": True,
        "ServerApp.root_dir": str(place),
    }
    quiet = place / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no question over the pictures
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        *(f"--{k}={v}" for k, v in settings.items()),
    ]
    env = {
        **os.environ,
        "ADAPTSEG_CACHE": str(folders / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
    }
    process = subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    answers(process, address + "lab")
    yield address
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(app, browser):
    "The open app."
    yield from opened(browser, app, app)


@pytest.fixture(params=["app", "lab"])
def either(request, browser):
    "The open app, or the notebook run in JupyterLab."
    address = request.getfixturevalue(request.param)
    if request.param == "app":
        yield from opened(browser, address, address)
    else:
        yield from opened(browser, address, address + "doc/tree/dashboard.ipynb", run_all)


def run_all(page):
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady && "
        "document.querySelector('.jp-Notebook .jp-CodeCell')",
        timeout=120_000,
    )
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def opened(browser, host, address, then=lambda page: None):
    """A page with the dashboards; a message of the console that is an error fails the test, and so does a request to
    another host.
    """
    page, errors, asked = browser.new_page(viewport={"width": 1500, "height": 1600}), [], []
    page.on("console", lambda m: m.type == "error" and errors.append((m.location["url"], m.text)))
    page.on("pageerror", lambda e: errors.append((address, str(e))))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(address, timeout=120_000)
    then(page)
    page.wait_for_selector(".adaptseg-picture img >> visible=true", timeout=120_000)
    yield page
    page.close()
    assert not errors
    assert not [url for url in asked if not url.startswith((host, "data:", "blob:", host.replace("http", "ws")))], (
        "the page asks another host"
    )


def pixels(picture):
    "What is on the screen where a picture is."
    return np.asarray(Image.open(io.BytesIO(picture.locator(".frame").screenshot())).convert("RGB")).astype(int)


def content(picture):
    "The picture that the browser shows, wherever and however large."
    data = picture.locator("img").evaluate("""async img => { const c = document.createElement('canvas');
        for (let src, shown = false; !shown;) {  // replaced while it was decoded: the new one
          src = img.src; shown = await img.decode().then(() => true, e => { if (img.src === src) throw e; });
        }
        [c.width, c.height] = [img.naturalWidth, img.naturalHeight]; c.getContext('2d').drawImage(img, 0, 0);
        return c.toDataURL('image/png').split(',')[1]; }""")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def shot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def until(what, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return
        time.sleep(0.1)
    assert what()


def test_a_visitor_sees_what_came_after_the_kernel_was_ready(app, browser, folders):
    for page in opened(browser, app, app):
        page.wait_for_timeout(10_000)  # the next visitor's kernel is made meanwhile
    run = folders / "runs/gta52cityscapes/source_only-s0"
    late = shutil.copytree(run, run.with_name("source_only-s7"))
    try:
        for page in opened(browser, app, app):
            page.wait_for_selector("option:has-text('source_only-s7')", state="attached", timeout=60_000)
    finally:
        shutil.rmtree(late)


def test_explorer(either, folders):
    page = either
    pictures = page.locator(".adaptseg-picture")
    assert pictures.count() == 4, "input, ground truth and the newest pair of runs"
    runs = page.locator("select[multiple]")
    last = pictures.nth(3)
    assert "adaptseg_multi-s1" in last.inner_text(), "what is adapted stands last"
    runs.select_option(index=[0, 1])  # in the order of the list
    until(lambda: "source_only-s0" in last.inner_text() and "computing" not in last.inner_text())
    first = content(last)
    shot(page, "explorer")
    pictures.nth(1).locator("canvas").click(position={"x": 30, "y": 60})  # takes the keyboard
    until(lambda: pictures.nth(1).locator(".note").inner_text() in CITYSCAPES19.names)
    before = content(pictures.nth(0))
    page.keyboard.press("ArrowRight")
    until(lambda: np.abs(content(pictures.nth(0)) - before).mean() > 3)
    until(lambda: page.get_by_label("image").first.input_value() == "2")
    page.keyboard.press("ArrowLeft")
    until(lambda: np.abs(content(pictures.nth(0)) - before).mean() == 0)
    until(lambda: np.abs(content(last) - first).mean() == 0)
    truth = content(pictures.nth(1))
    page.get_by_role("button", name="selected objects").click()
    until(lambda: np.abs(content(pictures.nth(1)) - truth).mean() > 3)
    page.get_by_role("button", name="all classes").click()
    until(lambda: np.abs(content(pictures.nth(1)) - truth).mean() == 0)
    page.get_by_role("button", name="errors").click()
    until(lambda: "wrong" in pictures.nth(3).inner_text())
    shot(page, "explorer-errors")
    page.get_by_role("button", name="save PNG").click()
    until(lambda: list((folders / "views").glob("cityscapes-*.png")))


def test_arrow_keys_without_a_click(page):
    image = page.get_by_label("image").first
    before = image.input_value()
    page.keyboard.press("ArrowRight")
    until(lambda: image.input_value() == str(int(before) + 1))
    image.click()
    image.press("ArrowLeft")  # the cursor's, where one types
    page.get_by_role("tab", name="Training").click()
    page.keyboard.press("ArrowRight")  # the tab's; no picture is seen
    page.get_by_role("tab", name="Results").click()
    assert image.input_value() == str(int(before) + 1)


@pytest.mark.parametrize(
    "tab, has",
    dict(
        Results="save PNG", Training="step", Segments="run", Predictions="wrong here", Datasets="next", Video="segment"
    ).items(),
)
def test_nothing_looks_broken(page, tab, has):
    page.get_by_role("tab", name=tab).click()
    page.get_by_text(has).locator("visible=true").first.wait_for()
    page.wait_for_load_state("networkidle")
    time.sleep(1)  # what a watcher of files draws first
    broken = "() => [...document.images].filter(i => i.offsetParent && i.complete && !i.naturalWidth).length"
    until(lambda: page.evaluate(broken) == 0)
    for width in (1400, 800):
        page.set_viewport_size({"width": width, "height": 1000})
        shot(page, f"{tab.lower()}-{width}")


def test_monitor(either, folders):
    page, history = either, folders / "runs/gta52cityscapes/adaptseg_multi-s1/history.csv"
    step = int(history.read_text().splitlines()[-1].split(",")[0])
    page.get_by_role("tab", name="Training").click()
    until(lambda: f"step {step} of 100" in page.inner_text("body"))
    curves = page.locator("img.widget-image:visible")
    until(lambda: curves.count() and curves.first.bounding_box())
    before = curves.first.screenshot()
    shot(page, "monitor")
    with open(history, "a") as f:
        f.write(f"{step + 10},30,1e-4,0.7,0.4,0.3,0.6\n")
    until(
        lambda: f"step {step + 10} of 100" in page.inner_text("body")
    )  # another process trains; nobody presses anything
    until(lambda: curves.first.screenshot() != before)


def test_workbench(either):
    page = either
    page.get_by_role("tab", name="Segments").click()
    picture = page.locator(".adaptseg-picture:visible")
    until(lambda: picture.count() == 1)
    until(lambda: picture.locator("img").evaluate("i => i.naturalWidth") == 192)
    plain = pixels(picture)
    canvas = picture.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.get_by_label("label").fill("3")
    page.keyboard.press("Tab")
    for height, label in ((0.93, None), (0.05, "1")):  # the street, and above it
        if label:
            page.get_by_label("label").fill(label)
            page.keyboard.press("Tab")
            time.sleep(0.5)
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + height * box["height"], steps=8)
        page.mouse.up()
        time.sleep(0.5)
    until(lambda: (np.abs(pixels(picture) - plain).max(-1) > 40).mean() > 0.01)
    shot(page, "workbench-scribble")
    page.get_by_label("iterations").fill("25")
    page.keyboard.press("Tab")
    drawn = pixels(picture)
    page.get_by_role("button", name="run", exact=True).click()
    until(lambda: "done:" in page.inner_text("body"), 120)
    until(lambda: np.abs(pixels(picture) - drawn).mean() > 5)
    canvas.hover(position={"x": 0.5 * box["width"], "y": 0.95 * box["height"]})
    until(lambda: picture.locator(".note").inner_text() == "label 3")  # as it was drawn
    page.get_by_role("button", name="give class").click()
    until(lambda: canvas.evaluate("c => c.style.cursor") == "pointer")
    page.get_by_label("class").select_option("road")
    canvas.click(position={"x": 0.5 * box["width"], "y": 0.95 * box["height"]})
    canvas.hover(position={"x": 0.52 * box["width"], "y": 0.95 * box["height"]})
    until(lambda: picture.locator(".note").inner_text() == "label 3, road")
    shot(page, "workbench")


def test_predictions(either, folders):
    page, wrong = either, folders / "runs/predictions0/wrong.txt"
    wrong.unlink(missing_ok=True)
    page.get_by_role("tab", name="Predictions").click()
    picture = page.locator(".adaptseg-picture:visible").first
    until(lambda: "1 of 4" in picture.inner_text())
    before = content(picture)
    page.get_by_label("first").select_option("unlike predictions1")
    page.get_by_role("button", name="differences").click()
    until(lambda: np.abs(content(picture) - before).mean() > 3)
    picture.locator("canvas").click(position={"x": 30, "y": 30})
    until(lambda: "here: " in picture.inner_text())
    page.get_by_role("button", name="wrong here").click()
    picture.locator("canvas").click(position={"x": 60, "y": 30})
    until(lambda: wrong.is_file() and "to mend" in page.inner_text("body"))
    shot(page, "predictions")
    assert f"{wrong.read_text().strip()} (1)" in page.inner_text("body")
    page.keyboard.press("ArrowRight")
    until(lambda: "2 of 4" in picture.inner_text())


def test_dataset_view(either):
    page = either
    page.get_by_role("tab", name="Datasets").click()
    pictures = page.locator(".adaptseg-picture:visible")
    until(lambda: pictures.count() == 2 and pictures.nth(1).locator("img").evaluate("i => i.naturalWidth") == 192)
    image, painted = (pixels(pictures.nth(i))[:, :600] for i in range(2))  # a width may be rounded to another pixel
    assert np.abs(image - painted).mean() > 3
    page.get_by_role("button", name="count classes").click()
    until(lambda: page.locator("img.widget-image:visible").evaluate_all("all => all.some(i => i.naturalWidth > 400)"))
    shot(page, "dataset")


def test_video(either, folders):
    page, film = either, "val-camera1-gta52cityscapes-source_only-s0"
    for old in (folders / "views").glob(f"{film}.*"):
        old.unlink()
    page.get_by_role("tab", name="Video").click()
    page.get_by_label("camera").select_option("val camera1")
    page.get_by_label("run", exact=True).locator("visible=true").select_option("gta52cityscapes/source_only-s0")
    page.get_by_role("button", name="segment", exact=True).click()
    until(lambda: "frame 1 of 3" in page.inner_text("body"), 120)
    picture, chart = (page.locator(".adaptseg-picture:visible").nth(i) for i in range(2))
    before, line = content(picture), content(chart)
    page.get_by_role("button", name="next →").locator("visible=true").click()
    until(
        lambda: (
            "frame 2 of 3" in picture.inner_text()
            and np.abs(content(picture) - before).mean() > 1
            and np.abs(content(chart) - line).max() > 50
        )
    )
    shot(page, "video")
    box = chart.locator("canvas").bounding_box()
    chart.locator("canvas").click(position={"x": 0.97 * box["width"], "y": 0.5 * box["height"]})
    until(lambda: "frame 3 of 3" in picture.inner_text())
    picture.locator("canvas").click()
    page.keyboard.press(" ")  # plays from the start, and rests at the end
    until(lambda: page.get_by_role("button", name="pause", exact=True).is_visible())
    until(
        lambda: (
            "frame 3 of 3" in picture.inner_text() and page.get_by_role("button", name="play", exact=True).is_visible()
        )
    )
    assert all((folders / "views" / f"{film}{ending}").stat().st_size for ending in (".mp4", ".csv", ".png"))


@pytest.mark.slow
def test_broken_files_are_said_and_the_rest_is_shown(folders, browser, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(folders / "data", root / "data")
    shutil.copytree(folders / "runs", root / "runs")
    images = sorted((root / "data/Cityscapes/leftImg8bit/val").rglob("*.png"))
    labels = sorted((root / "data/Cityscapes/gtFine/val").rglob("*labelIds.png"))
    images[0].write_bytes(images[0].read_bytes()[:300])
    labels[1].write_bytes(labels[1].read_bytes()[:150])
    Image.new("L", (7, 5)).save(labels[2])
    weights = root / "runs/gta52cityscapes/adaptseg_multi-s1/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    (root / "runs/gta52cityscapes/source_only-s0/metrics.json").write_text('{"cityscapes/val": ')
    for name, text in (("cut-s2", '{"source": '), ("list-s3", "[]")):
        (root / "runs/gta52cityscapes" / name).mkdir()
        (root / "runs/gta52cityscapes" / name / "config.json").write_text(text)
    frames = sorted((root / "data/IITK/leftImg8bit/val/camera1/JPEGImages").glob("*.jpg"))
    frames[1].write_bytes(frames[1].read_bytes()[:300])
    process, address = serve(root)
    try:
        for page in opened(browser, address, address, lambda page: page.get_by_role("tab", name="Datasets").click()):
            pages_say_what_is_broken(page)
    finally:
        process.terminate()
        process.wait(20)


def pages_say_what_is_broken(page):
    shown, says = page.locator(".adaptseg-picture:visible"), lambda text: until(lambda: text in page.inner_text("body"))
    page.get_by_label("domain").locator("visible=true").select_option("cityscapes")
    page.get_by_label("split").locator("visible=true").select_option("val")
    says("cannot be decoded, the file is damaged")
    shot(page, "broken-dataset")
    page.get_by_role("button", name="next").locator("visible=true").click()
    says("2 of 4")
    page.get_by_role("button", name="next").locator("visible=true").click()
    says("expected the size of its image, 192x96, found 7x5")
    page.get_by_role("button", name="next").locator("visible=true").click()
    until(lambda: shown.count() == 2 and shown.nth(1).locator("img").evaluate("i => i.naturalWidth") == 192)
    page.get_by_role("tab", name="Results").click()
    says("cannot be decoded, the file is damaged")
    shot(page, "broken-results")
    page.keyboard.press("ArrowLeft")  # around, to the last one, which is whole
    says("weights.safetensors")
    until(lambda: "computing" not in page.inner_text("body"))
    shot(page, "broken-weights")
    page.get_by_role("tab", name="Training").click()
    says("step")
    page.get_by_role("tab", name="Video").click()
    page.get_by_label("camera").select_option("val camera1")
    page.get_by_label("run", exact=True).locator("visible=true").select_option("gta52cityscapes/source_only-s0")
    page.get_by_role("button", name="segment", exact=True).click()
    until(lambda: "1 fault, " in page.inner_text("body"), 120)
    shot(page, "broken-video")


def test_app_serves_only_what_it_is_given(app, page):
    assert "from adaptseg" not in page.content() and page.locator(".jp-CodeCell .jp-InputArea-editor").count() == 0, (
        "code is shown"
    )
    for path in (
        "voila/files/dashboard.ipynb",
        "files/dashboard.ipynb",
        "api/contents",
        "voila/files/../../../../etc/passwd",
        "voila/files/%2e%2e/%2e%2e/etc/passwd",
        "static/..%2f..%2f..%2f..%2fetc/passwd",
        "voila/tree/",
        "voila/render/%2fetc/passwd",
        "api/terminals",
        "lab",
    ):
        status, text = fetch(app + path)
        assert "root:x" not in text and "from adaptseg" not in text and status >= 400, (path, status)


def test_app_runs_no_code_of_a_browser(app, page, folders):
    "A request to execute, sent over the kernel's own channel, is not obeyed."
    mark = folders / "executed"
    kernel = page.evaluate("() => JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    request = {
        "header": {
            "msg_id": "1",
            "msg_type": "execute_request",
            "username": "",
            "session": "s",
            "version": "5.3",
            "date": "2026-01-01T00:00:00Z",
        },
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {
            "code": f"open({str(mark)!r}, 'w').close()",
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
        },
        "buffers": [],
    }
    frame = serialize_msg_to_ws_v1(request, request.pop("channel"), lambda part: json.dumps(part).encode())
    sent = page.evaluate(
        """([url, protocol, frame]) => new Promise(done => { const s = new WebSocket(url, [protocol]);
        s.onopen = () => { s.send(new Uint8Array(frame)); setTimeout(() => done(true), 3000); };
        s.onerror = () => done(false); })""",
        [f"{app.replace('http', 'ws')}api/kernels/{kernel}/channels?session_id=s", PROTOCOL, list(frame)],
    )
    assert sent and not mark.exists()


def test_password(folders):
    process, address = serve(folders, password="let me in")
    try:
        status, text = fetch(address)
    finally:
        process.terminate()
        process.wait(20)
    assert "adaptseg-picture" not in text and ("password" in text.lower() or status in (401, 403)), (status, text[:300])
