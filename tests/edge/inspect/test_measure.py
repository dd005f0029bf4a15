"""Lengths and widths of drawn cracks, whose true ones are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.morphology import skeletonize

from prunedge.edge.inspect import inspection, regions
from prunedge.edge.inspect.centreline import CORNER, SPUR, Centreline, steps_of
from prunedge.edge.inspect.grid import Grid
from prunedge.edge.inspect.measure import Measures, _reduced, measure
from prunedge.edge.inspect.regions import find_regions
from prunedge.edge.inspect.scale import Scale
from prunedge.edge.tasks.base import Findings

LENGTH = 90.0


def drawn(
    width: float,
    angle: float,
    *,
    length: float = LENGTH,
    radius: float | None = None,
    side: int = 140,
    blur: float = 0.0,
    noise: float = 0.0,
) -> np.ndarray:
    """The probability map of a crack of this width and length, at this angle (degrees,
    counterclockwise), straight or an arc of this radius."""
    fine = 4  # places of a pixel, whose mean is the pixel
    y, x = (np.mgrid[: side * fine, : side * fine] + 0.5) / fine - side / 2 - 0.3
    turn = np.radians(angle)
    along = x * np.cos(turn) - y * np.sin(turn)
    across = x * np.sin(turn) + y * np.cos(turn)
    if radius is not None:
        from_middle = np.hypot(along, across - radius)
        along, across = radius * np.arctan2(along, radius - across), from_middle - radius
    is_inside = (np.abs(across) <= width / 2) & (np.abs(along) <= length / 2)
    values = is_inside.reshape(side, fine, side, fine).mean((1, 3))
    if blur:
        values = gaussian_filter(values, blur)
    if noise:
        values = values + np.random.default_rng(0).normal(0, noise, values.shape)
    return values.clip(0, 1).astype(np.float32)


def measured(values: np.ndarray) -> Measures:
    found = measure(values, 0.5)
    assert found is not None
    return found


def measured_region(values: np.ndarray) -> Measures:
    """The measures of the one region of a photograph's map, as an inspection takes them."""
    rows, columns = findings_of(values).edges or ()
    (region,) = find_regions(findings_of(values), columns, rows, 0.5)
    assert region.measures is not None
    return region.measures


@pytest.mark.parametrize("by", [measured, measured_region])
@pytest.mark.parametrize(
    "how", [{}, {"radius": 60.0}, {"blur": 1.0}, {"blur": 1.0, "radius": 60.0}], ids=str
)
@pytest.mark.parametrize("width", [2, 3, 5, 8, 12])
def test_a_crack_is_as_long_and_wide_as_it_was_drawn(
    width: int, how: dict[str, float], by: Callable[[np.ndarray], Measures]
) -> None:
    wrong = []
    for angle in (0, 17, 45, 90):
        found = by(drawn(width, angle, **how))
        wrong.append(abs(found.mean_width - width))
        # Half a width less where a blur has eaten the ends.
        assert found.length == pytest.approx(LENGTH, rel=0.03 if width > 2 else 0.035)
        assert found.largest_width == pytest.approx(width, abs=1.0)
    assert np.mean(wrong) <= 0.3
    assert max(wrong) <= 0.5


@pytest.mark.parametrize("width", [2, 3, 4, 6])
@pytest.mark.parametrize("angle", [0, 90])
def test_a_blurred_line_along_a_side_of_the_photograph_is_as_wide_as_it_is(
    width: int, angle: int
) -> None:
    # Its box ends where the probability falls below the threshold, its edge lies beyond.
    values = drawn(width, angle, blur=0.8)
    whole = measured(values)
    region = measured_region(values)
    assert region.mean_width == pytest.approx(width, abs=0.1)
    assert region.mean_width == pytest.approx(whole.mean_width, abs=1e-6)
    assert region.length == pytest.approx(whole.length, abs=1e-6)
    spans = [np.ptp(one.polygon, axis=0) for one in (region, whole)]
    assert spans[0] == pytest.approx(spans[1], abs=0.02)
    assert np.min(region.polygon, axis=0) == pytest.approx(np.min(whole.polygon, axis=0), abs=0.02)


