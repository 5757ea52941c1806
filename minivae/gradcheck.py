"""A name that can be imported: the module is minivae/evaluation/gradcheck.py."""

import sys

from minivae.evaluation import gradcheck

sys.modules[__name__] = gradcheck
