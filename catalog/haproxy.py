"""The edge's configuration as a pure function: which address, which key, which door.

Written for HAProxy 2.6 (Debian bookworm) and the current long-term branch. The files it needs lie beside it and
are named relative to it, so that a whole set of files can be tried before it takes the place of the last one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = "/etc/seatable-vllm/edge"
"""Inside the container: `releases/<generation>/` and the link `live` to the one in use."""

CONTAINER_ROLE = "edge"
"""What its container is called, after the stack's name."""

CONFIGURATION = "haproxy.cfg"
CLIENT_KEYS = "client-keys.map"
ENGINE_KEY = "engine-key.map"
REFUSAL = "refusal.lua"

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
"""The only doors for everybody. vLLM serves 30 more, eleven of them without asking for a key."""

EXTRA_ROUTES: Mapping[str, str] = {"responses": "/v1/responses", "embeddings": "/v1/embeddings"}
"""Paths that are open for POST to the clients alone that name them."""

CONNECTIONS = 4096
"""Of all addresses together, at once."""

CLIENT_CONNECTIONS = 1024
"""Of one client address at once: four times the requests that vLLM computes at once by default."""

STRANGER_CONNECTIONS = 10
"""Of an address of no client, at once and in a minute: so many get to read why they are refused."""

STRANGERS_UP_TO = 512
"""Connections of all addresses together from which on no stranger is let in, so that clients have the rest."""

BODIES_REFUSED_AT_ONCE = 64
"""Requests with a body that wait for their refusal at once; further ones are closed without an answer."""


@dataclass(frozen=True)
class EdgeClient:
    """One client as the edge sees it.

    cidrs: its networks. routes: keys of EXTRA_ROUTES that are open to it. origins: web pages, as browsers name
    them, that may use the endpoint from these networks.
    """

    cidrs: Sequence[str]
    routes: Sequence[str] = ()
    origins: Sequence[str] = ()


@dataclass(frozen=True)
class EdgeFiles:
    """One complete set of files of the edge. `files` maps names to contents; two of them hold keys."""

    generation: str
    files: Mapping[str, str]


_ENGINE_AWAY = "the engine is starting or has just restarted; try again in a few seconds"

_ERRORS: Mapping[int, str] = {
    400: "the request is malformed, or the client closed its side of the connection before the answer; "
    "keep it open until then (nc: without -N)",
    405: "this method is not supported here",
    408: "the request did not arrive in time; check the network between the client and this endpoint",
    413: "a request of this kind cannot have a body",
    422: "this transfer encoding is not supported; send a content-length, or chunks",
    429: "too many requests; try again later",
    500: "the edge has an internal error; its log has more (docker logs)",
    501: "the edge does not support this request",
    504: "the engine was silent for longer than seatable-vllm:edge.answer_seconds; raise it, or ask for less",
}
"""What HAProxy may answer by itself, and what the client can do about it; 502 and 503 say _ENGINE_AWAY.

Bytes that are not HTTP (400, 413, 422, 431) are answered by its parser, which has a page of its own in 2.6 and 3.2
that no setting changes; no HTTP client sends such.
"""


def _body(status: int, message: str) -> str:
    """An error in OpenAI's form, without apostrophes; short, since some clients cut at 256 bytes."""
    return json.dumps({"error": {"message": message, "type": "edge", "code": status}})


def _answer(rule: str, status: int, message: str) -> str:
    """A HAProxy rule that answers with an error."""
    return f"{rule} status {status} content-type application/json string '{_body(status, message)}'"


