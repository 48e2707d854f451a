"""
Data binding over a demultiplexed WebSocket, in the JSON that Channels 1.1 documents.

Out: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}, "model": "app.model"}}`.
In: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}}}`, `pk` not for "create" and
`data` not for "delete".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Iterable, cast

from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder

from ..compat import set_related
from ..generic.websockets import WebsocketMultiplexer
from .base import Binding

if TYPE_CHECKING:
    from django.db.models import Model

    from ..message import Message


class WebsocketBinding(Binding):
    """
    The binding of a model for WebSockets. Set `model`, `stream` and `fields`; define `group_names` and
    `has_permission`; and put `consumer` under the stream's name in a WebsocketDemultiplexer.
    """

    #: The name of the stream on the socket.
    stream: str | None = None

    # Outbound.

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        payload = {
            "action": action,
            "pk": self._json_value(instance.pk),
            "data": self.serialize_data(instance),
            "model": "%s.%s" % (instance._meta.app_label, instance._meta.model_name),
        }
        return self.encode(self.stream, payload)

    def serialize_data(self, instance: Any) -> dict[str, Any]:
        """Return the fields of `instance` that are sent, as JSON values by name."""
        text = serializers.serialize("json", [instance], fields=self.bound_fields())
        return cast("dict[str, Any]", json.loads(text)[0]["fields"])

    @classmethod
    def encode(cls, stream: str | None, payload: Any) -> dict[str, Any]:
        """Return the message that carries `payload` on `stream`."""
        if not stream:
            raise ValueError("%s must set stream, the name of its stream." % cls.__name__)
        return WebsocketMultiplexer.encode(stream, payload)

    @staticmethod
    def _json_value(value: Any) -> Any:
        return json.loads(json.dumps(value, cls=DjangoJSONEncoder))

    # Inbound.

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> Binding | None:
        # A demultiplexer passes the handshake and the disconnect on too; they change nothing.
        if message.channel_name in ("websocket.connect", "websocket.disconnect"):
            return None
        return super().trigger_inbound(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        content = json.loads(message["text"])
        if not isinstance(content, dict) or "action" not in content:
            raise ValueError("The client of a binding must send {action: …, pk: …, data: {…}}.")
        data = content.get("data")
        if data is not None and not isinstance(data, dict):
            raise ValueError("The client of a binding must send data as an object: {field: value}.")
        return content["action"], content.get("pk"), data or {}

    def create(self, data: dict[str, Any]) -> None:
        hydrated = self._hydrate(None, data)
        hydrated.object.save()
        self._save_relations(hydrated.object, hydrated)

    def update(self, pk: Any, data: dict[str, Any]) -> None:
        instance = self._model()._default_manager.get(pk=pk)
        hydrated = self._hydrate(pk, data)
        relations = hydrated.m2m_data or {}
        for name in self._permitted(data):
            if name not in relations:
                setattr(instance, name, getattr(hydrated.object, name))
        instance.save()
        self._save_relations(instance, hydrated)

    def _permitted(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the part of `data` that this binding accepts. Other fields are ignored."""
        return {name: data[name] for name in self.bound_fields() if name in data}

    def _hydrate(self, pk: Any, data: dict[str, Any]) -> Any:
        """Return an unsaved instance from JSON values: Django's DeserializedObject."""
        meta = self._model()._meta
        record = {
            "pk": pk,
            "model": "%s.%s" % (meta.app_label, meta.model_name),
            "fields": self._permitted(data),
        }
        return next(iter(serializers.deserialize("python", [record])))

    @staticmethod
    def _save_relations(instance: Model, hydrated: Any) -> None:
        for name, values in (hydrated.m2m_data or {}).items():
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
            data[path.replace(".", "__")] = self._json_value(value)
        return data


class WebsocketBindingWithMembers(BindingWithMembersMixin, WebsocketBinding):
    """A WebsocketBinding that also sends members."""
