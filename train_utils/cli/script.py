"""How a script ends: one sentence for what a user can fix, in place of a traceback."""

import os
import signal
import sys
from collections.abc import Callable

import torch

from src.errors import UserError
from train_utils.train_and_eval import NonFiniteLossError


def run_script(main: Callable[[], object], prog: str) -> None:
    """Calls main().

    UserError, NonFiniteLossError, OSError and a full GPU end the script with one sentence on stderr
    and exit code 2. Ctrl-C ends it with 130, SIGTERM with 143.
    """

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(128 + signum)

    signal.signal(signal.SIGTERM, stop)
    if os.environ.get("RANK", "0") != "0":
        prog = f"{prog} (rank {os.environ['RANK']})"
    try:
        main()
    except (UserError, NonFiniteLossError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        print(
            f"{prog}: error: the GPU is out of memory ({reason}); lower --batch-size, --crop-size, "
            "--base-c or --cache-limit; --accumulate makes up for a smaller batch",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        sys.exit(interrupt.args[0] if interrupt.args else 130)
