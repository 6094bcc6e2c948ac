"""What every transport must do, whatever it speaks. A transport's tests subclass TransportContract and give `scene`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import pytest

from delivery.transport import Accepted, Batch, Gone, Outcome, Outgoing, Retry, Rewind, Target, TooLateError, Transport

Behaviour = Literal["accepts", "refuses", "asks for a pause", "is gone", "lacks events", "hangs", "is not there"]
TIMEOUT_S = 5.0  # of the transport of a scene; 0.3 where the receiver hangs
PAUSE_S = 7.0  # what a receiver asks for that asks for a pause
LACKS_AFTER = 3  # the last seq that a receiver has that lacks events
SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@dataclass
class Scene:
    """A transport with a receiver at the other end. `received` gives, for each request that came, the JSON of its events."""

    transport: Transport
    target: Target
    received: Callable[[], list[list[bytes]]]


def event(seq: int, size: int = 0) -> Outgoing:
    json = b'{"object":"event","id":"evt_acme_%d_00c0ffee","fill":"%s"}' % (seq, b"x" * size)
    return Outgoing(f"evt_acme_{seq}_00c0ffee", "user.created", seq, 1_700_000_000_000_000 + seq, json)


class TransportContract:
    def scene(self, behaviour: Behaviour) -> AbstractAsyncContextManager[Scene]:
        """A receiver that behaves like that, and a transport to it."""
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
    def test_a_batch_arrives_whole_in_order_and_byte_for_byte(self, count: int) -> None:
        events = [event(seq) for seq in range(1, count + 1)]
        outcome, scene = self._outcome("accepts", Batch(events, single=False, attempt=2, replay=UUID(int=5), previous_seq=None))
        assert outcome == Accepted()
        assert scene.received() == [[one.json for one in events]]

    def test_a_large_event_arrives(self) -> None:
        """Eight MiB is what a page of the feed holds; one event may be larger."""
        outcome, scene = self._outcome("accepts", Batch([event(1, 9 * 2**20)]))
        assert outcome == Accepted()
        assert [len(json) for json in scene.received()[0]] == [len(event(1, 9 * 2**20).json)]

    def test_what_is_refused_is_tried_again(self) -> None:
        outcome, _ = self._outcome("refuses")
        assert isinstance(outcome, Retry)
        assert outcome.error.replace("_", "").isalnum(), "one word of ours, which is shown and counted"
        assert (outcome.away, outcome.may_have_arrived, outcome.after_s) == (False, False, None)

    def test_a_receiver_may_ask_for_a_pause(self) -> None:
        outcome, _ = self._outcome("asks for a pause")
        assert isinstance(outcome, Retry)
        assert outcome.after_s == PAUSE_S

    def test_a_receiver_that_is_gone_says_so(self) -> None:
        assert self._outcome("is gone")[0] == Gone()

    def test_a_receiver_in_order_says_what_it_lacks(self) -> None:
        outcome, _ = self._outcome("lacks events", Batch([event(6)], previous_seq=5))
        assert isinstance(outcome, Rewind)
        assert outcome.seq == LACKS_AFTER
        assert outcome.otherwise.error

    def test_no_answer_in_time_leaves_open_whether_it_arrived(self) -> None:
        outcome, _ = self._outcome("hangs")
        assert isinstance(outcome, Retry)
        assert (outcome.away, outcome.may_have_arrived) == (True, True)

    def test_nobody_there_is_no_fault_of_the_event(self) -> None:
        outcome, _ = self._outcome("is not there")
        assert isinstance(outcome, Retry)
        assert (outcome.away, outcome.may_have_arrived) == (True, False)

    def test_nothing_leaves_once_it_may_not(self) -> None:
        """Another process has taken over: its newer events would be overtaken. The transport goes on being usable."""

        async def play(scene: Scene) -> None:
            with pytest.raises(TooLateError):
                await scene.transport.send(scene.target, Batch([event(1)], may_leave=lambda: False))
            assert scene.received() == []
            assert await scene.transport.send(scene.target, Batch([event(2)])) == Accepted()
            assert scene.received() == [[event(2).json]]

        self._in("accepts", play)

    def test_many_batches_at_once_do_not_mix(self) -> None:
        async def play(scene: Scene) -> None:
            batches = [Batch([event(10 * n), event(10 * n + 1)], single=False) for n in range(1, 21)]
            outcomes = await asyncio.gather(*(scene.transport.send(scene.target, batch) for batch in batches))
            assert outcomes == [Accepted()] * 20
            assert sorted(scene.received()) == sorted([one.json for one in batch.events] for batch in batches)

        self._in("accepts", play)

    def test_neither_secret_nor_address_is_told(self) -> None:
        """Outcomes are logged and shown; a target may stand in a traceback."""
        outcome, scene = self._outcome("refuses")
        for told in (repr(outcome), repr(scene.target)):
            assert SECRET not in told
            assert scene.target.address not in told
        assert repr(event(7)) == "Outgoing(evt_acme_7_00c0ffee)", "its JSON names persons"