def _refuse(status: int, message: str) -> str:
    """A rule by which a request is refused, unless one before it has refused it already.

    message: may hold sample expressions of HAProxy.
    """
    return f"http-request set-var-fmt(txn.refusal,ifnotexists) '{status} {_body(status, message)}'"


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
    answer_seconds: int = 600,
) -> EdgeFiles:
    """Everything HAProxy reads, with a name (12 hex digits) that changes when any of it does.

    clients: by name. client_keys: the valid keys of each client. bind: what stands in the bind lines of the edge.
    engine: address:port of vLLM. loopback_port: where requests without a key are taken, or None.
    answer_seconds: how long a side may be silent while an answer is made.
    """
    keys = "".join(f"{key} {name}\n" for name in clients for key in client_keys[name])
    secrets = {CLIENT_KEYS: keys, ENGINE_KEY: f"engine {engine_key}\n"}
    parts = [_GLOBAL, _defaults(answer_seconds), _frontend(clients, bind, "@generation@")]
    parts += [_loopback(clients, loopback_port, "@generation@")] if loopback_port else []
    template = "\n".join([*parts, _REFUSED, _backend(engine)])
    program = Path(__file__).with_name("edge_refusal.lua").read_text()
    digest = hashlib.sha256("\0".join([template, program, *secrets.values()]).encode()).hexdigest()[:12]
    configuration = template.replace("@generation@", digest)
    return EdgeFiles(digest, {CONFIGURATION: configuration, REFUSAL: program, **secrets})


_GLOBAL = f"""\
# Made by seatable-vllm; the next `up` writes it again.
global
    log stdout format raw local0 info
    user haproxy
    group haproxy
    maxconn {CONNECTIONS}
    # A thread per core would take 40 MB and more on a large machine, and nothing gets faster by it.
    nbthread 4
    # A removed key ends with the streams that still run under it, and with this at the latest.
    hard-stop-after 1h
    # The files of this set lie beside this one.
    default-path config
    # Newer versions want to hear which way Lua gets truth values; none is used here.
    .if version_atleast(3.1)
    tune.lua.bool-sample-conversion normal
    .endif
    lua-load {REFUSAL}
    # Where TLS is on: nothing older than 1.2, and with that only what keeps past traffic secret.
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20
"""


def _defaults(answer_seconds: int) -> str:
    errors = [_answer("http-error", status, message) for status, message in _ERRORS.items()]
    errors += [f"{_answer('http-error', status, _ENGINE_AWAY)} hdr retry-after 10" for status in (502, 503)]
    listed = "\n".join(f"    {error}" for error in errors)
    return f"""\
defaults
    mode http
    log global
    # The client's name and never a header: no key may reach a log. Of the path only what is printed as one word.
    log-format '%ci client=%[var(txn.client)] %HM %[var(txn.path),regsub("[^!-~]",?,g)] %ST %B bytes %Ta ms %tsc'
    option dontlognull
    # Each event of a stream goes out as it is made; the kernel would else hold it back for up to 200 ms.
    option http-no-delay
    # A reload hangs up on no idle connection: the client would be about to send on it.
    option idle-close-on-response
    # What a client has left ends at the engine too, which would else compute it to its end. A client that closes
    # only its sending side has left as well: through a tunnel or a relay the two cannot be told apart.
    option abortonclose
    # The answer to a long prompt may take minutes to begin; SeaTable itself gives up after 180 s.
    timeout connect 5s
    timeout client {answer_seconds}s
    timeout server {answer_seconds}s
    timeout queue 60s
    timeout http-request 60s
    timeout http-keep-alive 75s
    # While the engine loads or restarts, say so at once: clients retry on 503 and hang on silence.
{listed}
"""


def _frontend(clients: Mapping[str, EdgeClient], bind: Sequence[str], generation: str) -> str:
    lines = [
        "frontend clients",
        *[f"    bind {each}" for each in bind],
        *_client_addresses(clients),
        *_addresses("from_any", sorted({cidr for client in clients.values() for cidr in client.cidrs})),
        *_connections(),
        *_begin(generation),
        *_origins(clients),
        "",
        "    # 1. Where from: the addresses of the clients, and nobody else.",
        f"    {_refuse(403, NOT_ALLOWED)} unless from_any",
        "",
        *_doors(clients),
        "",
        *_keys(clients),
        *_pass_on(),
    ]
    return "\n".join(lines) + "\n"


