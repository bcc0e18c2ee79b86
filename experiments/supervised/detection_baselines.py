"""What a detector of things has to beat: a network that labels each pixel, and places where things usually are."""

import itertools
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.cluster import KMeans
from torch import Tensor, nn

from rlkit import runtime
from rlkit.instances import STRIDE, Detections, Instances, boxes_of
from rlkit.nn.nature import he_
from rlkit.trainer import Batch

LEVELS = 4
SMALLEST = 8
"""pixels of a component that counts"""
MOST = 100
"""components of a picture"""


class UNet(nn.Module):
    """Images uint8 [B, 3, H, W], sides multiples of 8, -> logits [B, 1 + classes, H, W], the background first.

    Four levels of two 3x3 convolutions with group norm, each half as wide and high as the one before, and back up with
    what was seen on the way down (Ronneberger et al. 2015, with padding). width: channels of the first level.
    """

    def __init__(self, classes: int, width: int = 16):
        super().__init__()
        if width % 8:
            raise ValueError(f"a U-Net's width is a multiple of 8, the groups of its norms, not {width}")
        channels = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(_two_convolutions(a, b) for a, b in itertools.pairwise([3, *channels]))
        pairs = list(itertools.pairwise(channels))[::-1]
        self.widen = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for shallow, deep in pairs)
        self.up = nn.ModuleList(_two_convolutions(2 * shallow, shallow) for shallow, _ in pairs)
        self.head = nn.Conv2d(width, 1 + classes, 1)
        he_(self)

    def forward(self, images: Tensor) -> Tensor:
        x, seen = images.float() / 127.5 - 1, []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            seen.append(x)
        for before, widen, up in zip(seen[-2::-1], self.widen, self.up, strict=True):
            x = up(torch.cat([before, widen(x)], 1))
        return self.head(x)


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for channels in (before, after):
        parts += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.GroupNorm(8, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


def unet_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the pixels, and 1 - Dice's overlap of each class in the batch, which rare ones need
    (Milletari et al. 2016). A batch is rlkit.instances.batch_of's.
    """
    logits, target = model(batch["images"]), _label_map(batch)
    inside = target >= 0
    entropy = F.cross_entropy(logits, target, ignore_index=-1)
    p = logits.softmax(1) * inside[:, None]
    true = F.one_hot(target.clamp(min=0), logits.shape[1]).movedim(-1, 1) * inside[:, None]
    both, each = (p * true).sum((0, 2, 3))[1:], (p + true).sum((0, 2, 3))[1:]
    there = true.any(3).any(2).any(0)[1:]
    dice = ((1 - 2 * both / each.clamp(min=1e-6)) * there).sum() / there.sum().clamp(min=1)
    return entropy + dice, {"entropy": entropy.detach(), "dice": dice.detach()}


def _label_map(batch: Batch) -> Tensor:
    """[B, H, W]: each pixel's label, 0 without a thing, -1 outside the picture. Of several the smallest counts."""
    masks, sizes = batch["masks"], batch["sizes"]
    height, width = batch["images"].shape[2:]
    rows, columns = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]
    target = inside.long() - 1
    order = masks.sum((1, 2)).argsort(descending=True, stable=True)
    for i, picture in torch.stack([order, batch["picture"][order]], 1).tolist():  # waits for the device
        target[picture].masked_fill_(masks[i], int(batch["labels"][i]))
    return target


def components(model: nn.Module, images: Iterable[NDArray[np.uint8]]) -> list[Detections]:
    """What a U-Net finds on images [3, H, W] of any sizes, one after the other."""
    device, found = next(model.parameters()).device, []
    with runtime.evaluating(model):
        for image in images:
            height, width = image.shape[1:]
            padded = F.pad(torch.from_numpy(image), (0, -width % STRIDE, 0, -height % STRIDE))
            p = model(padded[None].to(device))[0, :, :height, :width].softmax(0)
            found.append(components_of(p.float().cpu().numpy()))
    return found


def components_of(p: NDArray[np.float32]) -> Detections:
    """The connected pixels (corners connect) that take the same class, from p [1 + classes, H, W]; a score is their
    mean probability. The 100 surest, as COCO counts.
    """
    likeliest = p.argmax(0)
    found: list[tuple[float, int, NDArray, int]] = []
    for label in range(1, len(p)):
        parts, number = ndimage.label(likeliest == label, np.ones((3, 3)))
        sizes, scores = np.bincount(parts.ravel()), ndimage.mean(p[label], parts, range(number + 1))
        found += [(scores[i], label, parts, i) for i in range(1, number + 1) if sizes[i] >= SMALLEST]
    found = sorted(found, key=lambda one: -one[0])[:MOST]
    masks = np.array([parts == part for _, _, parts, part in found], np.bool_).reshape(-1, *likeliest.shape)
    return _surest_first(masks, [one[1] for one in found], [one[0] for one in found])


def _surest_first(masks: NDArray[np.bool_], labels: list[int], scores: list[float]) -> Detections:
    order = np.argsort(-np.array(scores), kind="stable")
    return Detections(
        boxes_of(masks[order]), np.array(labels, np.int64)[order], np.array(scores, np.float32)[order], masks[order]
    )


class PriorBoxes:
    """Finds on every picture the same rectangles: of each class the means of groups of its boxes in training.

    Args:
        pictures: of training. Boxes are shares of their width and height.
        boxes: groups of each class, by k-means from `seed`; a score is the group's things per picture, at most 1.
    """

    def __init__(self, pictures: Iterable[Instances], boxes: int = 5, seed: int = 0):
        shares, labels, count = [np.zeros((0, 4))], [np.zeros(0, np.int64)], 0
        for picture in pictures:
            height, width = picture.image.shape[1:]
            shares.append(picture.boxes[~picture.crowd] / (width, height, width, height))
            labels.append(picture.labels[~picture.crowd])
            count += 1
        self.boxes, self.labels, self.scores = [], [], []
        every, of = np.concatenate(shares), np.concatenate(labels)
        for label in np.unique(of):
            chosen = every[of == label]
            groups = KMeans(min(boxes, len(np.unique(chosen, axis=0))), n_init=4, random_state=seed).fit(chosen)
            self.boxes += groups.cluster_centers_.tolist()
            self.labels += [int(label)] * len(groups.cluster_centers_)
            self.scores += (np.bincount(groups.labels_) / count).clip(max=1).tolist()

    def __call__(self, images: Iterable[NDArray[np.uint8]]) -> list[Detections]:
        """What is always found, on images [3, H, W]."""
        return [self._found(*image.shape[1:]) for image in images]

    def _found(self, height: int, width: int) -> Detections:
        masks = np.zeros((len(self.boxes), height, width), np.bool_)
        for mask, box in zip(masks, self.boxes, strict=True):
            left, top, right, bottom = np.rint(np.multiply(box, (width, height, width, height))).astype(int)
            left, top = min(left, width - 1), min(top, height - 1)
            mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return _surest_first(masks, self.labels, self.scores)
