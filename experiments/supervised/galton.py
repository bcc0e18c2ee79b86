"""Galton's 928 adult children and the mid-heights of their parents: the data that regression has its name from.

Source: Galton 1886, "Regression towards mediocrity in hereditary stature", table I.
"""

import numpy as np

from experiments.supervised.tables import Table

CHILDREN = (61.7, 62.2, 63.2, 64.2, 65.2, 66.2, 67.2, 68.2, 69.2, 70.2, 71.2, 72.2, 73.2, 73.7)
"""heights in inches, the columns of COUNTS; the outermost classes are "below" and "above\""""
COUNTS = {
    64.0: (1, 0, 2, 4, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0),
    64.5: (1, 1, 4, 4, 1, 5, 5, 0, 2, 0, 0, 0, 0, 0),
    65.5: (1, 0, 9, 5, 7, 11, 11, 7, 7, 5, 2, 1, 0, 0),
    66.5: (0, 3, 3, 5, 2, 17, 17, 14, 13, 4, 0, 0, 0, 0),
    67.5: (0, 3, 5, 14, 15, 36, 38, 28, 38, 19, 11, 4, 0, 0),
    68.5: (1, 0, 7, 11, 16, 25, 31, 34, 48, 21, 18, 4, 3, 0),
    69.5: (0, 0, 1, 16, 4, 17, 27, 20, 33, 25, 20, 11, 4, 5),
    70.5: (1, 0, 1, 0, 1, 1, 3, 12, 18, 14, 7, 4, 3, 3),
    71.5: (0, 0, 0, 0, 1, 3, 4, 3, 5, 10, 4, 9, 2, 2),
    72.5: (0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 7, 2, 4),
    73.0: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0),
}
"""children of each height, by the mean of their father's height and 1.08 times their mother's"""


def galton_table() -> Table:
    """One row for each child: x is the height of its parents, y its own."""
    cells = [(p, c, n) for p, row in COUNTS.items() for c, n in zip(CHILDREN, row, strict=True)]
    parent, child, count = np.array(cells).T
    parent, child = (np.repeat(column, count.astype(int)) for column in (parent, child))
    return Table(parent[:, None], child, np.ones(len(child)), "child", ("parent",))
