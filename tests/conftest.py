"""Shared by the tests: the whole program under a recorder that stands in Pulumi's place, and a fake endpoint.

What it does NOT stand for: the engine. The monitor decides nothing (no diff, no replacement, no inherited
options), its URNs are not engine URNs, and no resource is made. Whatever is asserted with it is what the
program asks for, not what a provider does with it.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import http.server
import json
import logging
import os
import re
import runpy
import shlex
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pulumi
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from pulumi.runtime import get_root_resource, mocks, set_all_config, set_mocks
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.stack import Stack

from catalog.aws.preflight import Offer
from rehearsal.stack_file import stack_config

# An Output that is formatted into a text yields a help text in place of the value; here it raises.
os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "true"

PROJECT = Path(__file__).resolve().parent.parent

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

PASSWORD = "random:index/randomPassword:RandomPassword"
UUID = "random:index/randomUuid:RandomUuid"
OWNER = "3f0c1a52-0000-4000-8000-000000000000"
"""What a state has to tell its stack from others of that name."""

COMMAND = "command:local:Command"
PROVIDER = "pulumi:providers:docker"
NETWORK = "docker:index/network:Network"
CONTAINER = "docker:index/container:Container"

MACHINE_FACTS = {"identity": "ABCD:EFGH:IJKL", "device": "cpu"}
"""What the machine-ready program prints in its last line, unless a test says otherwise."""


CERTIFICATE_FACTS = {"host": "llm.example.com", "not_after": "2027-01-01T00:00:00Z", "ca": "the CA in PEM"}
"""What the certificate program prints in its last line."""

SEEN_MACHINE = {"identity": "0123456789abcdef"}
"""What the look at a machine behind SSH prints."""

AMI = "ami-0123456789abcdef0"

MADE_BY_AWS: Mapping[str, Mapping[str, Any]] = {
    "aws:ec2/vpc:Vpc": {"ipv6CidrBlock": "2001:db8:1234:ab00::/56"},
    "aws:ec2/subnet:Subnet": {},
    "aws:ec2/internetGateway:InternetGateway": {},
    "aws:ec2/routeTable:RouteTable": {},
    "aws:ec2/route:Route": {},
    "aws:ec2/routeTableAssociation:RouteTableAssociation": {},
    "aws:ec2/securityGroup:SecurityGroup": {},
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": {},
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": {},
    "aws:iam/role:Role": {"name": "the-role", "arn": "arn:aws:iam::123456789012:role/the-role"},
    "aws:scheduler/schedule:Schedule": {},
    "aws:budgets/budget:Budget": {},
    "aws:iam/rolePolicy:RolePolicy": {},
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": {},
    "aws:iam/instanceProfile:InstanceProfile": {"name": "the-profile"},
    "aws:ec2/keyPair:KeyPair": {},
    "aws:ec2/instance:Instance": {
        "availabilityZone": "eu-central-1a",
        "ipv6Addresses": ["2001:db8:1234:ab00::10"],
        "arn": "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0",
    },
    "aws:ebs/volume:Volume": {},
    "aws:ec2/volumeAttachment:VolumeAttachment": {},
    "aws:ec2/eip:Eip": {"publicIp": "203.0.113.99"},
    "aws:ec2/eipAssociation:EipAssociation": {},
    "aws:route53/record:Record": {"fqdn": "the name"},
    "pulumi:providers:aws": {},
}
"""What AWS adds to the inputs of each type of resource that the program makes there."""

MADE_IDS = {
    "vm-instance-vm": "i-0123456789abcdef0",
    "vm-storage-data": "vol-0123456789abcdef0",
    "vm-firewall-group": "sg-0123456789abcdef0",
}
"""Ids that the program puts into names and programs of its own."""

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJwAAAA"
"""In the form of one; nobody has its private half."""

FOUND_AT_AWS: Mapping[str, Mapping[str, Any]] = {
    "aws:ec2/getSubnet:getSubnet": {
        "id": "subnet-0123456789abcdef0",
        "vpcId": "vpc-0fedcba9876543210",
        "availabilityZone": "eu-central-1a",
    },
    "aws:route53/getZone:getZone": {"zoneId": "Z0123456789ABC"},
}
"""What AWS answers to whoever looks something up."""


def fake_key(name: str) -> str:
    """A key of 64 letters and digits for the resource of this name; made here, so that no file holds one."""
    return hashlib.sha256(f"key of {name}".encode()).hexdigest()


def opened(value: Any) -> Any:
    """A value of the wire format as Python has it: secrets opened, whole numbers as int."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return opened(value["value"])
        return {key: opened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [opened(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def public(value: Any) -> Any:
    """What is left of a value of the wire format when everything marked secret is taken out."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return None
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item) for item in value]
    return value


@dataclass(frozen=True)
class Registered:
    """One resource as the program registered it. `wire`: its inputs with secrets and unknowns still marked."""

    urn: str
    type: str
    name: str
    wire: Mapping[str, Any]
    request: resource_pb2.RegisterResourceRequest

    @functools.cached_property
    def inputs(self) -> dict[str, Any]:
        """The inputs in the clear."""
        plain: dict[str, Any] = opened(dict(self.wire))
        return plain

    @functools.cached_property
    def public_text(self) -> str:
        """Everything of the inputs that the wire does not mark as secret, as JSON text."""
        return json.dumps(public(dict(self.wire)))

    def is_secret(self, name: str) -> bool:
        """Whether this input is marked as a secret as a whole."""
        value = self.wire.get(name)
        return isinstance(value, dict) and value.get(SIGNATURE) == SECRET

    def is_unknown(self, name: str) -> bool:
        """Whether this input is not known yet, secret or not."""
        value = self.wire.get(name)
        if isinstance(value, dict) and value.get(SIGNATURE) == SECRET:
            value = value["value"]
        return value == UNKNOWN


@dataclass(frozen=True)
class StackOutput:
    """One resolved output of the stack; `value` is None where it is not known. `waits_for`: names of resources."""

    value: Any
    known: bool
    secret: bool
    waits_for: frozenset[str]


@dataclass(frozen=True)
class Recorded:
    """One run of the whole program. `error`: what it raised, where the caller allowed that."""

    resources: tuple[Registered, ...]
    component_outputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, StackOutput]
    error: BaseException | None = None
    asked: tuple[tuple[str, str], ...] = ()
    """Function and provider of every invoke; the provider is empty where it is Pulumi's default one."""

    def one(self, name: str) -> Registered:
        """The one resource of this name."""
        (found,) = [resource for resource in self.resources if resource.name == name]
        return found

    def of_type(self, kind: str) -> list[Registered]:
        """All resources of this type token."""
        return [resource for resource in self.resources if resource.type == kind]

    def by_urn(self, urn: str) -> Registered:
        """The resource of this URN."""
        (found,) = [resource for resource in self.resources if resource.urn == urn]
        return found

    @property
    def names(self) -> list[tuple[str, str]]:
        """(type, name) of everything, sorted: the order of registration is not fixed."""
        return sorted((resource.type, resource.name) for resource in self.resources)

    def everything_before(self, resource: Registered) -> set[str]:
        """The names of all resources that must be done before this one begins, however far away."""
        urns, waiting = set[str](), [resource.urn]
        while waiting:
            request = self.by_urn(waiting.pop()).request
            direct = {*request.dependencies}
            for dependency in request.propertyDependencies.values():
                direct |= {*dependency.urns}
            if "::" in request.provider:
                direct.add(request.provider.rpartition("::")[0])
            waiting += sorted(direct - urns)
            urns |= direct
        return {self.by_urn(urn).name for urn in urns}

    @property
    def keys(self) -> dict[str, str]:
        """Every generated key by the name of its resource."""
        return {resource.name: fake_key(resource.name) for resource in self.of_type(PASSWORD)}


class RecordProgram(Protocol):
    """Runs `__main__.py` once and says what it asked for."""

    def __call__(
        self,
        stack: str = "local",
        config: Mapping[str, str] | None = None,
        *,
        secrets: Mapping[str, str] | None = None,
        preview: bool = False,
        may_fail: bool = False,
        facts: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Recorded:
        """config: full keys, text or JSON text; None: the stack's own file. secrets: the same, as secrets.

        facts: what the machine says of itself. environment: variables in place of none of Docker's.
        """


def offer(wanted: Mapping[str, Any]) -> Offer:
    """What an account that has everything says to a request."""
    return {
        "account": "123456789012",
        "region": wanted["region"],
        "zone": next(iter(wanted["zones"]), f"{wanted['region']}a"),
        "instance_type": wanted["instance_type"],
        "ami": wanted["ami"] or AMI,
        "ami_root_gib": 75,
        "login": "ubuntu",
        "vcpus": 4,
        "gpu": None,
        "hosted_zone_id": None,
        "own_records": [],
        "price_per_hour": 0.8,
        "price_date": "2026-07-20",
        "price_region": "us-east-1",
        "disks_and_address_per_month": 32.0,
    }


class _Provider(mocks.Mocks):
    """Answers like the providers do; in a preview it knows no more than the inputs."""

    def __init__(self, preview: bool, facts: Mapping[str, str]) -> None:
        self._preview = preview
        self._facts = facts

    def call(self, args: mocks.MockCallArgs) -> Any:
        if args.token in FOUND_AT_AWS:
            return dict(FOUND_AT_AWS[args.token])
        # Looks: the account, which machine it is, whether its weights were lost; all else must come of resources.
        assert args.token == "command:local:run", f"the program calls {args.token}"
        if "-m aws_account.preflight" in args.args["command"]:
            return {"stdout": json.dumps(offer(json.loads(args.args["stdin"]))), "stderr": ""}
        looks_for_weights = "/models/.lost/" in str(args.args["stdin"])
        return {"stdout": "0" if looks_for_weights else json.dumps(SEEN_MACHINE), "stderr": ""}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if not args.custom:
            assert args.typ.startswith("seatable-vllm:index:"), f"unknown component {args.typ}"
            return None, {}
        known = {key: value for key, value in args.inputs.items() if value is not None}
        made = self._made(args.typ, args.name, known)
        identity = MADE_IDS.get(args.name, f"id-of-{args.name}")
        return ("", known) if self._preview else (identity, {**known, **made})

    def _made(self, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if kind == UUID:
            return {"result": OWNER}
        if kind == PASSWORD:
            return {"result": fake_key(name)}
        if kind == COMMAND:
            return {"stdout": "" if self._preview else self._printed(name, opened(inputs["stdin"])), "stderr": ""}
        if kind in (CONTAINER, NETWORK, PROVIDER):
            return {}
        if kind in MADE_BY_AWS:
            return dict(MADE_BY_AWS[kind])
        raise AssertionError(f"the program asks for a type that nobody expects: {kind} {name}")

    def _printed(self, name: str, program: str) -> str:
        """What the program of this name prints on a machine where all is well."""
        if name == "machine-ready":
            return "\n".join(["a line before the facts", json.dumps(self._facts)])
        if name == "certificates-present":
            return "\n".join(["the certificate is good", json.dumps(CERTIFICATE_FACTS)])
        if name.endswith("-image-present"):
            (official,) = [line for line in program.splitlines() if line.startswith("official=")]
            reference = shlex.split(official)[0].removeprefix("official=")
            return f"pulling {reference}\n{reference}"
        return "done"


class RecordingMonitor(mocks.MockMonitor):
    """The monitor of Pulumi's tests, which also keeps every request: mocks see no parent and no options."""

    def __init__(self, provider: mocks.Mocks) -> None:
        super().__init__(provider)
        self.registered: list[Registered] = []
        self.component_outputs: dict[str, Mapping[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self._recording = threading.Lock()

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802 - Pulumi's name
        if request.type != "pulumi:pulumi:Stack":
            urn = self.make_urn(request.parent, request.type, request.name)
            wire = json_format.MessageToDict(request.object)
            with self._recording:
                self.registered.append(Registered(urn, request.type, request.name, wire, request))
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> Any:  # noqa: N802 - Pulumi's name
        with self._recording:
            self.asked.append((request.tok, request.provider))
        return super().Invoke(request)  # type: ignore[no-untyped-call]

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - Pulumi's name
        with self._recording:
            self.component_outputs[request.urn] = json_format.MessageToDict(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


def _run(
    stack: str, config: Mapping[str, str], secrets: Mapping[str, str], provider: _Provider, preview: bool
) -> Recorded:
    monitor = RecordingMonitor(provider)
    quiet = logging.getLogger("tests.recorder")
    quiet.disabled = True
    set_mocks(monitor.mocks, "seatable-vllm", stack, preview, quiet, monitor)
    set_all_config({**config, **secrets}, list(secrets))
    outputs: dict[str, StackOutput] = {}

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    async def program() -> None:
        runpy.run_path(str(PROJECT / "__main__.py"), run_name="__main__")
        root = get_root_resource()
        assert isinstance(root, Stack)
        for name, exported in root.outputs.items():
            output: pulumi.Output[Any] = pulumi.Output.from_input(exported)
            known = await output.is_known()
            value = await output.future() if known else None
            urns = [await resource.urn.future() for resource in await output.resources()]
            before = frozenset(str(urn).rpartition("::")[2] for urn in urns)
            outputs[name] = StackOutput(value, known, await output.is_secret(), before)

    error = None
    try:
        program()
    except BaseException as raised:  # noqa: BLE001 - handed to the test
        error = raised
    return Recorded(tuple(monitor.registered), monitor.component_outputs, outputs, error, tuple(monitor.asked))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture, so that those of a wider scope get no record out of the cache either."""
    _current.append(item)


_current: deque[pytest.Item] = deque(maxlen=1)
"""The test that runs."""


def _may_be_patched() -> bool:
    """Whether the program may not be in this test what it is in others."""
    return any("monkeypatch" in getattr(item, "fixturenames", ()) for item in _current)


@functools.cache
def _recorded(  # noqa: PLR0917 - the key of the cache
    stack: str,
    config: frozenset[tuple[str, str]],
    secrets: frozenset[tuple[str, str]],
    preview: bool,
    facts: frozenset[tuple[str, str]],
    environment: frozenset[tuple[str, str]],
    around: frozenset[tuple[str, str]],
) -> Recorded:
    """around: the variables of this process, such as PATH, where the program looks for others."""
    provider = _Provider(preview, dict(facts))
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith(("DOCKER_", "PULUMI_CONFIG")):
                patch.delenv(variable)
        patch.setenv("DOCKER_CONFIG", "/nowhere")
        for variable, value in environment:
            patch.setenv(variable, value)
        # An empty context: other tests leave configuration, monitor and root stack, which are context variables.
        return contextvars.Context().run(_run, stack, dict(config), dict(secrets), provider, preview)


@pytest.fixture(scope="session")
def record_program() -> RecordProgram:
    """The whole program, run in this process under the recorder.

    The same question with the same variables around is answered only once, but to a test that may patch anything.
    """

    def record(
        stack: str = "local",
        config: Mapping[str, str] | None = None,
        *,
        secrets: Mapping[str, str] | None = None,
        preview: bool = False,
        may_fail: bool = False,
        facts: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Recorded:
        answer = _recorded.__wrapped__ if _may_be_patched() else _recorded
        recorded = answer(
            stack,
            frozenset((stack_config(stack) if config is None else config).items()),
            frozenset((secrets or {}).items()),
            preview,
            frozenset({**MACHINE_FACTS, **(facts or {})}.items()),
            frozenset((environment or {}).items()),
            frozenset(item for item in os.environ.items() if item[0] != "PYTEST_CURRENT_TEST"),
        )
        if recorded.error is not None and not may_fail:
            raise recorded.error
        return recorded

    return record


@pytest.fixture(scope="session")
def home_with_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the key pair that a machine on AWS is made with; its private half is none."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ssh").mkdir(mode=0o700)
    private = folder / ".ssh" / "id_ed25519"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    private.chmod(0o600)
    (folder / ".ssh" / "id_ed25519.pub").write_text(f"{PUBLIC_KEY} somebody@some.computer\n")
    return folder


@dataclass
class Reply:
    """One answer of the fake endpoint. `chunks`: the body in the pieces that are sent one by one."""

    status: int
    body: str = ""
    chunks: list[str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One request as the fake endpoint got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    source: str

    def json(self) -> Any:
        """The body as JSON; None where there is none."""
        return json.loads(self.body) if self.body else None


Answerer = Callable[[Asked], Reply]


def error_reply(status: int, message: str) -> Reply:
    """An error in OpenAI's form."""
    return Reply(status, json.dumps({"error": {"message": message, "type": "x", "code": status}}))


@dataclass
class FakeEndpoint:
    """An endpoint on 127.0.0.1 that does everything right, until a test replaces one of its answers.

    `answers`: by "METHOD /path", or by "*" for all others.
    """

    base_url: str
    key: str
    model: str = "owner/small-model"
    max_model_len: int = 512
    answers: dict[str, Answerer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @staticmethod
    def always(
        status: int, body: Any = "", chunks: list[str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answerer:
        """An answer that is always the same; what is no text becomes JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        return lambda _: Reply(status, text, chunks, headers or {})

    @property
    def port(self) -> int:
        """Its TCP port."""
        return int(self.base_url.rpartition(":")[2].partition("/")[0])

    def answer(self, asked: Asked) -> Reply:
        """What it says to a request; a test's answer goes before its own."""
        route = f"{asked.method} {asked.path}"
        answerer = self.answers.get(route) or self.answers.get("*") or self.right_answer
        return answerer(asked)

    def right_answer(self, asked: Asked) -> Reply:
        """What a working endpoint says: doors, then key, then the model."""
        route = f"{asked.method} {asked.path}"
        if route not in ("GET /v1/models", "POST /v1/chat/completions", "POST /v1/completions"):
            return error_reply(404, "not found")
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return error_reply(401, "Unauthorized")
        if route == "GET /v1/models":
            return Reply(200, json.dumps({"data": [{"id": self.model, "max_model_len": self.max_model_len}]}))
        return self.completion(asked)

    def completion(self, asked: Asked) -> Reply:
        """A completion as vLLM gives it: one token per word asked for."""
        wanted = asked.json()
        if wanted["model"] != self.model:
            return error_reply(404, f"The model `{wanted['model']}` does not exist.")
        prompt = wanted.get("prompt") or wanted["messages"][0]["content"]
        length = len(re.findall(r"\S+", prompt))
        if length > self.max_model_len:
            return error_reply(400, f"This model's maximum context length is {self.max_model_len} tokens.")
        tokens = wanted.get("max_tokens", 16)
        if tokens > self.max_model_len:
            return error_reply(
                400, f"max_tokens={tokens} cannot be greater than max_model_len={self.max_model_len}."
            )
        if wanted.get("stream"):
            events = [f'data: {{"choices": [{{"delta": {{"content": "{n}"}}}}]}}\n\n' for n in range(tokens)]
            return Reply(200, chunks=[*events, "data: [DONE]\n\n"], headers={"content-type": "text/event-stream"})
        usage = {"prompt_tokens": length, "completion_tokens": tokens}
        choice = {"message": {"role": "assistant", "content": "OK"}, "finish_reason": "length"}
        if wanted.get("response_format") == {"type": "json_object"}:
            choice = {"message": {"role": "assistant", "content": '{"city": "Paris"}'}, "finish_reason": "stop"}
        if isinstance(forced := wanted.get("tool_choice"), dict):
            (tool,) = wanted["tools"]
            schema = tool["function"]["parameters"]["properties"]
            call = {"name": forced["function"]["name"],
                    "arguments": json.dumps({name: each["enum"][0] for name, each in schema.items()})}  # fmt: skip
            message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
            choice = {"message": message, "finish_reason": "stop"}
        return Reply(200, json.dumps({"choices": [choice], "usage": usage}))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: FakeEndpoint

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Asked(method, self.path, headers, body, self.client_address[0])
        self.endpoint.asked.append(asked)
        reply = self.endpoint.answer(asked)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunks is None:
            self.send_header("content-length", str(len(reply.body.encode())))
            self.end_headers()
            self.wfile.write(reply.body.encode())
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in [*reply.chunks, ""]:
            self.wfile.write(f"{len(chunk.encode()):x}\r\n{chunk}\r\n".encode())
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest's output is not the place."""


@pytest.fixture
def fake_endpoint() -> Iterator[FakeEndpoint]:
    """A small HTTP server on the loopback address that a test may spoil in one way."""
    handler = type("Handler", (_Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    endpoint = FakeEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", fake_key("a client"))
    handler.endpoint = endpoint  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield endpoint
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class FakeCommand:
    """Programs put first on PATH, in place of real ones; every call of them is written down.

    A line of `calls` is one call: the name and the arguments, separated by tabs.
    """

    folder: Path

    def add(self, name: str, body: str = "") -> None:
        """Puts a bash script of this name there. In `body`, "$@" are the arguments."""
        script = self.folder / "bin" / name
        script.parent.mkdir(exist_ok=True)
        record = f'(IFS=$\'\\t\'; printf "%s\\n" "{name}\t$*" >> {shlex.quote(str(self.folder / "calls"))})'
        script.write_text(f"#!/bin/bash\n{record}\n{body}\n")
        script.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Every call so far, oldest first: name and arguments."""
        log = self.folder / "calls"
        return [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the fakes are found first, and then this Python's folder."""
        path = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {**os.environ, "PATH": ":".join(path)}


@pytest.fixture
def fake_command(tmp_path: Path) -> FakeCommand:
    """Stand-ins for programs such as docker."""
    folder = tmp_path / "fake"
    (folder / "bin").mkdir(parents=True)
    return FakeCommand(folder)
