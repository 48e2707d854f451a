"""
The pages of the documentation that messages name. Pure: imports nothing of this package.

This project's documentation isn't online, and a reader of a message may lack the source. Each message
names a page by its title, which the search and the table of contents of the built pages have.
"""

from __future__ import annotations

#: The titles of the pages, by their path below docs/.
TITLES = {
    "howto/deployment/asgi/index": "How to deploy with ASGI",
    "howto/deployment/asgi/nginx": "How to put nginx in front of Django",
    "howto/deployment/asgi/uvicorn": "How to use Django with uvicorn",
    "ref/channels/api": "Python API",
    "ref/channels/messages": "Messages",
    "ref/channels/settings": "Channels settings",
    "topics/channels/async": "Asynchronous consumers",
    "topics/channels/binding": "Data binding",
    "topics/channels/consumers": "Consumers and routing",
    "topics/channels/from-channels-1": "Coming from Channels 1.x",
    "topics/channels/from-channels-2": "Coming from Channels 2, 3, 4",
    "topics/channels/how-it-works": "How it works",
    "topics/channels/sessions": "Sessions, users and origins",
    "topics/channels/testing": "Testing",
}


def see(page: str) -> str:
    """Return the sentence that leads to `page` (a key of TITLES), for the end of a message."""
    return 'See the page "%s" of the documentation.' % TITLES[page]
