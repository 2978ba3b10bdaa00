"""Recipes: Python functions that return a ``TrainConfig``. Each says where every one of its numbers is from.

"The paper" is Qiu, Yao and Mei, ICCV 2017; "the release" is the authors' published network definition, and for C3D the
network definitions and solvers of facebookarchive/C3D; "the C3D paper" is Tran et al., ICCV 2015. "Ours" is published
nowhere. What a recipe does not set is ``TrainConfig``'s default.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace

from pseudo3d.data.augmentation import Augmentation
from pseudo3d.errors import Pseudo3dError
from pseudo3d.training.config import Optim, TrainConfig


def scratch() -> TrainConfig:
    """From random weights, on any data.

    - Crops from 182x242 (paper 3.3); every batch norm learns, since random ones have nothing to keep.
    - Ours: AdamW at 0.001 with weight decay 0.05, a warm-up of one epoch and cosine decay, which need no tuning to a
      data set's size as the paper's steps do; gradients scaled down to norm 5 against early jumps; label smoothing 0.1;
      60 epochs, twice those of fine-tuning; no flip, which would swap classes such as left and right.
    - Dropout is the network's own: of P3D 0.1 (paper 4, Sports-1M), of C3D 0.5 (release).
    - 20 test clips (paper 4, authors' answer).
    """
    return TrainConfig("scratch", epochs=60)


def finetune() -> TrainConfig:
    """From weights trained elsewhere, on a few hundred videos of one's own. The default when ``--weights`` are given.

    - Batch norms frozen but the first (paper 3.3, release): statistics of small batches of few videos are noise.
    - A new head that learns 10 times faster, its bias 20 times (release): it begins at nothing, the rest does not.
    - Dropout 0.5: the release's for Kinetics. The paper's 0.9 for UCF101 makes 30 epochs too few.
    - Ours: AdamW at 0.0001, as the paper's SGD at 0.001 needs thousands of steps, and a few hundred videos give some 15
      steps an epoch; weight decay 0.05, AdamW's usual; a warm-up of one epoch, while the head is random; cosine decay
      to zero, so that no milestones need choosing; gradients scaled down to norm 5, as one odd video is a large share
      of a small batch.
    - Ours: batches of 16 clips, which fit into the memory of one processor or GPU; 30 epochs; label smoothing 0.1, as
      labels of one's own are seldom all right; temporal filters of 2-D weights begin as the identity, not as the
      paper's Gaussians: the network starts as good as the 2-D one.
    - Ours: no flip, which would swap classes such as left and right: add --augment.flip where it changes none. No class
      weights: hits are counted by video.
    - Ours: 15 % of the training videos choose the best epoch, by 4 clips each. 20 test clips (authors' answer).
    """
    return TrainConfig(
        "finetune",
        epochs=30,
        batch_size=16,
        freeze_bn=True,
        dropout=0.5,
        label_smoothing=0.1,
        optim=Optim(
            "adamw",
            lr=1e-4,
            weight_decay=0.05,
            schedule="cosine",
            warmup_epochs=1.0,
            head_lr_scale=10.0,
            clip_grad_norm=5.0,
        ),
        val_fraction=0.15,
        val_clips=4,
        test_clips=20,
    )


def _caffe_sgd(
    lr: float,
    *,
    every: int,
    of: int,
    gamma: float = 0.1,
    weight_decay: float = 5e-4,
    head_lr_scale: float = 1.0,
) -> Optim:
    """SGD as Caffe runs it: momentum 0.9, the rate times ``gamma`` after ``every`` steps ``of`` all, nothing else."""
    return Optim(
        "sgd",
        lr=lr,
        weight_decay=weight_decay,
        momentum=0.9,
        schedule="step",
        milestones=tuple(step / of for step in range(every, of, every)),
        gamma=gamma,
        warmup_epochs=0.0,
        head_lr_scale=head_lr_scale,
        clip_grad_norm=0.0,
    )


def ucf101_p3d() -> TrainConfig:
    """P3D ResNet-50 on UCF101 (paper 3.3). ``--blocks A`` (B, C) trains P3D-A (B, C); left out, the three take turns.

    - Paper 3.3: from ImageNet's ResNet-50, 160x160 crops out of 182x242, flip, batches of 128, SGD at 0.001 divided by
      10 every 3K steps, 7.5K steps, dropout 0.9, batch norms frozen but the first.
    - Authors' answers: 128 clips of 128 different videos; 20 test clips.
    - Release: temporal filters and head begin Gaussian (std 0.001); the head learns 10 times faster, its bias 20 times;
      no weight decay on batch norms and biases.
    - Ours, not in the paper: momentum 0.9 and weight decay 5e-4 (Caffe's usual). No label smoothing, since it names
      none. All videos of the training split are trained on, and the last weights are tested. A clip starts at any
      frame; the paper's clips do not overlap.
    """
    return TrainConfig(
        "ucf101_p3d",
        model="p3d_resnet50",
        weights="imagenet",
        head_std=0.001,
        temporal_init="gaussian",
        resize=(182, 242),
        iterations=7500,
        batch_size=128,
        dropout=0.9,
        label_smoothing=0.0,
        freeze_bn=True,
        optim=_caffe_sgd(1e-3, every=3000, of=7500, head_lr_scale=10.0),
        augment=Augmentation(flip=True),
        val_fraction=0.0,
        test_clips=20,
    )


def ucf101_resnet50() -> TrainConfig:
    """The frame baseline on UCF101: as ``ucf101_p3d``, on single frames.

    - Paper 3.3: 224x224 crops out of 240x320, batches of 128 frames; dropout, steps and frozen batch norms as for P3D.
    - Authors' answer: tested on 25 frames of a video.
    - Ours, not in the paper: momentum 0.9 and weight decay 5e-4 (Caffe's usual); the head's rate and
      beginning are P3D's (release).
    """
    p3d = ucf101_p3d()
    return replace(
        p3d, recipe="ucf101_resnet50", model="resnet50", temporal_init="identity", resize=(240, 320), test_clips=25
    )


def sports1m_p3d() -> TrainConfig:
    """P3D ResNet-152 on Sports-1M (paper 4).

    - Paper 4: clips out of five random 5-second pieces of each video, dropout 0.1, SGD at 0.001 divided by 10 every 60K
      steps, 150K steps; batches of 128 and augmentation (182x242, flip) as in 3.3; 20 test clips. The paper draws these
      at random; here they are spread evenly, as for UCF101 (authors' answer).
    - Paper, Table 2: from ImageNet's ResNet-152. Videos split 70/10/20: 20 % are tested on and, of the other 80 %, one
      eighth validates, unless the list has splits.
    - Release: batch norms frozen but the first; temporal filters and head Gaussian (std 0.001); the head 10 times
      faster, its bias 20 times; no weight decay on batch norms and biases.
    - Ours, not in the paper: momentum 0.9 and weight decay 5e-4 (Caffe's usual). One clip of each of 100,000 videos
      validates, every fifth of the 27 epochs: more would take longer than it tells. A video of several labels counts
      for each of them.
    """
    return replace(
        ucf101_p3d(),
        recipe="sports1m_p3d",
        model="p3d_resnet152",
        iterations=150_000,
        dropout=0.1,
        optim=_caffe_sgd(1e-3, every=60_000, of=150_000, head_lr_scale=10.0),
        augment=Augmentation(flip=True, pieces=5, piece_seconds=5.0),
        val_fraction=0.125,
        val_clips=1,
        val_every=5,
        test_fraction=0.2,
    )


def kinetics_p3d() -> TrainConfig:
    """P3D ResNet-152 on Kinetics (release). The authors published its weights, not how they were trained.

    - Release: dropout 0.5 (of the flow network 0.7: --dropout 0.7; frames of flow cannot be trained on here yet),
      batch norms frozen but the first, temporal filters and head as in ``ucf101_p3d``.
    - Ours, since nothing is published: all else as on Sports-1M (paper 4), but clips from anywhere in a video, since
      Kinetics' are of 10 seconds; tested on the data's own splits.
    - Ours, not in the paper: momentum 0.9 and weight decay 5e-4 (Caffe's usual).
    """
    return replace(sports1m_p3d(), recipe="kinetics_p3d", dropout=0.5, augment=Augmentation(flip=True))


def c3d_sports1m() -> TrainConfig:
    """C3D on Sports-1M from random weights (C3D paper, 3.3).

    - C3D paper: clips out of five random 2-second pieces of each video, 112x112 crops out of 128x171, flip, batches of
      30, SGD at 0.003 halved every 150K steps, 1.9M steps.
    - Release: dropout 0.5 after fc6 and fc7; random weights as in its definition.
    - Ours, not in the paper: momentum 0.9 and weight decay 5e-4 (Caffe's usual; for UCF101 the release's solvers have
      0.9, and 5e-3 from scratch, 5e-4 to fine-tune). Biases learn as fast as weights, in the release twice as fast.
      Split and validation as in ``sports1m_p3d``, every 15th of some 80 epochs
      (one clip of each video an epoch; the C3D paper counts five).
    """
    return TrainConfig(
        "c3d_sports1m",
        model="c3d",
        resize=(128, 171),
        iterations=1_900_000,
        batch_size=30,
        dropout=0.5,
        label_smoothing=0.0,
        optim=_caffe_sgd(3e-3, every=150_000, of=1_900_000, gamma=0.5),
        augment=Augmentation(flip=True, pieces=5, piece_seconds=2.0),
        val_fraction=0.125,
        val_clips=1,
        val_every=15,
        test_fraction=0.2,
        test_clips=20,
    )


def c3d_finetune() -> TrainConfig:
    """C3D fine-tuned from ``--weights``, the authors' Sports-1M file, as on UCF101 (release).

    - Release (its fine-tuning solver and definition): SGD at 0.0001 divided by 10 every 5K steps, 20K steps, batches of
      30, momentum 0.9, weight decay 5e-4 and none on biases, dropout 0.5, flip, 112x112 crops out of 128x171, a head as
      fast as the rest.
    - Ours: biases learn as fast as weights, in the release twice as fast. No label smoothing. All videos of the
      training split are trained on, the last weights are tested, by 20 clips.
    """
    return TrainConfig(
        "c3d_finetune",
        model="c3d",
        resize=(128, 171),
        iterations=20_000,
        batch_size=30,
        dropout=0.5,
        label_smoothing=0.0,
        optim=_caffe_sgd(1e-4, every=5000, of=20_000),
        augment=Augmentation(flip=True),
        val_fraction=0.0,
        test_clips=20,
    )


def c3d_kernels() -> TrainConfig:
    """Kernels of C3D compared: a smaller network, from random weights, on UCF101 (C3D paper, 3.2).

    ``--model c3d_small_1`` (3, 5, 7, increasing, decreasing) chooses how many frames the filters see; left out, 3. The
    paper uses split 1.

    - C3D paper: batches of 30, SGD at 0.003 divided by 10 every 4 of 16 epochs, 112x112 crops out of 128x171. An epoch
      there is all non-overlapping clips of all videos, about 11 of each; here it is one of each. So the recipe counts
      steps: the 60K of the release's UCF101 solver, about those 16 epochs, divided by 10 at each quarter.
    - Release (its UCF101 solver and definition): momentum 0.9, weight decay 5e-3 and none on biases, dropout 0.5, flip.
    - Ours: biases learn as fast as weights, in the release twice as fast. No label smoothing. All videos of the
      training split are trained on, the last weights are tested, by 20 clips.
    """
    return replace(
        c3d_finetune(),
        recipe="c3d_kernels",
        model="c3d_small_3",
        iterations=60_000,
        optim=_caffe_sgd(3e-3, every=15_000, of=60_000, weight_decay=5e-3),
    )


def demo() -> TrainConfig:
    """The moving digits of ``p3d demo``.

    All numbers are ours: what trains P3D ResNet-14 in minutes on two processors. No flip, which would swap the labels.
    """
    return TrainConfig(
        "demo",
        model="p3d_resnet14",
        size=48,
        resize=(54, 54),
        epochs=9,
        batch_size=16,
        dropout=0.1,
        optim=Optim(lr=1.5e-3),
        val_fraction=0.1,
        val_clips=1,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "scratch": scratch,
    "finetune": finetune,
    "ucf101_p3d": ucf101_p3d,
    "ucf101_resnet50": ucf101_resnet50,
    "sports1m_p3d": sports1m_p3d,
    "kinetics_p3d": kinetics_p3d,
    "c3d_sports1m": c3d_sports1m,
    "c3d_finetune": c3d_finetune,
    "c3d_kernels": c3d_kernels,
    "demo": demo,
}


def get_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Raises:
        Pseudo3dError: no such recipe; the nearest is named.

    Example:
        >>> get_recipe("sports1m_p3d").augment.pieces
        5
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise Pseudo3dError(f"no recipe {name!r}; did you mean {near!r}? There are {', '.join(RECIPES)}")
    return RECIPES[name]()
