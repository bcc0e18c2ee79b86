"""Boxes on images and on maps: their overlap, code, anchors; what lies inside them, and the way back to the image.

A box is left, top, right, bottom in pixels, right and bottom just behind its last pixel. Source: Ren et al. 2015
(anchors, code), Lin et al. 2017 (levels), He et al. 2017 (RoIAlign).
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_GROWTH = math.log(1000 / 16)
"""logarithm of the largest factor by which a code may widen a box: exp of more would overflow early in training"""

ALL_AT_ONCE = 500
"""boxes: of more, each label's are suppressed by themselves, since memory and time grow with the square"""


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]"""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [N, 4] with boxes [M, 4]: [N, M]."""
    width = (torch.minimum(a[:, None, 2], b[:, 2]) - torch.maximum(a[:, None, 0], b[:, 0])).clamp_(min=0)
    height = (torch.minimum(a[:, None, 3], b[:, 3]) - torch.maximum(a[:, None, 1], b[:, 1])).clamp_(min=0)
    both = width.mul_(height)
    return both / (area(a)[:, None] + area(b) - both).clamp_(min=1e-12)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes [..., 4] inside an image of size (height, width)."""
    height, width = size[0], size[1]
    limits = torch.stack([width, height, width, height]).to(boxes)
    return torch.minimum(boxes.clamp(min=0), limits)


def nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: indices of the boxes [N, 4] that overlap no surer one by more than `threshold`.

    labels [N]: boxes of different ones do not suppress each other. The surest come first.
    """
    if labels is not None and len(boxes) > ALL_AT_ONCE:
        each = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
        kept = torch.cat([some[nms(boxes[some], scores[some], threshold)] for some in each]).sort().values
        return kept[scores[kept].argsort(descending=True, stable=True)]
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    suppresses = (iou(boxes, boxes) > threshold).triu_(1)  # [surer, less sure]
    if labels is not None:
        labels = labels[order]
        suppresses &= labels[:, None] == labels
    # Whether a box stays depends on the surer ones that stay. Each round settles at least one more, in practice all
    # after three or four; a loop over boxes would take N.
    suppresses, kept = suppresses.to(boxes.dtype), boxes.new_ones(len(boxes))
    while True:
        before, kept = kept, (kept @ suppresses == 0).to(boxes.dtype)
        if torch.equal(before, kept):
            return order[kept.bool()]


# -- anchors and the code of a box -------------------------------------------------------------------------------------


def anchors(
    shapes: Sequence[Sequence[int]],
    strides: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float],
    device: torch.device | None = None,
) -> list[Tensor]:
    """Of each map of shape (height, width): [height * width * ratios, 4], in whole pixels about each cell's corner.

    ratios: height / width; all have the area of a square whose side is the map's number in `sizes`.
    """
    ratio = torch.tensor(ratios, device=device)
    high, wide = ratio.sqrt(), 1 / ratio.sqrt()
    out = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        around = (torch.stack([-wide, -high, wide, high], 1) * (size / 2)).round()
        y, x = (torch.arange(number, device=device) * stride for number in (height, width))
        corner = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)] * 2, -1)
        out.append((corner[:, :, None] + around).reshape(-1, 4))
    return out


