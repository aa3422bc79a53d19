"""The progress of an epoch: a bar on a terminal, plain lines where the output is piped."""

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Shows how far one pass over a loader is. Use it in a with-statement.

    Args:
        title: what is counted, such as "epoch 3".
        steps: number of steps of the whole pass.
        enabled: False shows nothing, for ranks other than 0.
        bar: whether to show a bar; None for a bar on a terminal only.
    """

    def __init__(
        self, title: str, steps: int, enabled: bool = True, bar: bool | None = None
    ) -> None:
        if bar is None:
            bar = sys.stderr.isatty()
        self.title = title
        self.steps = steps
        self.enabled = enabled
        self.step = 0
        self.images = 0
        self.start = time.perf_counter()
        self.bar = tqdm(
            total=steps, desc=title, unit="step", leave=False, disable=not (enabled and bar)
        )

    def update(self, images: int, text: str | None = None) -> None:
        """Count one more step over `images` images.

        A text such as "loss 0.61  lr 0.0090" is shown, with the speed so far.
        """
        self.step += 1
        self.images += images
        self.bar.update()
        if text is None or not self.enabled:
            return
        seconds = time.perf_counter() - self.start
        text = f"{text}  {self.images / seconds:.1f} images/s"
        self.bar.set_postfix_str(text)
        if self.bar.disable:
            left = tqdm.format_interval(seconds / self.step * (self.steps - self.step))
            print(f"{self.title}  step {self.step}/{self.steps}  {text}  {left} left", flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()