NOT_ALLOWED = "this address is not allowed: %[src] is in the cidrs of no client (seatable-vllm:clients)"


def _connections() -> list[str]:
    """Before TLS: who may connect at all. The table is per process: a reload lets a stranger in a few times more.

    The machine's own addresses are not limited: all users of a tunnel come from one of them.
    """
    address = "src,ipmask(32,64)"
    return [
        "    # Connections, before TLS. Only those that are let in count, so that strangers can read why they are",
        "    # refused; an IPv6 network counts as one address.",
        "    stick-table type ipv6 size 64k expire 2m store conn_cur,conn_rate(1m)",
        "    acl from_here src 127.0.0.0/8 ::1",
        f"    acl many_open {address},table_conn_cur(clients) ge {CLIENT_CONNECTIONS}",
        f"    acl some_open {address},table_conn_cur(clients) ge {STRANGER_CONNECTIONS}",
        f"    acl some_lately {address},table_conn_rate(clients) ge {STRANGER_CONNECTIONS}",
        f"    acl crowded fe_conn gt {STRANGERS_UP_TO}",
        "    tcp-request connection accept if from_here",
        "    tcp-request connection reject if many_open",
        *[
            f"    tcp-request connection reject if !from_any {reason}"
            for reason in ("crowded", "some_open", "some_lately")
        ],
        f"    tcp-request connection track-sc0 {address}",
    ]


_OUR_KEYS = r"^Bearer\ [A-Za-z0-9]{64}$"
"""The form of the keys that are made here. One that is not valid any more is refused on every listener."""


def _loopback(clients: Mapping[str, EdgeClient], port: int, generation: str) -> str:
    """The listener for what cannot send a key; reached by programs on the machine and tunnels that end there."""
    lines = [
        "frontend loopback",
        f"    bind 127.0.0.1:{port}",
        *_client_addresses(clients),
        *_begin(generation),
        *_doors(clients),
        "",
        *_keys(
            clients,
            "    # Programs without a setting for a key send none, or a word in its place (Archi: not-needed).",
            f"    acl key_of_ours req.fhdr(authorization) -m reg -i {_OUR_KEYS}",
            f"    http-request set-var(txn.client) str({TUNNEL}) unless key_of_ours",
        ),
        *_pass_on(),
    ]
    return "\n".join(lines) + "\n"


def _begin(generation: str) -> list[str]:
    return [
        f"    http-after-response set-header {GENERATION_HEADER} {generation}",
        "    http-after-response set-header www-authenticate Bearer if { status 401 }",
        "    http-request set-var(txn.path) path",
    ]


def _origins(clients: Mapping[str, EdgeClient]) -> list[str]:
    """Web pages that may use the endpoint (CORS). A key is asked of them as of everybody."""
    allowed = {name: client for name, client in clients.items() if client.origins}
    if not allowed:
        return []
    header = "access-control-allow"
    paths = " ".join([*ROUTES, *_extra_paths(clients)])
    return [
        "    # Browsers ask first whether a page may send: an answer that lets no request through.",
        *[
            f"    http-request set-var(txn.origin) req.fhdr(origin)"
            f" if client_{name} {{ req.fhdr(origin) -m str {' '.join(client.origins)} }}"
            for name, client in allowed.items()
        ],
        "    acl asks_first req.hdr(access-control-request-method) -m found",
        f"    acl at_a_door path -m str {paths}",
        f"    http-request return status 204 hdr {header}-methods 'GET, POST'"
        f" hdr {header}-headers 'authorization, *' hdr access-control-max-age 600"
        " if METH_OPTIONS asks_first at_a_door { var(txn.origin) -m found }",
        f"    http-after-response set-header {header}-origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}",
        "    http-after-response add-header vary origin if { var(txn.origin) -m found }",
    ]


