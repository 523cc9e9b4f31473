"""The class derives from torch's module and not from Method.

Says: expected one class derived from Method, got none
"""

from torch import nn


class NoClass(nn.Module):
    pass
