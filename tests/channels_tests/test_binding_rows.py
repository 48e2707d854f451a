"""channels.binding: which row a client may change, which values it may set, and what the groups are told."""

import json
import os
import tempfile
import uuid
from decimal import Decimal
from unittest import mock, skipUnless

from django.channels import channel_layers
from django.channels.binding import fields, outbound, site_code
from django.channels.binding.websockets import WebsocketBinding
from django.channels.exceptions import InvalidChannelName, LayerUnavailable, MessageTooLarge
from django.channels.log import RateLimit
from django.channels.test import (
    ChannelTestCase,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_delete, pre_save
from django.test.utils import override_settings

from .applications import INSTALLED
from .models import Attachment, Code, Document, Parcel, Place, Restaurant, Tag, Ticket
from .test_binding import defined_for_a_test

HAS_COMMIT_HOOKS = hasattr(transaction, "on_commit")


class BindingOf:
    """Defines a binding, and a client that sends to it."""

    model = Place
    fields = ["__all__"]
    exclude = None

    def setUp(self):
        super().setUp()
        self.asked = []

        def has_permission(binding, user, action, pk):
            self.asked.append((action, pk))
            return pk not in self.refused

        self.refused = []
        self.binding = defined_for_a_test(
            self,
            "RowBinding",
            (WebsocketBinding,),
            model=self.model,
            stream="rows",
            fields=self.fields,
            exclude=self.exclude,
            channel_session_user=False,
            group_names=classmethod(lambda cls, row: self.groups_of(row)),
            has_permission=has_permission,
        )
        self.client = WSClient()
        self.watcher = HttpClient()
        self.watcher.join_group("places")

    def groups_of(self, row):
        return [getattr(row, "group", None) or "places"]

    def ask(self, action, **payload):
        """Send a change, and return the errors that come back."""
        from django.channels import route

        with apply_routes(route("websocket.receive", self.binding.consumer)):
            text = json.dumps(dict(payload, action=action))
            self.client.send_and_consume("websocket.receive", text=text, path="/")
        answer = self.client.receive()
        return None if answer is None else answer["payload"]["errors"]

    def told(self):
        """Return all (action, data) that the group was told."""
        result = []
        while True:
            frame = self.watcher.receive()
            if frame is None:
                return result
            result.append((frame["payload"]["action"], frame["payload"]["data"]))

    def told_of(self, *names):
        return [(action,) + tuple(data[name] for name in names) for action, data in self.told()]


class DeferredBeforeTests(BindingOf, ChannelTestCase):
    def setUp(self):
        Place.objects.create(name="x", rating=3)
        self.place = Place.objects.only("rating", "group").get()
        super().setUp()

    def test_instances_deferred_before_the_model_is_bound_send_their_changes(self):
        self.place.rating = 4
        self.place.save()
        self.assertEqual(self.told_of("name", "rating"), [("update", "x", 4)])


class PrimaryKeyTests(BindingOf, ChannelTestCase):
    def setUp(self):
        super().setUp()
        self.mine = Place.objects.create(name="mine")
        self.other = Place.objects.create(name="other")
        self.refused = [self.other.pk]

    def names(self):
        return sorted(Place.objects.values_list("pk", "name"))

    def test_an_update_changes_no_other_row(self):
        for key in ("id", "pk", "ID"):
            with self.subTest(key=key):
                errors = self.ask(
                    "update", pk=self.mine.pk, data={key: self.other.pk, "name": "new"}
                )
                self.assertIsNone(errors)
                self.assertEqual(self.names(), [(self.mine.pk, "new"), (self.other.pk, "other")])

    def test_a_refusal_is_in_the_language_of_the_site(self):
        with mock.patch.object(fields, "_", {"This row does not exist.": "Fehlt."}.get):
            self.assertEqual(self.ask("update", pk=99999, data={}), {"pk": ["Fehlt."]})

    def test_a_create_replaces_no_row(self):
        self.ask("create", data={"id": self.other.pk, "pk": self.other.pk, "name": "third"})
        self.assertEqual(Place.objects.get(pk=self.other.pk).name, "other")
        self.assertEqual(Place.objects.count(), 3)

    def test_a_create_with_a_natural_key_that_exists_is_refused(self):
        errors = self.ask("create", data={"name": "other", "rating": 9})
        self.assertEqual(list(errors), ["name"])
        self.assertEqual(Place.objects.get(pk=self.other.pk).rating, 0)

    def test_permission_is_asked_for_the_row_that_changes(self):
        pk = self.other.pk
        spellings = [
            str(pk),
            " %d " % pk,
            "".join(chr(ord("\u0966") + int(digit)) for digit in str(pk)),
            "+%d" % pk,
            float(pk),
        ]
        for spelling in spellings:
            for action in ("update", "delete"):
                with self.subTest(spelling=spelling, action=action):
                    self.ask(action, pk=spelling, data={"name": "stolen"})
                    self.assertEqual(self.asked[-1], (action, pk))
                    self.assertIs(type(self.asked[-1][1]), int)
        self.assertEqual(self.names(), [(self.mine.pk, "mine"), (pk, "other")])

    def test_what_is_no_primary_key_is_refused_unasked(self):
        values = (
            1.7,
            True,
            None,
            [],
            [1],
            {},
            {"pk": 1},
            "",
            "x",
            "1.0",
            2**70,
            "9" * 5000,
            "\x00",
        )
        for value in values:
            for action in ("update", "delete"):
                with self.subTest(value=value, action=action):
                    errors = self.ask(action, pk=value, data={"name": "stolen"})
                    self.assertEqual(list(errors), ["pk"])
        self.assertEqual(self.asked, [])

    def test_a_key_is_not_a_number(self):
        from django.channels import route

        with apply_routes(route("websocket.receive", self.binding.consumer)):
            for number in ("NaN", "Infinity", "1e999"):
                text = '{"action": "delete", "pk": %s}' % number
                self.client.send_and_consume("websocket.receive", text=text, path="/")
                self.assertEqual(self.client.receive()["payload"]["action"], "error")
        self.assertEqual(self.asked, [])

    def test_a_created_row_has_no_key_to_ask_for(self):
        self.ask("create", pk=self.other.pk, data={"name": "third"})
        self.assertEqual(self.asked, [("create", None)])


class ExcludeTests(PrimaryKeyTests):
    fields = None
    exclude = ["rating"]

    def test_a_create_with_a_natural_key_that_exists_is_refused(self):
        self.assertEqual(list(self.ask("create", data={"name": "other"})), ["name"])


class NamedFieldsTests(PrimaryKeyTests):
    fields = ["id", "name", "rating"]


class InheritedKeyTests(BindingOf, ChannelTestCase):
    model = Restaurant

    def setUp(self):
        super().setUp()
        self.mine = Restaurant.objects.create(name="mine")
        self.other = Restaurant.objects.create(name="other")
        self.place = Place.objects.create(name="place")
        self.told()

    def test_no_link_to_a_parent_is_written(self):
        for key in ("id", "place_ptr", "place_ptr_id", "pk"):
            for pk in (self.other.pk, self.place.pk):
                with self.subTest(key=key, pk=pk):
                    self.ask("update", pk=self.mine.pk, data={key: pk, "meals": 3})
                    self.ask("create", data={key: pk, "name": "new %s %s" % (key, pk)})
                    self.assertEqual(Restaurant.objects.get(pk=self.mine.pk).meals, 3)
        self.assertEqual(Restaurant.objects.get(pk=self.other.pk).name, "other")
        self.assertEqual(Restaurant.objects.get(pk=self.other.pk).meals, 0)
        self.assertFalse(Restaurant.objects.filter(pk=self.place.pk).exists())
        self.assertEqual(Place.objects.get(pk=self.place.pk).name, "place")

    def test_fields_of_the_parent_go_out_and_come_in(self):
        self.ask("update", pk=self.mine.pk, data={"name": "better", "rating": 5, "meals": 2})
        ((action, data),) = self.told()
        self.assertEqual(
            (action, data["name"], data["rating"], data["meals"], data["tags"]),
            ("update", "better", 5, 2, []),
        )
        self.assertFalse({"id", "place_ptr", "pk"} & set(data))
        self.assertEqual(Place.objects.get(pk=self.mine.pk).name, "better")

    def test_a_relation_of_the_parent_is_told(self):
        tag = Tag.objects.create(name="a")
        self.mine.tags.add(tag)
        self.assertEqual(self.told_of("tags"), [("update", [tag.pk])])
        Place.objects.get(pk=self.mine.pk).tags.clear()
        self.assertEqual(self.told_of("tags"), [("update", [])])


class TextKeyTests(BindingOf, ChannelTestCase):
    model = Document

    def test_the_key_of_a_row_is_never_set(self):
        Document.objects.create(slug="a", title="A")
        self.ask("update", pk="a", data={"slug": "b", "title": "B"})
        self.assertEqual(list(Document.objects.values_list("slug", "title")), [("a", "B")])
        self.assertEqual(list(self.ask("create", data={"slug": "c", "title": "C"})), ["pk"])
        self.assertEqual(Document.objects.count(), 1)

    def test_a_number_is_read_as_text(self):
        Document.objects.create(slug="5", title="A")
        self.ask("delete", pk=5)
        self.assertEqual(self.asked, [("delete", "5")])
        self.assertEqual(Document.objects.count(), 0)


class UuidKeyTests(BindingOf, ChannelTestCase):
    model = Ticket

    def test_every_spelling_is_the_same_key(self):
        ticket = Ticket.objects.create(title="A")
        for text in (str(ticket.pk), ticket.pk.hex, str(ticket.pk).upper(), "{%s}" % ticket.pk):
            self.ask("update", pk=text, data={"title": "B", "id": str(uuid.uuid4())})
            self.assertEqual(self.asked[-1], ("update", ticket.pk))
        self.assertEqual(list(self.ask("delete", pk="no uuid")), ["pk"])
        self.assertEqual(list(self.ask("delete", pk=str(uuid.uuid4()))), ["pk"])
        self.assertIsNone(self.ask("create", data={"title": "C", "id": str(ticket.pk)}))
        self.assertEqual(Ticket.objects.count(), 2)


class ForeignFieldTests(BindingOf, ChannelTestCase):
    """A model with fields of another package."""

    model = Parcel

    def test_a_key_that_json_does_not_have_is_sent_as_text(self):
        parcel = Parcel(title="A")
        parcel.save()
        self.assertEqual(self.watcher.receive()["payload"]["pk"], str(parcel.pk))
        self.assertIsNone(self.ask("update", pk=str(parcel.pk), data={"title": "B"}))
        self.assertEqual(self.asked, [("update", parcel.pk)])
        self.assertEqual(self.told_of("title"), [("update", "B")])
        self.assertEqual(list(self.ask("update", pk="code-unknown", data={"title": "C"})), ["pk"])
        self.assertIsNone(self.ask("delete", pk=str(parcel.pk)))
        self.assertEqual(self.told_of("title"), [("delete", "B")])

    def test_bytes_are_sent_as_a_field_reads_them(self):
        for key in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            self.assertEqual(fields.key_to_send(key), "YWJj")
        self.assertEqual(fields.key_to_send((1, b"abc", Code("code-1"))), [1, "YWJj", "code-1"])

    def test_an_exception_of_the_field_refuses_the_value(self):
        parcel = Parcel(title="A")
        parcel.save()
        self.told()
        for value in ("odd", 5, [1], {"a": 1}, True):
            with self.subTest(value):
                errors = self.ask("update", pk=str(parcel.pk), data={"customs": value})
                self.assertEqual(list(errors), ["customs"])
                self.assertEqual(list(self.ask("delete", pk=value)), ["pk"])
        self.assertEqual(self.told(), [])
        self.assertIsNone(self.ask("update", pk=str(parcel.pk), data={"customs": "code-1"}))
        self.assertEqual(self.told_of("customs"), [("update", "code-1")])

    def test_what_a_model_raises_for_the_values_of_a_client_refuses_the_change(self):
        parcel = Parcel(title="A")
        parcel.save()
        self.told()
        for name in (
            "a clean",
            "a bad text",
            "a save",
            "a save that forbids",
            "a database that refuses in save",
            "a database that refuses in clean",
        ):
            for action, key in (("create", None), ("update", str(parcel.pk))):
                with self.subTest(name, action=action):
                    errors = self.ask(action, pk=key, data={"title": name})
                    self.assertEqual(list(errors), ["__all__"])
        self.assertEqual([each.title for each in Parcel.objects.all()], ["A"])
        self.assertEqual(self.told(), [])

    def test_a_failure_of_a_model_is_logged_with_its_traceback(self):
        with mock.patch.object(site_code, "_failed_models", RateLimit()):
            with self.assertLogs("django.channels.binding", "WARNING") as logs:
                self.ask("create", data={"title": "a clean"})
        (line,) = [each for each in logs.output if "failed for values of a client" in each]
        self.assertIn("Parcel.full_clean", line)
        self.assertIn("RuntimeError", line)

    def test_a_failure_of_the_site_in_save_stays_one(self):
        with self.assertRaisesRegex(RuntimeError, "the service can't be reached"):
            self.ask("create", data={"title": "a broken save"})

    def test_a_model_whose_save_takes_no_arguments_is_saved(self):
        self.assertIsNone(self.ask("create", data={"title": "A"}))
        self.assertEqual(self.told_of("title"), [("create", "A")])
        self.assertIsNone(self.ask("update", pk=str(Parcel.objects.get().pk), data={"title": "B"}))
        self.assertEqual(self.told_of("title"), [("update", "B")])


class ValueTests(BindingOf, ChannelTestCase):
    model = Restaurant

    def test_a_bad_value_is_told_by_field_and_nothing_is_saved(self):
        row = Restaurant.objects.create(name="mine")
        Restaurant.objects.create(name="other")
        for name, value in (
            ("rating", "many"),
            ("rating", [1]),
            ("rating", {}),
            ("rating", 2**70),
            ("rating", None),
            ("name", None),
            ("name", ""),
            ("name", "x" * 101),
            ("name", ["x"]),
            ("name", {"x": 1}),
            ("name", "\x00"),
            ("name", "\ud800"),
            ("name", "other"),
            ("at", "yesterday"),
            ("at", [1]),
            ("at", 5),
            ("neighbour", 99999),
            ("neighbour", "x"),
            ("neighbour", ["other"]),
            ("neighbour", True),
            ("tags", [99999]),
            ("tags", ["x"]),
            ("tags", 5),
            ("tags", [[1]]),
        ):
            with self.subTest(name=name, value=value):
                data = {"meals": 5, name: value}
                self.assertEqual(list(self.ask("update", pk=row.pk, data=data)), [name])
                if name != "name":
                    data["name"] = "new"
                self.assertEqual(list(self.ask("create", data=data)), [name])
        self.assertEqual(Restaurant.objects.count(), 2)
        self.assertEqual(Restaurant.objects.get(pk=row.pk).meals, 0)

    def test_a_large_value_is_not_repeated(self):
        row = Restaurant.objects.create(name="mine")
        for name, value in (
            ("rating", "x" * 900000),
            ("at", "x" * 900000),
            ("tags", ["x" * 900000]),
        ):
            (texts,) = self.ask("update", pk=row.pk, data={name: value}).values()
            self.assertLessEqual(len(texts[0]), 200)
        for action in ("x" * 900000, "\x1b" * 1000):
            self.assertEqual(list(self.ask(action, pk="x" * 100000)), ["action"])

    def test_a_required_field_is_asked_for(self):
        self.assertEqual(list(self.ask("create", data={"rating": 1})), ["name"])

    def test_a_moment_as_javascript_writes_it(self):
        for use_tz in (False, True):
            with override_settings(USE_TZ=use_tz, TIME_ZONE="UTC"):
                data = {"name": "at %s" % use_tz, "at": "2026-01-02T03:04:05.000Z"}
                self.assertIsNone(self.ask("create", data=data))
                self.assertEqual(Restaurant.objects.latest("pk").at.hour, 3)

    def test_a_row_that_goes_meanwhile_is_not_inserted_again(self):
        row = Restaurant.objects.create(name="mine")

        def delete(sender, instance, **kwargs):
            Place.objects.filter(pk=row.pk).delete()

        pre_save.connect(delete, sender=Restaurant)
        self.addCleanup(pre_save.disconnect, delete, sender=Restaurant)
        self.assertEqual(list(self.ask("update", pk=row.pk, data={"meals": 1})), ["pk"])


class UncleanedValueTests(BindingOf, ChannelTestCase):
    """Values of fields whose `to_python` lets any type through."""

    model = Attachment

    def setUp(self):
        super().setUp()
        self.row = Attachment.objects.create(title="x", file="attachments/mine.txt")
        Attachment.objects.create(title="y", file="attachments/secret.txt")

    def change(self, **data):
        errors = self.ask("update", pk=self.row.pk, data=dict(data, title="new"))
        self.row = Attachment.objects.get(pk=self.row.pk)
        self.assertEqual(self.row.title, "new" if errors is None else "x")
        return errors

    def test_a_client_does_not_choose_the_file_of_a_row(self):
        names = ["attachments/secret.txt", "../settings.py", "/etc/passwd", {"a": 1}, [1], 5, True]
        for name in names:
            with self.subTest(name=name):
                self.assertEqual(list(self.change(file=name)), ["file"])
                self.assertEqual(self.row.file.name, "attachments/mine.txt")
        self.assertEqual(
            list(self.ask("create", data={"file": "attachments/secret.txt"})), ["file"]
        )
        self.assertEqual(Attachment.objects.count(), 2)

    def test_a_client_may_send_the_file_back_or_clear_it(self):
        self.assertIsNone(self.change(file="attachments/mine.txt"))
        self.assertEqual(self.row.file.name, "attachments/mine.txt")
        self.assertIsNone(self.change(file=""))
        self.assertEqual(self.row.file.name, "")

    def test_a_path_is_one_of_the_directory_of_the_field(self):
        here = os.path.dirname(os.path.abspath(__file__))
        self.assertIsNone(self.change(path=os.path.join(here, "models.py")))
        self.row.title = "x"
        self.row.save()
        for path in ("/etc/passwd", os.path.join(here, "..", "models.py"), {"a": 1}, [1], 5):
            with self.subTest(path=path):
                self.assertEqual(list(self.change(path=path)), ["path"])

    def test_a_value_that_the_database_cannot_take_is_told_by_field(self):
        for name, value in (
            ("content", 5),
            ("content", [1]),
            ("content", {"a": 1}),
            ("raw", [1]),
            ("raw", {"a": 1}),
        ):
            with self.subTest(name=name, value=value):
                self.assertEqual(list(self.change(**{name: value})), [name])
        self.assertIsNone(self.change(content="YWJj", raw="text"))
        self.assertEqual(bytes(self.row.content), b"abc")

    def test_a_validator_that_expects_another_type_refuses(self):
        for value in ([1], "text", 5, {"a": 1}, {"colour": 5}):
            with self.subTest(value=value):
                self.assertEqual(list(self.change(options=value)), ["options"])
        self.assertIsNone(self.change(options={"colour": "red"}))
        self.assertEqual(self.row.options, {"colour": "red"})

    def test_a_decimal_is_told_as_the_database_has_rounded_it(self):
        for price in ("1.5", "1.555", "2"):
            self.told()
            self.row.price = Decimal(price)
            self.row.save()
            self.row = Attachment.objects.get(pk=self.row.pk)
            self.assertEqual(self.told_of("price"), [("update", str(self.row.price))])


class RefusedByMariaDBTests(BindingOf, ChannelTestCase):
    def test_a_value_that_the_server_refuses_is_told(self):
        for error in (
            OperationalError(1366, "Incorrect string value"),
            OperationalError(1292, "Incorrect uuid value"),
        ):
            with mock.patch.object(self.binding, "create", side_effect=error):
                self.assertEqual(list(self.ask("create", data={})), ["__all__"])

    def test_a_failure_of_the_server_stays_one(self):
        for error in (OperationalError(2013, "Lost connection"), OperationalError("closed")):
            with mock.patch.object(self.binding, "create", side_effect=error):
                with self.assertRaises(OperationalError):
                    self.ask("create", data={})


class RelationTests(BindingOf, ChannelTestCase):
    def setUp(self):
        super().setUp()
        self.tags = [Tag.objects.create(name=name) for name in "abc"]
        self.keys = [tag.pk for tag in self.tags]

    def told_tags(self):
        return [(action, sorted(tags)) for action, tags in self.told_of("tags")]

    @skipUnless(HAS_COMMIT_HOOKS, "Django 1.8 sends before the commit")
    def test_a_client_sets_it_in_one_message(self):
        self.assertIsNone(self.ask("create", data={"name": "x", "tags": self.keys[:2]}))
        self.assertEqual(self.told_tags(), [("create", self.keys[:2])])
        pk = Place.objects.get().pk
        self.assertIsNone(self.ask("update", pk=pk, data={"tags": self.keys[1:]}))
        self.assertEqual(self.told_tags(), [("update", self.keys[1:])])

    def test_each_change_from_the_field_is_told(self):
        place = Place.objects.create(name="x")
        self.told()
        place.tags.add(*self.tags)
        self.assertEqual(self.told_tags(), [("update", self.keys)])
        place.tags.remove(self.tags[0])
        self.assertEqual(self.told_tags(), [("update", self.keys[1:])])
        place.tags.clear()
        self.assertEqual(self.told_tags(), [("update", [])])
        if hasattr(place.tags, "set"):
            place.tags.set(self.tags[:1])
            self.assertEqual(self.told_tags(), [("update", self.keys[:1])])
            place.tags.set(self.tags[1:])
            self.assertEqual(self.told_tags()[-1], ("update", self.keys[1:]))

    def test_each_change_from_the_other_side_is_told(self):
        places = [Place.objects.create(name="x"), Place.objects.create(name="y")]
        tag = self.tags[0]
        self.told()
        tag.places.add(*places)
        self.assertEqual(self.told_tags(), [("update", [tag.pk])] * 2)
        tag.places.remove(places[0])
        self.assertEqual(self.told_tags(), [("update", [])])
        tag.places.clear()
        self.assertEqual(self.told_tags(), [("update", [])])

    @skipUnless(HAS_COMMIT_HOOKS, "Django 1.8 sends before the commit")
    def test_what_is_rolled_back_is_not_told(self):
        with transaction.atomic():
            place = Place.objects.create(name="x")
            try:
                with transaction.atomic():
                    place.tags.add(self.tags[0])
                    raise KeyError
            except KeyError:
                pass
        self.assertEqual(self.told_tags(), [("create", [])])

    def test_groups_that_depend_on_it(self):
        self.groups_of = lambda row: ["places"] if row.tags.exists() else []
        place = Place.objects.create(name="x")
        place.tags.add(self.tags[0])
        self.assertEqual(self.told_tags(), [("create", self.keys[:1])])
        place.tags.clear()
        self.assertEqual([action for action, _ in self.told_tags()], ["delete"])


class OrderTests(BindingOf, TransactionChannelTestCase):
    """Without a transaction of the test case, as most code runs."""

    available_apps = INSTALLED

    def receive_with(self, signal, receiver, before_binding):
        """Connect a receiver that runs before or after the binding's own."""
        signal.connect(receiver, sender=Place)
        self.addCleanup(signal.disconnect, receiver, sender=Place)
        if before_binding:
            signal.receivers.insert(0, signal.receivers.pop())
            signal.sender_receivers_cache.clear()

    @staticmethod
    def once(action):
        """Return a receiver that calls `action(instance)` for the first signal only."""
        busy = []

        def receiver(sender, instance, **kwargs):
            if not busy:
                busy.append(True)
                action(instance)

        return receiver

    def each_order(self, signal, action, expected):
        for before_binding in (True, False):
            with self.subTest(before_binding=before_binding):
                receiver = self.once(action)
                self.receive_with(signal, receiver, before_binding)
                Place(name="x").save()
                signal.disconnect(receiver, sender=Place)
                self.assertEqual(self.told_of("rating"), expected(before_binding))
                Place.objects.all().delete()
                self.told()

    def test_a_save_inside_post_save(self):
        def save(instance):
            instance.rating += 1
            instance.save()

        self.each_order(post_save, save, lambda first: [("create", int(first)), ("update", 1)])

    def test_a_save_of_another_instance_inside_post_save(self):
        def save(instance):
            again = Place.objects.get(pk=instance.pk)
            again.rating = 7
            again.save()

        self.each_order(
            post_save,
            save,
            lambda first: [("create", 7 if first else 0), ("update", 7)],
        )

    def each_deletion(self, action, expected):
        """Run `action` on the row inside `pre_delete`, before and after the binding's own receiver."""
        self.watcher.join_group("elsewhere")
        for before_binding in (True, False):
            with self.subTest(before_binding=before_binding):
                receiver = self.once(action)
                place = Place.objects.create(name="x")
                self.told()
                self.receive_with(pre_delete, receiver, before_binding)
                place.delete()
                pre_delete.disconnect(receiver, sender=Place)
                self.assertEqual(self.told_of("group"), expected)
                self.assertEqual(Place.objects.count(), 0)

    def test_a_save_inside_pre_delete(self):
        moved = [("delete", "places"), ("create", "elsewhere"), ("delete", "elsewhere")]

        def move(instance):
            instance.group = "elsewhere"
            instance.save()

        self.each_deletion(move, moved)
        self.each_deletion(lambda instance: move(Place.objects.get(pk=instance.pk)), moved)

    def test_a_deletion_inside_pre_delete(self):
        self.each_deletion(
            lambda instance: Place.objects.get(pk=instance.pk).delete(), [("delete", "places")]
        )

    def test_a_deletion_that_failed_and_is_repeated(self):
        place = Place.objects.create(name="x")

        def refuse(sender, instance, **kwargs):
            raise KeyError("refused")

        self.receive_with(pre_delete, refuse, False)
        with self.assertRaises(KeyError):
            place.delete()
        pre_delete.disconnect(refuse, sender=Place)
        self.told()
        place.group = "elsewhere"
        place.save()
        place.delete()
        self.assertEqual(self.told_of("group"), [("delete", "places")])

    def test_a_save_inside_pre_save(self):
        self.each_order(
            pre_save, lambda instance: instance.save(), lambda first: [("create", 0), ("update", 0)]
        )

    def test_a_deletion_inside_post_save(self):
        for delete in (
            lambda instance: instance.delete(),
            lambda instance: Place.objects.filter(pk=instance.pk).delete(),
        ):
            self.each_order(
                post_save, delete, lambda first: [] if first else [("create", 0), ("delete", 0)]
            )

    def test_a_save_that_failed_and_is_repeated(self):
        Place.objects.create(name="x")
        place = Place(name="x")
        for _ in range(2):
            with self.assertRaises(IntegrityError):
                place.save()
        place.name = "y"
        place.save()
        place.save()
        self.assertEqual(self.told_of("name"), [("create", "x"), ("create", "y"), ("update", "y")])

    def test_what_the_database_holds_is_told(self):
        place = Place.objects.create(name="x", rating="3")
        self.assertEqual(self.told_of("rating"), [("create", 3)])
        place.name, place.rating = "not saved", 4
        place.save(update_fields=["rating"])
        self.assertEqual(self.told_of("name", "rating"), [("update", "x", 4)])
        place.refresh_from_db()
        place.rating = F("rating") + 1
        place.save()
        self.assertEqual(self.told_of("name", "rating"), [("update", "x", 5)])

    def test_deferred_instances(self):
        Place.objects.create(name="x", rating=3)
        self.told()
        for queryset in (Place.objects.only("name"), Place.objects.defer("group", "rating")):
            place = queryset.get()
            place.name += "y"
            place.save()
            self.assertEqual(self.told_of("name", "rating"), [("update", place.name, 3)])
        Place.objects.only("name").get().delete()
        self.assertEqual([action for action, _ in self.told()], ["delete"])

    def test_who_saw_the_row_in_the_database_is_told_that_it_is_deleted(self):
        place = Place.objects.create(name="x")
        self.told()
        place.group = "elsewhere"
        place.delete()
        self.assertEqual([action for action, _ in self.told()], ["delete"])

    def test_who_no_longer_sees_a_row_gets_nothing_new_of_it(self):
        place = Place.objects.create(name="x")
        self.told()
        place.group, place.name = "elsewhere", "secret"
        place.save()
        self.assertEqual(self.told_of("name"), [("delete", "x")])

    def test_a_fixture_loads_and_tells_nothing(self):
        self.groups_of = lambda row: [row.tags.get().name]
        records = [
            {"model": "channels_tests.place", "pk": 5, "fields": {"name": "x", "tags": [6]}},
            {"model": "channels_tests.tag", "pk": 6, "fields": {"name": "places"}},
        ]
        handle, path = tempfile.mkstemp(suffix=".json")
        with os.fdopen(handle, "w") as fixture:
            json.dump(records, fixture)
        self.addCleanup(os.remove, path)
        call_command("loaddata", path, verbosity=0)
        self.assertEqual(Place.objects.get().tags.get().name, "places")
        self.assertEqual(self.told(), [])


class FailedSendTests(BindingOf, TransactionChannelTestCase):
    available_apps = INSTALLED

    def setUp(self):
        super().setUp()
        self.layer = channel_layers["default"]

    def break_layer(self):
        def deliver_group(name, message):
            raise LayerUnavailable("away")

        self.layer.deliver_group = deliver_group
        self.addCleanup(self.layer.__dict__.pop, "deliver_group")

    def test_a_layer_that_is_away_raises_nothing(self):
        self.break_layer()
        self.groups_of = lambda row: ["places", "others"]
        before = self.layer.statistics().get("sends_dropped", 0)
        Place.objects.create(name="x")
        self.assertEqual(self.layer.statistics()["sends_dropped"], before + 2)
        self.assertEqual(Place.objects.count(), 1)

    @skipUnless(HAS_COMMIT_HOOKS, "Django 1.8 lacks hooks for commits")
    def test_the_hooks_of_the_site_run(self):
        self.break_layer()
        ran = []
        with transaction.atomic():
            Place.objects.create(name="x")
            transaction.on_commit(lambda: ran.append(True))
        self.assertEqual(ran, [True])

    def test_names_and_sizes_are_checked_before_the_commit(self):
        data = self.binding.serialize_data
        for group, size, error in (
            ("not a name", 1, InvalidChannelName),
            ("places", 2000000, MessageTooLarge),
        ):
            self.groups_of = lambda row, group=group: [group]
            self.binding.serialize_data = lambda binding, row, size=size: {"x": "x" * size}
            with self.subTest(group=group):
                with self.assertRaises(error), transaction.atomic():
                    Place.objects.create(name="x")
                self.assertEqual(Place.objects.count(), 0)
        self.binding.serialize_data = data

    def test_names_and_sizes_outside_of_a_transaction(self):
        self.groups_of = lambda row: ["not a name"]
        with self.assertRaises(InvalidChannelName):
            Place.objects.create(name="x")
        self.groups_of = lambda row: ["places"]
        place = Place(name="x")
        place.note = "x" * 2000000
        self.binding.serialize_data = lambda binding, row: {"x": getattr(row, "note", "")}
        with self.assertRaises(MessageTooLarge):
            place.save()
        self.assertEqual(Place.objects.count(), 0)

    def test_what_is_known_only_after_the_commit_is_not_raised(self):
        before = self.layer.statistics().get("sends_dropped", 0)
        self.groups_of = lambda row: ["place %d" % row.pk]
        Place.objects.create(name="x")
        self.assertEqual(Place.objects.count(), 1)
        self.assertEqual(self.layer.statistics()["sends_dropped"], before + 1)

    def test_what_the_binding_raises_after_the_commit_is_logged_and_counted(self):
        def raises(*args):
            raise KeyError("a mistake of the site")

        for name in ("group_names", "serialize"):
            with self.subTest(name=name), mock.patch.object(self.binding, name, raises):
                before = self.layer.statistics().get("sends_dropped", 0)
                with mock.patch.object(outbound, "_failures", RateLimit()):
                    with self.assertLogs("django.channels.binding", "ERROR") as logs:
                        Place.objects.create(name=name)
                self.assertIn("a mistake of the site", logs.output[0])
                self.assertEqual(self.layer.statistics()["sends_dropped"], before + 1)
                with self.assertRaises(KeyError), transaction.atomic():
                    Place.objects.create(name="in a transaction")
        self.assertEqual(
            sorted(Place.objects.values_list("name", flat=True)), ["group_names", "serialize"]
        )

    def test_one_name_in_place_of_a_list_is_refused_before_the_save(self):
        self.groups_of = lambda row: "places"
        for in_transaction in (True, False):
            with self.assertRaisesRegex(TypeError, r"write \['places'\]"):
                if in_transaction:
                    with transaction.atomic():
                        Place.objects.create(name="x")
                else:
                    Place.objects.create(name="x")
        self.assertFalse(Place.objects.exists())
