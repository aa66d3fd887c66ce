"""URLs and addresses that may be posted to: every spelling of a private one is refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.net.destination import Destination, check_literal, first_unfit, read_url, unfit

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
]
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "192.169.0.1", "1.1.1.1", "198.20.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_ipv4_address_that_is_not_public_is_unfit(address: str) -> None:
    assert unfit(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ipv4_address_is_fit(address: str) -> None:
    assert unfit(address) == ""


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}"])
@pytest.mark.parametrize("inner", PRIVATE)
def test_ipv6_form_of_an_unfit_address_is_unfit(form: str, inner: str) -> None:
    assert unfit(form.format(inner))
    assert unfit(str(ipaddress.ip_address(form.format(inner))))


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}"])
@pytest.mark.parametrize("inner", PUBLIC)
def test_ipv6_form_of_a_public_address_is_fit(form: str, inner: str) -> None:
    assert unfit(form.format(inner)) == ""


@pytest.mark.parametrize(
    "address",
    [
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "::127.0.0.1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "4000::1",
        # IPv4 addresses behind translators: SIIT, a local NAT64, and those that hide one in a prefix of their own.
        "::ffff:0:7f00:1",
        "64:ff9b:1:a00:0:100::",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::",
        # Segment routing, and IPv4-compatible addresses.
        "5f00::1",
        "::a9fe:a9fe",
        "fe80::5efe:10.0.0.1",
    ],
)
def test_ipv6_address_that_is_not_public_is_unfit(address: str) -> None:
    assert unfit(address)


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888"])
def test_public_ipv6_address_is_fit(address: str) -> None:
    assert unfit(address) == ""


@given(st.ip_addresses())
def test_address_that_python_calls_private_is_unfit(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not ip.is_global or ip.is_private or ip.is_multicast:
        carried = ip.version == 6 and ip in ipaddress.ip_network("::ffff:0:0/96")
        # Two protocol anycast addresses are global in Python's list, and of no use here.
        assert unfit(str(ip)) or carried


def test_one_unfit_address_among_several_is_named() -> None:
    assert first_unfit(["8.8.8.8", "10.0.0.1"]) == "10.0.0.1 is private"
    assert first_unfit(["8.8.8.8", "1.1.1.1"]) == ""
    assert first_unfit(["64:ff9b::a00:1"]) == "64:ff9b::a00:1 stands for 10.0.0.1 is private"
    # Python writes its last part with dots since 3.13.
    assert first_unfit(["::ffff:10.0.0.1"]).endswith(" stands for 10.0.0.1 is private")
    assert first_unfit(["not an address"]) == "'not an address' is no address"


@pytest.mark.parametrize(
    ("text", "read", "authority"),
    [
        ("https://example.com", Destination(True, "example.com", 443, "/"), "example.com"),
        ("https://Example.COM./a/b?c=d", Destination(True, "example.com", 443, "/a/b?c=d"), "example.com"),
        ("http://example.com:8080/x", Destination(False, "example.com", 8080, "/x"), "example.com:8080"),
        ("https://[2606:4700::1]:444/", Destination(True, "2606:4700::1", 444, "/"), "[2606:4700::1]:444"),
        ("https://1.2.3.4?x", Destination(True, "1.2.3.4", 443, "/?x"), "1.2.3.4"),
    ],
)
def test_url_is_read(text: str, read: Destination, authority: str) -> None:
    assert read_url(text) == read
    assert read_url(text).authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://exam ple.com/",
        "https://example.com/\r\nx-evil: 1",
        "https://example.com\\@10.0.0.1/",
        "https://exämple.com/",
        "https://example..com/",
        "https://-x.com/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://10.0.0.256/",
        "https://0x7F.1./",
        "https://127.0.0.1.0/",
        "https://%31%32%37.0.0.1/",
        "https://127.0.0.1%2f@evil.com/",
        "https://@127.0.0.1/",
        "https://:@evil.com/",
        "https://evil.com:443:80/",
        "https://evil.com@10.0.0.1/",
        "https://evil.com?@10.0.0.1#@evil.com/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://127\u30020\u30020\u30021/",
        "https://loc\u00adalhost/",
        "https://example.com\t.evil.com/",
        "https://[fe80::1%eth0]/",
        "https://[::1%25lo]/",
        "https://[v1.fe80::a+en1]/",
        "https://[127.0.0.1]/",
        "https://[::1]evil.com/",
        "https://...../",
        "gopher://evil.com/",
        "file:///etc/passwd",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://example.com%00.evil.com/",
        "https://" + "a" * 300 + ".com/",
        "https://example.com/" + "a" * 3000,
    ],
)
def test_bad_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        read_url(text)
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "::1", "10.0.0.1"])
def test_host_that_is_private_as_written_is_seen(host: str) -> None:
    assert check_literal(host)


@pytest.mark.parametrize(
    "host",
    [
        *("LOCALHOST", "localhost.", "LocalHost..", "a.b.localhost.", "127.0.0.1", "[::]", "[0:0:0:0:0:0:0:1]"),
        *("[::FFFF:7F00:1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        "[::ffff:0:127.0.0.1]",
    ],
)
def test_url_of_a_private_host_is_seen_before_its_look_up(host: str) -> None:
    assert check_literal(read_url(f"https://{host}/").host)


@pytest.mark.parametrize("host", ["xn--bcher-kva.example", "a_b.example.com", "1password.com", "127.0.0.1.nip.io"])
def test_host_that_only_a_look_up_can_judge_is_read(host: str) -> None:
    assert check_literal(read_url(f"https://{host}/").host) == ""


def test_host_name_says_nothing_before_its_look_up() -> None:
    assert check_literal("example.com") == ""
