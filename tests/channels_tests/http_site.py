"""The site of the HTTP tests: a URLconf, and views that show each thing a request and a response may be."""

import io
import json

import django
from django import http
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.test import override_settings
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import condition

try:
    from django.urls import reverse
except ImportError:  # Django 1.8 and 1.9
    from django.core.urlresolvers import reverse
try:
    from django.urls import re_path
except ImportError:  # Django 1.8 to 1.11
    from django.conf.urls import url as re_path


def settings_of(view):
    """Return the settings of a site in which `view` answers every request."""
    return override_settings(
        ROOT_URLCONF=type("URLconf", (), {"urlpatterns": [re_path(r"", view)]}),
        MIDDLEWARE=[],
        MIDDLEWARE_CLASSES=[],
        ALLOWED_HOSTS=["testserver"],
    )


#: The requests that reached `seen`, for the tests to look at.
seen_requests = []

FILE_CONTENT = bytes(range(256)) * 4096  # 1 MiB, so more than one reply


@csrf_exempt
def hello(request, name="world"):
    return http.HttpResponse("hello %s" % name)


@csrf_exempt
def seen(request):
    """Says what the request has in it, and keeps it."""
    seen_requests.append(request)
    files = {
        field: [
            [each.name, each.content_type, each.size, each.read().decode("latin-1")]
            for each in group
        ]
        for field, group in request.FILES.lists()
    }
    told = {
        "method": request.method,
        "path": request.path,
        "path_info": request.path_info,
        "full_path": request.get_full_path(),
        "uri": request.build_absolute_uri(),
        "host": request.get_host(),
        "secure": request.is_secure(),
        "get": sorted(request.GET.lists()),
        "post": sorted(request.POST.lists()),
        "files": files,
        "cookies": dict(request.COOKIES),
        "encoding": request.encoding,
        # Django 1.8 and 1.9 leave the content type to META.
        "content_type": request.content_type if django.VERSION >= (1, 10) else None,
        "content_params": request.content_params if django.VERSION >= (1, 10) else None,
        "reverse": reverse("hello"),
    }
    return http.HttpResponse(json.dumps(told, sort_keys=True), content_type="application/json")


@csrf_exempt
def raw_body(request):
    return http.HttpResponse(request.body, content_type="application/octet-stream")


@csrf_exempt
def body_then_post(request):
    size = len(request.body)
    return http.HttpResponse("%d %r" % (size, sorted(request.POST.lists())))


@csrf_exempt
def post_then_body(request):
    request.POST.get("a")
    return http.HttpResponse(request.body)


@csrf_exempt
def read_lines(request):
    lines = [request.readline(), request.read(3)]
    lines += list(request)
    return http.HttpResponse(repr(lines))


@csrf_exempt
def upload(request):
    group = [
        (each.name, each.size, sum(map(len, each.chunks()))) for each in request.FILES.getlist("f")
    ]
    return http.HttpResponse("%r %r" % (group, sorted(request.POST.lists())))


@csrf_protect
def guarded(request):
    return http.HttpResponse("through")


def charset(request):
    request.encoding = "koi8-r"
    return http.HttpResponse(request.GET.get("q", ""))


def cookies(request):
    response = http.HttpResponse("cookies")
    response.set_cookie("a", "1")
    response.set_cookie("b", "two; three", path="/x/", httponly=True, max_age=60)
    response.delete_cookie("gone")
    return response


def headers(request):
    response = http.HttpResponse("headers")
    response["X-Mixed-Case"] = "value"
    response["X-Latin"] = "caf\xe9"
    response["X-Far"] = "\u65e5\u672c"
    return response


def status(request, code):
    return http.HttpResponse("body of %s" % code, status=int(code), reason="Whatever")


def redirect(request):
    return http.HttpResponseRedirect("/hello/?q=caf\xe9")


def error(request):
    raise RuntimeError("the view failed")


def missing(request):
    raise http.Http404("not here")


def forbidden(request):
    raise PermissionDenied("no")


def suspicious(request):
    raise SuspiciousOperation("what")


def no_response(request):
    return None


def stream(request):
    return http.StreamingHttpResponse(part for part in ["a", b"b", "", "\u00fc", "c" * 10])


def stream_big(request):
    return http.StreamingHttpResponse(iter([b"x" * 600000, b"y" * 10]))


def stream_nothing(request):
    return http.StreamingHttpResponse(iter([]))


def big(request):
    return http.HttpResponse(FILE_CONTENT)


def file(request):
    response = http.FileResponse(io.BytesIO(FILE_CONTENT))
    response["Content-Length"] = str(len(FILE_CONTENT))
    return response


def file_unsized(request):
    response = http.FileResponse(io.BytesIO(FILE_CONTENT[:5000]))
    del response["Content-Length"]
    return response


def file_small(request):
    response = http.FileResponse(io.BytesIO(b"small"), content_type="text/plain")
    response["Content-Length"] = "5"
    return response


# Django before 1.11 puts the quotes around it.
@condition(etag_func=lambda request: '"v1"' if django.VERSION >= (1, 11) else "v1")
def conditional(request):
    return http.HttpResponse("the first version")


def lazy(request):
    """Not rendered yet when the view returns it."""
    from django.template import engines
    from django.template.response import SimpleTemplateResponse

    template = engines["django"].from_string("{{ what }} & co")
    return SimpleTemplateResponse(template, {"what": "<b>"})


def marker(get_response):
    """Middleware as Django has it from 1.10 on."""

    def middleware(request):
        response = get_response(request)
        response["X-Sync"] = "yes"
        return response

    return middleware


urlpatterns = [
    re_path(r"^hello/$", hello, name="hello"),
    re_path(r"^hello/(?P<name>.+)/$", hello),
    re_path(r"^seen/", seen),
    re_path(r"^body/$", raw_body),
    re_path(r"^body-then-post/$", body_then_post),
    re_path(r"^post-then-body/$", post_then_body),
    re_path(r"^lines/$", read_lines),
    re_path(r"^upload/$", upload),
    re_path(r"^guarded/$", guarded),
    re_path(r"^charset/$", charset),
    re_path(r"^cookies/$", cookies),
    re_path(r"^headers/$", headers),
    re_path(r"^status/(?P<code>\d+)/$", status),
    re_path(r"^redirect/$", redirect),
    re_path(r"^error/$", error),
    re_path(r"^missing/$", missing),
    re_path(r"^forbidden/$", forbidden),
    re_path(r"^suspicious/$", suspicious),
    re_path(r"^no-response/$", no_response),
    re_path(r"^stream/$", stream),
    re_path(r"^stream-big/$", stream_big),
    re_path(r"^stream-nothing/$", stream_nothing),
    re_path(r"^big/$", big),
    re_path(r"^file/$", file),
    re_path(r"^file-unsized/$", file_unsized),
    re_path(r"^file-small/$", file_small),
    re_path(r"^conditional/$", conditional),
    re_path(r"^lazy/$", lazy),
]
