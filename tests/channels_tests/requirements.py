"""The former place of support/requirements.py."""

from .support.requirements import find, require  # noqa: F401
