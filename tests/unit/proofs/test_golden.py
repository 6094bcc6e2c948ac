"""The published test vectors in tests/golden: authors of other verifiers can check them against these bytes.

They are never changed, only new ones are added. To write the file of a new kind: `python -m tests.unit.proofs.test_golden NAME`.
"""

import hashlib
import json
import sys
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proofs import body, keys, leaf, tree

GOLDEN = Path(__file__).resolve().parents[2] / "golden"

KEY = bytes(range(32))
SALT = bytes(range(32, 64))
NONCE = bytes(range(64, 76))
KEK = bytes(range(76, 108))
DIR = bytes.fromhex("0b9d9f6c5d1e4f3a8c7b6a5948372615")
OBJ = bytes.fromhex("7f3c2a1e9b8d4c6fa5e4d3c2b1a09f8e")
SEQ = 97

COMMON = {
    "v": 1,
    "cv": 1,
    "dir": "0b9d9f6c-5d1e-4f3a-8c7b-6a5948372615",
    "seq": SEQ,
    "tx": 95,
    "txn": 3,
    "obj": "7f3c2a1e-9b8d-4c6f-a5e4-d3c2b1a09f8e",
    "rv": 7,
    "cause": "idp",
    "at": 1_795_600_800_123_456,
    "actor": "tok_4f2c",
    "req": "01936d2e-7c4a-7b3e-9f21-5d6c7b8a9e0f",
}
LEAVES = {
    "a user event": {
        **COMMON,
        "type": "user.deactivated",
        "ot": "User",
        "active": False,
        "prof": "okta@3",
        "cmt": "ab" * 32,
        "ct": "cd" * 32,
    },
    "a membership event": {
        **COMMON,
        "type": "group.member_added",
        "ot": "Group",
        "mem": "11111111-2222-4333-8444-555555555555",
        "mt": "User",
        "eff": True,
        "prof": "entra@1",
    },
    "an event without optional fields": {**COMMON, "type": "directory.created", "ot": "Directory", "cause": "operator"},
    "escapes, unicode and the largest integer": {
        **COMMON,
        "type": "user.created",
        "ot": "User",
        "actor": 'a"\\/\b\f\n\r\t\x00\x7fé€\u2028😀',
        "at": 2**53 - 1,
    },
}
PAYLOADS = {
    "the smallest": b"{}",
    "a user": '{"data":{"object":{"userName":"zoë@example.com"},"changes":[]},"key":"zoë@example.com"}'.encode(),
    "the longest that fits 256": b'{"a":"' + b"a" * 215 + b'"}',
    "one byte more": b'{"a":"' + b"a" * 216 + b'"}',
    "the longest never deflated": b'{"a":"' + b"a" * 1016 + b'"}',
}
DEFLATED = b'{"data":{"object":{"note":"' + b"provisioning ledger " * 200 + b'"}}}'
TREE_SIZES = (*range(9), 63, 64, 65, 7000)


def leaf_vectors() -> list[dict]:
    made = []
    for name, fields in LEAVES.items():
        encoded = leaf.encode_leaf(fields)
        made.append({"name": name, "fields": fields, "leaf": encoded.hex(), "leaf_hash": leaf.leaf_hash(encoded).hex()})
    return made


def tree_vectors() -> list[dict]:
    """The content of leaf n is the ASCII text `leaf n`."""
    hashes = [leaf.leaf_hash(b"leaf %d" % n) for n in range(max(TREE_SIZES))]
    return [{"size": size, "root": tree.root(hashes[:size]).hex()} for size in TREE_SIZES]


def body_vector(name: str, payload: bytes, ct: bytes) -> dict:
    found = body.open_body(KEY, ct, dir=DIR, obj=OBJ, seq=SEQ)
    assert found.payload == payload
    return {
        "name": name,
        "key": KEY.hex(),
        "dir": DIR.hex(),
        "obj": OBJ.hex(),
        "seq": SEQ,
        "salt": SALT.hex(),
        "nonce": NONCE.hex(),
        "payload": payload.hex(),
        "plaintext": found.plaintext.hex(),
        "cmt": body.commitment_of(found.plaintext).hex(),
        "body": ct.hex(),
        "ct": hashlib.sha256(ct).hexdigest(),
    }


