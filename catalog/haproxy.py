"""The edge's configuration as a pure function: which address, which key, which door.

Written for HAProxy 2.6 (Debian bookworm) and the current long-term branch. The files it needs lie beside it and
are named relative to it, so that a whole set of files can be tried before it takes the place of the last one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DIRECTORY = "/etc/seatable-vllm/edge"
"""Inside the container: `releases/<generation>/` and the link `live` to the one in use."""

CONTAINER_ROLE = "edge"
"""What its container is called, after the stack's name."""

CONFIGURATION = "haproxy.cfg"
CLIENT_KEYS = "client-keys.map"
ENGINE_KEY = "engine-key.map"

CERTIFICATES = "/etc/seatable-vllm/certificates"
"""Inside the container, where TLS is on: a folder with CERTIFICATE in it and nothing else."""

CERTIFICATE = "edge.pem"
"""The certificate with its chain and its private key, in one file."""

IPV6_ONLY = "v6only"
"""The word in a bind line by which a machine without IPv6 knows the line that it has to leave out."""

PROBER = "_prober"
"""The gate's own client where there is a domain; no client of a stack can have an underscore in its name."""

TUNNEL = "_loopback"
"""Who requests without a key of ours are in the log: they came to the loopback listener, by a tunnel perhaps."""

FROM_THE_MACHINE_ITSELF = ("127.0.0.1/32", "::1/128")
"""Where PROBER's key is valid."""

GENERATION_HEADER = "x-edge-generation"
"""Response header that names the configuration in use; how a reload is known to have happened."""

ROUTES: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    "/v1/models": ("GET",),
}
"""The only doors. vLLM serves 30 more, eleven of them without asking for a key."""


@dataclass(frozen=True)
class EdgeClient:
    """One client as the edge sees it."""

    cidrs: Sequence[str]


@dataclass(frozen=True)
class EdgeFiles:
    """One complete set of files of the edge. `files` maps names to contents; two of them hold keys."""

    generation: str
    files: Mapping[str, str]


_ENGINE_AWAY = "the engine is starting or has just restarted; try again in a few seconds"


def _answer(rule: str, status: int, message: str) -> str:
    """A HAProxy rule that answers in OpenAI's error form; short, since some clients cut at 256 bytes."""
    body = json.dumps({"error": {"message": message, "type": "edge", "code": status}})
    return f"{rule} status {status} content-type application/json string '{body}'"


def _refuse(status: int, message: str) -> str:
    return _answer("http-request return", status, message)


def plain_bind(address: str, port: int) -> list[str]:
    """Listening on one address without TLS; for loopback addresses."""
    return [f"{address}:{port}"]


def tls_binds(port: int) -> list[str]:
    """Listening on all addresses with TLS 1.2 or newer. Two lines, so that each client is seen with the address
    that its network is written with."""
    tls = f"ssl crt {CERTIFICATES}/{CERTIFICATE} alpn h2,http/1.1"
    return [f"0.0.0.0:{port} {tls}", f"[::]:{port} {IPV6_ONLY} {tls}"]


def edge_files(
    *,
    clients: Mapping[str, EdgeClient],
    client_keys: Mapping[str, Sequence[str]],
    engine_key: str,
    bind: Sequence[str],
    engine: str,
    loopback_port: int | None = None,
) -> EdgeFiles:
    """Everything HAProxy reads, with a name (12 hex digits) that changes when any of it does.

    clients: by name. client_keys: the valid keys of each client. bind: what stands in the bind lines of the edge.
    engine: address:port of vLLM. loopback_port: where requests without a key are taken, or None.
    """
    keys = "".join(f"{key} {name}\n" for name in clients for key in client_keys[name])
    secrets = {CLIENT_KEYS: keys, ENGINE_KEY: f"engine {engine_key}\n"}
    parts = [_GLOBAL, _DEFAULTS, _frontend(clients, bind, "@generation@")]
    parts += [_loopback(clients, loopback_port, "@generation@")] if loopback_port else []
    template = "\n".join([*parts, _backend(engine)])
    digest = hashlib.sha256("\0".join([template, *secrets.values()]).encode()).hexdigest()[:12]
    return EdgeFiles(digest, {CONFIGURATION: template.replace("@generation@", digest), **secrets})


_GLOBAL = """\
# Made by seatable-vllm; the next `up` writes it again.
global
    log stdout format raw local0 info
    user haproxy
    group haproxy
    maxconn 4096
    # A thread per core would take 40 MB and more on a large machine, and nothing gets faster by it.
    nbthread 4
    # A removed key ends with the streams that still run under it, and with this at the latest.
    hard-stop-after 1h
    # The files of this set lie beside this one.
    default-path config
    # Where TLS is on: nothing older than 1.2, and with that only what keeps past traffic secret.
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20
"""

