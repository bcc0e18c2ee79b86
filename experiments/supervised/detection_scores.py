"""How well things were found on pictures: COCO's average precisions with intervals, and what was found as COCO JSON.

Source: Lin et al. 2014; faster-coco-eval counts, as pycocotools does. Needs the extra `detection`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.instances import Detections, Instances

KINDS = {"mask": "segm", "box": "bbox"}
SIZES = ("small", "medium", "large")
"""areas of the true mask under 32^2, under 96^2 and from there on, in pixels"""
COLUMNS = ("mask/AP", "mask/AP50", "mask/AP75", "box/AP", "box/AP50", "box/AP75")


class Scores(NamedTuple):
    """Average precisions, 0 .. 1, over IoU .5 to .95 (AP) or at one (AP50, AP75), for masks and boxes.

    Names are mask/AP, mask/AP50/pothole (one class) and mask/AP_small (one size). Of what is not on the pictures there
    are none. A class's curve is its precision at recall 0, .01 .. 1 and IoU .5. `_asdict()` is JSON.
    """

    pictures: int
    values: dict[str, float]
    intervals: dict[str, list[float]]  # lowest and highest of 95 % over pictures drawn anew; empty without resamples
    curves: dict[str, list[float]]  # mask/pothole: 101 numbers


def need_extra() -> None:
    """Raise ModuleNotFoundError where scores could not be counted, or drawn."""
    try:
        import faster_coco_eval as faster_coco_eval
        import matplotlib as matplotlib
    except ImportError as error:
        raise ModuleNotFoundError("scores need the extra `detection`: pip install -e '.[detection]'") from error


def scores(
    truth: Iterable[Instances],
    found: Iterable[Detections],
    classes: Sequence[str],
    seed: int = 0,
    resamples: int = 200,
) -> Scores:
    """COCO's scores of what was found (the 100 surest of a class and picture) on each picture of `truth`.

    Args:
        classes: names of labels 1, 2, ...
        resamples: how often as many pictures are drawn anew, with replacement, for the intervals; 0: no intervals.
    Raises ValueError for no pictures, other numbers of them, labels without a name, and masks of another size.
    """
    images, things, results = _annotations(truth, found, len(classes))
    draws = np.random.default_rng(seed).integers(len(images), size=(resamples, len(images)))
    out = Scores(len(images), {}, {}, {})
    for kind in KINDS:
        precision = _matched(kind, images, things, results, classes)
        whole = precision(np.arange(len(images)))
        names, values = _names(kind, classes), _values(whole)
        drawn = np.array([_values(precision(chosen)) for chosen in draws]).reshape(resamples, len(names))
        for i in np.flatnonzero(~np.isnan(values)):
            out.values[names[i]] = float(values[i])
            if resamples:
                out.intervals[names[i]] = _interval(values[i], drawn[:, i])
        curves = {f"{kind}/{name}": whole[0, :, i, 0] for i, name in enumerate(classes)}
        out.curves.update({name: curve.tolist() for name, curve in curves.items() if curve[0] >= 0})
    return out


def _matched(
    kind: str, images: list[dict], things: list[dict], results: list[dict], classes: Sequence[str]
) -> Callable[[NDArray], NDArray]:
    """Match what was found once; returns pictures [any number, repeats too] -> the library's precision over them,
    [10 IoUs, 101 recalls, classes, all and three sizes], -1 where nothing is.
    """
    need_extra()
    from faster_coco_eval import COCO, COCOeval_faster
    from faster_coco_eval.faster_eval_api_cpp import COCOevalAccumulate

    if kind == "box":  # a true thing has its mask's size here too, what was found that of its box
        results = [one | {"area": one["bbox"][2] * one["bbox"][3]} for one in results]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    sides = [{"images": images, "categories": categories, "annotations": side} for side in (things, results)]
    evaluation = COCOeval_faster(*map(COCO, sides), KINDS[kind], separate_eval=True, rle_iou_max_workers=1)
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    # The library keeps one object for each class, size and picture, and counts any list of them.
    matches: NDArray = np.empty(len(evaluation._evalImgs_cpp), object)
    matches[:] = evaluation._evalImgs_cpp
    matches = matches.reshape(len(classes), 1 + len(SIZES), len(images))

    def precision(chosen: NDArray) -> NDArray:
        return COCOevalAccumulate(evaluation._paramsEval, matches[:, :, chosen].ravel().tolist())["precision"][..., 0]

    return precision


def _interval(value: float, drawn: NDArray) -> list[float]:
    """The middle 95 % of resamples about the value: pictures drawn twice have runs of equal scores, which raise the
    interpolated precision, so that the resamples as they are lie a little too high.
    """
    ends = np.nanpercentile(drawn, (2.5, 97.5)) - np.nanmedian(drawn) + value
    return ends.clip(0, 1).tolist()


def _annotations(
    truth: Iterable[Instances], found: Iterable[Detections], classes: int
) -> tuple[list[dict], list[dict], list[dict]]:
    """(images, things, what was found) as in COCO's JSON, numbered from 1: a 0 would stand for no match."""
    images, things, results = [], [], []
    for number, (picture, detections) in enumerate(zip(truth, found, strict=True), 1):
        size = picture.image.shape[1:]
        for what, labels, masks in (("thing", picture.labels, picture.masks), ("found", *detections[1::2])):
            if len(labels) and not 1 <= labels.min() <= labels.max() <= classes:
                raise ValueError(f"picture {number}: a {what} has a label outside 1 .. {classes}: name all classes")
            if len(labels) and masks.shape[1:] != size:
                raise ValueError(f"picture {number} is {size}, a {what} has a mask of {masks.shape[1:]}: crop or paste")
        images.append({"id": number, "height": size[0], "width": size[1]})
        crowd = [{"iscrowd": int(one)} for one in picture.crowd]
        true = _coco(number, picture.boxes, picture.labels, picture.masks)
        things += [one | more for one, more in zip(true, crowd, strict=True)]
        results += to_coco(detections, number)
    if not images:
        raise ValueError("there are no pictures to score: choose some")
    for side in (things, results):
        for i, one in enumerate(side):
            one["id"] = i + 1
    return images, things, results


