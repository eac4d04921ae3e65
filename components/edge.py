"""The edge: HAProxy in front of the engine, with its three locks. New keys and addresses restart nothing."""

import base64
import json
import shlex
from collections.abc import Mapping
from typing import TypedDict

import pulumi
import pulumi_docker as docker

from catalog import haproxy
from catalog.images import HAPROXY
from checks.gate import RESTARTS_UNTIL_FAILURE
from components.certificates import Certificates
from components.confined import RUN_OPTIONS, SECURITY_OPTIONS
from components.image import ContainerImage
from components.inference import Inference
from components.keys import Keys
from components.machine import Machine
from settings import HTTPS_PORT, Client, Images

TYPE = "seatable-vllm:index:Edge"
ROLE = haproxy.CONTAINER_ROLE

STOP_GRACE_SECONDS = 30
"""Patience for running streams when the container is stopped."""

ANSWER_SECONDS = 30
"""Patience for an edge that starts or reloads, which takes it a tenth of a second."""

CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID")
"""The master reads 0600 files of whoever deployed, hands the work to the user haproxy, and signals it."""


class EdgeArgs(TypedDict):
    """Who may pass, and to what."""

    machine: Machine
    """The machine it runs on."""
    inference: Inference
    """What it protects."""
    clients: Mapping[str, Client]
    """Clients by name, with their networks."""
    keys: Keys
    """Each client's keys."""
    certificates: Certificates | None
    """What it shows to clients on all addresses of the machine; None: plain HTTP on the loopback address."""
    images: Images
    """References that take the place of the pinned images."""
    port: int
    """TCP port it listens on."""
    loopback_port: int | None
    """TCP port on the machine's loopback address where no key is asked for, or None."""
    answer_seconds: int
    """Seconds that the engine may be silent before the edge answers in its place."""


