#!/usr/bin/env python
"""Runs the tests of asgi_redis: `python asgi_redis/tests/run.py [-v 2] [label ...]`.

They run as those of the add-on do, and start the Redis servers they need, each on a free port.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))


def main():
    # The distribution from this tree, unless it is installed.
    sys.path[:0] = [HERE, os.path.join(REPOSITORY, "tests"), os.path.dirname(HERE)]
    import runtests_addon

    if not any(argument.startswith("asgi_redis_tests") for argument in sys.argv[1:]):
        sys.argv.append("asgi_redis_tests")
    runtests_addon.main()


if __name__ == "__main__":
    main()