def _names(kind: str, classes: Sequence[str]) -> list[str]:
    """What the numbers of `_values` are called."""
    of_classes = [f"{kind}/{ap}{name}" for ap in ("AP", "AP50", "AP75") for name in ("", *(f"/{c}" for c in classes))]
    return of_classes + [f"{kind}/AP_{size}" for size in SIZES]


def _values(precision: NDArray) -> NDArray:
    """Average precisions of such precision; nan where nothing is."""
    ap = np.where(precision < 0, np.nan, precision).mean(1)

    def mean(x: NDArray) -> float:
        return float(x[~np.isnan(x)].mean()) if not np.isnan(x).all() else np.nan

    alone = [ap[:, :, 0], ap[:1, :, 0], ap[5:6, :, 0]]
    of_classes = [number for one in alone for number in (mean(one), *one.mean(0))]
    return np.array(of_classes + [mean(ap[:, :, i + 1]) for i in range(len(SIZES))])


# -- COCO's JSON -------------------------------------------------------------------------------------------------------


def to_coco(found: Detections, image_id: int) -> list[dict[str, Any]]:
    """What was found on a picture, as in COCO's JSON of results, masks as RLE; an area in pixels more."""
    plain = _coco(image_id, found.boxes, found.labels, found.masks)
    return [one | {"score": float(score)} for one, score in zip(plain, found.scores, strict=True)]


def _coco(image_id: int, boxes: NDArray, labels: NDArray, masks: NDArray) -> list[dict[str, Any]]:
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)
    return [
        {
            "image_id": image_id,
            "category_id": int(label),
            "bbox": box.tolist(),  # left, top, width, height
            "area": float(mask.sum()),
            "segmentation": encode_mask(mask),
        }
        for box, label, mask in zip(sizes, labels, masks, strict=True)
    ]


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask [H, W]: down the columns, first of nothing, each from the third on less
    the one two before, in groups of five bits from ASCII 48 on, the lowest first, +32 where another follows.
    """
    line = mask.ravel(order="F")
    changes = np.flatnonzero(line[1:] != line[:-1]) + 1
    runs = np.diff(np.concatenate([[0] * (1 + bool(line[:1].any())), changes, [line.size]]))
    runs[3:] -= runs[1:-2].copy()
    text = bytearray()
    for number in runs.tolist():
        while True:
            low, number = number & 31, number >> 5
            last = number == (-1 if low & 16 else 0)  # the sign goes on from the highest bit
            text.append(48 + low + 32 * (not last))
            if last:
                break
    return {"size": list(mask.shape), "counts": text.decode()}


# -- for people --------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Scores], columns: Sequence[str] = COLUMNS) -> str:
    """A line for each method, each score with its interval."""
    return _lines("method", {name: [_cell(one, column) for column in columns] for name, one in rows.items()}, columns)


def class_table(of: Scores, classes: Sequence[str], columns: Sequence[str] = COLUMNS) -> str:
    """A line for all, each class and each size; sizes have no score at a single IoU."""
    ends = {"all": "", **{name: f"/{name}" for name in classes}, **{size: f"_{size}" for size in SIZES}}
    return _lines("class", {name: [_cell(of, f"{c}{end}") for c in columns] for name, end in ends.items()}, columns)


def _cell(of: Scores, name: str) -> str:
    if name not in of.values:
        return "-"
    value, interval = f"{of.values[name]:.3f}", of.intervals.get(name)
    return f"{value} ({interval[0]:.3f}-{interval[1]:.3f})" if interval else value


def _lines(head: str, rows: Mapping[str, Sequence[str]], columns: Sequence[str]) -> str:
    lines = [(head, *columns), *((name, *cells) for name, cells in rows.items())]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([f"{text:<{size}}" for text, size in zip(line, wide, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