class Edge(pulumi.ComponentResource):
    """A running edge with the configuration in force."""

    container: docker.Container
    """The edge's container."""
    container_name: str
    """Its name on the machine."""
    base_url: str
    """What clients are told; ends in /v1."""
    active: pulumi.Resource
    """Done when the edge answers with the present configuration."""
    generation: pulumi.Output[str]
    """Name of the present configuration."""

    def __init__(self, name: str, args: EdgeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self._args = args
        machine = args["machine"]
        self.container_name = machine.container_name(ROLE)
        certificates = args["certificates"]
        self.base_url = base_url(certificates.host if certificates else None, machine.address, args["port"])
        image = ContainerImage(
            f"{name}-image",
            {
                "machine": machine,
                "source": HAPROXY,
                "override": args["images"].haproxy,
                "pulled": args["images"].pulled.haproxy,
            },
            pulumi.ResourceOptions(parent=self),
        )
        files = self._files()
        # A digest over 64 random characters gives none of them away, and previews may show it.
        self.generation = pulumi.Output.unsecret(files.apply(lambda known: known.generation))
        folder = f"{machine.data_dir}/edge"
        release = machine.run(
            f"{name}-release",
            {
                "program": pulumi.Output.all(files=files, image=image.reference).apply(
                    lambda known: release_program(
                        folder, known["files"], known["image"], certificates.folder if certificates else None
                    )
                )
            },
            parent=self,
            depends_on=[image.present, *([certificates.present] if certificates else [])],
        )
        self.container = self._container(name, image, folder, [image.present, release.resource])
        here = f"https://127.0.0.1:{args['port']}/v1" if certificates else self.base_url
        reload = machine.run(
            f"{name}-reload",
            {
                "program": self.generation.apply(
                    lambda generation: reload_program(self.container_name, here, generation)
                ),
                "triggers": [self.container.id],
            },
            parent=self,
            depends_on=[self.container, release.resource],
        )
        self.active = reload.resource
        self.register_outputs({"base_url": self.base_url, "generation": self.generation})

    def _files(self) -> pulumi.Output[haproxy.EdgeFiles]:
        args, port = self._args, self._args["port"]
        clients = {
            name: haproxy.EdgeClient(client.cidrs, client.routes, client.origins)
            for name, client in args["clients"].items()
        }
        keys = dict(args["keys"].clients)
        if args["keys"].prober:
            clients[haproxy.PROBER] = haproxy.EdgeClient(haproxy.FROM_THE_MACHINE_ITSELF)
            keys[haproxy.PROBER] = [args["keys"].prober]
        plain = haproxy.plain_bind(args["machine"].address, port)
        return pulumi.Output.all(client_keys=keys, engine_key=args["inference"].key).apply(
            lambda known: haproxy.edge_files(
                clients=clients,
                client_keys=known["client_keys"],
                engine_key=known["engine_key"],
                bind=haproxy.tls_binds(port) if args["certificates"] else plain,
                engine=args["inference"].address,
                loopback_port=args["loopback_port"],
                answer_seconds=args["answer_seconds"],
            )
        )

    def _container(
        self, name: str, image: ContainerImage, folder: str, depends_on: list[pulumi.Resource]
    ) -> docker.Container:
        machine, certificates = self._args["machine"], self._args["certificates"]
        mounts = {folder: haproxy.DIRECTORY}
        labels = {"port": str(self._args["port"])}
        if certificates:
            mounts[certificates.folder] = haproxy.CERTIFICATES
            labels["certificates"] = certificates.folder
        return docker.Container(
            f"{name}-haproxy",
            name=self.container_name,
            image=image.reference,
            command=["haproxy", "-W", "-db", "-f", f"{haproxy.DIRECTORY}/live/{haproxy.CONFIGURATION}"],
            # The machine's own network: behind Docker's the edge would see a gateway in place of each client.
            network_mode="host",
            user="0:0",
            capabilities=docker.ContainerCapabilitiesArgs(adds=list(CAPABILITIES), drops=["ALL"]),
            security_opts=list(SECURITY_OPTIONS),
            read_only=True,
            must_run=True,
            restart="unless-stopped",
            stop_signal="SIGUSR1",
            destroy_grace_seconds=STOP_GRACE_SECONDS,
            stop_timeout=STOP_GRACE_SECONDS,
            log_driver="json-file",
            log_opts={"max-size": "10m", "max-file": "3"},
            volumes=[
                docker.ContainerVolumeArgs(host_path=outside, container_path=inside, read_only=True)
                for outside, inside in mounts.items()
            ],
            labels=machine.labels(**labels),
            opts=machine.docker_options(parent=self, depends_on=depends_on),
        )


def base_url(host: str | None, address: str, port: int) -> str:
    """What clients are told. host: the name in the certificate, or None: plain HTTP at the machine's address."""
    if host is None:
        return f"http://{address}:{port}/v1"
    return f"https://{host}/v1" if port == HTTPS_PORT else f"https://{host}:{port}/v1"


def release_program(folder: str, files: haproxy.EdgeFiles, image: str, certificates: str | None = None) -> str:
    """A bash program that lays down one set of files, lets HAProxy try it, and points `live` at it.

    certificates: the folder with the edge's certificate, or None.

    The set in use stays untouched until the new one has passed, so a restart at any moment finds a whole one.
    """
    encoded = base64.b64encode(json.dumps(dict(files.files)).encode()).decode()
    mount = f"--volume {shlex.quote(f'{certificates}:{haproxy.CERTIFICATES}:ro')} " if certificates else ""
    return f"""\
set -euo pipefail
umask 077
folder={shlex.quote(folder)} generation={files.generation} image={shlex.quote(image)}
mkdir -p "$folder/releases"
part=$(mktemp -d "$folder/releases/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
base64 -d > "$part/files.json" <<'FILES'
{encoded}
FILES
python3 -c 'import json, pathlib, re, sys
part = pathlib.Path(sys.argv[1])
for name, text in json.loads((part / "files.json").read_text()).items():
    if not pathlib.Path("/proc/net/if_inet6").exists():  # it could listen on no address of that kind
        text = re.sub(r"(?m)^ *bind .* {haproxy.IPV6_ONLY} .*\\n", "", text)
    (part / name).write_text(text)' "$part"
rm "$part/files.json"
if ! told=$(docker run --rm --network none {RUN_OPTIONS} \\
  --user 0:0 --volume "$part:{haproxy.DIRECTORY}:ro" {mount}\\
  "$image" haproxy -c -f {haproxy.DIRECTORY}/{haproxy.CONFIGURATION} 2>&1); then
  grep -v '\\.map' <<< "$told" >&2 || true  # a line about a map could show a key
  echo "phase: edge" >&2
  echo "cause: HAProxy refuses its configuration" >&2
  echo "change: seatable-vllm:images.haproxy, if it is set; else report it with the lines above" >&2
  exit 1
fi
# A set arrives whole, by rename, and its name stands for its contents: one that is there is never touched.
[ -d "$folder/releases/$generation" ] || mv "$part" "$folder/releases/$generation"
ln -sfn "releases/$generation" "$folder/.live"
mv -Tf "$folder/.live" "$folder/live"
# What is removed loses its name first: half a set must never be taken for a whole one.
for old in "$folder"/releases/*; do
  [ "$old" = "$folder/releases/$generation" ] || mv -T "$old" "$(mktemp -u "$folder/releases/.part.XXXXXX")"
done
rm -rf "$folder"/releases/.part.*
"""


def reload_program(container: str, base_url: str, generation: str) -> str:
    """A bash program that makes the edge read its files again and waits until it answers with them.

    The signal is sent from inside the container: `docker kill` would make Docker take the edge for stopped by
    hand, and neither a crash nor a reboot would bring it back.
    """
    return f"""\
set -euo pipefail
container={shlex.quote(container)} url={shlex.quote(base_url)} generation={shlex.quote(generation)}
python3 - "$container" "$url/models" "$generation" <<'RELOAD'
import signal, ssl, subprocess, sys, time, urllib.error, urllib.request
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a stack trace
container, url, generation = sys.argv[1:]
anyone = ssl._create_unverified_context()  # whose certificate it is, is for the last gate to say
def now():
    try:
        answer = urllib.request.urlopen(url, timeout=5, context=anyone)
    except urllib.error.HTTPError as error:
        answer = error
    except OSError:
        return None
    return answer.headers.get("{haproxy.GENERATION_HEADER}")
def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True)
def state():
    form = "{{{{.State.Status}}}} {{{{.RestartCount}}}}"
    told = docker("inspect", "--format", form, container).stdout.split()
    return (told[0], int(told[1])) if len(told) == 2 else ("gone", 0)
docker("start", container)  # one that was stopped by hand; a running one is left alone
asked, begin, end = False, state()[1], time.monotonic() + {ANSWER_SECONDS}
while time.monotonic() < end:
    seen = now()
    if seen == generation:
        print("the edge answers with configuration", generation)
        sys.exit(0)
    if seen and not asked:
        asked = True
        docker("exec", container, "sh", "-c", "kill -USR2 1")
    if not seen and state()[1] - begin >= {RESTARTS_UNTIL_FAILURE}:
        break  # it keeps ending, and another minute will not cure that
    time.sleep(0.1)
log = docker("logs", "--tail", "20", container)
log = log.stdout + log.stderr
if "already in use" in log:
    sys.stderr.write(log)
    sys.exit("phase: edge\\ncause: seatable-vllm: port in use: another program has a port of the edge\\n"
             "change: set seatable-vllm:ports.edge or ports.loopback to a free port, or end that program")
if state() != ("running", 0):
    sys.stderr.write(log)
sys.exit("phase: edge\\n"
         f"cause: the edge at {{url}} does not answer with configuration {{generation}} ({{seen}})\\n"
         f"change: see what its log says (docker logs {{container}}), then run up again")
RELOAD
"""
