"""A decoder process for the tests, whose files misbehave as their names say."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from pseudo3d.video import worker
from pseudo3d.video.clips import ClipStream


class OddStream(ClipStream):
    def __iter__(self):
        word = Path(self._path).stem.split("_")[0]
        clips = super().__iter__()
        if word in ("hang", "busy", "crash", "exit", "bug", "bomb"):
            yield next(clips)
        match word:
            case "hang":
                time.sleep(1000)
            case "busy":
                while True:  # not at full speed: should a test fail to end it, other tests need the cores
                    time.sleep(0.001)
                    self._progress()
            case "slow":  # but alive
                for _ in range(20):
                    time.sleep(0.1)
                    self._progress()
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                sys.stderr.write("assertion failed: a > b\n")
                sys.stderr.flush()
                os._exit(3)
            case "bug":
                raise KeyError("no such thing")
            case "bomb":
                hoard = []
                while True:
                    hoard.append(np.ones(16 << 20, np.uint8))
            case "print":
                print("hello")
                os.write(1, b"\x80\x05garbage" * 100)
            case "log":
                logging.getLogger("pseudo3d").warning("%s: a line for the log", self._path)
                logging.getLogger("pseudo3d").info("not asked for")
        yield from clips


worker.ClipStream = OddStream
if __name__ == "__main__":
    worker.main()
