"""Which addresses are of the public internet. Everything else is someone's inside, and not fetched from."""

from __future__ import annotations

import ipaddress

# ways to write an IPv4 address inside an IPv6 one that a network may translate back (RFC 4291, 6052, 8215, 3056, 4380)
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
# protocols' own (RFC 6890, 7526), which not every Python counts as such
_PROTOCOLS = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))


def is_public(text: str) -> bool:
    """Whether an address, as the resolver writes it, is one of the public internet. What is no address is not."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in _TRANSLATED):
            return False
    elif any(address in network for network in _PROTOCOLS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified
                                      or address.is_loopback or address.is_link_local or address.is_private)
