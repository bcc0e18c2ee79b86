"""Mask R-CNN: boxes, classes and masks of the things on a picture (He et al. 2017), over any torso with stages.

    torso.maps -> Pyramid -> RegionProposals: boxes that may hold something, whatever it is
                      |             |
                      '--RoIAlign---'--> BoxHead: its class, and a better box --> MaskHead: its pixels

A batch is that of rlkit.instances.batch_of; `loss` goes to the trainer, `predict` gives lists.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.config import AtLeast, Between
from rlkit.nn import boxes
from rlkit.nn.convolution import Staged
from rlkit.nn.dense import Dense

REGION_WEIGHTS, BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)
"""of a box's code, about one over the deviations of its numbers: of proposals, of their refinement"""
BETA = 1 / 9
"""where smooth L1 turns from a square into a line"""
LEAST_SIDE = 0.01
"""pixels: boxes that are narrower after clipping hold nothing"""


@dataclass(frozen=True)
class Shape:
    """What a detector is made of and trained by; the defaults are the published ones."""

    classes: Annotated[int, AtLeast(0)]
    """of things, the background not counted (0 where a command finds out from its data)"""
    channels: Annotated[int, AtLeast(1)] = 256
    """of the pyramid, and of all heads' convolutions"""
    dense: Annotated[int, AtLeast(1)] = 1024
    """units of both layers of the box head"""
    first_stride: Annotated[int, AtLeast(1)] = 4
    """pixels between cells of the finest map that is looked at"""
    last_stride: Annotated[int, AtLeast(1)] = 64
    """pixels between cells of the coarsest map; beyond the backbone's own, every second cell of the one before"""
    anchor: Annotated[float, AtLeast(1)] = 8.0
    """side of a map's anchors, in its cells"""
    ratios: Annotated[tuple[float, ...], AtLeast(0.01)] = (0.5, 1.0, 2.0)
    """height / width of the anchors"""
    before_nms: Annotated[tuple[int, int], AtLeast(1)] = (2000, 1000)
    """proposals of each level that go into the suppression, in training and in prediction"""
    after_nms: Annotated[tuple[int, int], AtLeast(1)] = (2000, 1000)
    """proposals of a picture that come out of it"""
    region_samples: Annotated[int, AtLeast(2)] = 256
    """anchors of a picture that are learned from, half of them positive at most"""
    box_samples: Annotated[int, AtLeast(4)] = 512
    """proposals of a picture that are learned from, a quarter of them positive at most"""
    detections: Annotated[int, AtLeast(1)] = 100
    """things of a picture that are said at most"""
    least_score: Annotated[float, Between(0, 1)] = 0.05
    """what is less sure is not said"""
    enlarge: Annotated[int, AtLeast(1)] = 1
    """factor by which pictures are enlarged before they are looked at; those of a batch to learn from are already"""
    aligned: bool = True
    """maps and masks are seen at the centres of their cells, not half a cell beside; False: as published first"""


class Pyramid(nn.Module):
    """Maps of all strides with as many channels, the fine ones told what the coarse ones see (Lin et al. 2017)."""

    def __init__(self, map_channels: Sequence[int], channels: int, further: int):
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(each, channels, 1) for each in map_channels)
        self.outer = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in map_channels)
        self.further = further
        for conv in (*self.inner, *self.outer):
            nn.init.kaiming_uniform_(conv.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inner = [conv(x) for conv, x in zip(self.inner, maps, strict=True)]
        for i in range(len(inner) - 2, -1, -1):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[2:], mode="nearest")
        out = [conv(x) for conv, x in zip(self.outer, inner, strict=True)]
        for _ in range(self.further):
            out.append(out[-1][:, :, ::2, ::2])
        return out


