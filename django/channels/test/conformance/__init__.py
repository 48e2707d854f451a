"""
The conformance suite of channel layers: a test for each promise of `layers/base.py`.

For people who write a layer: inherit `LayerConformance` and `unittest.TestCase`, and define
`make_layer`. Tests of extensions that the layer does not declare are skipped. A worker or gateway dies in a
forked process that is killed, so the tests of leases and wills need a system that can fork.
"""

from .case import MOMENT, TIMEOUT, LayerCase
from .dead_letters import DeadLetterTests
from .groups import GroupTests
from .inbox import InboxTests
from .leases import LeaseTests, WillTests
from .messages import ExpiryTests, MessageTests
from .statistics import FlushTests, StatisticsTests
from .work import AcknowledgementTests, DelayTests, ProcessTests

__all__ = ["MOMENT", "TIMEOUT", "LayerCase", "LayerConformance"]


class LayerConformance(
    MessageTests,
    ExpiryTests,
    AcknowledgementTests,
    DelayTests,
    GroupTests,
    InboxTests,
    FlushTests,
    StatisticsTests,
    LeaseTests,
    WillTests,
    DeadLetterTests,
    ProcessTests,
):
    """Tests to inherit, together with `unittest.TestCase`. `self.layer` is empty before each of them."""