def sealed(payload: bytes) -> bytes:
    return body.seal(KEY, payload, dir=DIR, obj=OBJ, seq=SEQ, salt=SALT, nonce=NONCE).ct


def body_vectors() -> list[dict]:
    return [body_vector(name, payload, sealed(payload)) for name, payload in PAYLOADS.items()]


def deflated_vectors() -> list[dict]:
    """Another build of zlib may deflate to other bytes, so the published vectors are read and checked, not made again."""
    path = GOLDEN / "body-deflated.json"
    ct = bytes.fromhex(json.loads(path.read_text())[0]["body"]) if path.exists() else sealed(DEFLATED)
    return [body_vector("deflated", DEFLATED, ct)]


def wrap_vectors() -> list[dict]:
    wrapped = keys.wrap(KEK, KEY, dir=DIR, obj=OBJ, nonce=NONCE)
    given = {"kek": KEK, "key": KEY, "dir": DIR, "obj": OBJ, "nonce": NONCE, "wrapped": wrapped}
    return [{name: value.hex() for name, value in given.items()}]


KINDS = {
    "leaf": leaf_vectors,
    "tree": tree_vectors,
    "body": body_vectors,
    "body-deflated": deflated_vectors,
    "wrapped-key": wrap_vectors,
}


def text_of(vectors: list[dict]) -> str:
    return json.dumps(vectors, indent=1) + "\n"


def published(kind: str) -> list[dict]:
    return json.loads((GOLDEN / f"{kind}.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_still_makes_the_published_bytes(kind):
    assert text_of(KINDS[kind]()) == (GOLDEN / f"{kind}.json").read_text()


@pytest.mark.parametrize("vector", published("leaf"), ids=lambda vector: vector["name"])
def test_published_leaves_can_be_computed_with_the_standard_library_alone(vector):
    raw = bytes.fromhex(vector["leaf"])
    assert raw == json.dumps(vector["fields"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert vector["leaf_hash"] == hashlib.sha256(b"\0" + raw).hexdigest()
    assert leaf.check_leaf(raw) == vector["fields"]


@pytest.mark.parametrize("vector", published("body") + published("body-deflated"), ids=lambda vector: vector["name"])
def test_published_bodies_can_be_computed_from_the_description_alone(vector):
    plaintext, ct, payload = (bytes.fromhex(vector[name]) for name in ("plaintext", "body", "payload"))
    assert vector["cmt"] == hashlib.sha256(b"scim-ledger/body/v1\0" + plaintext).hexdigest()
    assert ct == b"\1" + NONCE + AESGCM(KEY).encrypt(NONCE, plaintext, DIR + OBJ + SEQ.to_bytes(8, "big"))
    assert vector["ct"] == hashlib.sha256(ct).hexdigest()
    if plaintext[32]:
        assert zlib.decompressobj(wbits=-15).decompress(plaintext[33:]) == payload
    else:
        assert plaintext == (SALT + b"\0" + payload).ljust(len(plaintext), b"\0")


def test_sealing_the_deflated_payload_with_this_zlib_opens_to_the_same():
    assert body.open_body(KEY, sealed(DEFLATED), dir=DIR, obj=OBJ, seq=SEQ).payload == DEFLATED


def test_published_wrapped_keys_can_be_computed_from_the_description_alone():
    [vector] = published("wrapped-key")
    assert vector["wrapped"] == (NONCE + AESGCM(KEK).encrypt(NONCE, KEY, OBJ + DIR)).hex()


def test_the_published_root_of_an_empty_tree_is_the_hash_of_nothing():
    assert published("tree")[0] == {"size": 0, "root": hashlib.sha256(b"").hexdigest()}


if __name__ == "__main__":
    (GOLDEN / f"{sys.argv[1]}.json").write_text(text_of(KINDS[sys.argv[1]]()))
