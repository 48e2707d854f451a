"""What becomes of what a dead worker held, by the policy of `layers/lost.py`: one step for one message."""

import logging

from .contract import REPORT, RETRY, LayerUnavailable

logger = logging.getLogger("django.channels.redis")

#: Dead letters that are kept, about; beyond, the oldest go.
MAX_DEAD_LETTERS = 10000


def settle(layer, slot, entry):
    """Deal with what a dead worker held, which `slot` of this process holds now. Each step is atomic."""
    channel, message, losses = layer.read_entry(entry)
    if message is None:
        layer.bury(slot, "unreadable")
        return
    policy = layer.policy.decide(channel, message, losses + 1)
    if policy == REPORT:
        logger.warning("A worker was lost with a message of %s: its client is told.", channel)
        try:
            layer.deliver(message["reply_channel"], {"lost": message["exchange"]})
        except LayerUnavailable:
            raise
        except Exception:
            logger.exception("The loss of a message of %s could not be reported", channel)
        layer.forget(slot)
        layer.count("lost_reported")
    elif policy == RETRY:
        logger.warning("A worker was lost with a message of %s: it goes to another.", channel)
        layer.put_back(slot, channel, losses=1)
        layer.count("lost_retried")
    else:
        logger.error(
            "A worker was lost with a message of %s: it is among the dead letters.", channel
        )
        layer.bury(slot, "lost")
        layer.count("lost_dead")
