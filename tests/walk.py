"""Pictures of all dashboards for nbs/tutorials/dashboards.ipynb, taken in a browser: `make demo`, then `python
tests/walk.py`. Needs chromium.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from adaptseg.dashboards.app import served_notebook, voila_command, voila_environment
from adaptseg.reports.photographs import predict_job
from adaptseg.reports.predicting import predict_folder
from browser import CHROMIUM

ROOT = Path(__file__).parents[1]
PICTURES, PORT = ROOT / "nbs" / "pictures", 8899


def computed(page):
    time.sleep(2)
    while page.locator(".adaptseg-picture").count() < 4 or "computing" in page.inner_text("body"):
        time.sleep(0.5)


def results(page):
    page.locator("select[multiple]").select_option(index=[0, 1])
    for _ in range(3):
        computed(page)
        page.get_by_role("button", name="next →").locator("visible=true").click()
    computed(page)
    take(page, "results")
    page.get_by_role("button", name="errors").click()
    time.sleep(2)
    take(page, "errors")


def training(page):
    time.sleep(4)
    take(page, "training")


def segments(page):
    canvas = page.locator(".adaptseg-picture:visible canvas")
    for label, (x, y, to) in {"0": (0.35, 0.8, 0.65), "1": (0.3, 0.05, 0.7)}.items():  # the street, the sky
        page.get_by_label("label").fill(label)
        page.keyboard.press("Tab")
        time.sleep(1)
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + to * box["width"], box["y"] + y * box["height"], steps=10)
        page.mouse.up()
        time.sleep(1)
    page.get_by_role("button", name="run", exact=True).click()
    page.wait_for_function("() => document.body.innerText.includes('done:')", timeout=120_000)
    time.sleep(2)
    take(page, "segments")


def datasets(page):
    page.get_by_label("beside").select_option("cityscapes")
    page.get_by_role("button", name="count classes").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('img.widget-image')].some(i => i.naturalWidth > 400 && i.offsetParent)"
    )
    take(page, "datasets")


def predictions(page):
    page.get_by_label("first").select_option("unlike predicted/source_only-s0")
    page.get_by_label("outlines").locator("visible=true").click()
    time.sleep(5)
    picture = page.locator(".adaptseg-picture:visible canvas").first
    page.get_by_role("button", name="wrong here").click()
    picture.click(position={"x": 700, "y": 300})
    time.sleep(1)
    page.get_by_role("button", name="wrong here").click()
    picture.click(position={"x": 420, "y": 260})  # the probabilities there
    time.sleep(3)
    take(page, "predictions")


def video(page):
    page.get_by_label("camera").select_option("val camera1")
    page.get_by_role("button", name="segment", exact=True).click()
    page.wait_for_function("() => document.body.innerText.includes('frame 1 of')", timeout=300_000)
    page.get_by_role("button", name="most objects").click()
    time.sleep(2)
    take(page, "video")


def take(page, name):
    "What the dashboard fills of the page, as a small file."
    box = page.locator(".jupyter-widgets.widget-tab").first.bounding_box()
    part = Path(tempfile.gettempdir()) / f"{name}.png"
    page.screenshot(path=part, clip=box)
    Image.open(part).convert("RGB").resize((round(box["width"] * 0.8), round(box["height"] * 0.8)), Image.LANCZOS).save(
        PICTURES / f"dashboard-{name}.jpg", quality=80, optimize=True
    )
    print(name, (PICTURES / f"dashboard-{name}.jpg").stat().st_size // 1000, "kB")


for run in sorted((ROOT / "runs/demo").glob("*/*/weights.safetensors")):
    out = ROOT / "runs/demo/predicted" / run.parent.name
    predict_folder(predict_job(images="cityscapes", weights=str(run.parent), out=str(out), confidence=True))

with tempfile.TemporaryDirectory() as place, sync_playwright() as p:
    notebook = served_notebook(Path(place), str(ROOT / "runs" / "demo"), None, str(Path(place) / "views"))
    app = subprocess.Popen(
        voila_command(notebook, PORT),
        cwd=place,
        env={**voila_environment(notebook), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    try:
        time.sleep(20)
        page = browser.new_page(viewport={"width": 1400, "height": 1300})
        page.goto(f"http://127.0.0.1:{PORT}/", timeout=120_000)
        page.wait_for_selector(".adaptseg-picture img", timeout=120_000)
        for name, room in {
            "Results": results,
            "Training": training,
            "Segments": segments,
            "Predictions": predictions,
            "Datasets": datasets,
            "Video": video,
        }.items():
            page.get_by_role("tab", name=name).click()
            time.sleep(3)
            room(page)
    finally:
        browser.close()
        app.terminate()
        app.wait(20)
