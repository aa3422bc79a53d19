"""The progress of an epoch and of an image in tiles: a bar on a terminal, or plain lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Shows how far one pass over a loader is. Use it in a with-statement.

    Args:
        title: what is counted, such as "epoch 3".
        batches: number of batches of the whole pass.
        enabled: False shows nothing, for ranks other than 0.
        bar: whether to show a bar; None for a bar on a terminal only.
    """

    def __init__(
        self, title: str, batches: int, enabled: bool = True, bar: bool | None = None
    ) -> None:
        if bar is None:
            bar = sys.stderr.isatty()
        self.title = title
        self.batches = batches
        self.enabled = enabled
        self.batch = 0
        self.crops = 0
        self.start = time.perf_counter()
        self.bar = tqdm(
            total=batches, desc=title, unit="batch", leave=False, disable=not (enabled and bar)
        )

    def update(self, crops: int, text: str | None = None) -> None:
        """Count one more batch of `crops` crops.

        A text such as "loss 0.61  lr 0.0090" is shown, with the speed so far.
        """
        self.batch += 1
        self.crops += crops
        self.bar.update()
        if text is None or not self.enabled:
            return
        seconds = time.perf_counter() - self.start
        text = f"{text}  {self.crops / seconds:.1f} crops/s"
        self.bar.set_postfix_str(text)
        if self.bar.disable:
            left = tqdm.format_interval(seconds / self.batch * (self.batches - self.batch))
            print(
                f"{self.title}  batch {self.batch}/{self.batches}  {text}  {left} left", flush=True
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()


@contextmanager
def tile_bar(name: str, enabled: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A function of the numbers of finished and of all tiles, which shows a bar on a terminal.

    It is shown from the first second on, so images that are not cut have none. name: of the image.
    enabled: False shows nothing.
    """
    hidden = None if enabled else True  # None: shown on a terminal alone
    with tqdm(desc=name, unit="tile", leave=False, disable=hidden, delay=1) as bar:

        def show(done: int, tiles: int) -> None:
            bar.total = tiles
            bar.update(done - bar.n)

        yield show