def test_a_crack_of_one_pixel_and_masks_without_greys_are_measured_too() -> None:
    for angle in (0, 17, 45, 90):
        for width in (1, 4):
            found = measured((drawn(width, angle) >= 0.5).astype(np.float32))
            assert found.mean_width == pytest.approx(width, abs=0.6)
            assert found.length == pytest.approx(LENGTH, rel=0.03)


@pytest.mark.parametrize(
    ("how", "least"),
    [
        ({}, 1),
        ({"radius": 60.0}, 1),
        ({"blur": 1.0, "radius": 60.0}, 2),  # a blurred line of one pixel has no place of a half
        ({"blur": 1.0, "radius": 60.0, "noise": 0.1}, 3),  # which breaks thinner ones
    ],
    ids=str,
)
def test_widths_and_lengths_are_right_in_the_mean(how: dict[str, float], least: int) -> None:
    widths = [width for width in (1, 2, 4, 9) if width >= least]
    of_width = []
    of_length = []
    for width in widths:
        for angle in (0, 29):
            values = drawn(width, angle, **how)
            labels, _ = label(values >= 0.5, np.ones((3, 3)))
            largest = np.bincount(labels.ravel())[1:].argmax() + 1  # without specks of noise
            found = measured(np.where((labels == largest) | (labels == 0), values, 0))
            of_width.append(abs(found.mean_width - width))
            of_length.append(abs(found.length / LENGTH - 1))
    assert np.mean(of_width) <= 0.15
    assert max(of_width) <= 0.5
    assert np.mean(of_length) <= 0.015
    assert max(of_length) <= 0.03


def test_the_centreline_lies_in_the_middle_with_the_width_there() -> None:
    values = np.zeros((60, 90), np.float32)
    values[20:26, 10:50] = 1
    values[18:28, 50:80] = 1
    x, y, widths = measured(values).moved(100, 200).centreline.T
    assert np.abs(y - 223).max() <= 1
    assert np.median(widths[(x > 115) & (x < 140)]) == pytest.approx(6, abs=0.3)
    assert np.median(widths[(x > 160) & (x < 175)]) == pytest.approx(10, abs=0.3)


def test_thick_regions_are_made_smaller_first_unless_thin_parts_would_be_lost() -> None:
    solid = np.ones((600, 700), np.float32)
    found = measured(solid)
    assert found.length == pytest.approx(700, rel=0.01)
    assert found.mean_width == pytest.approx(600, rel=0.01)
    assert _reduced(solid, 0.5, 5) is not None
    with_crack = np.pad(solid, ((0, 40), (0, 40)))
    with_crack[620:, 300:303] = 1
    with_crack[600:620, 300:303] = 1
    assert _reduced(with_crack, 0.5, 9) is None


def test_noise_moves_edges_and_hardly_the_measures() -> None:
    found = [measured(drawn(5, angle, blur=1.0, noise=0.1, radius=60.0)) for angle in (0, 17, 45)]
    assert np.mean([abs(one.mean_width - 5) for one in found]) <= 0.3
    assert np.mean([abs(one.length / LENGTH - 1) for one in found]) <= 0.03


@pytest.mark.parametrize(
    ("width", "angle", "how", "wanted"),
    [
        (2, 17, {}, (89.754624, 1.9936299, 1.9365528, 17.0021869)),
        (3, 0, {"blur": 1.0}, (88.5761085, 2.9967167, 2.875, 179.9999665)),
        (5, 45, {"radius": 60.0}, (89.8119752, 4.9895907, 5.0228151, 44.9967102)),
        (8, 90, {"blur": 1.0, "noise": 0.1}, (89.3329126, 8.0380509, 8.1212113, 89.9892857)),
        (12, 17, {"radius": 60.0, "blur": 1.0}, (89.2519308, 12.0508597, 12.0405251, 16.5189398)),
    ],
)
def test_a_way_that_takes_less_time_gives_the_same_figures(
    width: int, angle: int, how: dict[str, float], wanted: tuple[float, ...]
) -> None:
    """The figures of the first way, which looked at all branches again for each spur."""
    found = measured(drawn(width, angle, **how))
    figures = (found.length, found.mean_width, found.largest_width, found.direction)
    assert figures == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("angle", [0, 17, 45])
