"""
Data binding over a demultiplexed WebSocket, in the JSON that Channels 1.1 documents.

Out: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}, "model": "app.model"}}`.
In: `{"stream": …, "payload": {"action": …, "pk": …, "data": {…}}}`, `pk` not for "create" and
`data` not for "delete".
"""

import json

from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder

from ..compat import set_related
from ..generic.websockets import WebsocketMultiplexer
from .base import Binding


class WebsocketBinding(Binding):
    """
    A model's binding for WebSockets. Set `model`, `stream` and `fields`; define `group_names` and
    `has_permission`; and put `consumer` under the stream's name in a WebsocketDemultiplexer.
    """

    #: The name of the stream on the socket.
    stream = None

    # Outbound.

    def serialize(self, instance, action):
        payload = {
            "action": action,
            "pk": self._json_value(instance.pk),
            "data": self.serialize_data(instance),
            "model": "%s.%s" % (instance._meta.app_label, instance._meta.model_name),
        }
        return self.encode(self.stream, payload)

    def serialize_data(self, instance):
        """The fields of `instance` that go out, as JSON values by name (a dict)."""
        text = serializers.serialize("json", [instance], fields=self.bound_fields())
        return json.loads(text)[0]["fields"]

    @classmethod
    def encode(cls, stream, payload):
        """The message that carries `payload` on `stream`."""
        if not stream:
            raise ValueError("%s must set stream, the name of its stream." % cls.__name__)
        return WebsocketMultiplexer.encode(stream, payload)

    @staticmethod
    def _json_value(value):
        return json.loads(json.dumps(value, cls=DjangoJSONEncoder))

    # Inbound.

    @classmethod
    def trigger_inbound(cls, message, **kwargs):
        # A demultiplexer hands on the handshake and the disconnect too; they change nothing.
        if message.channel.name in ("websocket.connect", "websocket.disconnect"):
            return None
        return super().trigger_inbound(message, **kwargs)

    def deserialize(self, message):
        content = json.loads(message["text"])
        if not isinstance(content, dict) or "action" not in content:
            raise ValueError("An inbound change is {action: …, pk: …, data: {…}}.")
        data = content.get("data")
        if data is not None and not isinstance(data, dict):
            raise ValueError("The data of an inbound change maps field names to values.")
        return content["action"], content.get("pk"), data or {}

    def create(self, data):
        hydrated = self._hydrate(None, data)
        hydrated.object.save()
        self._save_relations(hydrated.object, hydrated)

    def update(self, pk, data):
        instance = self.model._default_manager.get(pk=pk)
        hydrated = self._hydrate(pk, data)
        relations = hydrated.m2m_data or {}
        for name in self._permitted(data):
            if name not in relations:
                setattr(instance, name, getattr(hydrated.object, name))
        instance.save()
        self._save_relations(instance, hydrated)

    def _permitted(self, data):
        """Of what came in, the fields this binding accepts; others are left alone, in silence."""
        return {name: data[name] for name in self.bound_fields() if name in data}

    def _hydrate(self, pk, data):
        """An unsaved instance from JSON values: Django's DeserializedObject."""
        meta = self.model._meta
        record = {
            "pk": pk,
            "model": "%s.%s" % (meta.app_label, meta.model_name),
            "fields": self._permitted(data),
        }
        return next(iter(serializers.deserialize("python", [record])))

    @staticmethod
    def _save_relations(instance, hydrated):
        for name, values in (hydrated.m2m_data or {}).items():
            set_related(instance, name, values)


class BindingWithMembersMixin:
    """
    Sends, besides fields, what `send_members` names: attributes, properties and methods (called
    without arguments). A dotted name follows relations; in the data, its dots become "__".
    """

    send_members = []

    def serialize_data(self, instance):
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
    """A WebsocketBinding that sends members too."""
