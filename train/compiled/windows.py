"""Convolutions of images without padding, as a table has them.

A table, `table_L_14`, has a row for each of them. Images lie in memory row by row and the channels
of a pixel side by side, one image after the other.
"""

import numpy as np
from numpy.typing import NDArray

CHANNELS, FILTERS, ROWS, COLUMNS, DOWN, ACROSS, IN_HEIGHT, IN_WIDTH = range(8)
"""Columns of a table: of the input, of the output, size of the filter, its steps, and the size
of the input. The number of filters is a multiple of `products.WIDTH`."""
OUT_HEIGHT, OUT_WIDTH, MADE, WEIGHTS, SIDES, TURNED = range(8, 14)
"""The size of the output, how many numbers it has and how many weights there are, what
`winograd.sides_of` says, and as how many numbers weights are multiplied."""

Table = NDArray[np.int64]
