"""Video files to clips: which frames (``sampling``), their pixels (``decode``, ``filters``), crops (``transforms``).

Nothing here imports torch, so that a process that only decodes stays small.
"""
