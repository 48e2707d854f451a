"""Packages of 2016 to 2018 that require Channels 1.x, run against this project by scripts/test_1x.py."""
