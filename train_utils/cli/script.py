"""How a script ends: one sentence for what a user can fix, in place of a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper

from src.errors import UserError
from train_utils.train_and_eval import NonFiniteLossError

LOWER_WHEN_TRAINING = (
    "lower --batch-size, --crop-size, --base-c or --cache-limit; --accumulate makes up for a "
    "smaller batch"
)
# What PyTorch, cuDNN and cuBLAS say of a full GPU.
GPU_FULL = ("out of memory", "ALLOC_FAILED", "unable to find an engine to execute")


def run_script(main: Callable[[], object], prog: str, remedy: str = LOWER_WHEN_TRAINING) -> None:
    """Calls main().

    UserError, NonFiniteLossError, OSError and full memory end the script with one sentence on
    stderr and exit code 2. Ctrl-C ends it with 130, SIGTERM with 143.
    remedy: what to do about full memory.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that it cannot encode
    own_rank = os.environ.get("RANK", "0")
    if own_rank == "0":
        signal.signal(signal.SIGTERM, interrupt)
    else:
        prog = f"{prog} (rank {own_rank})"
        # This rank writes nothing. Python's handlers would not run while it waits for another rank.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        main()
    except (UserError, NonFiniteLossError, OSError) as error:
        print(f"{prog}: error: {sentence_of(error)}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        reason = ". ".join(str(error).split("\n")[0].split(". ")[:2])  # with the size asked for
        if any(words in str(error) for words in GPU_FULL):
            full = "the GPU is out of memory"
        elif "DefaultCPUAllocator" in reason:
            full, reason = "the memory is full", reason.partition("DefaultCPUAllocator: ")[2]
        else:
            raise
        print(f"{prog}: error: {full} ({reason}); {remedy}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        sys.exit(error.args[0] if error.args else 130)


def sentence_of(error: Exception) -> str:
    """The message of an error, without the traceback that a loader's worker puts before it."""
    text = str(error)
    if isinstance(error, UserError) and " in DataLoader worker process " in text:
        return text.rpartition("UserError: ")[2].rstrip()
    return text


def interrupt(signum: int, frame: object) -> None:
    """A signal handler: the signal ends the script as Ctrl-C does."""
    raise KeyboardInterrupt(128 + signum)
