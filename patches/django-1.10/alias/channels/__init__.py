"""
`channels`, the name of Channels 1.x, for the modules of `django.channels`: each module exists once.

This is all that the distribution contains. Install it next to a Django that includes channels.
"""

try:
    import django.channels
except ImportError:
    raise ImportError(
        "This distribution of `channels` is only a second name for `django.channels`, and this "
        "Django does not include channels. Install the patched Django, or replace this "
        "distribution with the whole package: the wheel that `make dist` builds."
    ) from None

from .alias import become_alias

__version__ = django.channels.__version__

become_alias()
