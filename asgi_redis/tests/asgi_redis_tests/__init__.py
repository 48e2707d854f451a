"""Tests of the Redis layer, against real servers."""
