"""A package that is not installed.

Says: a module that imports, got ModuleNotFoundError: No module named 'mmcv_of_the_authors'
"""

import mmcv_of_the_authors  # here

from benchmark.method import Method


class MissingPackage(Method):
    net = mmcv_of_the_authors