def _extra_paths(clients: Mapping[str, EdgeClient]) -> Mapping[str, list[str]]:
    """The paths beside ROUTES that are open, each with the names of the clients that may use it."""
    open_to = {
        path: [name for name, client in clients.items() if route in client.routes]
        for route, path in EXTRA_ROUTES.items()
    }
    return {path: names for path, names in open_to.items() if names}


_NOT_HERE = "not found: this endpoint has POST /v1/chat/completions, POST /v1/completions and GET /v1/models; "

_ANTHROPIC = (
    "not found: /v1/messages is of the Anthropic protocol, and this endpoint has that of OpenAI; use a client of "
    "POST /v1/chat/completions, or a gateway (LiteLLM)"
)


def _doors(clients: Mapping[str, EdgeClient]) -> list[str]:
    everywhere = {**ROUTES, **dict.fromkeys(_extra_paths(clients), ("POST",))}
    doors = [f"{{ path -m str {path} }} {{ method {' '.join(methods)} }}" for path, methods in everywhere.items()]
    return [
        "    # 2. Which door: these paths with these methods, letter for letter.",
        f"    {_refuse(404, _ANTHROPIC)} if {{ path -m str /v1/messages }}",
        f"    {_refuse(404, _NOT_HERE + 'the base URL ends in /v1')} unless {' or '.join(doors)}",
        "    # The engine sees the plain path: no query (it logs them), no upgrade, no claims of a client.",
        "    http-request set-uri %[path]",
        "    http-request del-header upgrade",
        "    http-request del-header forwarded",
        "    http-request del-header origin",
        "    http-request del-header x- -m beg",
    ]


_NO_KEY = "no valid key: send Authorization: Bearer KEY with the present key of this client (scripts/output STACK)"
_OTHER_ADDRESS = "this key is not allowed from this address: %[src] is not in the cidrs of its client"
_OTHER_ROUTE = "not found: this path is not open to this client; seatable-vllm:clients.NAME.routes opens it"


def _keys(clients: Mapping[str, EdgeClient], *without: str) -> list[str]:
    """without: lines by which a request may have a client without a key."""
    return [
        "    # 3. Which key: a client's key, from that client's addresses, becomes the engine's.",
        "    acl one_bearer req.fhdr_cnt(authorization) eq 1",
        "    acl key_form req.fhdr(authorization) -m reg -i ^Bearer\\ [A-Za-z0-9]+$",
        f"    http-request set-var(txn.client) req.fhdr(authorization),field(2,' '),map_str({CLIENT_KEYS})"
        " if one_bearer key_form !{ var(txn.refusal) -m found }",
        *[
            f"    {_refuse(403, _OTHER_ADDRESS)} if {{ var(txn.client) -m str {name} }} !client_{name}"
            for name in clients
        ],
        *without,
        *[
            f"    {_refuse(404, _OTHER_ROUTE)} if {{ path -m str {path} }} {{ var(txn.client) -m found }}"
            f" !{{ var(txn.client) -m str {' '.join(names)} }}"
            for path, names in _extra_paths(clients).items()
        ],
        f"    {_refuse(401, _NO_KEY)} unless {{ var(txn.client) -m found }}",
    ]


def _pass_on() -> list[str]:
    return [
        "    http-request del-header authorization",
        f'    http-request set-header authorization "Bearer %[str(engine),map_str({ENGINE_KEY})]"'
        " if { var(txn.client) -m found }",
        "    # To the engine goes what has passed all three; whatever else there is, is refused.",
        "    use_backend engine if { var(txn.client) -m found } !{ var(txn.refusal) -m found }",
        "    default_backend refused",
    ]


_REFUSED = f"""\
backend refused
    # The answer comes after the body, so that it arrives. A body that does not begin to arrive gets 408.
    no option abortonclose
    http-request reject if {{ be_conn(refused) gt {BODIES_REFUSED_AT_ONCE} }}
    http-request wait-for-body time 5s
    http-request use-service lua.refuse
"""


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
