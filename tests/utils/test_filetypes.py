"""What a file or folder is, where another kind was wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prunedge.data.listing import list_data
from prunedge.edge import open_bundle
from prunedge.errors import BundleError, DataError, PrunedgeError, RunError, WeightsError
from prunedge.models.weight_files import open_weights
from prunedge.runs.run import open_run
from prunedge.study import open_study
from prunedge.utils.filetypes import kind_of_file


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp"])
@pytest.mark.parametrize("name", ["photo", "weights.pth", "weights.safetensors"])
def test_a_image_is_called_one_whatever_it_is_called(
    suffix: str, name: str, tmp_path: Path
) -> None:
    file = tmp_path / (name if "." in name else f"{name}.{suffix}")
    Image.new("RGB", (8, 8)).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    with pytest.raises(WeightsError, match=r"this is an? .* image, not a file of weights"):
        open_weights(file)
    with pytest.raises(DataError, match=r"this is an? .* image, not a set of images"):
        list_data(file)


def test_a_text_with_a_images_name_is_neither(tmp_path: Path) -> None:
    (file := tmp_path / "text.png").write_text("text")
    for opens in (open_weights, list_data):
        with pytest.raises(PrunedgeError, match="this is a text file with an image's name, not a"):
            opens(file)


def test_a_table_stays_a_table(tmp_path: Path) -> None:
    (file := tmp_path / "BM.txt").write_text("BM,file,label\nx,a.png,crack\nx,b.png,sound\n")
    assert kind_of_file(file) == "a text file"
    assert len(list_data(file).records) == 2


def test_a_page_that_was_downloaded_for_weights_is_told(tmp_path: Path) -> None:
    (file := tmp_path / "resnet.pth").write_text("\n<!DOCTYPE html><title>404</title>")
    with pytest.raises(WeightsError, match="a web page"):
        open_weights(file)


def made(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / f"my {kind}"
    folder.mkdir()
    name, text = {
        "run": ("config.toml", "x = 1"),
        "study": ("study.toml", "x = 1"),
        "bundle": ("manifest.json", '{"forms": {}}'),
        "inspection": ("inspection.json", "{}"),
    }[kind]
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", ["run", "study", "bundle", "inspection"])
def test_a_folder_of_ours_is_no_folder_of_images(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path, kind)
    remedy = {
        "run": f"prunedge prune --from '{folder}' --out '{folder}-pruned'",
        "study": f"prunedge study status '{folder}'",
        "bundle": f"prunedge bench '{folder}'",
        "inspection": f"{folder}/inspection.html",
    }[kind]
    with pytest.raises(DataError, match=f"this is an? {kind}, not a folder of images") as caught:
        list_data(folder)
    assert remedy in str(caught.value)


def test_images_beside_a_studys_file_are_images(tmp_path: Path) -> None:
    for name in ("crack", "sound"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "study.toml").write_text("data = '.'")
    assert len(list_data(tmp_path).records) == 2


def test_each_verb_says_which_kind_it_was_given(tmp_path: Path) -> None:
    run, study, bundle = (made(tmp_path, kind) for kind in ("run", "study", "bundle"))
    with pytest.raises(
        RunError, match=r"not a run folder \(it is a study\).*prunedge study status"
    ):
        open_run(study)
    with pytest.raises(RunError, match=r"not a run folder \(it is a bundle\).*prunedge bench"):
        open_run(bundle)
    with pytest.raises(
        RunError, match=r"the run that it was exported from.*--weights '.*my bundle'"
    ):
        open_run(bundle)
    with pytest.raises(RunError, match=r"not a study's folder \(it is a run\).*prunedge show"):
        open_study(run)
    with pytest.raises(
        BundleError,
        match=r"not a bundle \(it is a run\).*prunedge export '.*my run' --out BUNDLE makes one",
    ):
        open_bundle(run)
    inside = made(run, "bundle")
    with pytest.raises(BundleError, match=rf"it is a run\).*: name its bundle, {inside}"):
        open_bundle(run)
    with pytest.raises(RunError, match=r"not a run folder \(there is none\)"):
        open_run(tmp_path / "nowhere")
