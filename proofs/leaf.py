"""The leaf of an event in the Merkle tree: canonical JSON (the subset of RFC 8785 without floats and null).

Structure only, by allow-list: identifiers, numbers and kinds, never a name or an attribute. A leaf is hashed exactly
as it is stored, so anybody with the bytes can recompute every hash without knowing how they were made.
"""

import hashlib
import json
from collections.abc import Mapping

INTEGER_MAX = 2**53 - 1  # the largest integer every JSON reader keeps exact (RFC 8785 section 3.2.2.3, RFC 7493 section 2.2)

REQUIRED: Mapping[str, type] = {
    "v": int,
    "cv": int,
    "dir": str,
    "seq": int,
    "tx": int,
    "txn": int,
    "type": str,
    "obj": str,
    "ot": str,
    "rv": int,
    "cause": str,
    "at": int,
    "actor": str,
    "req": str,
}
OPTIONAL: Mapping[str, type] = {
    "mem": str,
    "mt": str,
    "eff": bool,
    "active": bool,
    "prof": str,
    "cmt": str,
    "ct": str,
}
FIELDS: Mapping[str, type] = {**REQUIRED, **OPTIONAL}

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")).encode


class LeafError(ValueError):
    """The fields or bytes are not a leaf; the message names the place."""


def encode_leaf(fields: Mapping[str, int | str | bool]) -> bytes:
    """The canonical bytes of `fields`: sorted ASCII keys, no spaces, UTF-8; an absent field is left out, never null.

    Raises LeafError for a key that is not ASCII, an integer beyond 2^53 - 1, a lone surrogate or any other type.
    """
    for key, value in fields.items():
        if not key.isascii():
            raise LeafError(f"key {key!r} is not ASCII")
        _check_value(key, value)
    try:
        return _encode(dict(fields)).encode()
    except UnicodeEncodeError as error:
        raise LeafError("a string holds a lone surrogate") from error


def check_leaf(raw: bytes) -> dict[str, int | str | bool]:
    """The fields of a leaf, after proving that `raw` is its one canonical form and holds nothing but allowed fields.

    Raises LeafError when it is not JSON, not canonical, lacks a required field, or has an unknown one or a wrong type.
    """
    try:
        fields = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise LeafError("not JSON in UTF-8") from error
    if not isinstance(fields, dict):
        raise LeafError("not an object")
    _check_fields(fields)
    if encode_leaf(fields) != raw:
        raise LeafError("not in canonical form")
    return fields


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf), the hash of a leaf in the tree (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def _check_value(key: str, value: object) -> None:
    if isinstance(value, int):
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise LeafError(f"{key} is beyond 2^53 - 1")
    elif not isinstance(value, str):
        raise LeafError(f"{key} is neither an integer, a string nor a boolean")


def _check_fields(fields: Mapping[str, object]) -> None:
    for key in REQUIRED:
        if key not in fields:
            raise LeafError(f"{key} is missing")
    for key, value in fields.items():
        if key not in FIELDS:
            raise LeafError(f"{key!r} is not a field of a leaf")
        if type(value) is not FIELDS[key]:  # exactly: a bool is an int to isinstance
            raise LeafError(f"{key} is not of type {FIELDS[key].__name__}")
