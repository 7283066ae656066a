"""How a handwritten digit is written: slant, stroke weight, width and height, measured from its pixels."""

import numpy as np
from numpy.typing import NDArray

STYLES = ("slant", "weight", "width", "height")
"""Names of the columns of `measure_style`."""

_STRETCH = 4.0  # extent of a uniform distribution is sqrt(12) times its deviation; of a stroke's ends, about 4 times
_CROFTON = np.pi / 4  # mean boundary length per unit of |dx| + |dy|, over all directions


def measure_style(samples: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Slant, stroke weight, width and height of digits, bright on black: uint8 [N, 1, H, W] -> [N, 4].

    slant: shift to the right per pixel upwards, by the second moments of the ink; positive for italics. weight: mean
    thickness of the stroke in pixels, twice the ink's area over the length of its boundary. width and height: four
    standard deviations of the ink along each axis, in pixels. Zeros for an empty picture.
    """
    ink = samples[:, 0].astype(np.float64) / 255
    area = ink.sum((1, 2))
    some = np.maximum(area, 1e-9)
    rows, columns = (np.arange(extent, dtype=np.float64) for extent in ink.shape[1:])
    y = -(rows - (ink.sum(2) @ rows / some)[:, None])  # upwards, from the centre of mass, [N, H]
    x = columns - (ink.sum(1) @ columns / some)[:, None]
    xx, yy = ((moment * square).sum(1) / some for moment, square in ((ink.sum(1), x**2), (ink.sum(2), y**2)))
    xy = np.einsum("nhw,nh,nw->n", ink, y, x) / some
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    edges = np.abs(np.diff(padded, axis=1)).sum((1, 2)) + np.abs(np.diff(padded, axis=2)).sum((1, 2))
    weight = 2 * area / np.maximum(_CROFTON * edges, 1e-9)
    slant = xy / np.maximum(yy, 1e-9)
    return np.stack([slant, weight, _STRETCH * np.sqrt(xx), _STRETCH * np.sqrt(yy)], 1)
