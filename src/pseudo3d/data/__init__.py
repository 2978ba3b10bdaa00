"""Labelled videos: lists of samples from folders and files, batches for training, and a small made-up set.

``annotations`` turns a folder or a list into samples, ``splits`` divides them without leaks, ``sampler`` says which
videos are in which step of a training run, ``dataset`` turns these into batches of random clips, in processes that
``workers`` watches, and ``synthetic`` writes the moving digits of the demo.
"""
