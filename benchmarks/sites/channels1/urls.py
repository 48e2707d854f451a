"""No page: only sockets are measured here."""

urlpatterns = []
