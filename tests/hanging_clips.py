"""Clips of which some never come; here, so that worker processes can import it."""

import time

from pseudo3d.data.dataset import TrainingClips


class HangingClips(TrainingClips):
    """Reading hangs at every video whose path begins with "hang"."""

    def _draw(self, epoch, video):
        if self.samples.samples[video].path.startswith("hang"):
            time.sleep(3600)
        return super()._draw(epoch, video)
