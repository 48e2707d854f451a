"""
The version of Python that channels needs.

Django runs on older ones, without channels. So this file stays readable to each of them.
"""

import sys

PYTHON_FLOOR = (3, 7)


def prepare(package):
    """Return whether channels can run on this Python."""
    return sys.version_info[:2] >= PYTHON_FLOOR
