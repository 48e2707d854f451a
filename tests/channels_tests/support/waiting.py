"""Wait for what must happen: one time-out, which a slow machine scales."""

import os
import time

SCALE = float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

#: Seconds that a test waits for something that must happen. It never slows a test that passes.
TIMEOUT = 10 * SCALE

#: Seconds that a server gets to start.
START_TIMEOUT = 60 * SCALE


def wait_until(condition, message="the condition", timeout=TIMEOUT, interval=0.02):
    """Return the first true value of `condition()`.

    It is called every `interval` seconds. Raises AssertionError, which names `message`, if it is still false
    after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {message}, and it did not happen")
        time.sleep(interval)
