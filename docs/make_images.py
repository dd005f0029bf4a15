"""The images of the start page, made by prunedge itself: python docs/make_images.py RUN CELLS

RUN is a run on the solar cells that `prunedge demo` lays out, CELLS the folder of its images:

    prunedge demo --out demo-run
    prunedge prune demo-run-images --model resnet18 --weights none --size 96 --train-epochs 8 \
        --step-ratio 0.5 --epochs 2 --max-steps 4 --round-to 16 --augment flips --out runs/cells
    python docs/make_images.py runs/cells demo-run-images
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import prunedge as pe

IMAGES = Path(__file__).parent / "images"

SIDE = 300  # of a cell, in pixels
COLUMNS = 8
ROWS = 4
WIDEST = 1400  # pixels of an image: twice what a screen shows of it


def main() -> None:
    """Write docs/images/*.webp from a run."""
    parser = argparse.ArgumentParser(description="Make the images of the start page.")
    parser.add_argument("run", type=Path)
    parser.add_argument("cells", type=Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(photograph_report(arguments.run, folder), "report.webp")
        save(inspect_cells(arguments.run, arguments.cells, folder), "inspection.webp")


def photograph_report(run: Path, folder: Path) -> Image.Image:
    """Of the report the first screen: what is found and missed, and the cards."""
    prunedge("report", run)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"],
        )
        page = browser.new_page(viewport={"width": 1000, "height": 800}, device_scale_factor=1.4)
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        page.add_style_tag(content=".modebar, p.missing { display: none !important }")

        cards = page.locator("section.cards").bounding_box()
        area = {"x": 0, "y": 0, "width": 1000, "height": cards["y"] + cards["height"] + 12}
        page.screenshot(path=folder / "report.png", full_page=True, clip=area)
        browser.close()

    return Image.open(folder / "report.png")


def inspect_cells(run: Path, cells: Path, folder: Path) -> Image.Image:
    """The overlay of cells of the test split, laid side by side as in a module."""
    data = pe.load_folder(cells, seed=0)
    shown = random.Random(0).sample(data.test.samples, COLUMNS * ROWS)

    module = Image.new("L", (COLUMNS * SIDE, ROWS * SIDE))
    for place, sample in enumerate(shown):
        cell = Image.open(sample.path).convert("L").resize((SIDE, SIDE))
        module.paste(cell, (place % COLUMNS * SIDE, place // COLUMNS * SIDE))
    module.save(folder / "module.png")

    bundle = folder / "bundle"
    prunedge("export", run, "--out", bundle)
    prunedge("inspect", bundle, folder / "module.png", "--overlap", "0", "--out", folder / "seen")
    print_truth(shown, data.classes)

    (overlay,) = (folder / "seen").glob("*.overlay.jpg")
    return Image.open(overlay)


def print_truth(shown: list, classes: tuple[str, ...]) -> None:
    """Where the defective cells are, to be compared with the overlay."""
    for row in range(ROWS):
        labels = [classes[sample.target] for sample in shown[row * COLUMNS :][:COLUMNS]]
        print(" ".join("X" if label == "defective" else "." for label in labels))


def save(image: Image.Image, name: str) -> None:
    """Keep an image for the site, no wider than it is looked at."""
    image = image.convert("RGB")
    if image.width > WIDEST:
        height = round(image.height * WIDEST / image.width)
        image = image.resize((WIDEST, height), Image.Resampling.LANCZOS)

    IMAGES.mkdir(exist_ok=True)
    image.save(IMAGES / name, quality=80, method=6)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1000:,.0f} kB")


def prunedge(*arguments: str | Path) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "prunedge", *arguments], check=True)


if __name__ == "__main__":
    main()
