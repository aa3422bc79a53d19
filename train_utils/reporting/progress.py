"""What a person sees while an epoch runs: a bar on a terminal, plain lines where the output is piped."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Follows the `steps` of one pass. `bar` says whether to draw a bar; by default on a terminal only."""

    def __init__(self, title, steps, enabled=True, bar=None):
        self.title, self.steps, self.enabled = title, steps, enabled
        self.step, self.images, self.start = 0, 0, time.perf_counter()
        bar = sys.stderr.isatty() if bar is None else bar
        self.bar = tqdm(
            total=steps, desc=title, unit="step", leave=False, disable=not (enabled and bar)
        )

    def update(self, images, text=None):
        """One more step over `images` images; with a text ("loss 0.61  lr 0.0090") also shows it, beside the speed."""
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

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
