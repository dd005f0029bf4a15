"""What an inspection looks like."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from prunedge.edge.image.photograph import open_photo
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.inspect.overlay import COLOURS, LEGEND, _round_length, draw_overlay, grey_map
from prunedge.edge.session import Session
from tests.edge.inspect.conftest import wall


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (5000, 2), (3000, 1000), (1000, 3000), (2000, 2000), (300, 200)]
)
def test_an_overlay_is_never_too_large_and_never_tiny(
    size: tuple[int, int], session: Session
) -> None:
    image = Image.new("RGB", size, (160, 160, 160))
    found = inspect_image(image, session, Settings(patch=500))
    overlay = draw_overlay(open_photo(image, 100), found, 0.5)
    assert max(overlay.size) <= 2000
    assert max(overlay.size) >= 460
    assert overlay.height > LEGEND


def test_colours_lie_where_the_damage_is_and_nowhere_else(session: Session) -> None:
    image = wall(1000, 800, ((300, 200, 340, 600),))
    found = inspect_image(image, session, Settings(patch=100))
    shown = np.asarray(draw_overlay(open_photo(image, 1), found, 0.5), dtype=int)[:800, :1000]
    changed = np.abs(shown - np.asarray(image)).max(-1) > 12
    region = found.regions[0]
    inside = np.zeros_like(changed)
    # The label stands above the box.
    inside[region.top - 30 : region.bottom, region.left : region.right] = True
    assert len(found.regions) == 1
    assert changed[inside].mean() > 0.4
    # Beside a region are the cells that one patch of four called damaged.
    inside[region.top - 50 : region.bottom + 50, region.left - 50 : region.right + 50] = True
    assert not changed[~inside].any()


def test_the_colours_tell_their_order_without_hue() -> None:
    lightness = COLOURS @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) > 0).all()


def test_the_map_and_the_scale() -> None:
    np.testing.assert_array_equal(
        np.asarray(grey_map(np.array([[0, 0.5], [1, 0.2]], dtype=np.float32))),
        [[0, 128], [255, 51]],
    )
    assert [_round_length(most) for most in (0.3, 1, 1.9, 4.99, 5, 77, 250)] == pytest.approx(
        [0.2, 1, 1, 2, 5, 50, 200]
    )
