"""Acknowledgements without the time that consumers ran, for tests that compare them."""

from unittest import mock

from django.channels import replies


def leave_out_run_times(test):
    """Until the end of `test`, acknowledgements say that consumers ran for less than a millisecond."""
    patch = mock.patch.object(replies, "run_time", lambda started: 0)
    patch.start()
    test.addCleanup(patch.stop)
