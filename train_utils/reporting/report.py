"""The report of a judgement: one HTML page that needs nothing but itself, and images.csv.

Every function here turns data into text; save() alone writes files. What has a meaning for two classes only (threshold,
thin and thick structures, second observer) is left out for more.
"""

import base64
import html
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from train_utils.atomic import replacing
from train_utils.metrics import summarize
from train_utils.reporting.curves import rank_curve_svg
from train_utils.reporting.pictures import (
    MANY_CLASS_ERRORS,
    TWO_CLASS_ERRORS,
    default_colours,
    error_overlay,
)
from train_utils.reporting.report_data import THICK, bootstrap, rank_curves
from train_utils.reporting.text_files import write_csv

RESAMPLES, SEED = 2000, 0  # of the bootstrap
MAX_SIDE = 900  # px, of the pictures in the page
SCORES = {
    "f1": "F1",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "accuracy": "accuracy",
    "mean_iou": "mean IoU",
    "auc": "AUC",
    "average_precision": "average precision",
}
PER_IMAGE = [name for name in SCORES if name != "f1"]  # of one image F1 is Dice

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6670; --line: #d5dae0; --paper: #ffffff; --card: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #3a424b; --paper: #14181c; --card: #1e242a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
       background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
.note, figcaption { color: var(--soft); font-size: .875rem; }
.cards, .figures { display: grid; gap: .75rem; }
.cards { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.card.wide { grid-column: span 2; }
.card.wide b { font-size: 1.9rem; line-height: 1.2; }
.card span { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35; }
.figures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; }
.figures img, .figures svg { display: block; width: 100%; height: auto; border-radius: .25rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; min-width: 5.5rem; line-height: 1.25; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
                 border-right: 1px solid var(--line); }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th { vertical-align: top; white-space: normal; min-width: 6.5rem; }
.patch { display: inline-block; width: 1.6em; height: .9em; margin: 0 .35em 0 0; border: 1px solid #808080;
         vertical-align: -.1em; }
