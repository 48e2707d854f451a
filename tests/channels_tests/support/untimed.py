"""Acknowledgements without the time that consumers ran, for tests that compare them."""

from unittest import mock

from django.channels import replies


def leave_out_run_times(test):
    """Until the end of `test`, acknowledgements don't say how long consumers ran."""
    patch = mock.patch.object(replies, "MIN_RUN_TIME", float("inf"))
    patch.start()
    test.addCleanup(patch.stop)
