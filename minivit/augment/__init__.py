"""Augmentations in batches, on the device of the images, with a random draw of its own for every image.

An operation has two halves: ``draw`` samples its parameters for a batch on the CPU, so that they are the same on every
machine, and ``__call__`` applies given parameters. A `View` is a list of operations; a `Recipe` says which views a method trains on.
"""
from minivit.augment.base import Batch, Draws, Operation, Recipe, View, generator_of, seed_of
from minivit.augment.colour import (
    ColorJitter,
    Grayscale,
    Solarize,
    add_brightness,
    adjust_brightness,
    adjust_channel_contrast,
    adjust_contrast,
    adjust_hsv_saturation,
    adjust_hue,
    adjust_saturation,
    grayscale,
)
from minivit.augment.filters import GaussianBlur, GaussianNoise, Sobel, blur_weights
from minivit.augment.geometry import CenterResize, Cutout, HorizontalFlip, RandomResizedCrop, Rotation, resize_weights
from minivit.augment.recipes import (
    COMPOSED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    byol,
    composition,
    evaluation,
    moco_v1,
    moco_v2,
    moco_v3,
    simclr,
    supervised,
    swav,
)
