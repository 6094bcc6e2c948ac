"""The definition of a consumer, and the addresses that a webhook may have: none inside the network, in whatever form the address
is written.
"""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.backoff import ATTEMPTS_MAX
from delivery.consumers import Allowed, ConsumerRefusedError, check_definition
from delivery.terms import Definition

NOBODY = Allowed()
PULL = Definition()

INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "255.255.255.255", "224.0.0.1", "239.1.1.1", "192.0.2.1", "198.18.0.1", "240.0.0.1",
    "::1", "::", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1", "::ffff:224.0.0.1",
    "::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::",
]  # fmt: skip
OUTSIDE = ["93.184.215.14", "8.8.8.8", "2606:2800:21f::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


def hook(url: str | None) -> Definition:
    return Definition(mode="webhook", url=url)


def in_url(address: str) -> str:
    return f"https://[{address}]/hooks" if ":" in address else f"https://{address}/hooks"


def refused(asked: Definition, allowed: Allowed = NOBODY, known: tuple[str, ...] = ("acme",)) -> str | None:
    try:
        check_definition(asked, known, allowed)
    except ConsumerRefusedError as error:
        return str(error)
    return None


@pytest.mark.parametrize("address", INSIDE)
def test_an_internal_address_is_refused_in_the_definition_and_at_the_connection(address: str) -> None:
    """Loopback, private, link-local, multicast, reserved; also as an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4)."""
    assert refused(hook(in_url(address))) is not None
    assert not NOBODY.reachable("app.example.com", ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_a_public_address_is_accepted(address: str) -> None:
    assert refused(hook(in_url(address))) is None
    assert NOBODY.reachable("app.example.com", ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_treated_the_same_in_each_ipv6_form(address: ipaddress.IPv4Address) -> None:
    plain = NOBODY.reachable("h", address)
    number = int(address)
    for clothed in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert NOBODY.reachable("h", ipaddress.IPv6Address(clothed)) == plain


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "017700000001", "10.1"])
def test_an_address_in_an_old_notation_is_the_same_address(host: str) -> None:
    """Resolvers accept decimal, octal and shortened addresses.

    Such an address is refused in the definition, not only by the first delivery.
    """
    assert refused(hook(f"https://{host}/hooks")) is not None


@pytest.mark.parametrize(
    "url",
    [
        None, "", "hooks", "ftp://app.example.com/", "file:///etc/passwd", "https://", "https:///hooks", "//app.example.com",
        "https://user@app.example.com/", "https://user:secret@app.example.com/", "https://@app.example.com/",
        "https://app.example.com/#part", "https://app.example.com:99999/", "https://app.example.com:x/", "https://[::1/", "https://[x]/",
        "https://app.example.com/a b", "https://app.example.com/\n", "https://äpp.example.com/", "https://app.example.com/" + "x" * 2_000,
        "http://app.example.com/hooks",
    ],
)  # fmt: skip
def test_an_address_without_https_is_refused_with_a_reason(url: str | None) -> None:
    reason = refused(hook(url))
    assert reason is not None
    assert "`url`" in reason


@pytest.mark.parametrize(
    "url", ["https://app.example.com/hooks?key=1", "https://app.example.com:8443/", "HTTPS://APP.example.com"]
)
def test_an_https_address_is_accepted(url: str) -> None:
    assert refused(hook(url)) is None


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("127.0.0.0/8", "http://127.0.0.1:9000/hooks"),
        ("127.0.0.1", "http://127.0.0.1/"),
        ("127.0.0.0/8", "http://[::ffff:127.0.0.1]/"),
        ("::1", "http://[::1]/"),
        ("10.0.0.0/8, app.internal", "http://app.internal/"),
        ("APP.internal", "http://app.INTERNAL/"),
        ("10.1.2.3/8", "https://10.9.9.9/"),
    ],
)
def test_an_address_that_is_named_may_be_reached_also_without_https(allow: str, url: str) -> None:
    allowed = Allowed.read(allow)
    assert refused(hook(url), allowed) is None
    assert refused(hook(url)) is not None


PRIVATE = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.0.8", "192.0.0.171",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip


def _dressed(plain: str) -> list[str]:
    """An IPv4 address in every IPv6 form that leads to it, or may lead to it."""
    number = int(ipaddress.IPv4Address(plain))
    high, low = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{plain}", f"::{plain}", f"::ffff:0:{plain}", f"64:ff9b::{plain}", f"64:ff9b:1::{plain}",
        f"64:ff9b:1:{high:x}:{low >> 8:x}:{(low & 0xFF) << 8:x}::", f"2002:{high:x}:{low:x}::1",
        f"2001:0:4136:e378:8000:63bf:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
    ]  # fmt: skip


@pytest.mark.parametrize("plain", PRIVATE)
def test_a_private_address_is_refused_in_every_form(plain: str) -> None:
    for text in (plain, *_dressed(plain)):
        assert not NOBODY.reachable("app.example.com", ipaddress.ip_address(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "::", "::1", "64:ff9b:1::808:808", "64:ff9b:1:ffff::1", "100::1", "100:0:0:1::1", "2001::1", "2001:2::1", "2001:10::1",
        "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "4000::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_global_is_refused(text: str) -> None:
    assert not NOBODY.reachable("app.example.com", ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_global_address_is_reached(text: str) -> None:
    assert NOBODY.reachable("app.example.com", ipaddress.ip_address(text))


def test_an_allowance_covers_only_what_it_names() -> None:
    allowed = Allowed.read("10.0.0.0/8 app.internal")
    assert not allowed.reachable("other.internal", ipaddress.ip_address("127.0.0.1"))
    assert not allowed.reachable("sub.app.internal", ipaddress.ip_address("192.168.0.1"))
    assert refused(hook("http://app.internal.example.com/"), allowed) is not None
    assert refused(hook("https://192.168.0.1/"), allowed) is not None


@pytest.mark.parametrize(
    "asked",
    [
        replace(PULL, directories=()), replace(PULL, directories=("nowhere",)), replace(PULL, directories=("*", "nowhere")),
        replace(PULL, types=()), replace(PULL, types=("user.born",)), replace(PULL, types=("user.*", "x.*")),
        replace(PULL, mode="push"), replace(PULL, ordering="none"), replace(PULL, batch_max=0), replace(PULL, batch_max=101),
        replace(PULL, retry_schedule=(-1,)), replace(PULL, retry_schedule=(7 * 86_400 + 1,)),
        replace(PULL, retry_schedule=(1,) * (ATTEMPTS_MAX + 1)), replace(PULL, url="https://app.example.com/"),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_be_delivered_is_refused(asked: Definition) -> None:
    assert refused(asked) is not None


@pytest.mark.parametrize(
    "asked",
    [
        PULL, replace(PULL, directories=("acme",)), replace(PULL, types=("user.*", "group.created")),
        replace(PULL, ordering="directory", batch_max=100), replace(PULL, retry_schedule=()),
    ],
)  # fmt: skip
def test_a_definition_that_can_be_delivered_is_accepted(asked: Definition) -> None:
    assert refused(asked) is None
