"""Images as arrays, and their division among the clients. No training.

`fedvtc.learning.data.module` is not imported here, because its batches need PyTorch and Lightning.
"""

from fedvtc.learning.data.datasets import Dataset, ImageArrays, load_dataset
from fedvtc.learning.data.fetching import data_root
from fedvtc.learning.data.partition import class_counts, make_partition, split_validation
from fedvtc.learning.data.partition_file import load_partition, read_partition, save_partition
from fedvtc.learning.data.report import DataReport

__all__ = [
    "DataReport",
    "Dataset",
    "ImageArrays",
    "class_counts",
    "data_root",
    "load_dataset",
    "load_partition",
    "make_partition",
    "read_partition",
    "save_partition",
    "split_validation",
]
