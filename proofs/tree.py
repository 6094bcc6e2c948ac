"""The Merkle tree over a directory's leaf hashes, as in RFC 6962 section 2.1 (and RFC 9162 section 2.1, which equals it).

Three ways to the same root: from all leaf hashes, from a frontier that grows by one leaf at a time, and from a proof.
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()

Frontier = tuple[bytes | None, ...]
"""Entry k is the root of the full subtree of 2^k leaves that ends the tree so far, None where bit k of the size is 0."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of the leaf hashes in order; of none, the SHA-256 of nothing."""
    frontier: Frontier = ()
    for index, leaf in enumerate(hashes):
        frontier = append(frontier, index, leaf)
    return root_of(frontier)


def append(frontier: Frontier, size: int, leaf: bytes) -> Frontier:
    """The frontier of a tree of `size` leaves after one more leaf hash."""
    carried, level = leaf, 0
    while size >> level & 1:
        left = frontier[level]
        assert left is not None, "the frontier does not belong to this size"
        carried = node_hash(left, carried)
        level += 1
    return (*(None,) * level, carried, *frontier[level + 1 :])


def root_of(frontier: Frontier) -> bytes:
    """The root of the tree that `frontier` ends."""
    result: bytes | None = None
    for subtree in frontier:
        if subtree is not None:
            result = subtree if result is None else node_hash(subtree, result)
    return EMPTY_ROOT if result is None else result


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of all `hashes` (RFC 6962 section 2.1.1), lowest node first.

    Raises IndexError when the tree has no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise IndexError(f"no leaf {index} in a tree of {len(hashes)}")
    if len(hashes) == 1:
        return []
    split = _split(len(hashes))
    if index < split:
        return [*inclusion_proof(hashes[:split], index), root(hashes[split:])]
    return [*inclusion_proof(hashes[split:], index - split), root(hashes[:split])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether `proof` shows leaf hash `leaf` at `index` in the tree of `size` leaves with that root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and computed == expected_root


def consistency_proof(hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """The nodes that show that the tree of all `hashes` begins with that of the first `old_size` (RFC 6962 section 2.1.2).

    Empty for an old size of nothing or of everything. Raises IndexError when the old tree is larger than the new one.
    """
    if not 0 <= old_size <= len(hashes):
        raise IndexError(f"no tree of {old_size} in one of {len(hashes)}")
    return _subproof(hashes, old_size, whole=True) if old_size else []


def verify_consistency(old_size: int, old_root: bytes, size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `size` begins with the tree of `old_size` (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == new_root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    nodes = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not nodes:
        return False
    trailing = ((old_size ^ (old_size - 1)).bit_length()) - 1  # full right subtrees: the path starts above them
    position, last = (old_size - 1) >> trailing, (size - 1) >> trailing
    old, new = nodes[0], nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, node)
        position, last = position >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _subproof(hashes: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(hashes):
        return [] if whole else [root(hashes)]
    split = _split(len(hashes))
    if old_size <= split:
        return [*_subproof(hashes[:split], old_size, whole=whole), root(hashes[split:])]
    return [*_subproof(hashes[split:], old_size - split, whole=False), root(hashes[:split])]


def _split(size: int) -> int:
    """The largest power of two below `size`, where the tree parts."""
    return 1 << (size - 1).bit_length() - 1
