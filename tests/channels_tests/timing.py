"""The former place of support/waiting.py."""

from .support.waiting import SCALE, TIMEOUT, wait_until  # noqa: F401
