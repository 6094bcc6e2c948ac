"""The payload of a sealed body: `data` is read back byte for byte, whatever it and the key contain."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ledger.events import Body
from ledger.sealing import data_of, payload_of

text = st.text() | st.sampled_from([',"key":', '","key":"', '{"data":', "\\", '"'])


@given(document=st.dictionaries(text, text), user=st.none() | st.dictionaries(text, text), key=text)
def test_data_is_read_back_unchanged(document: dict[str, str], user: dict[str, str] | None, key: str) -> None:
    payload = payload_of(Body(document, [], key, user))
    shown = {"object": document, "changes": [], **({"user": user} if user else {})}
    assert data_of(payload) == orjson.dumps(shown)
    assert orjson.loads(payload) == {"data": shown, "key": key}