def encode(boxes: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """What a network is to say of its references [N, 4] so that they become boxes [N, 4] (Ren et al. 2015, eq. 2)."""
    from_, side = _centre_and_side(references)
    to, new_side = _centre_and_side(boxes)
    return torch.cat([(to - from_) / side, (new_side / side).log()], -1) * boxes.new_tensor(weights)


def decode(code: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """The inverse of `encode`; code [..., 4], references that broadcast with it."""
    code = code / code.new_tensor(weights)
    centre, side = _centre_and_side(references)
    centre = centre + code[..., :2] * side
    half = side * code[..., 2:].clamp(max=MOST_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    side = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + side / 2, side


# -- what lies inside a box --------------------------------------------------------------------------------------------


def levels(boxes: Tensor, first: int, last: int) -> Tensor:
    """[N] of boxes [N, 4]: the level of the pyramid, whose stride is 2 ** level, that each is looked at on.

    Source: Lin et al. 2017, eq. 1: a box of 224 x 224 pixels is looked at on level 4.
    """
    level = 4 + (area(boxes).sqrt() / 224).log2() + 1e-6
    return level.floor().clamp(first, last).long()


def roi_align(
    maps: Sequence[Tensor],
    strides: Sequence[float],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    size: int,
    samples: int = 2,
    aligned: bool = False,
) -> Tensor:
    """The content of boxes [N, 4] as [N, C, size, size] (RoIAlign, He et al. 2017).

    Each of size x size bins is the mean of samples x samples points, between four cells each.

    Args:
        maps: [B, C, H, W] of each level, strides: their pixels a cell.
        image: [N], the number of each box's image; level: [N], the number of its map.
        samples: 0: as many as a bin is long, in cells.
        aligned: cells are points at their centres, so that boxes are moved by half a cell; not so in the paper.
    """
    shapes = torch.tensor([x.shape[2:] for x in maps], device=boxes.device)
    first = torch.tensor([0, *itertools.accumulate(x.numel() // x.shape[1] for x in maps[:-1])], device=boxes.device)
    table = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in maps]).float()  # [cells, C]
    stride = boxes.new_tensor(strides)[level]
    box = boxes / stride[:, None] - 0.5 * aligned
    low, length = box[:, :2], box[:, 2:] - box[:, :2]
    if not aligned:
        length = length.clamp(min=1)
    height, width = shapes[level].unbind(1)
    start = first[level] + image * height * width  # of each box's map in the table
    places = start, height, width, low, length
    if samples:
        return _pooled(table, places, size, samples, samples)
    out = table.new_empty(len(boxes), table.shape[1], size, size)
    grids = (length / size).ceil().long().clamp(min=1)  # [N, (x, y)]
    for across, down in grids.unique(dim=0).tolist():
        these = ((grids[:, 0] == across) & (grids[:, 1] == down)).nonzero()[:, 0]
        out[these] = _pooled(table, [place[these] for place in places], size, down, across)
    return out


def _pooled(table: Tensor, places: Sequence[Tensor], size: int, down: int, across: int) -> Tensor:
    """Means over bins of down x across points each: a sum over rows of the table with weights, which is one call."""
    start, height, width, low, length = places
    row_low, row_high, row_share = _between(low[:, 1], length[:, 1], height, size, down)
    column_low, column_high, column_share = _between(low[:, 0], length[:, 0], width, size, across)
    rows = torch.stack([row_low, row_high], -1) * width[:, None, None, None]  # [N, size, down, 2]
    columns = torch.stack([column_low, column_high], -1)  # [N, size, across, 2]
    # [N, size, size, down, 2, across, 2]
    index = rows[:, :, None, :, :, None, None] + columns[:, None, :, None, None] + start.view(-1, 1, 1, 1, 1, 1, 1)
    weight = row_share[:, :, None, :, :, None, None] * column_share[:, None, :, None, None]
    bags = index.flatten(3).flatten(0, 2)  # [N * size * size, points * 4]
    weight = weight.expand(index.shape).flatten(3).flatten(0, 2) / (down * across)
    out = F.embedding_bag(bags, table, mode="sum", per_sample_weights=weight.to(table.dtype))
    return out.view(-1, size, size, table.shape[1]).permute(0, 3, 1, 2)


def _between(low: Tensor, length: Tensor, cells: Tensor, size: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the cells below and above each point [N, size, points], and the shares of both [..., 2]."""
    place = (torch.arange(size * points, device=low.device) + 0.5) / points
    at = (low[:, None] + place * (length / size)[:, None]).view(-1, size, points)
    most = (cells - 1).view(-1, 1, 1)
    inside = (at >= -1) & (at <= most + 1)
    at = torch.minimum(at.clamp(min=0), most.to(at))
    below = at.long()
    share = at - below
    return below, torch.minimum(below + 1, most), torch.stack([1 - share, share], -1) * inside[..., None]


def paste(masks: Tensor, boxes: Tensor, size: Sequence[int], aligned: bool = False) -> Tensor:
    """Masks [N, M, M] over their boxes [N, 4] on an image of size (height, width): [N, H, W].

    aligned: pixels are seen at their centres. Otherwise as it is often published: boxes, enlarged by a cell on each
    side, in whole pixels and one pixel more, so that things come out half a pixel larger.
    """
    if aligned:
        low, length = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    else:
        cells = masks.shape[-1]
        masks = F.pad(masks, (1, 1, 1, 1))
        centre, length = _centre_and_side(boxes)
        half = length * ((cells + 2) / cells) / 2
        low = (centre - half).trunc()
        length = ((centre + half).trunc() - low + 1).clamp(min=1)
    down = _hats(low[:, 1], length[:, 1], size[0], masks.shape[-1], aligned)
    across = _hats(low[:, 0], length[:, 0], size[1], masks.shape[-1], aligned)
    return down @ masks @ across.mT


def _hats(low: Tensor, length: Tensor, pixels: int, cells: int, aligned: bool) -> Tensor:
    """Along one axis, the share of each cell in each pixel by linear interpolation: [N, pixels, cells]."""
    at = (torch.arange(pixels, device=low.device) + 0.5 - low[:, None]) * (cells / length.clamp(min=1e-6))[:, None]
    inside = (at > 0) & (at < cells)
    at = at - 0.5
    if not aligned:
        at = at.clamp(0, cells - 1)
    hats = (1 - (at[..., None] - torch.arange(cells, device=low.device)).abs()).clamp(min=0)
    return hats * inside[..., None]
