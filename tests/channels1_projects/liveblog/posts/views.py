from django.shortcuts import get_object_or_404, render

from .models import Liveblog


def index(request):
    return render(request, "index.html", {"liveblogs": Liveblog.objects.order_by("id")})


def liveblog(request, slug):
    blog = get_object_or_404(Liveblog, slug=slug)
    return render(request, "liveblog.html", {"liveblog": blog, "posts": blog.posts.all()[:20]})
