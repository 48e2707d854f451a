"""How long tests wait for what must happen: one constant, which a slow machine scales."""

import os
import time

SCALE = float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

#: Seconds that a test waits for something that must happen. It never slows a test that passes.
TIMEOUT = 10 * SCALE


def wait_until(condition, message="the condition", timeout=TIMEOUT, interval=0.02):
    """Returns the first true value of condition(); AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {message}")
        time.sleep(interval)
