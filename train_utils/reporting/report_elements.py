"""The HTML elements that a report is made of. All text that is handed in is escaped here."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np

from train_utils.reporting.pictures import Colour, resized_for_display

MAX_SIDE = 900  # px, of the pictures in the page
MISSING = "–"  # shown in place of a missing value


def number(value: float | None) -> str:
    """The value with four decimals, or a dash for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.4f}"


def mean_and_sd(mean: float, sd: float) -> str:
    """mean ± sd with four decimals, or a dash for each that is NaN."""
    if math.isnan(mean):
        return MISSING
    return f"{number(mean)} ± {number(sd)}"


def table(header: Sequence, rows: Iterable[Sequence], kind: str = "") -> str:
    """An HTML table in a container that scrolls horizontally.

    The first cell of each row is a row header. header: may be empty. kind: CSS class.
    """
    head = ""
    if header:
        head = f"<thead>{_table_row(header, 'th')}</thead>"
    body = "\n".join(_table_row(row, "td") for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{body}\n</tbody></table></div>'
    )


def _table_row(cells: Sequence, tag: str) -> str:
    name, *others = [html.escape(str(cell)) for cell in cells]
    return f"<tr><th>{name}</th>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in others) + "</tr>"


def note(text: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{html.escape(text)}</p>'


def card(title: str, value: str, note: str = "", wide: bool = False) -> str:
    """A box with a large value between its title and a note."""
    kind = "card wide" if wide else "card"
    return (
        f'<div class="{kind}"><span>{html.escape(title)}</span>'
        f"<b>{html.escape(value)}</b><span>{html.escape(note)}</span></div>"
    )


def legend(colours: dict[str, Colour]) -> str:
    """An HTML legend: a patch of each colour (r, g, b) in 0..255, and its name."""
    patches = []
    for name, colour in colours.items():
        patch = (
            f'<i class="patch" style="background: rgb{tuple(int(part) for part in colour)}"></i>'
        )
        patches.append(f"<span>{patch}{html.escape(name)}</span>")
    return f'<p class="note legend">{" ".join(patches)}</p>'


def figure(picture: np.ndarray, caption: str, photograph: bool) -> str:
    """An HTML figure with the picture [H, W, 3] uint8 embedded: JPEG for a photograph, else PNG."""
    resized = resized_for_display(picture, MAX_SIDE, photograph)
    file = io.BytesIO()
    if photograph:
        kind = "jpeg"
        resized.save(file, format="JPEG", quality=88)
    else:
        kind = "png"
        resized.save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
