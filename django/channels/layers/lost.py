"""Former names, until the layers are on the engine."""

from .base import DeadLetter
from .engine.redelivery import DEAD_LETTER, REPORT, RETRY
from .engine.redelivery import RedeliveryPolicy as LostPolicy

__all__ = ["DEAD_LETTER", "REPORT", "RETRY", "DeadLetter", "LostPolicy"]
