"""Checks that a connection passes before its consumer sees it."""
