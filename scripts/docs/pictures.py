"""
A Sphinx extension that makes each drawing (an SVG) a link to itself.

On a telephone, a page shows a drawing so small that its text can't be read. The link opens it alone, where
it can be enlarged.
"""

import posixpath

from docutils import nodes
from sphinx.util.osutil import relative_uri


def setup(app):
    """Register the step, which runs for each page when its images are known."""
    app.connect("doctree-resolved", link_drawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link_drawings(app, doctree, name):
    """Wrap each drawing of a page in a link to its file."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if not image["uri"].endswith(".svg") or isinstance(image.parent, nodes.reference):
            continue
        _, stored = app.env.images[image["uri"]]
        target = posixpath.join(app.builder.imagedir, stored)
        address = relative_uri(app.builder.get_target_uri(name), target)
        link = nodes.reference("", "", internal=False, refuri=address)
        image.replace_self(link)
        link += image
