"""Contexts that last until a test ends."""


def enter(test, context):
    """Enter `context` until `test` ends. The last override of settings is the first to end."""
    context.__enter__()
    test.addCleanup(context.__exit__, None, None, None)