@pytest.mark.parametrize("width", [36, 60, 80])
def test_thick_regions_are_enlarged_less_and_measured_to_half_a_pixel(
    width: int, angle: int
) -> None:
    found = measured(drawn(width, angle, length=160, side=220, blur=1.0))
    assert found.mean_width == pytest.approx(width, abs=0.55)
    assert found.largest_width == pytest.approx(width, abs=0.55)
    assert found.length == pytest.approx(160, abs=1.1)


def kept_by_rounds(places: np.ndarray, beside: list[list[int]], distances: np.ndarray) -> set[int]:
    """What is left of a skeleton when all its branches are looked at again after each round."""
    kept = set(range(len(places)))

    def left(place: int) -> list[int]:
        return [other for other in beside[place] if other in kept]

    while True:
        reaches = []
        for end in [place for place in kept if len(left(place)) == 1]:
            path = [end]
            onward = left(end)
            while len(onward) == 1:
                path.append(onward[0])
                onward = [place for place in left(path[-1]) if place != path[-2]]
            if len(left(path[-1])) > 2:
                reach = np.linalg.norm(places[end] - places[path[-1]]) / distances[path[-1]]
                reaches.append((float(reach), path))
        shortest = min((reach for reach, _ in reaches), default=SPUR)
        if shortest >= SPUR:
            return kept
        for reach, path in reaches:
            if reach < CORNER or reach == shortest:
                kept -= set(path[:-1])


@given(seed=st.integers(0, 1000), fineness=st.floats(0.6, 3), share=st.floats(0.3, 0.8))
@settings(max_examples=40, deadline=None)
def test_spurs_are_those_of_all_branches_looked_at_again(
    seed: int, fineness: float, share: float
) -> None:
    values = gaussian_filter(np.random.default_rng(seed).random((50, 60)), fineness)
    is_inside = np.pad(values < np.quantile(values, share), 1)
    distances = distance_transform_edt(is_inside)
    skeleton = skeletonize(is_inside)
    line = Centreline(skeleton, distances)
    places = np.argwhere(skeleton)
    beside: list[list[int]] = [[] for _ in places]
    for first, second in steps_of(skeleton).tolist():
        beside[first].append(second)
        beside[second].append(first)
    wanted = kept_by_rounds(places, beside, distances[skeleton])
    line.drop_spurs()
    assert line.points().tolist() == places[sorted(wanted)].tolist()


def test_large_and_ragged_regions_are_measured() -> None:
    solid = np.ones((500, 500), np.float32)
    values = gaussian_filter(np.random.default_rng(0).random((200, 900)), 1.2)
    ragged = (values > np.quantile(values, 0.4)).astype(np.float32)
    for region in (solid, ragged):
        found = measured(region)
        assert 0 < found.mean_width < 1000
        assert found.length >= max(region.shape) * 0.9


@given(angle=st.floats(0, 179), width=st.floats(2, 8))
@settings(max_examples=12, deadline=None)
def test_a_turned_crack_measures_the_same(angle: float, width: float) -> None:
    plain = measured(drawn(width, 0))
    turned = measured(drawn(width, angle))
    assert turned.length == pytest.approx(plain.length, rel=0.03)
    assert turned.mean_width == pytest.approx(plain.mean_width, abs=0.35)
    apart = abs(turned.direction - angle) % 180
    assert min(apart, 180 - apart) < 2


@given(width=st.floats(2, 5), angle=st.floats(0, 90))
@settings(max_examples=8, deadline=None)
def test_twice_the_size_is_twice_as_long_and_wide(width: float, angle: float) -> None:
    once = measured(drawn(width, angle, length=50, side=80))
    twice = measured(drawn(2 * width, angle, length=100, side=160))
    assert twice.length == pytest.approx(2 * once.length, rel=0.03)
    assert twice.mean_width == pytest.approx(2 * once.mean_width, abs=0.6)


def test_places_of_several_pixels_are_counted_as_such() -> None:
    values = drawn(6, 30)
    halved = values.reshape(70, 2, 70, 2).mean((1, 3))
    found = measure(halved, 0.5, cell=2)
    assert found is not None
    assert found.length == pytest.approx(LENGTH, rel=0.04)
    assert found.mean_width == pytest.approx(6, abs=0.4)


