"""Unsupervised cross-domain semantic segmentation."""

__version__ = "0.2.0"

import warnings

# fastai 2.8 makes PyTorch 2.14 say this at every import; nobody who uses the kit can do anything about it.
warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
