"""The names of built-in data sets, backbones and trackers. PyTorch is not imported, so that a config check is fast."""

DATASETS = {
    "digits": "10 classes, 8x8 grey, scikit-learn's digits, part of fedvtc",
    "mnist": "10 classes, 28x28 grey",
    "fashion-mnist": "10 classes, 28x28 grey",
    "kmnist": "10 classes, 28x28 grey",
    "emnist": "47 classes, 28x28 grey, split balanced",
    "svhn": "10 classes, 32x32 colour",
    "cifar10": "10 classes, 32x32 colour",
    "cifar100": "100 classes, 32x32 colour",
    "tiny-imagenet": "200 classes, 64x64 colour, in the folders of the published archive",
    "npz": "your own images in one file, data.path",
    "folder": "your own images in folders below data.path",
}
"""Values of `data.name` that need no import path, each with the description that `fedvtc list data` prints."""


def has_own_files(dataset: str) -> bool:
    """Returns True if a value of `data.name` reads the user's own images, from `data.path`."""
    return dataset in ("npz", "folder") or dataset not in DATASETS


BACKBONES = (
    "cnn_2x8",
    "cnn_2x16",
    "cnn_2x32",
    "cnn_3x16",
    "cnn_3x32",
    "cnn_3x64",
    "cnn_4x16",
    "cnn_4x32",
    "cnn_4x64",
    "resnet8",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "googlenet",
    "efficientnet_b0",
    "shufflenet_v2",
    "vit_tiny",
)
"""Values of `population.backbones[].name` that need no import path."""

TIMM = "timm:"
"""Start of the name of a backbone of the library timm."""

TRACKERS = ("wandb", "tensorboard")
"""Trackers of `tracking.trackers` that need no import path."""