def test_branches_count_and_spurs_do_not() -> None:
    values = np.zeros((80, 80), np.float32)
    values[38:41, 10:70] = 1
    one = measured(values)
    values[41:70, 38:41] = 1
    branched = measured(values)
    assert one.length == pytest.approx(60, rel=0.03)
    assert branched.length == pytest.approx(60 + 30, rel=0.03)
    rough = np.zeros((80, 80), np.float32)
    rough[36:43, 10:70] = 1
    rough[35, 20:60:7] = 1
    assert measured(rough).length == pytest.approx(60, rel=0.03)


def test_a_crack_that_ends_with_the_photograph_and_a_dot() -> None:
    values = np.zeros((30, 40), np.float32)
    values[10:13] = 1
    found = measured(values)
    assert found.length == pytest.approx(40, rel=0.05)
    assert found.mean_width == pytest.approx(3, abs=0.2)
    dot = np.zeros((9, 9), np.float32)
    dot[4, 4] = 1
    assert 0.5 < measured(dot).length < 2
    assert measure(np.zeros((5, 5), np.float32), 0.5) is None


def test_the_polygon_lies_on_the_edge() -> None:
    values = np.zeros((30, 40), np.float32)
    values[10:15, 5:25] = 1
    xs, ys = zip(*measured(values).polygon, strict=True)
    assert (min(xs), max(xs)) == pytest.approx((5, 25), abs=0.01)
    assert (min(ys), max(ys)) == pytest.approx((10, 15), abs=0.01)
    ragged = np.zeros((60, 400), np.float32)
    ragged[20:40] = 1
    ragged[18:20, ::2] = 1
    assert 4 <= len(measured(ragged).polygon) <= 200


def findings_of(mean: np.ndarray) -> Findings:
    down, across = (np.arange(side + 1) for side in mean.shape)
    return Findings(
        mean=mean,
        peak=mean,
        labels=np.zeros(mean.shape, np.uint8),
        names=("crack",),
        is_damaged=mean >= 0.5,
        surest=float(mean.max()),
        tiles=1,
        edges=(down, across),
    )


def test_regions_are_measured_each_by_itself_and_in_millimetres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean = np.zeros((60, 100), np.float32)
    mean[10:14, 5:85] = 1
    mean[20:22, 30:60] = 0.9  # within the box of neither
    mean[13:40, 95:98] = 0.8
    rows, columns = findings_of(mean).edges or ()
    found = find_regions(findings_of(mean), columns, rows, 0.5)
    sizes = [(one.measures.length, one.measures.mean_width) for one in found if one.measures]
    wanted = [(80, 4), (27, 3), (30, 2)]
    for (length, width), (true_length, true_width) in zip(sizes, wanted, strict=True):
        assert length == pytest.approx(true_length, abs=1.5)
        assert width == pytest.approx(true_width, abs=0.3)
    record = found[0].to_json(Scale(0.5))
    assert record["length_mm"] == pytest.approx(record["length_px"] / 2)
    assert record["largest_width_mm"] == pytest.approx(record["largest_width_px"] / 2)
    assert min(x for x, _ in record["polygon"]) == pytest.approx(5, abs=0.01)
    assert "measures" not in record

    monkeypatch.setattr(regions, "MOST_MEASURED", 1)
    fewer = find_regions(findings_of(mean), columns, rows, 0.5)
    assert [one.measures is not None for one in fewer] == [True, False, False]
    plain = find_regions(findings_of(mean), columns, rows)
    assert all(one.measures is None for one in plain)
    assert "length_px" not in plain[0].to_json(Scale(0.5))


def test_two_cracks_in_one_box_are_not_joined() -> None:
    mean = np.zeros((40, 40), np.float32)
    mean[5:8, 5:35] = 1
    mean[5:35, 5:8] = 1
    mean[20:22, 20:30] = 1
    rows, columns = findings_of(mean).edges or ()
    corner, inner = find_regions(findings_of(mean), columns, rows, 0.5)
    assert corner.measures is not None
    assert inner.measures is not None
    assert corner.measures.length == pytest.approx(57, rel=0.05)
    assert inner.measures.length == pytest.approx(10, rel=0.06)


def test_the_grid_of_patches_has_no_measures() -> None:
    assert inspection.UNMEASURED.endswith("'prunedge[measure]'")
    grid = Grid(32, 32, (8, 8), (4, 4))
    assert grid.extent == (32, 32)