_DEFAULTS = f"""\
defaults
    mode http
    log global
    # The client's name and never a header: no key may reach a log.
    log-format "%ci client=%[var(txn.client)] %HM %[var(txn.path),json(utf8s)] %ST %B bytes %Ta ms %tsc"
    option dontlognull
    # Each event of a stream goes out as it is made; the kernel would else hold it back for up to 200 ms.
    option http-no-delay
    # A reload hangs up on no idle connection: the client would be about to send on it.
    option idle-close-on-response
    # The answer to a long prompt may take minutes to begin; SeaTable itself gives up after 180 s.
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout queue 60s
    timeout http-request 60s
    timeout http-keep-alive 75s
    # While the engine loads or restarts, say so at once: clients retry on 503 and hang on silence.
    {_answer("http-error", 502, _ENGINE_AWAY)} hdr retry-after 10
    {_answer("http-error", 503, _ENGINE_AWAY)} hdr retry-after 10
"""


def _frontend(clients: Mapping[str, EdgeClient], bind: Sequence[str], generation: str) -> str:
    lines = [
        "frontend clients",
        *[f"    bind {each}" for each in bind],
        *_begin(generation),
        "    # Over HTTP/2 a refusal that overtakes the question's body can reach its client as a cancelled",
        "    # stream without an answer. What fits HAProxy's buffer (16 KB) is waited for, and no more.",
        "    http-request wait-for-body time 1s if HTTP_2.0",
        "",
        "    # 1. Where from: the addresses of the clients, and nobody else.",
        *_client_addresses(clients),
        *_addresses("from_any", sorted({cidr for client in clients.values() for cidr in client.cidrs})),
        f"    {_refuse(403, 'this address is not allowed')} unless from_any",
        "",
        *_doors(),
        "",
        *_keys(clients),
        *_pass_on(),
    ]
    return "\n".join(lines) + "\n"


_OUR_KEYS = r"^Bearer\ [A-Za-z0-9]{64}$"
"""The form of the keys that are made here. One that is not valid any more is refused on every listener."""


def _loopback(clients: Mapping[str, EdgeClient], port: int, generation: str) -> str:
    """The listener for what cannot send a key; reached by programs on the machine and tunnels that end there."""
    lines = [
        "frontend loopback",
        f"    bind 127.0.0.1:{port}",
        *_begin(generation),
        *_client_addresses(clients),
        *_doors(),
        "",
        *_keys(clients),
        "    # Programs without a setting for a key send none, or a word in its place (Archi: not-needed).",
        f"    acl key_of_ours req.fhdr(authorization) -m reg -i {_OUR_KEYS}",
        f"    http-request set-var(txn.client) str({TUNNEL}) unless key_of_ours",
        *_pass_on(),
    ]
    return "\n".join(lines) + "\n"


def _begin(generation: str) -> list[str]:
    return [
        f"    http-after-response set-header {GENERATION_HEADER} {generation}",
        "    http-request set-var(txn.path) path",
    ]


def _doors() -> list[str]:
    doors = [f"{{ path -m str {path} }} {{ method {' '.join(methods)} }}" for path, methods in ROUTES.items()]
    return [
        "    # 2. Which door: these paths with these methods, letter for letter.",
        f"    {_refuse(404, 'not found')} unless {' or '.join(doors)}",
        "    # The engine sees the plain path: no query (it logs them), no upgrade, no claims of a client.",
        "    http-request set-uri %[path]",
        "    http-request del-header upgrade",
        "    http-request del-header forwarded",
        "    http-request del-header x- -m beg",
    ]


def _keys(clients: Mapping[str, EdgeClient]) -> list[str]:
    return [
        "    # 3. Which key: a client's key, from that client's addresses, becomes the engine's. Any other",
        "    #    is taken away, and vLLM itself answers 401.",
        "    acl one_bearer req.fhdr_cnt(authorization) eq 1",
        "    acl key_form req.fhdr(authorization) -m reg -i ^Bearer\\ [A-Za-z0-9]+$",
        f"    http-request set-var(txn.client) req.fhdr(authorization),field(2,' '),map_str({CLIENT_KEYS})"
        " if one_bearer key_form",
        *[
            f"    {_refuse(403, 'this key is not allowed from this address')}"
            f" if {{ var(txn.client) -m str {name} }} !client_{name}"
            for name in clients
        ],
    ]


def _pass_on() -> list[str]:
    return [
        "    http-request del-header authorization",
        f'    http-request set-header authorization "Bearer %[str(engine),map_str({ENGINE_KEY})]"'
        " if { var(txn.client) -m found }",
        "    default_backend engine",
    ]


def _client_addresses(clients: Mapping[str, EdgeClient]) -> list[str]:
    return [line for name, client in clients.items() for line in _addresses(f"client_{name}", client.cidrs)]


def _addresses(acl: str, cidrs: Sequence[str]) -> list[str]:
    """An address list as ACL lines, which HAProxy joins; one line holds 64 words at most."""
    return [f"    acl {acl} src {' '.join(cidrs[at : at + 32])}" for at in range(0, len(cidrs), 32)]


def _backend(engine: str) -> str:
    return f"""\
backend engine
    # Docker takes connections for an engine that does not listen yet, and then drops them, which some clients
    # see as a broken connection. So it is asked once a second, and while it is away the edge answers by itself.
    # Running streams are not touched by that; a busy engine has 10 s for its answer, twice.
    option httpchk GET /health
    http-check expect status 200
    timeout check 10s
    server vllm {engine} check inter 1s fall 2 rise 1
"""
