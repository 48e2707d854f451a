"""What django-television imports of each app when it is ready: listeners and bound models."""

from django.contrib.auth.models import Group
from television.decorators import add_data_binding_staff, add_listener


@add_listener("add")
def add(message, one, other):
    return {"sum": one + other, "user": message.user.username}


add_data_binding_staff(fields=["name"])(Group)
