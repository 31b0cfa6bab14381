"""Makes the pictures of the manual, in docs/images.

python docs/pictures.py sample runs/FOLDER      of `python train.py`, with Debian's chromium
python docs/pictures.py chapter runs/FOLDER     of "170 steps", seed 0, of benchmarks/chapter.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fcn_keras import Segmenter, load_split
from fcn_keras.data.overlay import color_mask, draw_legend
from fcn_keras.evaluation.charts import draw_grid

CAT = Path(__file__).parents[1] / "notebooks" / "chelsea.jpg"
IMAGES = Path(__file__).parent / "images"
EXAMPLES = (32, 48)  # of the validation scenes: two that have several classes
FCN_KERAS = [sys.executable, "-m", "fcn_keras"]


def chapter(run: Path) -> None:
    """A photograph from elsewhere, its mask and the overlay of both, in one row."""
    segmenter, photograph = Segmenter.load(run), np.asarray(Image.open(CAT))
    mask = segmenter(photograph)
    height, width = mask.shape
    pictures = photograph, color_mask(mask, segmenter.labels), segmenter.overlay(photograph)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3 * height / width + 0.4), layout="constrained")
    for axis, picture in zip(axes, pictures):
        axis.imshow(picture)
        axis.axis("off")
    draw_legend(figure, np.unique(mask), segmenter.labels, loc="outside lower center")
    figure.savefig(IMAGES / "chelsea.png", dpi=110)
    shutil.copy(run / "curves.png", IMAGES / "chapter_curves.png")


def sample(run: Path) -> None:
    segmenter, val = Segmenter.load(run), load_split("sample", "val")
    images, truths = zip(*map(val.read, EXAMPLES))
    grid = draw_grid(images, [segmenter(image) for image in images], truths, val.labels)
    grid.savefig(IMAGES / "sample_predictions.png", dpi=150)
    shutil.copy(run / "curves.png", IMAGES / "sample_curves.png")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        # The width of a phone, in more pixels, so that texts can be read on one.
        page = browser.new_page(viewport={"width": 600, "height": 600}, device_scale_factor=1.25)
        take_report(page, run)
        take_demo(page, run)


def take_report(page: Page, run: Path) -> None:
    subprocess.run([*FCN_KERAS, "report", run], check=True)
    page.goto((run / "report.html").resolve().as_uri())
    page.screenshot(path=IMAGES / "report.png")


def take_demo(page: Page, run: Path) -> None:
    command = [*FCN_KERAS, "demo", "--model", run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            line = next(line for line in demo.stdout if "http://" in line)
            page.goto(re.search(r"http://\S+", line).group())
            page.click("#samples button >> nth=1")
            page.wait_for_selector("#picture canvas:not([hidden])")
            page.set_viewport_size({"width": 600, "height": 880})
            page.evaluate("document.querySelector('[role=status]').scrollIntoView()")
            page.screenshot(path=IMAGES / "demo.jpg", quality=85, type="jpeg")
        finally:
            demo.terminate()


if __name__ == "__main__":
    {"sample": sample, "chapter": chapter}[sys.argv[1]](Path(sys.argv[2]))
