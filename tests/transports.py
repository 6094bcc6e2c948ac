"""The contract of every transport, whatever its protocol.

The tests of a transport subclass TransportContract and provide `scene`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import pytest

from delivery.transport import Accepted, Batch, Gone, Outcome, Outgoing, Retry, Rewind, Target, TooLateError, Transport

Behaviour = Literal["accepts", "refuses", "asks for a pause", "is gone", "lacks events", "hangs", "is not there"]
TIMEOUT_S = 5.0  # of the transport of a scene; 0.3 if the receiver hangs
PAUSE_S = 7.0  # the pause that a receiver asks for
LACKS_AFTER = 3  # the last seq that a receiver has, if it lacks later events
SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@dataclass
class Scene:
    """A transport with a receiver at the other end. `received` yields, for each request, the JSON of its events."""

    transport: Transport
    target: Target
    received: Callable[[], list[list[bytes]]]


def event(seq: int, size: int = 0) -> Outgoing:
    json = b'{"object":"event","id":"evt_acme_%d_00c0ffee","fill":"%s"}' % (seq, b"x" * size)
    return Outgoing(f"evt_acme_{seq}_00c0ffee", "user.created", seq, 1_700_000_000_000_000 + seq, json)


class TransportContract:
    def scene(self, behaviour: Behaviour) -> AbstractAsyncContextManager[Scene]:
        """A receiver with this behaviour, and a transport to it."""
        raise NotImplementedError

    def _in(self, behaviour: Behaviour, play: Callable[[Scene], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.scene(behaviour) as scene:
                try:
                    await play(scene)
                finally:
                    await scene.transport.close()

        asyncio.run(asyncio.wait_for(run(), 30))

    def _outcome(self, behaviour: Behaviour, batch: Batch | None = None) -> tuple[Outcome, Scene]:
        found: list[tuple[Outcome, Scene]] = []

        async def play(scene: Scene) -> None:
            found.append((await scene.transport.send(scene.target, batch or Batch([event(4)])), scene))

        self._in(behaviour, play)
        return found[0]

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_batch_arrives_complete_in_order_and_byte_for_byte(self, count: int) -> None:
        events = [event(seq) for seq in range(1, count + 1)]
        outcome, scene = self._outcome("accepts", Batch(events, single=False, attempt=2, replay=UUID(int=5), previous_seq=None))
        assert outcome == Accepted()
        assert scene.received() == [[one.json for one in events]]

    def test_a_large_event_arrives(self) -> None:
        """Eight MiB is what a page of the feed holds; one event may be larger."""
        outcome, scene = self._outcome("accepts", Batch([event(1, 9 * 2**20)]))
        assert outcome == Accepted()
        assert [len(json) for json in scene.received()[0]] == [len(event(1, 9 * 2**20).json)]

    def test_a_refused_batch_is_retried(self) -> None:
        outcome, _ = self._outcome("refuses")
        assert isinstance(outcome, Retry)
        assert outcome.error.replace("_", "").isalnum(), "the reason is one of our words, which is shown and counted"
        assert (outcome.away, outcome.may_have_arrived, outcome.after_s) == (False, False, None)

    def test_a_receiver_may_ask_for_a_pause(self) -> None:
        outcome, _ = self._outcome("asks for a pause")
        assert isinstance(outcome, Retry)
        assert outcome.after_s == PAUSE_S

    def test_a_receiver_can_say_that_it_is_gone(self) -> None:
        assert self._outcome("is gone")[0] == Gone()

    def test_a_receiver_in_order_says_which_events_it_lacks(self) -> None:
        outcome, _ = self._outcome("lacks events", Batch([event(6)], previous_seq=5))
        assert isinstance(outcome, Rewind)
        assert outcome.seq == LACKS_AFTER
        assert outcome.otherwise.error

    def test_without_an_answer_in_time_it_is_unknown_whether_the_batch_arrived(self) -> None:
        outcome, _ = self._outcome("hangs")
        assert isinstance(outcome, Retry)
        assert (outcome.away, outcome.may_have_arrived) == (True, True)

    def test_a_receiver_that_cannot_be_reached_does_not_count_against_the_event(self) -> None:
        outcome, _ = self._outcome("is not there")
        assert isinstance(outcome, Retry)
        assert (outcome.away, outcome.may_have_arrived) == (True, False)

    def test_nothing_is_sent_once_may_leave_returns_false(self) -> None:
        """Another process has taken over, and its newer events would be overtaken. The transport can be used afterwards."""

        async def play(scene: Scene) -> None:
            with pytest.raises(TooLateError):
                await scene.transport.send(scene.target, Batch([event(1)], may_leave=lambda: False))
            assert scene.received() == []
            assert await scene.transport.send(scene.target, Batch([event(2)])) == Accepted()
            assert scene.received() == [[event(2).json]]

        self._in("accepts", play)

    def test_many_concurrent_batches_are_not_mixed_up(self) -> None:
        async def play(scene: Scene) -> None:
            batches = [Batch([event(10 * n), event(10 * n + 1)], single=False) for n in range(1, 21)]
            outcomes = await asyncio.gather(*(scene.transport.send(scene.target, batch) for batch in batches))
            assert outcomes == [Accepted()] * 20
            assert sorted(scene.received()) == sorted([one.json for one in batch.events] for batch in batches)

        self._in("accepts", play)

    def test_neither_secret_nor_address_is_shown(self) -> None:
        """Outcomes are logged and shown, and a target may appear in a traceback."""
        outcome, scene = self._outcome("refuses")
        for told in (repr(outcome), repr(scene.target)):
            assert SECRET not in told
            assert scene.target.address not in told
        assert repr(event(7)) == "Outgoing(evt_acme_7_00c0ffee)", "its JSON names persons"
