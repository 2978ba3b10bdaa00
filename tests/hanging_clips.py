"""Clips of which some never come; here, so that worker processes can import it."""

import os
import signal
import time

from pseudo3d.data.dataset import TrainingClips


class HangingClips(TrainingClips):
    """Reading hangs at every video whose path begins with "hang", and "crash" ends the process."""

    def _draw(self, epoch, video):
        if self.samples.samples[video].path.startswith("hang"):
            time.sleep(3600)
        if self.samples.samples[video].path.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._draw(epoch, video)