.legend span { margin-right: 1.2em; white-space: nowrap; }
"""


def save(folder, title, content, evidence, class_names, image_of):
    """Writes folder/report.html and folder/images.csv (scores of each image inside the ROI). See page()."""
    folder = Path(folder)
    write_csv(folder / "images.csv", map(csv_row, content["images"], evidence.roi.images))
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(
            page(title, content, evidence, class_names, image_of), encoding="utf-8"
        )


def csv_row(row, scores):
    """A line of images.csv: counts and scores of an image; of more than two classes also by class, 0 the background."""
    line = {}
    for name, value in row.items():
        line |= (
            {f"{name}_{c}": count for c, count in enumerate(value, 1)}
            if isinstance(value, list)
            else {name: value}
        )
    by_class = {
        name: value
        for name, value in scores.items()
        if name.endswith("_per_class") and len(value) > 2
    }
    return line | {name: scores[name] for name in PER_IMAGE} | by_class


def page(title, content, evidence, class_names, image_of):
    """The page as text.

    Args:
        title: of the page.
        content: what test_scores.json holds: scores, images, threshold, and where they come from.
        evidence: ReportData of the same judgement.
        class_names: of all classes, the background first.
        image_of: function of an image's index that gives its picture, uint8 [H, W, 3]; asked for the few that are drawn.
    """
    sections = [
        heading(title, content, class_names),
        headline(content["scores"], content["threshold"], evidence, class_names),
        conventions(evidence),
        curves(content["scores"], content["threshold"], evidence, class_names),
        widths(content["scores"], evidence, class_names),
        classes(content["scores"], class_names),
        extremes(content["images"], evidence, class_names, image_of),
        images(content["images"], evidence),
        provenance(content),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


# --- pieces -----------------------------------------------------------------------------------------------------------


def number(value):
    """Four decimals; a dash for what has no value."""
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"


def mean_and_sd(judged, name):
    mean, sd = judged.mean_and_sd(name)
    return "–" if math.isnan(mean) else f"{mean:.4f} ± {sd:.4f}"


def table(header, rows, caption="", kind=""):
    """A table in a box of its own that scrolls sideways. Cells are text, escaped here; the first of a row names it."""

    def line(cells, data):
        name, *others = (html.escape(str(cell)) for cell in cells)
        return (
            f"<tr><th>{name}</th>"
            + "".join(f"<{data}>{cell}</{data}>" for cell in others)
            + "</tr>"
        )

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    body = "\n".join(line(row, "td") for row in rows)
    note = f'<p class="note">{caption}</p>' if caption else ""
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{body}\n</tbody></table></div>{note}'


def card(title, value, note="", wide=False):
    return (
        f'<div class="card{" wide" * wide}"><span>{html.escape(title)}</span><b>{html.escape(value)}</b>'
        f"<span>{html.escape(note)}</span></div>"
    )


def legend(colours):
    patches = (
        f'<span><i class="patch" style="background: rgb{tuple(colour)}"></i>{html.escape(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<p class="note legend">{" ".join(patches)}</p>'


def picture(array, caption, photograph):
    """A <figure> of uint8 [H, W, 3], small ones enlarged by a whole factor: JPEG for a photograph, PNG for exact colours."""
    times = max(1, MAX_SIDE // 2 // max(array.shape[:2]))
    drawn = Image.fromarray(array.repeat(times, axis=0).repeat(times, axis=1))
    drawn.thumbnail(
        (MAX_SIDE, MAX_SIDE), Image.Resampling.BOX if photograph else Image.Resampling.NEAREST
    )
    file = io.BytesIO()
    drawn.save(
        file,
        **(
            {"format": "JPEG", "quality": 88} if photograph else {"format": "PNG", "optimize": True}
        ),
    )
    kind = "jpeg" if photograph else "png"
    text = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/{kind};base64,{text}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


# --- sections ---------------------------------------------------------------------------------------------------------


def heading(title, content, class_names):
    scores, weights = content["scores"], content["weights"]
    judged = f"An ensemble of {len(weights)} models" if len(weights) > 1 else "A single model"
    judged += (
        ", averaged over four flips of each image"
        if content["flips"]
        else ", without flips at test time"
    )
    return (
        f"<h1>{html.escape(title)}</h1>\n<p>{judged}: {scores['images']} images, {scores['pixels']:,} judged pixels, "
        f"{len(class_names)} classes ({html.escape(', '.join(class_names))}).</p>\n"
        f'<p class="note">What chose the epoch and the threshold: {html.escape(content["selection"])}.</p>'
    )


def headline(scores, threshold, evidence, class_names):
    """The scores inside the ROI, F1 and Dice with intervals."""
    intervals = bootstrap(evidence.roi.counts.confusion, RESAMPLES, seed=SEED)
    low_high = {
        name: f"95 % interval {number(low)} to {number(high)}"
        for name, (low, high) in intervals.items()
    }
    two = len(class_names) == 2
    cards = [
        card(
            "F1, pooled over all pixels" if two else "F1, pooled; mean of the foreground classes",
            number(scores["f1"]),
            low_high["f1"],
            wide=True,
        ),
        card(
            f"Dice, mean ± {number(scores['dice_sd'])} of the images",
            number(scores["dice"]),
            low_high["dice"],
            wide=True,
        ),
    ]
    cards += [
        card(title, number(scores[name]))
        for name, title in SCORES.items()
        if name not in ("f1", "dice")
    ]
    if two:
        cards += [
            card(f"IoU, {name}", number(value))
            for name, value in zip(class_names, scores["iou_per_class"])
        ]
    if "f1_at_threshold" in scores:
        cards.append(
            card(
                "F1 at the chosen threshold",
                number(scores["f1_at_threshold"]),
                f"p > {threshold:.3f}",
            )
        )
    rule = (
        f"A pixel is “{html.escape(class_names[1])}” where its probability exceeds 0.5."
        if two
        else "A pixel is of its most probable class; sensitivity, specificity, precision, AUC and average precision are "
        "means over the foreground classes. What occurs neither in truth nor in prediction has no score and is left "
        "out."
    )
    without = scores["images_without_foreground"]
    return (
        '<h2>Scores inside the ROI</h2>\n<div class="cards">\n' + "\n".join(cards) + "\n</div>\n"
        f'<p class="note">{rule} Intervals: percentile bootstrap over the {scores["images"]} images ({RESAMPLES:,} '
        f"resamples with replacement, seed {SEED}); each resample is scored as the set is, F1 from its added pixel "
        "counts, Dice as mean of its images. They say how much the choice of images matters, not how much the "
        "training’s seed does. ± is the standard deviation over images"
        f"{f'; {without} images without foreground have no Dice' if without else ''}.</p>"
    )


def conventions(evidence):
    """Both conventions side by side: which pixels count, and whether they are pooled."""
    views = [("inside the ROI", evidence.roi)]
    note = "No pixel lies outside an ROI, so that inside the ROI and whole frame are the same."
    if evidence.has_outside():
        views += [("whole frame", evidence.frame), ("whole frame, raw", evidence.raw)]
        note = (
            "Inside the ROI is what counts. Whole frame: every pixel counts, with the label of the file and a "
            "prediction of background outside the ROI, which is right nearly everywhere: accuracy, specificity and AUC "
            "gain by it and cannot be compared with those inside. Raw: the model’s own output there, where it never "
            "learned."
        )
    scores = [summarize(judged.counts) for _, judged in views]
    rows = [
        [
            title,
            *(
                cell
                for pooled, (_, judged) in zip(scores, views)
                for cell in (
                    number(pooled["f1" if name == "dice" else name]),
                    mean_and_sd(judged, name),
                )
            ),
        ]
        for name, title in SCORES.items()
        if name != "f1"
    ]
    rows[0][0] = "Dice = F1"
    header = ["", *(f"{name}, {how}" for name, _ in views for how in ("pooled", "per image"))]
    note += " Pooled: scores of all pixels added up. Per image: mean ± standard deviation over the images."
    return "<h2>Which pixels count, and how</h2>\n" + table(header, rows, note)


def curves(scores, threshold, evidence, class_names):
    """ROC and precision-recall curves of the foreground classes."""
    colours = (
        default_colours(len(class_names))[1:] * 0.75 if len(class_names) > 2 else [(0, 114, 178)]
    )  # darker, on white
    lines = [
        (name, colour, *curve)
        for name, colour, histogram in zip(class_names[1:], colours, evidence.roi.counts.histograms)
        if (curve := rank_curves(*histogram))
    ]
    points = [("p > 0.5", "o", scores)] if len(class_names) == 2 else []
    if points and evidence.observer.images:
        points.append(("second observer", "D", summarize(evidence.observer.counts)))
    roc = rank_curve_svg(
        f"ROC, AUC {number(scores['auc'])}",
        "1 − specificity",
        "sensitivity",
        [(name, colour, np.r_[0, false], np.r_[0, true]) for name, colour, false, true, _ in lines],
        [(name, marker, 1 - at["specificity"], at["sensitivity"]) for name, marker, at in points],
        diagonal=True,
    )
    pr = rank_curve_svg(
        f"Precision and recall, AP {number(scores['average_precision'])}",
        "recall",
        "precision",
        [(name, colour, true, precision) for name, colour, _, true, precision in lines],
        [(name, marker, at["sensitivity"], at["precision"]) for name, marker, at in points],
    )
    return (
        '<h2>Curves</h2>\n<div class="figures">\n'
        f'<figure role="img" aria-label="ROC curve">{roc}</figure>\n'
        f'<figure role="img" aria-label="precision-recall curve">{pr}</figure>\n</div>\n'
        '<p class="note">Pooled over all pixels inside the ROI.</p>'
    )


def widths(scores, evidence, class_names):
    """Recall on thin and thick structures, and the second observer beside the model; for two classes only."""
    if not evidence.binary:
        return ""
    foreground = class_names[1]
    columns = {"model, p > 0.5": (scores, evidence.found)}
    if evidence.observer.images:
        columns[f"second observer, {len(evidence.observer.images)} images"] = (
            summarize(evidence.observer.counts),
            evidence.observer_found,
        )
    names = ("f1", "dice", "accuracy", "sensitivity", "specificity", "precision", "mean_iou")
    titles = {"f1": "F1, pooled", "dice": "Dice, mean of images"}
    rows = [
        [titles.get(name, SCORES[name]), *(number(pooled[name]) for pooled, _ in columns.values())]
        for name in names
    ]
    for row, kind in enumerate(("thin", "thick")):
        shares = [
            found[row, 0] / found[row, 1] for _, found in columns.values()
        ]  # NaN if there are none
        rows.append([f"recall, {kind} {foreground}", *(number(share.item()) for share in shares)])
    thin, thick = evidence.found[:, 1].tolist()
    note = (
        f"Inside the ROI. A label pixel is thick if some {THICK} × {THICK} square of label pixels holds it "
        f"(morphological opening), else thin: all of what is {THICK - 1} px wide or less is thin. {thin:,} pixels are thin, "
        f"{thick:,} thick."
    )
    if evidence.observer.images:
        note += " The second observer’s label is scored as a prediction against the first’s, by the same functions."
    title = (
        "A second observer, t" if evidence.observer.images else "T"
    ) + f"hin and thick {html.escape(foreground)}"
    return f"<h2>{title}</h2>\n" + table(["", *columns], rows, note)


def classes(scores, class_names):
    columns = [scores[f"{name}_per_class"] for name in ("precision", "recall", "dice", "iou")]
    return "<h2>Classes</h2>\n" + table(
        ["", "precision", "recall", "Dice = F1", "IoU"],
        [[name, *map(number, values)] for name, *values in zip(class_names, *columns)],
        "Pooled, inside the ROI.",
    )


def extremes(rows, evidence, class_names, image_of):
    """The two best and the two worst images by Dice: photograph, and errors over it."""
    order = sorted(
        (i for i, row in enumerate(rows) if not math.isnan(row["dice"])),
        key=lambda i: rows[i]["dice"],
    )
    best, worst = order[::-1][: min(2, (len(order) + 1) // 2)], order[: min(2, len(order) // 2)]
    colours = TWO_CLASS_ERRORS if len(class_names) == 2 else MANY_CLASS_ERRORS
    colours = {
        name: colour for name, colour in colours.items() if any(colour)
    }  # black is where the photograph shows
    parts = ["<h2>Best and worst images</h2>", legend(colours)]
    for title, indices in (("Best", best), ("Worst", worst)):
        for i in indices:
            errors = error_overlay(
                image_of(i),
                evidence.targets[i].numpy(),
                evidence.predictions[i].numpy(),
                evidence.ignore_index,
                len(class_names),
            )
            parts += [
                f"<h3>{title}: {html.escape(rows[i]['name'])}, Dice {number(rows[i]['dice'])}</h3>",
                '<div class="figures">',
                picture(image_of(i), "photograph", True),
                picture(errors, "errors", False),
                "</div>",
            ]
    return "\n".join(parts)


def images(rows, evidence):
    lines = [
        [row["name"], *(number(scores[name]) for name in PER_IMAGE)]
        for row, scores in zip(rows, evidence.roi.images)
    ]
    return "<h2>Images</h2>\n" + table(
        ["image", *(SCORES[name] for name in PER_IMAGE)],
        lines,
        "Inside the ROI. Also in images.csv, with the counts of pixels.",
    )


def provenance(content):
    units = {"seconds": "wall time, s", "peak_memory_mb": "peak memory, MB"}
    facts = [
        (units.get(name, name), fact(value))
        for name, value in content.items()
        if name not in ("scores", "images")
    ]
    return "<h2>Where these numbers come from</h2>\n" + table([], facts, kind="facts")


def fact(value):
    """A value of test_scores.json as a line of text."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {fact(item)}" for name, item in value.items())
    if isinstance(value, list):
        return (
            (" | " if isinstance(value[0], (dict, list)) else ", ").join(map(fact, value))
            if value
            else "none"
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
