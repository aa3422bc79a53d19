"""How a script ends: one sentence for what a user can fix, in place of a traceback."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from io import TextIOWrapper

from src.errors import UserError
from train_utils.train_and_eval import NonFiniteLossError

LOWER_WHEN_TRAINING = (
    "lower --batch-size, --crop-size, --base-c or --cache-limit; --accumulate makes up for a "
    "smaller batch"
)
# A rank that has not reacted to a signal by then is waiting; torchrun kills it after 30 s.
STUCK_SECONDS = 10
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
    if (own_rank := os.environ.get("RANK", "0")) != "0":
        prog = f"{prog} (rank {own_rank})"
    set_signal_handlers(prog)
    try:
        main()
    except (UserError, NonFiniteLossError, OSError) as error:
        print(f"{prog}: error: {sentence_of(error)}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        full = full_memory(error)
        if not full:
            raise
        print(f"{prog}: error: {full}; {remedy}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        sys.exit(error.args[0] if error.args else 130)


def full_memory(error: RuntimeError | MemoryError) -> str:
    """Which memory is full, with the size asked for; "" for an error of another kind."""
    reason = ". ".join(str(error).split("\n")[0].split(". ")[:2])
    if isinstance(error, MemoryError):  # of NumPy, or of Python without a reason
        return f"the memory is full ({reason or 'MemoryError'})"
    if any(words in str(error) for words in GPU_FULL):
        return f"the GPU is out of memory ({reason})"
    if "DefaultCPUAllocator" in reason:
        return f"the memory is full ({reason.partition('DefaultCPUAllocator: ')[2]})"
    return ""


def sentence_of(error: Exception) -> str:
    """The message of an error, without the traceback that a loader's worker puts before it."""
    text = str(error)
    if isinstance(error, UserError) and " in DataLoader worker process " in text:
        return text.rpartition("UserError: ")[2].rstrip()
    return text


def set_signal_handlers(prog: str) -> None:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

    One of several ranks may be waiting for a rank that has ended, and no handler runs while it
    waits. Rank 0 then ends after STUCK_SECONDS; the others, which write nothing, end at once.
    """
    if os.environ.get("RANK", "0") != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return
    handled = threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        handled.set()
        raise KeyboardInterrupt(128 + signum)

    signal.signal(signal.SIGTERM, interrupt)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        signal.signal(signal.SIGINT, interrupt)
        end_if_stuck(handled, prog)


def end_if_stuck(handled: threading.Event, prog: str) -> None:
    """Starts a thread that ends this process if a signal's handler, which sets `handled`, does not
    run.

    Python runs a handler when the main thread returns from C++, where NCCL waits; but it writes
    the number of each signal to a socket at once.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)

    def watch() -> None:
        while number := receiver.recv(1)[0]:
            if number in (signal.SIGINT, signal.SIGTERM) and not handled.wait(STUCK_SECONDS):
                print(
                    f"{prog}: stopped while it waited for another rank; --resume auto continues "
                    "after the last saved epoch",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(128 + number)

    threading.Thread(target=watch, daemon=True).start()
