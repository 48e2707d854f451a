"""
A Sphinx extension for pages that are written for Django's documentation, when they are built without it.

It knows Django's roles and directives (`:setting:`, `:djadmin:`), and turns references to a page,
setting or command of Django's own documentation into links to docs.djangoproject.com. A reference that
is unknown here and in the table below stays an error.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.std import Cmdoption

DJANGO = "https://docs.djangoproject.com/en/stable"

#: Labels of Django's documentation, and where they are.
LABELS = {}

#: Pages of Django's documentation begin with one of these.
PAGES = ("howto/", "intro/", "ref/", "releases/", "topics/")


def setup(app):
    """Register the roles, and the resolver of references."""
    app.add_crossref_type("setting", "setting", indextemplate="pair: %s; setting")
    app.add_crossref_type("templatetag", "ttag", indextemplate="pair: %s; template tag")
    app.add_object_type(
        "django-admin",
        "djadmin",
        indextemplate="pair: %s; django-admin command",
        parse_node=parse_command,
    )
    app.add_directive("django-admin-option", Cmdoption)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def parse_command(env, signature, node):
    """Describe a command: `runworker` of "runworker [options]". The options that follow belong to it."""
    command = signature.split()[0]
    env.ref_context["std:program"] = command
    node += addnodes.desc_name("", "manage.py " + signature)
    return command


def resolve(app, env, node, content):
    """Return a link to Django's documentation for a reference to it, or None."""
    url = url_of(node["reftype"], node["reftarget"], app.env.found_docs)
    if url is None:
        return None
    return nodes.reference("", "", content, internal=False, refuri=DJANGO + url)


def url_of(kind, target, pages):
    """Return the path of what a reference means in Django's documentation, or None."""
    if kind == "setting":
        return "/ref/settings/#std-setting-%s" % target
    if kind == "djadmin":
        return "/ref/django-admin/#django-admin-%s" % target
    if kind == "ref":
        return LABELS.get(target)
    page = target.lstrip("/")
    if kind == "doc" and page.startswith(PAGES) and "channels" not in page and page not in pages:
        return "/%s/" % page
    return None
