"""``p3d train --gpus N``: the same command once a GPU, under torchrun on this machine."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from pseudo3d.errors import Pseudo3dError

# torchrun kills what has not ended so many seconds after it passed a signal on: the step in hand and a checkpoint.
_TIME_TO_END = "120"


def launch(gpus: int, args: Sequence[str]) -> int:
    """Start ``p3d train`` in so many processes of this machine, and wait for them.

    SIGTERM and SIGINT go on to all of them (and SIGHUP, when a terminal is closed, as SIGTERM), so that they keep a
    checkpoint and end.

    Args:
        gpus: how many processes; each takes a GPU of its own, or with ``--device cpu`` its share of the cores.
        args: what follows ``p3d train`` on the command line, without ``--gpus``.

    Returns:
        The exit code of the process that failed first (128 + the number of the signal that ended it), else 0.
    """
    command = [sys.executable, "-m", "pseudo3d.commands.launch", "--standalone", "--nproc-per-node", str(gpus)]
    environ = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": _TIME_TO_END, **os.environ}
    return run_forwarding([*command, "-m", "pseudo3d.cli", "train", *args], environ)


def check_gpus(gpus: int, device: str) -> None:
    """Refuse more processes than this machine has GPUs, unless the device is "cpu".

    Raises:
        Pseudo3dError: it says how many GPUs there are.
    """
    if gpus < 1:
        raise Pseudo3dError(f"--gpus must be at least 1, got {gpus}")
    if device == "cpu":
        return
    import torch

    present = torch.cuda.device_count()
    if present < gpus:
        there = f"{present} GPU{'s' if present > 1 else ''}" if present else "no GPU"
        raise Pseudo3dError(
            f"--gpus {gpus}, but this machine has {there}; with --device cpu {gpus} processes run on its processors"
        )


def run_forwarding(command: Sequence[str], environ: dict[str, str]) -> int:
    """Run a command and pass on the signals that ask this process to end; its exit code as a shell counts it."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none

    def forward(number: int, frame: FrameType | None) -> None:
        number = signal.SIGTERM if number == hangup else number
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    before = {
        number: signal.signal(number, forward)
        for number in {signal.SIGTERM, signal.SIGINT, hangup}
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup sets it
    }
    try:
        # In a session of its own, or Ctrl-C would come twice: from the terminal and from here.
        child = subprocess.Popen(command, env=environ, start_new_session=True)
        for number in early:
            child.send_signal(number)
        # A signal that comes just before a wait without end would be heard after it only.
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=60)  # looks every 0.05 s
                break
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun, but with the first failure's exit code and without its reports: the processes say what failed.

    (torchrun logs what it does to the processes, ends with a traceback, and always with code 1.)
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until torchrun has its own handler: no traceback of an import
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)
    try:
        run.main(argv)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = next(iter(error.failures.items()))  # in the order in which they were seen to end
        if failure.exitcode >= 0:
            return failure.exitcode
        # a process that was killed could not speak for itself
        print(
            f"p3d train: process {rank} was ended by {failure.signal_name()}; "
            "the same command with --resume auto goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main())
