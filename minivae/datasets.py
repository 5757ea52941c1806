"""A name that can be imported: the module is minivae/data/datasets.py."""

import sys

from minivae.data import datasets

sys.modules[__name__] = datasets
