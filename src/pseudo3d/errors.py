"""What a user's mistake and an unusable file raise: one line that says what is wrong and what to do."""


class Pseudo3dError(ValueError):
    """Wrong usage or unusable input; its text is the one line a person reads (``p3d`` ends with code 2)."""


class VideoError(Pseudo3dError):
    """This file cannot be used as a video; its text begins with the path (a run over many files records it)."""
