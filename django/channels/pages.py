"""
The pages of the documentation that messages name. Pure: imports nothing of this package.

No site of this project's documentation is online. Its source has the folder docs/, and `make docs` builds the
pages there. Each message names a page by its title, so that the search finds it, and by its path.
"""

from __future__ import annotations

#: The titles of the pages, by their path below docs/.
TITLES = {
    "howto/deployment/asgi/nginx": "How to put nginx in front of Django",
    "ref/channels/api": "Python API",
    "ref/channels/messages": "Messages",
    "ref/channels/settings": "Channels settings",
    "topics/channels/async": "Asynchronous consumers",
    "topics/channels/from-channels-1": "Coming from Channels 1.x",
    "topics/channels/from-channels-2": "Coming from Channels 2, 3, 4",
    "topics/channels/sessions": "Sessions, users and origins",
}


def see(page: str) -> str:
    """Return the sentence that leads to `page` (a key of TITLES), for the end of a message."""
    return (
        'See "%s" in the documentation: docs/%s.txt of the source, or build/docs/%s.html after `make docs`.'
        % (TITLES[page], page, page)
    )
