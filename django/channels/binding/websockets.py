"""
Data binding over a demultiplexed WebSocket, in the JSON that Channels 1.1 documents.

Out: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}, "model": "app.model"}}`.
In: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}}}`, `pk` not for "create" and
`data` not for "delete".
Refused: `{"stream": …, "payload": {"action": "error", "request": …, "pk": …, "model": …, "errors": {…}}}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, cast

from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.utils.translation import gettext as _

from ..compat import set_related
from ..generic.json_text import decode_json, json_value
from ..generic.websockets import WebsocketMultiplexer
from .base import Binding
from .fields import (
    assign,
    find_row,
    key_to_send,
    no_such_row,
    plain_fields,
    related_fields,
    related_keys,
    value_to_send,
)
from .saving import insert, update

if TYPE_CHECKING:
    from ..message import Message


class WebsocketBinding(Binding):
    """
    The binding of a model for WebSockets. Set `model`, `stream` and `fields`; define `group_names` and
    `has_permission`; and put `consumer` under the stream's name in a WebsocketDemultiplexer.
    """

    #: The name of the stream on the socket.
    stream: str | None = None

    #: Kept from Channels 1.x: the events of a socket are always handled in order.
    strict_ordering: bool = False
    slight_ordering: bool = False

    # Outbound.

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        payload = {
            "action": action,
            "pk": key_to_send(instance.pk),
            "data": self.serialize_data(instance),
            "model": "%s.%s" % (instance._meta.app_label, instance._meta.model_name),
        }
        return self.encode(self.stream, payload)

    def serialize_data(self, instance: Any) -> dict[str, Any]:
        """Return the fields of `instance` that are sent, as JSON values by name. `pk` is not one of them."""
        model = type(instance)
        names = self.bound_fields(None if isinstance(instance, self._model()) else model)
        data = {field.name: value_to_send(field, instance) for field in plain_fields(model, names)}
        for field in related_fields(model, names):
            data[field.name] = related_keys(field, instance)
        return cast("dict[str, Any]", json_value(data))

    @classmethod
    def encode(cls, stream: str | None, payload: Any) -> dict[str, Any]:
        """Return the message that carries `payload` on `stream`."""
        if not stream:
            raise ValueError("%s must set stream, the name of its stream." % cls.__name__)
        return WebsocketMultiplexer.encode(stream, payload)

    # Inbound.

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> Binding | None:
        # A demultiplexer passes the handshake and the disconnect on too; they change nothing.
        if message.channel_name in ("websocket.connect", "websocket.disconnect"):
            return None
        return super().trigger_inbound(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        try:
            content = decode_json(message["text"])
        except (KeyError, TypeError, ValueError):
            raise ValidationError(_("Send JSON as text.")) from None
        if not isinstance(content, dict) or "action" not in content:
            raise ValidationError(_("Send {action: …, pk: …, data: {…}}."))
        data = content.get("data")
        if data is not None and not isinstance(data, dict):
            raise ValidationError({"data": [_("Send data as an object: {field: value}.")]})
        return content["action"], content.get("pk"), data or {}

    def refuse(self, errors: dict[str, list[str]]) -> None:
        """Tell the client why its change was not made: `{"action": "error", "errors": {…}, …}`."""
        super().refuse(errors)
        meta = self._model()._meta
        payload = {
            "action": "error",
            "request": self.action or None,
            "pk": key_to_send(self.pk),
            "model": "%s.%s" % (meta.app_label, meta.model_name),
            "errors": errors,
        }
        if self.message.reply_channel is not None:
            self.message.reply_channel.send(self.encode(self.stream, payload))

    def create(self, data: dict[str, Any]) -> None:
        """
        Insert a row with what `data` has for the fields of this binding. Raises ValidationError.

        The model sets the primary key, by its field, a default or in `save`. A client can't choose it.
        """
        instance = self._model()()
        relations = assign(instance, self.bound_fields(), data, creating=True)
        insert(instance)
        if instance.pk is None or instance.pk == "":
            raise ValidationError({"pk": [_("The primary key of a new row cannot be set here.")]})
        self._save_relations(instance, relations)

    def update(self, pk: Any, data: dict[str, Any]) -> None:
        """Set what `data` has for the fields of this binding on the row `pk`. Raises ValidationError."""
        instance = find_row(self._model(), pk)
        relations = assign(instance, self.bound_fields(), data, creating=False)
        try:
            update(instance)
        except DatabaseError as error:
            if type(error) is DatabaseError or type(error).__name__ == "NotUpdated":
                raise no_such_row() from None
            raise
        self._save_relations(instance, relations)

    @staticmethod
    def _save_relations(instance: Any, relations: dict[str, list[Any]]) -> None:
        for name, values in relations.items():
            set_related(instance, name, values)


if TYPE_CHECKING:
    _Base = WebsocketBinding  # what the mix-in extends
else:
    _Base = object


class BindingWithMembersMixin(_Base):
    """
    Send what `send_members` names in addition to the fields: attributes, properties and methods (called
    without arguments). A dotted name follows relations; in the data, its dots become "__".
    """

    send_members: Iterable[str] = []

    def serialize_data(self, instance: Any) -> dict[str, Any]:
        data = super().serialize_data(instance)
        for path in self.send_members:
            value = instance
            for name in path.split("."):
                value = getattr(value, name)
                if callable(value):
                    value = value()
            data[path.replace(".", "__")] = json_value(value)
        return data


class WebsocketBindingWithMembers(BindingWithMembersMixin, WebsocketBinding):
    """A WebsocketBinding that also sends members."""
