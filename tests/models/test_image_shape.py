"""The shape of images: what is allowed, what of it fits so many columns; taps and inverse."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minivae.models.settings import IMAGE_SHAPE, MOST_PIXELS, check_value, image_size
from minivae.models.taps import image_taps, inverse_taps


@pytest.mark.parametrize(
    ("shape", "n_features", "expected"),
    [
        (None, 784, (28, 28)),
        (None, 1, (1, 1)),
        ((3, 4), 12, (3, 4)),
        ([4, 3], 12, (4, 3)),
        ((1, -1), 7, (1, 7)),
        ((-1, 4), 12, (3, 4)),
        ((np.int64(2), -1), 12, (2, 6)),
    ],
)
def test_a_shape_that_fits_is_height_and_width(shape, n_features, expected):
    check_value("image_shape", IMAGE_SHAPE, shape)
    assert image_size(shape, n_features) == expected


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2.5, 2), (True, 4), (-1, -1), (-2, 3), "3x4", 12,
                                   (3, 4, 1), (2**63, 1)])  # fmt: skip
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width\), .* got"):
        check_value("image_shape", IMAGE_SHAPE, shape)


@pytest.mark.parametrize(
    ("shape", "n_features", "message"),
    [
        (None, 12, "n_features=12 is no square: set image_shape="),
        ((3, 4), 13, r"image_shape=\(3, 4\) does not fit n_features=13"),
        ((5, -1), 12, r"image_shape=\(5, -1\) does not fit n_features=12"),
        ((-1, 13), 12, "does not fit n_features=12"),
        ((1, -1), MOST_PIXELS + 1, "65,536 pixels at most"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_in_one_line(shape, n_features, message):
    with pytest.raises(ValueError, match=message) as raised:
        image_size(shape, n_features)
    assert "\n" not in str(raised.value)


def test_taps_of_an_image_are_pixels_within_it():
    """Above, and on the left, of 2 x 3 pixels 0 1 2 / 3 4 5."""
    taps = image_taps(2, 3, [(-1, 0), (0, -1), (-1, 1)])
    assert_array_equal(taps, [[-1, -1, -1], [-1, 0, -1], [-1, 1, -1],
                              [0, -1, 1], [1, 3, 2], [2, 4, -1]])  # fmt: skip
    assert image_taps(2, 3, []).shape == (6, 0)


def test_inverse_taps_say_who_sees_a_position():
    taps = image_taps(3, 4, [(-1, -1), (-1, 2), (0, -1), (0, 0)])
    inverse = inverse_taps(taps)
    for p in range(12):
        for t in range(4):
            assert taps[p, t] < 0 or inverse[taps[p, t], t] == p
            assert inverse[p, t] < 0 or taps[inverse[p, t], t] == p
    with pytest.raises(AssertionError, match="from two others"):
        inverse_taps(np.array([[0], [0]]))
