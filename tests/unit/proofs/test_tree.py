import hashlib

import pytest

from proofs import tree
from proofs.leaf import leaf_hash

SIZES = range(1, 66)
HASHES = [leaf_hash(b"leaf %d" % n) for n in range(66)]

# The leaves and roots that the implementation of Certificate Transparency uses as its test vectors (RFC 6962).
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def definition(hashes):
    """RFC 6962 section 2.1, word for word: the reference for the incremental form."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + definition(hashes[:k]) + definition(hashes[k:])).digest()


ROOTS = [definition(HASHES[:size]) for size in range(67)]


def changed(value):
    return bytes((value[0] ^ 1,)) + value[1:]


def variations(proof):
    """Proofs that must be refused where `proof` is valid: a node is changed, left out or added."""
    for place in range(len(proof)):
        yield [*proof[:place], changed(proof[place]), *proof[place + 1 :]]
        yield [*proof[:place], *proof[place + 1 :]]
    yield [*proof, HASHES[0]]


def test_roots_are_those_of_certificate_transparency():
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    assert [tree.root(hashes[:size]).hex() for size in range(9)] == CT_ROOTS


def test_the_frontier_gives_the_right_root_at_every_size():
    frontier = ()
    for size, leaf in enumerate(HASHES):
        assert tree.root_of(frontier) == ROOTS[size]
        frontier = tree.append(frontier, size, leaf)
    assert tree.root_of(frontier) == ROOTS[66]


def test_a_frontier_of_another_size_is_refused():
    with pytest.raises(AssertionError, match="does not belong"):
        tree.append((None, HASHES[0]), 1, HASHES[1])


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_of_every_leaf_is_proved_and_other_proofs_are_refused(size):
    hashes, root = HASHES[:size], ROOTS[size]
    for index in range(size):
        proof = tree.inclusion_proof(hashes, index)
        assert tree.verify_inclusion(hashes[index], index, size, proof, root)
        assert not tree.verify_inclusion(changed(hashes[index]), index, size, proof, root)
        assert not tree.verify_inclusion(hashes[index], index, size, proof, changed(root))
        assert not tree.verify_inclusion(hashes[index], (index + 1) % size if size > 1 else 1, size, proof, root)
        assert not tree.verify_inclusion(hashes[index], size, size, proof, root)
        assert not tree.verify_inclusion(hashes[index], -1, size, proof, root)
        assert not any(tree.verify_inclusion(hashes[index], index, size, other, root) for other in variations(proof))


@pytest.mark.parametrize("size", SIZES)
def test_consistency_with_every_earlier_tree_is_proved_and_other_proofs_are_refused(size):
    hashes, root = HASHES[:size], ROOTS[size]
    for old_size in range(size + 1):
        old_root, proof = ROOTS[old_size], tree.consistency_proof(hashes, old_size)
        assert tree.verify_consistency(old_size, old_root, size, root, proof)
        assert not tree.verify_consistency(old_size, changed(old_root), size, root, proof)
        assert not any(tree.verify_consistency(old_size, old_root, size, root, other) for other in variations(proof))
        if old_size:  # an empty tree is consistent with every tree
            assert not tree.verify_consistency(old_size, old_root, size, changed(root), proof)


def test_sizes_out_of_order_are_refused():
    assert not tree.verify_consistency(3, ROOTS[3], 2, ROOTS[2], [])
    assert not tree.verify_consistency(3, ROOTS[3], 5, ROOTS[5], [])
    assert not tree.verify_consistency(-1, ROOTS[0], 2, ROOTS[2], [])
    with pytest.raises(IndexError):
        tree.consistency_proof(HASHES[:2], 3)
    with pytest.raises(IndexError):
        tree.inclusion_proof(HASHES[:2], 2)
