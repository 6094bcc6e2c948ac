"""What every provider of root keys must do. A new provider passes these tests with a subclass that makes one."""

import secrets
from abc import ABC, abstractmethod

import pytest

from ledger.root_keys.provider import RootKeyError, RootKeyLostError, RootKeys

KEY, PLACE = bytes(range(32)), b"a ledger and an epoch"


class RootKeysContract(ABC):
    """Subclasses make a provider with no keys in use, and say how a person removes a key that only a person can."""

    @abstractmethod
    def make(self) -> RootKeys: ...

    @abstractmethod
    def away(self) -> RootKeys:
        """The same provider, where it cannot be reached."""

    def by_hand(self, name: str) -> None:
        """Do what a person does to destroy a key, if only a person can."""
        assert name

    def wait_until_gone(self, name: str) -> None:
        """Let the time pass after which a provider destroys a key, if it takes its time."""
        assert name

    def test_a_key_is_unwrapped_to_the_same_key_also_by_another_process(self) -> None:
        name = (provider := self.make()).create(())
        wrapped = provider.wrap(name, KEY, PLACE)
        assert KEY not in wrapped
        assert self.make().unwrap(name, wrapped, PLACE) == KEY

    def test_two_wrappings_differ(self) -> None:
        name = (provider := self.make()).create(())
        assert provider.wrap(name, KEY, PLACE) != provider.wrap(name, KEY, PLACE)

    def test_a_key_opens_only_in_its_own_place(self) -> None:
        name = (provider := self.make()).create(())
        wrapped = provider.wrap(name, KEY, PLACE)
        with pytest.raises(RootKeyLostError):
            provider.unwrap(name, wrapped, b"another epoch")

    def test_what_was_changed_or_is_none_does_not_open(self) -> None:
        name = (provider := self.make()).create(())
        wrapped = provider.wrap(name, KEY, PLACE)
        for broken in (wrapped[:-1], bytes([*wrapped[:-1], wrapped[-1] ^ 1]), b"", secrets.token_bytes(60)):
            with pytest.raises(RootKeyLostError):
                provider.unwrap(name, broken, PLACE)

    def test_a_second_root_key_is_another_one(self) -> None:
        provider = self.make()
        first = provider.create(())
        second = provider.create([first])
        assert first != second
        wrapped = provider.wrap(first, KEY, PLACE)
        with pytest.raises(RootKeyLostError):
            provider.unwrap(second, wrapped, PLACE)
        assert provider.unwrap(first, wrapped, PLACE) == KEY

    def test_a_destroyed_root_key_opens_nothing_and_the_others_go_on(self) -> None:
        provider = self.make()
        first = provider.create(())
        second = provider.create([first])
        old, new = provider.wrap(first, KEY, PLACE), provider.wrap(second, KEY, PLACE)
        self.by_hand(first)
        provider.destroy(first)
        provider.destroy(first)  # again: no effect
        self.wait_until_gone(first)
        with pytest.raises(RootKeyLostError):
            provider.unwrap(first, old, PLACE)
        assert provider.unwrap(second, new, PLACE) == KEY
        assert provider.create([first, second]) not in {first, second}

    def test_a_root_key_that_never_was_is_lost(self) -> None:
        provider = self.make()
        name = provider.create(())
        with pytest.raises(RootKeyLostError):
            provider.unwrap(self.never(name), provider.wrap(name, KEY, PLACE), PLACE)

    def never(self, _name: str) -> str:
        """A name of a key that was never made."""
        return "77"

    def test_a_provider_out_of_reach_says_so_and_shows_no_secret(self) -> None:
        name = (provider := self.make()).create(())
        wrapped = provider.wrap(name, KEY, PLACE)
        with pytest.raises(RootKeyError) as refused:
            self.away().unwrap(name, wrapped, PLACE)
        assert len(str(refused.value)) > 40
        assert KEY.hex() not in str(refused.value)
