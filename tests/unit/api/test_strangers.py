"""Which clients are slowed after failed authentications, and for how long; pure, with the clock as an argument."""

import asyncio

import pytest

from api.strangers import UNKNOWN_AT_ONCE, Failures, Strangers, address_of, network


def test_an_address_may_fail_a_few_times_at_once_and_then_at_its_rate() -> None:
    failures = Failures(burst=3, per_second=0.5)
    assert [failures.failed("a", 10.0) for _ in range(3)] == [0, 0, 0]
    assert failures.failed("a", 10.0) == 2.0
    assert failures.failed("a", 11.0) == 1.0, "asking too early costs nothing more: waiting helps"
    assert failures.failed("a", 12.0) == 0
    assert failures.failed("a", 12.0) == 2.0
    assert failures.wait("b", 12.0) == 0, "another address is not slowed"
    assert [failures.failed("a", 100.0) for _ in range(3)] == [0, 0, 0], "failures of long ago no longer count, newer ones do"
    assert failures.failed("a", 100.0) > 0


def test_asking_whether_an_address_is_slowed_counts_as_no_failure() -> None:
    failures = Failures(burst=1, per_second=1)
    assert [failures.wait("a", 0.0) for _ in range(5)] == [0] * 5
    assert failures.failed("a", 0.0) == 0
    assert failures.wait("a", 0.25) == 0.75


def test_memory_is_bounded_and_the_oldest_failure_is_forgotten_first() -> None:
    failures = Failures(burst=1, per_second=0.001, addresses_max=3)
    for at, address in enumerate(["a", "b", "c"]):
        failures.failed(address, float(at))
    assert failures.wait("a", 3.0) > 0
    failures.failed("a", 1_200.0)
    failures.failed("d", 1_200.0)
    assert len(failures._spent) == 3
    assert [failures.wait(address, 1_200.0) > 0 for address in "abcd"] == [True, False, False, True]
    for number in range(100_000):
        failures.failed(f"x{number}", 1_300.0)
    assert len(failures._spent) == 3


@pytest.mark.parametrize(
    ("address", "slowed_as"),
    [
        ("192.0.2.7", "192.0.2.7"), ("", ""), ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"), ("a:b", "a:b"),
    ],
)  # fmt: skip
def test_which_addresses_are_slowed_together(address: str, slowed_as: str) -> None:
    assert network(address) == slowed_as


def test_the_address_is_that_of_the_connection() -> None:
    assert address_of({"client": ("192.0.2.7", 5)}) == "192.0.2.7"
    assert address_of({"client": None}) == address_of({}) == ""
    forwarded = {"client": ("192.0.2.7", 5), "headers": [(b"x-forwarded-for", b"198.51.100.1")]}
    assert address_of(forwarded) == "192.0.2.7"


def test_unknown_tokens_of_a_slowed_address_wait_and_only_few_may_wait_at_once() -> None:
    async def story() -> None:
        strangers = Strangers(Failures(burst=1, per_second=0.01))
        assert await strangers.admits("a")
        assert strangers.failed("a") == 0
        assert strangers.failed("a") == 100
        answers = await asyncio.gather(*(strangers.admits("a") for _ in range(UNKNOWN_AT_ONCE + 10)))
        assert answers.count(False) == 10
        assert strangers.waiting == 0
        assert await strangers.admits("b")

    asyncio.run(story())
