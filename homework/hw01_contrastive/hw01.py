"""Homework 01: contrastive losses that the library lacks. This is the only file you edit, and the only one you hand in.

Your student id decides which order of rows and which loss are yours: write it below, then
``python -m minivit grade hw01.py --show`` tells you. README.md has the rules, hw01.ipynb is the playground.

In all parts: B images, two views of each, so 2B rows z of width D_z, raw (not normalised). s(i,k) is the cosine of rows i
and k. Row i is an *anchor*; its *positive* j is the row with the other view of the same image.
"""
import torch
from torch import Tensor

STUDENT = "your id"
COURSE = "minivit"  # your teacher's line


# ---- Part A: rows and pairs (15 points) -----------------------------------------------------------------------------
def positive_of(batch: int) -> Tensor:
    """The row of every row's positive, in your layout.

    Layouts: *interleaved*, the two views of image k are the rows 2k and 2k+1; or *stacked*, first all first views, then all
    second views, so that the two views of image i are the rows i and i+B.

    batch: B, the number of images. Returns: int64, shape (2B,).
    """
    raise NotImplementedError


def is_negative(batch: int) -> Tensor:
    """Which rows are negatives of which anchor in plain NT-Xent: all but the anchor itself and its positive.

    batch: B. Returns: bool, shape (2B, 2B); entry (i, k) says whether row k is a negative of anchor i.
    """
    raise NotImplementedError


# ---- Part B: your variant of the loss (30 points) -------------------------------------------------------------------
def variant_loss(z: Tensor, temperature: float | Tensor) -> Tensor:
    """The mean over all 2B anchors of ℓ_i, in your layout. Write your own variant only.

    *own side*         ℓ_i = −s(i,j)/τ + log Σ_k exp(s(i,k)/τ),      k: the positive j, and the B−1 other rows of i's own view
    *own temperature*  ℓ_i = −s(i,j)/τ_i + log Σ_k exp(s(i,k)/τ_i),  k: the positive j, and all 2B−2 negatives
    *decoupled*        ℓ_i = −s(i,j)/τ + log Σ_k exp(s(i,k)/τ),      k: the 2B−2 negatives, without the positive

    z: (2B, D_z), float32 or float64; the loss has the type of z. temperature: τ > 0, a number; for *own temperature* a
    tensor (2B,), one τ_i for each anchor. Returns: a tensor with one number, shape (). A gradient reaches z (and the
    temperatures, if they are a tensor). Works at τ = 0.006 in float32, where exp(s/τ) overflows.

    Raises ValueError, with one sentence, if z has an odd number of rows or fewer than four, or if a temperature is not positive.
    """
    raise NotImplementedError


# ---- Part C: how hard each row pulls and pushes (20 points) ---------------------------------------------------------
def similarity_gradient(z: Tensor, temperature: float | Tensor) -> Tensor:
    """∂ℓ_i/∂s(i,k) for your variant's ℓ_i, worked out by hand: no autograd here.

    Positive where pushing row k away from anchor i lowers ℓ_i, negative at the positive, 0 for rows that ℓ_i does not see.
    ℓ_i is the loss of one anchor, so there is no 1/(2B) in it.

    z, temperature: as in part B. Returns: shape (2B, 2B), the type of z; row i is for anchor i. Works at τ = 0.006 in float32.
    """
    raise NotImplementedError


# ---- Part D: false negatives (20 points) ---------------------------------------------------------------------------
def label_aware_loss(z: Tensor, labels: Tensor, temperature: float, weight: float) -> Tensor:
    """Plain NT-Xent in your layout, but negatives of the anchor's own class count only ``weight`` in the denominator:

    ℓ_i = −s(i,j)/τ + log( exp(s(i,j)/τ) + Σ_k w(i,k) exp(s(i,k)/τ) ),  k: the 2B−2 negatives

    w(i,k) = weight where k's image has the class of i's image, else 1. The positive always counts in full. weight = 1 is
    plain NT-Xent; weight = 0 leaves those false negatives out, and an anchor may then have no negatives at all.

    z: (2B, D_z). labels: int64, (B,), one class for each image, image 0 first. temperature: τ > 0. weight: in [0, 1].
    Returns: the mean over all 2B anchors, shape (), the type of z; a gradient reaches z and is never NaN.
    """
    raise NotImplementedError


# ---- Part E: which mistake was it? (15 points) ----------------------------------------------------------------------
NAMES = ("right", "doubled", "summed", "self pair", "no positive", "one view", "not normalised", "multiplied", "wrong pairs")


def diagnose(batch: int, temperature: float, collapsed: float, spread: float, longer: float) -> str:
    """Name what is wrong with an implementation of plain NT-Xent from three of its values. Stacked views, B ≥ 4 images.

    collapsed: its value when all 2B rows are one and the same unit vector.
    spread:    its value when the two views of an image are equal, and different images orthogonal unit vectors.
    longer:    its value for the rows of ``spread``, each multiplied by 2.

    Returns one of NAMES:
    *right*; *doubled*, the sum of the means over the two views; *summed*, the sum over the 2B anchors; *self pair*, the
    anchor itself is in the denominator; *no positive*, the positive is not in the denominator; *one view*, only rows of the
    other view are in it; *not normalised*, s is the plain dot product; *multiplied*, s·τ in place of s/τ; *wrong pairs*,
    positives are looked up as if the views were interleaved.
    """
    raise NotImplementedError
