"""An API server of the tests' own that speaks Kubernetes' HTTP: paths, watches, pages, 409, 410, 429, logs, exec.

Real clients talk to it: the official Python client and the real Helm. There are no controllers: a test plays them by
`objects` and `objects.changed`. What it claims is held against a real API server by
tests/kubernetes/test_kubernetes_contract.py whenever one is given.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import functools
import ipaddress
import json
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_protobuf
import yaml
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_objects import Doc, Objects, Refused

TOKEN = "not-to-be-seen"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Exec = Callable[[str, str, list[str]], tuple[bytes, bytes, int]]
_WORDS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class FakeKubernetes:
    """One server, in a thread of its own, on a loopback port: a free one, or that of one that is closed."""

    def __init__(self, port: int = 0) -> None:
        self.objects, self.port = Objects(), port
        self.minor = "33"
        self.denied: set[tuple[str, str]] = set()  # verb and resource; * is any
        self.throttled = 0  # so many requests are answered with 429
        self.logs: dict[tuple[str, str], list[str]] = {}  # by pod and container
        self.exec: Exec = lambda pod, container, command: (b"", b"no such command\n", 127)
        self.asked: list[str] = []  # method and path of every request
        self.watches = 0  # watches under way
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._cut = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def close(self) -> None:
        """Stop it."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def cut(self) -> None:
        """End all watches, as a server does that restarts."""
        self._cut += 1
        self._wake()

    def kubeconfig(self, file: Path, context: str = "fake", namespace: str = "models") -> Path:
        """A kubeconfig for it."""
        authority = base64.b64encode(_identity()[0]).decode()
        file.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": "fake",
                          "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "tester", "user": {"token": TOKEN}}],
            "contexts": [{"name": context, "context": {"cluster": "fake", "user": "tester", "namespace": namespace}}],
        }))
        return file

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())

    async def _run(self) -> None:
        self._stopped, self._news = asyncio.Event(), asyncio.Condition()
        self.objects.changed.append(lambda what, doc: self._wake())
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=_tls())
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"https://127.0.0.1:{self.port}"
        self._started.set()
        await self._stopped.wait()
        self._cut += 1
        await self._tell()
        await runner.cleanup()

    def _wake(self) -> None:
        if self._started.is_set():
            asyncio.run_coroutine_threadsafe(self._tell(), self._loop)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            if self.throttled > 0:
                self.throttled -= 1
                raise Refused(429, "TooManyRequests", "the server has received too many requests",
                              headers={"Retry-After": "1"})
            return await self._routed(request)
        except Refused as error:
            if error.code == 404 and not error.status["reason"]:
                return web.Response(status=404, text="404 page not found\n")
            return web.json_response(error.status, status=error.code, headers=error.headers)

    async def _routed(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts == ["version"]:
            return web.json_response({"major": "1", "minor": self.minor, "gitVersion": f"v1.{self.minor}.0"})
        if parts in (["api"], ["apis"]) or (parts[0] == "api" and len(parts) == 2) or (
                parts[0] == "apis" and len(parts) in (2, 3)):
            return web.json_response(self._discovery(parts))
        api, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if parts[0] not in ("api", "apis") or not rest:
            raise Refused(404, "", "")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = (*rest, "", "")[:3]
        self.objects.find(api, resource)
        self._allowed(request, resource, name, namespace, sub)
        if sub == "log":
            return await self._log(request, namespace, name)
        if sub == "exec":
            return await self._exec(request, name)
        if request.method == "GET" and not name:
            if request.query.get("watch") in ("1", "true"):
                return await self._watch(request, api, resource, namespace)
            return web.json_response(self._list(request, api, resource, namespace))
        body = await _body(request)
        return web.json_response(*self._one(request, api, resource, namespace, name, body))

    def _one(self, request: web.Request, api: str, resource: str, namespace: str, name: str, body: Any) -> tuple[Any]:
        objects = self.objects
        if request.method == "POST":
            if resource == "selfsubjectaccessreviews":
                asked = body["spec"]["resourceAttributes"]
                whole = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
                return (body | {"status": {"allowed": not self._refuses(asked["verb"], whole)}},)
            if request.query.get("dryRun"):
                return (body,)
            return (objects.create(api, resource, namespace, body),)
        if request.method == "PUT":
            return (objects.replace(api, resource, namespace, name, body),)
        if request.method == "DELETE":
            return (objects.delete(api, resource, namespace, name),)
        if request.method == "PATCH":
            how = request.headers["Content-Type"].partition(";")[0]
            if how == "application/apply-patch+yaml":
                return (objects.apply(api, resource, namespace, name, body, request.query["fieldManager"],
                                      request.query.get("force") == "true", bool(request.query.get("dryRun")),
                                      request.query.get("fieldValidation") == "Strict"),)
            return (objects.patch(api, resource, namespace, name, body,
                                  "strategic" if "strategic" in how else "merge"),)
        return (objects.get(api, resource, namespace, name),)

    def _list(self, request: web.Request, api: str, resource: str, namespace: str) -> Doc:
        begin, version = 0, self.objects.version
        if token := request.query.get("continue"):
            begin, version = json.loads(base64.b64decode(token))
            self.objects.check_page(version)
        docs = [d for d in self.objects.list(api, resource, namespace) if _chosen(d, request)]
        limit = int(request.query.get("limit", 0)) or len(docs) or 1
        meta: Doc = {"resourceVersion": str(version)}
        if begin + limit < len(docs):
            meta["continue"] = base64.b64encode(json.dumps([begin + limit, version]).encode()).decode()
        kind = self.objects.find(api, resource).kind
        return {"kind": f"{kind}List", "apiVersion": api, "metadata": meta, "items": docs[begin:begin + limit]}

    async def _watch(self, request: web.Request, api: str, resource: str, namespace: str) -> web.StreamResponse:
        version, cut = int(request.query.get("resourceVersion") or 0), self._cut
        self.objects.since(version, (api, resource))  # may refuse the whole request
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        until = self._loop.time() + float(request.query.get("timeoutSeconds", 3600))
        self.watches += 1
        try:
            while self._cut == cut and self._loop.time() < until:
                try:
                    news = self.objects.since(version, (api, resource))
                except Refused as error:  # in mid-watch: as an event
                    await response.write(_line("ERROR", error.status))
                    break
                for at, what, doc in news:
                    version = at
                    if namespace in ("", doc["metadata"].get("namespace", "")) and _chosen(doc, request):
                        await response.write(_line(what, doc))
                if not news:
                    if request.query.get("allowWatchBookmarks") and version < self.objects.version:
                        version = self.objects.version
                        await response.write(_line("BOOKMARK", {"metadata": {"resourceVersion": str(version)}}))
                    async with self._news:
                        try:
                            await asyncio.wait_for(self._news.wait(), min(0.5, until - self._loop.time()))
                        except TimeoutError:
                            pass
        except ConnectionError:
            pass
        finally:
            self.watches -= 1
        return response

    async def _log(self, request: web.Request, namespace: str, pod: str) -> web.StreamResponse:
        doc = self.objects.get("v1", "pods", namespace, pod)
        key = (pod, request.query.get("container") or doc["spec"]["containers"][0]["name"])
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        sent = 0
        while True:
            phase = self.objects.get("v1", "pods", namespace, pod).get("status", {}).get("phase")
            for line in self.logs.get(key, [])[sent:]:
                await response.write(line.encode() + b"\n")
                sent += 1
            if not request.query.get("follow") or phase in ("Succeeded", "Failed"):
                return response
            await asyncio.sleep(0.02)

    async def _exec(self, request: web.Request, pod: str) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        out, err, code = self.exec(pod, request.query.get("container", ""), request.query.getall("command"))
        for channel, data in ((1, out), (2, err)):
            for at in range(0, len(data), 32_768):
                await socket.send_bytes(bytes([channel]) + data[at:at + 32_768])
        status: Doc = {"status": "Success", "metadata": {}}
        if code:
            status = {"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with "
                      f"non-zero exit code: {code}", "metadata": {},
                      "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
        async for message in socket:
            if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
                break
        return socket

    def _discovery(self, parts: list[str]) -> Doc:
        served = self.objects.served.values()
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        by_group: dict[str, list[str]] = {}
        for one in served:
            if one.group and one.version not in by_group.setdefault(one.group, []):
                by_group[one.group].append(one.version)
        groups = [{"name": g, "versions": [{"groupVersion": f"{g}/{v}", "version": v} for v in versions],
                   "preferredVersion": {"groupVersion": f"{g}/{versions[0]}", "version": versions[0]}}
                  for g, versions in by_group.items()]
        if parts == ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if parts[0] == "apis" and len(parts) == 2:
            if not (found := [g for g in groups if g["name"] == parts[1]]):
                raise Refused(404, "", "")
            return {"kind": "APIGroup", "apiVersion": "v1"} | found[0]
        api = "v1" if parts[0] == "api" else "/".join(parts[1:])
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        resources = [{"name": s.plural, "singularName": s.kind.lower(), "namespaced": s.namespaced, "kind": s.kind,
                      "verbs": verbs} for s in served if s.api == api]
        if not resources:
            raise Refused(404, "", "")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources}

    def _allowed(self, request: web.Request, resource: str, name: str, namespace: str, sub: str) -> None:
        verb = _WORDS[request.method]
        if verb == "get" and not name:
            verb = "watch" if request.query.get("watch") else "list"
        whole = resource + (f"/{sub}" if sub else "")
        if self._refuses(verb, whole):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            said = f'{resource}{f" {name!r}" if name else ""} is forbidden: User "tester" cannot {verb} resource ' \
                   f'"{whole}" in API group ""{where}'
            raise Refused(403, "Forbidden", said, {"name": name, "kind": resource})

    def _refuses(self, verb: str, resource: str) -> bool:
        return bool(self.denied & {(verb, resource), ("*", resource), (verb, "*"), ("*", "*")})


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if request.content_type == fake_protobuf.CONTENT:
        return fake_protobuf.secret(data) if request.method in ("POST", "PUT") else {}
    return yaml.load(data, _LOADER) if data and "yaml" in request.content_type else json.loads(data) if data else {}


@functools.cache
def _identity() -> tuple[bytes, bytes]:
    """Certificate and key, for this process: Helm sends no token without TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake")])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256()))
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(_identity()))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _line(what: str, doc: Doc) -> bytes:
    return json.dumps({"type": what, "object": doc}).encode() + b"\n"


def _chosen(doc: Doc, request: web.Request) -> bool:
    labels = doc["metadata"].get("labels") or {}
    for term in filter(None, request.query.get("labelSelector", "").split(",")):
        key, unequal, value = term.partition("!=")
        if unequal:
            if labels.get(key) == value:
                return False
            continue
        key, equal, value = term.replace("==", "=").partition("=")
        if key not in labels or (equal and labels[key] != value):
            return False
    for term in filter(None, request.query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        at: Any = doc
        for key in path.split("."):
            at = at.get(key) if isinstance(at, dict) else None
        if (at or "") != value:
            return False
    return True
