"""What a report says about objects, where a label has one id an object."""

from train_utils.reporting.report_elements import card, number
from train_utils.reporting.score_names import SCORE_NAMES

CARDS = ("object_ap", "object_ap_50", "object_ap_75", "aji")
# Columns of the table of images: key of image_rows() → title.
COLUMNS = {
    "object_ap": "AP of objects",
    "objects": "objects",
    "objects_predicted": "predicted",
    "objects_found": "found",
    "objects_merged": "merged",
    "objects_split": "split",
}
NOTE = (
    "Objects are the connected regions of the foreground. AP of objects: TP / (TP + FP + FN), mean "
    "over the IoU thresholds 0.5 to 0.95, then over the images. AJI: aggregated Jaccard index of "
    "all images. Merged: true objects that share a predicted one, which covers more than half of "
    "each. Split: true objects in which two or more predicted ones lie."
)


def cards(scores: dict, threshold: float | None) -> list[str]:
    """The scores of objects over all images."""
    found = f"{scores['objects_found']:,} of {scores['objects']:,}"
    others = (
        f"{scores['objects_predicted']:,} predicted, {scores['objects_merged']:,} merged, "
        f"{scores['objects_split']:,} split"
    )
    boxes = [card(SCORE_NAMES[key].full, number(scores[key])) for key in CARDS]
    boxes.append(card("objects found at IoU > 0.5", found, others, wide=True))
    if "object_ap_at_threshold" in scores:
        value = number(scores["object_ap_at_threshold"])
        boxes.append(card("AP of objects at the chosen threshold", value, f"p > {threshold:.3f}"))
    return boxes


def cells(row: dict) -> list[str]:
    """The COLUMNS of one image."""
    average, *numbers = (row[key] for key in COLUMNS)
    return [number(average), *map(str, numbers)]
