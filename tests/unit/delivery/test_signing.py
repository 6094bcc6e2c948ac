"""Standard Webhooks: checked against the example of its specification, and with a verification that is written independently."""

import base64
import hashlib
import hmac

import orjson
from hypothesis import given
from hypothesis import strategies as st

from delivery.signing import SECRET_BYTES, batch_id, body_of_batch, body_of_one, new_secret, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT = b'{"object":"event","id":"evt_acme_1_00000000"}'


def test_the_example_of_the_specification_is_reproduced() -> None:
    found = signature([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3), st.binary(max_size=200))
def test_each_secret_verifies_its_own_entry(keys: list[bytes], body: bytes) -> None:
    """During a rotation a receiver that knows either secret accepts."""
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    entries = signature(secrets, "evt_1", 7, body).split(" ")
    for key, entry in zip(keys, entries, strict=True):
        version, _, mac = entry.partition(",")
        assert version == "v1"
        assert hmac.compare_digest(base64.b64decode(mac), hmac.new(key, b"evt_1.7." + body, hashlib.sha256).digest())


def test_a_new_secret_is_32_random_bytes_behind_its_prefix() -> None:
    assert new_secret(lambda size: bytes(range(size))) == "whsec_" + base64.b64encode(bytes(range(SECRET_BYTES))).decode()


def test_the_body_of_one_event_is_type_time_and_the_event_unchanged() -> None:
    body = body_of_one("user.created", "2026-11-24T12:00:00Z", EVENT)
    assert orjson.loads(body) == {"type": "user.created", "timestamp": "2026-11-24T12:00:00Z", "data": orjson.loads(EVENT)}
    assert EVENT in body


def test_the_body_of_a_batch_has_its_events_in_order() -> None:
    body = orjson.loads(body_of_batch("2026-11-24T12:00:00Z", [b'{"n":1}', b'{"n":2}']))
    assert body == {"type": "batch", "timestamp": "2026-11-24T12:00:00Z", "data": [{"n": 1}, {"n": 2}]}


def test_the_id_of_a_batch_follows_from_its_events_and_their_order() -> None:
    """A repetition has the same id; other events, or the same in another order, are another message."""
    one = batch_id(["evt_a_1", "evt_a_2"])
    assert one == batch_id(["evt_a_1", "evt_a_2"])
    assert len({one, batch_id(["evt_a_2", "evt_a_1"]), batch_id(["evt_a_1"]), batch_id(["evt_a_1\nevt_a", "2"])}) == 4
