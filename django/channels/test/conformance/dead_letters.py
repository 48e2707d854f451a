"""The conformance suite's tests of dead letters: messages that the layer gave up."""

from __future__ import annotations

import time

from .leases import DeathCase


class DeadLetterTests(DeathCase):
    """Dead letters can be listed, sent again and deleted; the newest are kept."""

    def add_dead_letters(self, *numbers: int) -> None:
        """Make dead letters of messages with these numbers, in this order."""
        self.need("dead_letters")
        for number in numbers:
            self.layer.send("test.dead", {"number": number})
        self.die_with(*["test.dead"] * len(numbers))

    def numbers(self) -> list[int]:
        return sorted(letter.message["number"] for letter in self.layer.dead_letters())  # type: ignore[index]

    def test_a_message_of_a_killed_worker_becomes_a_dead_letter(self) -> None:
        self.survive()
        self.add_dead_letters(1)
        letters = self.until_recovered(self.layer.dead_letters)
        self.assertEqual(len(letters), 1)
        letter = letters[0]
        self.assertEqual(letter[1:4], ("test.dead", {"number": 1}, "lost"))
        self.assertIsInstance(letter.id, str)
        self.assertLess(abs(time.time() - letter.time), self.timeout)
        self.assertNothing("test.dead")
        if "statistics" in self.layer.extensions:
            self.assertEqual(self.layer.global_statistics()["dead_letters"], 1)

    def test_dead_letters_are_sent_again_or_deleted_by_id(self) -> None:
        self.survive(capacity=4)
        self.add_dead_letters(1, 2, 3, 4)
        self.assertTrue(self.until_recovered(lambda: self.numbers() == [1, 2, 3, 4]))
        ids = {letter.message["number"]: letter.id for letter in self.layer.dead_letters()}  # type: ignore[index]
        self.assertEqual(self.layer.requeue_dead_letters([ids[2]]), 1)
        self.assertEqual(self.layer.requeue_dead_letters([ids[2]]), 0)
        self.assertEqual(self.receive("test.dead")[1], {"number": 2})
        self.assertEqual(self.layer.drop_dead_letters([ids[1], ids[2]]), 1)
        self.assertEqual(self.numbers(), [3, 4])
        self.assertEqual(self.layer.requeue_dead_letters(), 2)
        found = [self.receive("test.dead")[1]["number"] for _ in range(2)]
        self.assertEqual(sorted(found), [3, 4])
        self.assertEqual(self.layer.dead_letters(), [])
        self.assertEqual(self.layer.drop_dead_letters(), 0)
        self.assertNothing("test.dead")

    def test_ids_are_a_list_and_may_be_any_text(self) -> None:
        self.need("dead_letters")
        for call in (self.layer.requeue_dead_letters, self.layer.drop_dead_letters):
            for ids in ("12", b"12", 5):
                with self.assertRaisesRegex(TypeError, "list of ids"):
                    call(ids)  # type: ignore[arg-type]
            for odd in ("", "²", "-1", "1.5", "9" * 30, "9" * 5000, "x", "\0"):
                self.assertEqual(call([odd]), 0, odd[:40])

    def test_dead_letters_are_sent_again_to_the_end_whatever_the_capacity(self) -> None:
        self.survive(capacity=1)
        self.add_dead_letters(1)
        self.until_recovered(self.layer.dead_letters)
        self.layer.send("test.dead", {"number": 2})
        self.assertEqual(self.layer.requeue_dead_letters(), 1)
        found = [self.receive("test.dead")[1] for _ in range(2)]
        self.assertEqual(found, [{"number": 2}, {"number": 1}])

    def test_all_dead_letters_are_deleted_at_once(self) -> None:
        self.survive()
        self.add_dead_letters(1, 2)
        self.assertTrue(self.until_recovered(lambda: self.numbers() == [1, 2]))
        self.assertEqual(self.layer.drop_dead_letters(), 2)
        self.assertEqual(self.layer.dead_letters(), [])
        self.assertNothing("test.dead")

    def test_the_newest_dead_letters_are_kept_and_the_rest_is_counted(self) -> None:
        self.survive(dead_letters=2)
        self.add_dead_letters(1)
        self.until_recovered(self.layer.dead_letters)
        self.add_dead_letters(2)
        self.assertTrue(self.until_recovered(lambda: self.numbers() == [1, 2]))
        listed = [letter.message for letter in self.layer.dead_letters()]
        self.assertEqual(listed, [{"number": 1}, {"number": 2}])  # the oldest first
        self.add_dead_letters(3)
        self.assertTrue(self.until_recovered(lambda: self.numbers() == [2, 3]))
        dropped = self.until(lambda: self.layer.statistics().get("dead_letters_dropped"))
        self.assertEqual(dropped, 1)
