"""A name that can be imported: the module is minivae/app/plots.py."""

import sys

from minivae.app import plots

sys.modules[__name__] = plots