class RegionHead(nn.Module):
    """At each cell, of each anchor: whether it holds something, and a code of the box that does."""

    def __init__(self, channels: int, anchors: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.code = nn.Conv2d(channels, 4 * anchors, 1)
        for conv in self.children():
            nn.init.normal_(conv.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level: logits [B, cells * anchors], codes [B, cells * anchors, 4]."""
        logits, codes = [], []
        for x in maps:
            x = F.relu(self.conv(x))
            logits.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1).float())
            codes.append(self.code(x).permute(0, 2, 3, 1).unflatten(3, (-1, 4)).flatten(1, 3).float())
        return logits, codes


class BoxHead(nn.Module):
    """[N, channels, 7, 7] -> logits [N, 1 + classes], codes of a box for each class [N, 1 + classes, 4]."""

    def __init__(self, channels: int, units: int, classes: int):
        super().__init__()
        self.dense1, self.dense2 = Dense(channels * 49, units), Dense(units, units)
        self.classes, self.code = nn.Linear(units, 1 + classes), nn.Linear(units, 4 * (1 + classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.dense2(F.relu(self.dense1(x.flatten(1)))))
        return self.classes(x).float(), self.code(x).float().unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """[N, channels, 14, 14] -> logits of a mask for each class [N, 1 + classes, 28, 28]."""

    def __init__(self, channels: int, classes: int, layers: int = 4):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))
        self.grow = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.masks = nn.Conv2d(channels, 1 + classes, 1)
        for conv in (*self.convs, self.grow, self.masks):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.masks(F.relu(self.grow(x))).float()


class Found(NamedTuple):
    """What a detector says of one picture, the surest first: rlkit.instances.Detections before its masks are cut."""

    boxes: Tensor  # [N, 4]
    labels: Tensor  # [N]
    scores: Tensor  # [N]
    masks: Tensor  # [N, H, W], 0 .. 1


class MaskRCNN(nn.Module):
    """The detector.

    Args:
        torso: whose `maps` from stride shape.first_stride on are looked at.
        pyramid: from those maps to others with shape.channels; default: a Pyramid.
    Raises ValueError where the torso has no such stride.
    """

    def __init__(self, torso: Staged, shape: Shape, pyramid: nn.Module | None = None):
        super().__init__()
        self.torso, self.shape = torso, shape
        if shape.first_stride not in torso.strides:
            raise ValueError(f"the backbone's maps have strides {torso.strides}, not {shape.first_stride}")
        self._skipped = torso.strides.index(shape.first_stride)
        own = torso.strides[self._skipped :]
        further = round(math.log2(shape.last_stride / own[-1]))
        if own[-1] * 2.0**further != shape.last_stride or further < 0:
            raise ValueError(
                f"the last stride is {own[-1]}, the backbone's, or 2, 4, ... times it: {shape.last_stride}"
            )
        if pyramid is None:
            pyramid = Pyramid(torso.map_channels[self._skipped :], shape.channels, further)
        self.pyramid = pyramid
        self.strides = own + [own[-1] * 2 ** (i + 1) for i in range(further)]
        self.regions = RegionHead(shape.channels, len(shape.ratios))
        self.box_head = BoxHead(shape.channels, shape.dense, shape.classes)
        self.mask_head = MaskHead(shape.channels, shape.classes)
        # A level that the torso does not have is for large anchors alone (Lin et al. 2017, section 4.2).
        self._pooled = len(own)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the pyramid's maps, fine to coarse."""
        return self.pyramid(self.torso.maps(images)[self._skipped :])

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of each level [cells * anchors, 4]."""
        sizes = [self.shape.anchor * stride for stride in self.strides]
        return boxes.anchors([x.shape[2:] for x in maps], self.strides, sizes, self.shape.ratios, maps[0].device)

    @torch.no_grad()
    def proposals(
        self, logits: Sequence[Tensor], codes: Sequence[Tensor], anchors: Sequence[Tensor], sizes: Tensor
    ) -> list[Tensor]:
        """Of each picture, boxes [N, 4] that may hold something, the surest first."""
        before, after = (most[not self.training] for most in (self.shape.before_nms, self.shape.after_nms))
        out = []
        for picture, size in enumerate(sizes):
            kept, scores = [], []
            for logit, code, anchor in zip(logits, codes, anchors, strict=True):  # levels do not suppress each other
                best = logit[picture].topk(min(before, logit.shape[1])).indices
                box = boxes.clip(boxes.decode(code[picture, best], anchor[best], REGION_WEIGHTS), size)
                wide = _not_narrow(box, 1e-3)
                box, score = box[wide], logit[picture, best][wide]
                some = boxes.nms(box, score, 0.7)[:after]
                kept.append(box[some])
                scores.append(score[some])
            order = torch.cat(scores).argsort(descending=True, stable=True)[:after]
            out.append(torch.cat(kept)[order])
        return out

    def content(self, maps: Sequence[Tensor], some: Tensor, picture: Tensor, size: int) -> Tensor:
        """What is in boxes [N, 4] of pictures [N]: [N, channels, size, size]."""
        first = round(math.log2(self.strides[0]))
        level = boxes.levels(some, first, first + self._pooled - 1) - first
        maps, strides = maps[: self._pooled], self.strides[: self._pooled]
        return boxes.roi_align(maps, strides, some, picture, level, size, 2, self.shape.aligned)

    # -- prediction ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor) -> list[Found]:
        """What is on images [B, 3, H, W] of sizes [B, 2] (height, width), the rest of which is padding.

        Call it in evaluation mode.
        """
        small, sizes = sizes, sizes * self.shape.enlarge
        if self.shape.enlarge > 1:
            images = F.interpolate(images.float(), scale_factor=self.shape.enlarge, mode="bilinear").round().byte()
        maps = self.maps(images)
        logits, codes = self.regions(maps)
        proposed = self.proposals(logits, codes, self.anchors(maps), sizes)
        picture = torch.repeat_interleave(
            torch.arange(len(proposed), device=sizes.device), sizes.new_tensor([len(one) for one in proposed])
        )
        class_logits, class_codes = self.box_head(self.content(maps, torch.cat(proposed), picture, 7))
        scores = class_logits.softmax(1)
        refined = boxes.decode(class_codes, torch.cat(proposed)[:, None], BOX_WEIGHTS)
        said = [self._surest(refined[picture == i], scores[picture == i], size) for i, size in enumerate(sizes)]
        counts = [len(label) for _, label, _ in said]
        box, label, _ = (torch.cat(part) for part in zip(*said, strict=True))
        picture = torch.repeat_interleave(
            torch.arange(len(counts), device=sizes.device), sizes.new_tensor(counts), output_size=sum(counts)
        )
        logits = _of_own_class(self.mask_head(self.content(maps, box, picture, 14)), label)
        masks = logits.sigmoid().split(counts)
        own = [(box / self.shape.enlarge, label, score) for box, label, score in said]  # in pixels of the pictures
        return [
            Found(*one, boxes.paste(mask, one[0], size, self.shape.aligned))
            for one, mask, size in zip(own, masks, small.tolist(), strict=True)
        ]

    def _surest(self, some: Tensor, scores: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of boxes [N, 1 + classes, 4] with scores [N, 1 + classes], those that are said: boxes, labels, scores."""
        number, label = (scores[:, 1:] > self.shape.least_score).nonzero(as_tuple=True)
        label = label + 1
        box, score = boxes.clip(some[number, label], size), scores[number, label]
        wide = _not_narrow(box, LEAST_SIDE)
        box, score, label = box[wide], score[wide], label[wide]
        kept = boxes.nms(box, score, 0.5, label)[: self.shape.detections]
        return box[kept], label[kept], score[kept]

    # -- learning ------------------------------------------------------------------------------------------------------

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the five losses, and each of them."""
        maps = self.maps(batch["images"])
        logits, codes = self.regions(maps)
        anchors = self.anchors(maps)
        objectness, region = self._region_loss(torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(anchors), batch)

        with torch.no_grad():
            proposed = self.proposals(logits, codes, anchors, batch["sizes"])
            chosen, labels, truth, picture = [], [], [], []
            for i, box in enumerate(proposed):
                mine = (batch["picture"] == i).nonzero()[:, 0]
                box = torch.cat([box, batch["boxes"][mine]])  # else nothing would be positive at first
                overlap, best = _best(box, batch["boxes"][mine])
                label = torch.where(overlap >= 0.5, batch["labels"][mine][best] if len(mine) else 0, 0)
                positive, negative = sample(label, self.shape.box_samples, 0.25)
                some = torch.cat([positive, negative])
                chosen.append(box[some])
                labels.append(label[some])
                truth.append(mine[best[some]] if len(mine) else torch.zeros_like(some))
                picture.append(torch.full_like(some, i))
        box, label, which, image = (torch.cat(each) for each in (chosen, labels, truth, picture))
        class_logits, class_codes = self.box_head(self.content(maps, box, image, 7))
        classes = F.cross_entropy(class_logits, label)
        positive = label.nonzero()[:, 0]
        better = box_loss(class_codes, box, batch["boxes"][which[positive]], label, positive)

        inside = self.content(maps, box[positive], image[positive], 14)
        masks = mask_loss(
            self.mask_head(inside), label[positive], box[positive], batch["masks"], which[positive], self.shape.aligned
        )
        parts = {"objectness": objectness, "region": region, "class": classes, "box": better, "mask": masks}
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _region_loss(
        self, logits: Tensor, codes: Tensor, anchors: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of logits [B, A] and codes [B, A, 4]: whether something is there, and where."""
        wanted, held, right = [], [], []
        for i, (logit, code) in enumerate(zip(logits, codes, strict=True)):
            truth = batch["boxes"][batch["picture"] == i]
            overlap, best = _best(anchors, truth)
            label = torch.where(overlap >= 0.7, 1, torch.where(overlap < 0.3, 0, -1))
            if len(truth):  # the best anchors of a box are positive, whatever they are
                each = boxes.iou(truth, anchors)
                label[((each == each.amax(1, keepdim=True)) & (each > 0)).any(0)] = 1
            positive, negative = sample(label, self.shape.region_samples, 0.5)
            some = torch.cat([positive, negative])
            held.append(logit[some])
            wanted.append((label[some] == 1).float())
            if len(truth):
                right.append(code[positive] - boxes.encode(truth[best[positive]], anchors[positive], REGION_WEIGHTS))
        objectness = F.binary_cross_entropy_with_logits(torch.cat(held), torch.cat(wanted))
        if not right:
            return objectness, codes.sum() * 0
        error, number = torch.cat(right), sum(map(len, held))
        return objectness, F.smooth_l1_loss(error, torch.zeros_like(error), reduction="sum", beta=BETA) / number


def _not_narrow(box: Tensor, least: float) -> Tensor:
    return ((box[:, 2:] - box[:, :2]) >= least).all(1).nonzero()[:, 0]


def _best(some: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Of boxes [N, 4], the overlap with the true box [M, 4] that each overlaps most, and its number: [N], [N]."""
    if not len(truth):
        return some.new_zeros(len(some)), torch.zeros(len(some), dtype=torch.long, device=some.device)
    return boxes.iou(truth, some).max(0)


def sample(label: Tensor, most: int, share: float) -> tuple[Tensor, Tensor]:
    """Random places of positive labels [N], `share` of `most` at the most, and of zeros, which fill up to `most`."""
    positive, negative = ((label > 0).nonzero()[:, 0], (label == 0).nonzero()[:, 0])
    positive = positive[torch.randperm(len(positive), device=label.device)[: int(most * share)]]
    negative = negative[torch.randperm(len(negative), device=label.device)[: most - len(positive)]]
    return positive, negative


def box_loss(codes: Tensor, some: Tensor, truth: Tensor, label: Tensor, positive: Tensor) -> Tensor:
    """Smooth L1 of the codes [N, 1 + classes, 4] of positive boxes' own class, over the number of all boxes.

    some [N, 4], label [N]; positive: places of those with a true box, truth [positives, 4].
    """
    wanted = boxes.encode(truth, some[positive], BOX_WEIGHTS)
    return F.smooth_l1_loss(codes[positive, label[positive]], wanted, reduction="sum", beta=BETA) / max(1, len(label))


def mask_loss(
    logits: Tensor, label: Tensor, some: Tensor, masks: Tensor, which: Tensor, aligned: bool = False
) -> Tensor:
    """Binary cross-entropy of each box's own class, logits [N, 1 + classes, M, M], to what it has of its mask.

    some [N, 4]: the boxes; masks [things, H, W], which [N]: the number of each box's thing.
    """
    if not len(label):
        return logits.sum() * 0
    wanted = mask_targets(some, masks, which, logits.shape[-1], aligned)
    return F.binary_cross_entropy_with_logits(_of_own_class(logits, label), wanted)


def _of_own_class(logits: Tensor, label: Tensor) -> Tensor:
    """[N, M, M] of masks for each class [N, 1 + classes, M, M]."""
    return logits[torch.arange(len(label), device=label.device), label]


def mask_targets(some: Tensor, masks: Tensor, which: Tensor, size: int, aligned: bool = False) -> Tensor:
    """What boxes [N, 4] have of the masks [things, H, W] with these numbers [N]: [N, size, size], 0 .. 1."""
    level = torch.zeros_like(which)
    return boxes.roi_align([masks[:, None].float()], [1], some, which, level, size, 0, aligned)[:, 0]
