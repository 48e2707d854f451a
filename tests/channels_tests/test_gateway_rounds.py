"""Clients whose portions wait to be parsed take turns in the rounds of the event loop."""

import asyncio
import contextvars
import unittest

from django.channels.gateway.rounds import PORTIONS_OF_A_ROUND, rounds_of

from .support.waiting import TIMEOUT

visitor = contextvars.ContextVar("visitor", default="nobody")


class RoundsTests(unittest.TestCase):
    def run_with(self, function):
        async def main():
            await function(rounds_of(asyncio.get_event_loop()))

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    def test_a_few_are_called_in_each_round_first_come_first_served(self):
        async def test(rounds):
            called, number = [], 5 * PORTIONS_OF_A_ROUND
            for each in range(number):
                rounds.add(lambda each=each: called.append(each))
            self.assertTrue(rounds.is_busy)
            while len(called) < number:
                before = len(called)
                await asyncio.sleep(0)
                self.assertLessEqual(len(called) - before, PORTIONS_OF_A_ROUND)
            self.assertEqual(called, list(range(number)))
            self.assertFalse(rounds.is_busy)

        self.run_with(test)

    def test_what_is_added_by_a_call_waits_behind_the_others(self):
        async def test(rounds):
            called = []

            def again():
                called.append("again")
                if len(called) < 20:
                    rounds.add(again)

            rounds.add(again)
            for _ in range(3 * PORTIONS_OF_A_ROUND):
                rounds.add(lambda: called.append("other"))
            while len(called) < 20:
                await asyncio.sleep(0)
            self.assertLessEqual(called.index("again", 1), 1 + 3 * PORTIONS_OF_A_ROUND)
            self.assertEqual(called.count("other"), 3 * PORTIONS_OF_A_ROUND)

        self.run_with(test)

    def test_an_error_of_one_keeps_no_other_from_its_turn(self):
        async def test(rounds):
            called, reported, error = [], [], ValueError("a bug")
            asyncio.get_event_loop().set_exception_handler(
                lambda loop, context: reported.append(context["exception"])
            )

            def fail():
                raise error

            for _ in range(3 * PORTIONS_OF_A_ROUND):
                rounds.add(fail)
                rounds.add(lambda: called.append(1))
            while len(called) < 3 * PORTIONS_OF_A_ROUND:
                await asyncio.sleep(0)
            self.assertEqual(reported, [error] * 3 * PORTIONS_OF_A_ROUND)

        self.run_with(test)

    def test_a_call_has_the_context_of_its_own_client(self):
        async def test(rounds):
            found = []

            async def client(name):
                visitor.set(name)
                rounds.add(lambda: found.append((name, visitor.get())))

            names = ["one", "two", "three"] * PORTIONS_OF_A_ROUND
            await asyncio.gather(*(client(name) for name in names))
            while len(found) < len(names):
                await asyncio.sleep(0)
            self.assertEqual(found, [(name, name) for name in names])

        self.run_with(test)

    def test_each_event_loop_has_its_own(self):
        found = []

        async def main():
            rounds = rounds_of(asyncio.get_event_loop())
            self.assertIs(rounds_of(asyncio.get_event_loop()), rounds)
            found.append(rounds)

        for _ in range(2):
            asyncio.run(main())
        self.assertIsNot(found[0], found[1])
