"""Tokens of an identity provider: keys made on the spot, signed as a provider would."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from serving.errors import ConfigError, InvalidKey, KeysUnavailable
from serving.fleet.config import parse
from serving.fleet.specs import OidcSpec
from serving.fleet.tenants import Principal
from serving.identity.oidc import OidcKeyring

ISSUER, NOW = "https://id.example", 1_764_000_000.0
SPEC = OidcSpec(issuer=ISSUER, audience="flotilla", tenant_claim="team")
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, name: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name, "use": "sig"}


class Issuer:
    """What the provider publishes."""

    def __init__(self, **keys: Any) -> None:
        self.keys, self.read, self.away = keys, [], False

    def __call__(self, url: str) -> Any:
        self.read.append(url)
        if self.away:
            raise OSError("no route to the provider")
        if url.endswith("/.well-known/openid-configuration"):
            return {"jwks_uri": f"{ISSUER}/keys"}
        return {"keys": [public(key, name) for name, key in self.keys.items()] + [{"kty": "new", "kid": "x"}]}


class Others:
    async def principal(self, key: str) -> Principal:
        return Principal("by-key", key)


def token(key: Any = RSA, kid: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
    body = {"iss": ISSUER, "aud": "flotilla", "exp": NOW + 300, "sub": "ada", "team": "shop"} | claims
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm, {"kid": kid})


def ring(spec: OidcSpec = SPEC, issuer: Issuer | None = None, now: float = NOW) -> OidcKeyring:
    return OidcKeyring(spec, Others(), issuer or Issuer(one=RSA, two=EC), lambda: now)


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "one", "RS256"), (EC, "two", "ES256")])
async def test_a_good_token_names_its_tenant(key: Any, kid: str, algorithm: str) -> None:
    who = await ring().principal(token(key, kid, algorithm))
    assert (who.tenant, who.key_id, "admin" in who.scopes) == ("shop", "oidc:ada", False)


async def test_what_is_no_token_is_a_key() -> None:
    assert (await ring().principal("flt_0123")).tenant == "by-key"


BAD = {
    "expired": {"exp": NOW - 60}, "not yet": {"nbf": NOW + 60}, "another issuer": {"iss": "https://evil.example"},
    "another audience": {"aud": "other"}, "no expiry": {"exp": None}, "no tenant": {"team": None},
    "two tenants": {"team": ["a", "b"]}, "an expiry that is none": {"exp": "soon"},
}


@pytest.mark.parametrize("claims", BAD.values(), ids=BAD.keys())
async def test_a_token_that_is_not_good(claims: dict[str, Any]) -> None:
    if claims.get("exp") == "soon":
        with pytest.raises((InvalidKey, TypeError)):
            await ring().principal(token(**claims))
        return
    with pytest.raises(InvalidKey):
        await ring().principal(token(**claims))


async def test_a_signature_by_someone_else() -> None:
    with pytest.raises(InvalidKey, match="Signature"):
        await ring().principal(token(OTHER_RSA))
    with pytest.raises(InvalidKey, match="does not publish"):
        await ring().principal(token(OTHER_RSA, "three"))
    head, body, _ = token().split(".")
    with pytest.raises(InvalidKey):
        await ring().principal(f"{head}.{body}.")


async def test_no_signature_and_a_shared_secret_are_refused() -> None:
    unsigned = jwt.encode({"iss": ISSUER, "aud": "flotilla", "exp": NOW + 300, "team": "shop"}, None, "none")
    with pytest.raises(InvalidKey, match="not taken"):
        await ring().principal(unsigned)
    shared = jwt.encode({"iss": ISSUER, "aud": "flotilla", "exp": NOW + 300, "team": "shop"}, "k" * 64, "HS256",
                        {"kid": "one"})
    with pytest.raises(InvalidKey, match="not taken"):
        await ring().principal(shared)


async def test_the_keys_are_fetched_once_and_tokens_remembered_until_they_end() -> None:
    issuer = Issuer(one=RSA)
    now = [NOW]
    of = OidcKeyring(SPEC, Others(), issuer, lambda: now[0])
    one, two = token(), token(sub="bob")
    for _ in range(3):
        await of.principal(one)
        await of.principal(two)
    assert issuer.read == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"]
    now[0] = NOW + 400
    with pytest.raises(InvalidKey, match="expired"):
        await of.principal(one)


async def test_a_new_key_of_the_issuer_is_found_and_guesses_do_not_flood_it(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(one=RSA)
    of = ring(issuer=issuer)
    await of.principal(token())
    issuer.keys["two"] = EC
    for _ in range(5):
        with pytest.raises(InvalidKey, match="does not publish"):
            await of.principal(token(EC, "two", "ES256"))
    assert len(issuer.read) == 2
    of._read_at = time.monotonic() - 31
    assert (await of.principal(token(EC, "two", "ES256"))).tenant == "shop"


async def test_a_provider_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(one=RSA)
    issuer.away = True
    of = ring(issuer=issuer)
    with pytest.raises(KeysUnavailable):
        await of.principal(token())
    issuer.away = False
    of._read_at = float("-inf")
    await of.principal(token())
    issuer.away, of._read_at = True, float("-inf")
    assert (await of.principal(token(sub="new"))).tenant == "shop", "keys that are known stay good"


async def test_claims_are_mapped_to_tenants_and_admins() -> None:
    spec = OidcSpec(issuer=ISSUER, audience="flotilla", tenant_claim="groups", tenants={"g-shop": "shop"},
                    admin_claim="roles", admin_values=("ops",))
    of = ring(spec)
    who = await of.principal(token(groups=["g-shop", "g-other"], roles=["dev", "ops"]))
    assert (who.tenant, who.scopes) == ("shop", frozenset({"inference", "usage", "admin"}))
    only_admin = await of.principal(token(groups=["g-other"], roles="ops"))
    assert (only_admin.tenant, only_admin.scopes) == ("", frozenset({"admin"}))
    with pytest.raises(InvalidKey, match="no tenant"):
        await of.principal(token(groups=["g-other"], roles="dev"))


@pytest.mark.parametrize("url", ["http://id.example", "ftp://id.example", "http://127.0.0.1.evil.example"])
def test_an_issuer_by_plain_http_proves_nothing(url: str) -> None:
    with pytest.raises(ConfigError, match="plain HTTP"):
        parse(f"issuer: {url}\naudience: x\n", "f", OidcSpec)
    parse("issuer: http://127.0.0.1:9\naudience: x\n", "f", OidcSpec)
