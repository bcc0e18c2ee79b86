"""What the rules imply about a position: whose points, whose life, which ladders run."""

from envs.compiled import kernel
from envs.go.board import HEIGHT, STRIDE, WIDTH, columns
from envs.go.chains import BLACK, BORDER, EMPTY, WHITE


@kernel
def own_points(row, words, owner, stack):
    """owner [points with border] = BLACK, WHITE or EMPTY (neither's), by area; returns Black minus White."""
    c = columns(row, words)
    height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
    score = 0
    owner[:] = BORDER
    for r in range(height):
        for p in range((r + 1) * stride + 1, (r + 1) * stride + 1 + width):
            if c.colour[p] != EMPTY:
                owner[p] = c.colour[p]
                score += 1 if c.colour[p] == BLACK else -1
            elif owner[p] == BORDER:
                owner[p] = EMPTY
                stack[0] = p
                first, last, touch = 0, 1, 0  # the region is stack[:last]
                while first < last:
                    here = stack[first]
                    first += 1
                    for i in range(4):
                        q = here - stride if i == 0 else here - 1 if i == 1 else here + 1 if i == 2 else here + stride
                        colour = c.colour[q]
                        if colour == EMPTY:
                            if owner[q] == BORDER:
                                owner[q] = EMPTY
                                stack[last] = q
                                last += 1
                        elif colour != BORDER:
                            touch |= colour
                if touch in (BLACK, WHITE):
                    for i in range(last):
                        owner[stack[i]] = touch
                    score += last if touch == BLACK else -last
    return score
