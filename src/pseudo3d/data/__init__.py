"""Labelled videos: lists of samples from folders and files, batches for training, and a small made-up set.

``annotations`` turns a folder or a list into samples and splits them without leaks, ``dataset`` turns samples into
clips, and ``synthetic`` writes the moving digits of the demo.
"""
