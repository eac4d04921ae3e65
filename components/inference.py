"""The engine: vLLM in its container, reached from the machine's loopback alone."""

import hashlib
from pathlib import Path
from typing import TypedDict

import pulumi
import pulumi_docker as docker

from catalog import vllm
from catalog.images import PYTHON, VLLM_CPU, VLLM_GPU, ImageSource
from checks import watchdog
from components import confined
from components.gpu_proof import GpuProof, GpuProofArgs
from components.image import ContainerImage
from components.machine import Machine
from components.parser_proof import ParserProof, can_be_proved
from components.weights import Weights
from components.weights_ahead import WeightsAhead
from settings import Images, Model

TYPE = "seatable-vllm:index:Inference"
ROLE = "engine"


class InferenceArgs(TypedDict):
    """What is served, where, and behind which key."""

    machine: Machine
    """The machine it runs on."""
    model: Model
    """The model and vLLM's options."""
    images: Images
    """References that take the place of the pinned images."""
    port: int
    """TCP port on the machine's loopback address."""
    key: pulumi.Input[str]
    """The engine's key; vLLM answers 401 to any other."""
    hugging_face_token: pulumi.Input[str] | None
    """For gated models; used for the download alone."""


class Inference(pulumi.ComponentResource):
    """A vLLM server that is started; `Readiness` waits for it."""

    container: docker.Container
    """The engine's container."""
    limited: pulumi.Resource
    """Done when the number of its processes is limited."""
    container_name: str
    """Its name on the machine."""
    address: str
    """host:port where the edge reaches it on the machine."""
    key: pulumi.Output[str]
    """The engine's key, for the edge."""

    def __init__(self, name: str, args: InferenceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self._args = args
        machine = args["machine"]
        self.container_name = machine.container_name(ROLE)
        self.address = f"127.0.0.1:{args['port']}"
        self.key = pulumi.Output.secret(args["key"])
        source = machine.device.apply(lambda device: VLLM_GPU if device == "gpu" else VLLM_CPU)
        ahead = self._ahead(f"{name}-weights-ahead", source)
        image = ContainerImage(
            f"{name}-image",
            {
                "machine": machine,
                "source": source,
                "override": args["images"].vllm,
                "pulled": args["images"].pulled.vllm,
                "after": [ahead.image_tried] if ahead else [],
            },
            pulumi.ResourceOptions(parent=self),
        )
        weights = Weights(
            f"{name}-weights",
            {
                "machine": machine,
                "image": image,
                "model": args["model"].name,
                "revision": args["model"].revision,
                "token": args["hugging_face_token"],
                "ahead": ahead,
            },
            pulumi.ResourceOptions(parent=self),
        )
        proof = []
        if can_be_proved(args["model"]):
            proof.append(
                ParserProof(
                    f"{name}-parser",
                    {"machine": machine, "image": image, "weights": weights, "model": args["model"]},
                    pulumi.ResourceOptions(parent=self),
                ).proved
            )
        if machine.proves_gpus:
            parts: GpuProofArgs = {"machine": machine, "image": image}
            proof.append(GpuProof(f"{name}-gpus", parts, pulumi.ResourceOptions(parent=self)).proved)
        self.container = self._container(name, image, [image.present, weights.present, *proof])
        self.limited = machine.run(
            f"{name}-processes",
            {"program": confined.process_limit_program(self.container_name), "triggers": [self.container.id]},
            parent=self,
            depends_on=[self.container],
        ).resource
        self.register_outputs({"container": self.container.name})

    def _ahead(self, name: str, source: pulumi.Output[ImageSource]) -> WeightsAhead | None:
        """What fetches weights while the engine's image is pulled, or None where nothing is to.

        On this computer scripts/up sees to the engine's image before the program begins: nothing to be ahead of.
        """
        args, machine = self._args, self._args["machine"]
        if machine.images_are_made or args["images"].python == "none":
            return None
        return WeightsAhead(
            name,
            {
                "machine": machine,
                "image": args["images"].python or PYTHON.official,
                "engine": source,
                "engine_override": args["images"].vllm,
                "engine_pulled": args["images"].pulled.vllm,
                "model": args["model"].name,
                "revision": args["model"].revision,
                "token": args["hugging_face_token"],
            },
            pulumi.ResourceOptions(parent=self),
        )

    def _container(self, name: str, image: ContainerImage, depends_on: list[pulumi.Resource]) -> docker.Container:
        machine = self._args["machine"]
        configuration = self._configuration()
        program = Path(watchdog.__file__).read_text()
        files = [
            machine.write_file(
                f"{name}-{what}",
                {"path": f"vllm/{Path(path).name}", "content": content, "mode": mode},
                parent=self,
                depends_on=[machine.ready],
            ).resource
            for what, path, content, mode in (
                ("config", vllm.CONFIG_FILE, configuration, "0600"),
                ("watchdog", vllm.WATCHDOG_FILE, program, "0644"),
            )
        ]
        # vLLM reads its options at start only, so their digest is a label: another one, another container. The
        # digest is no secret: 64 random characters are behind it.
        digest = pulumi.Output.unsecret(
            configuration.apply(lambda text: hashlib.sha256((text + program).encode()).hexdigest()[:12])
        )
        return docker.Container(
            f"{name}-vllm",
            name=self.container_name,
            image=image.reference,
            command=["--config", vllm.CONFIG_FILE],
            envs=machine.device.apply(vllm.environment),
            gpus=machine.gpus,
            device_requests=machine.device_requests,
            shm_size=vllm.SHM_MIB,
            init=True,
            must_run=True,
            restart="unless-stopped",
            capabilities=docker.ContainerCapabilitiesArgs(adds=list(confined.CAPABILITIES), drops=["ALL"]),
            security_opts=list(confined.SECURITY_OPTIONS),
            read_only=machine.device.apply(lambda device: device == "cpu"),
            tmpfs=machine.device.apply(vllm.memory_folders),
            destroy_grace_seconds=vllm.STOP_GRACE_SECONDS,
            stop_timeout=vllm.STOP_GRACE_SECONDS,
            log_driver="json-file",
            log_opts={"max-size": "10m", "max-file": "3"},
            ports=[docker.ContainerPortArgs(internal=vllm.PORT, external=self._args["port"], ip="127.0.0.1")],
            volumes=self._volumes(machine.data_dir),
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=self._network(name).name)],
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD", "python3", vllm.WATCHDOG_FILE],
                interval=f"{watchdog.INTERVAL_SECONDS}s",
                timeout=f"{watchdog.COMPLETION_SECONDS + watchdog.COUNTER_SECONDS + 10}s",
                start_period=f"{vllm.START_PERIOD_SECONDS // 60}m0s",  # as Docker says it again
                retries=watchdog.MISSES_UNTIL_KILL,
            ),
            labels=machine.labels(config=digest, port=str(self._args["port"])),
            opts=machine.docker_options(parent=self, depends_on=[*depends_on, *files]),
        )

    def _configuration(self) -> pulumi.Output[str]:
        model = self._args["model"]
        return pulumi.Output.all(key=self.key, device=self._args["machine"].device).apply(
            lambda known: vllm.configuration(
                name=model.name,
                context_tokens=model.context_tokens,
                tool_parser=model.parser,
                extra_args=model.extra_args,
                preset=model.preset,
                media_domains=model.media_domains,
                engine_key=known["key"],
                device=known["device"],
            )
        )

    def _network(self, name: str) -> docker.Network:
        """A network of the engine's own: its inner ports (ZMQ, torch) are open to whoever shares it."""
        machine = self._args["machine"]
        return docker.Network(
            f"{name}-network",
            name=f"seatable-vllm-{machine.stack}",
            labels=[docker.NetworkLabelArgs(label=item.label, value=item.value) for item in machine.labels()],
            opts=machine.docker_options(parent=self),
        )

    @staticmethod
    def _volumes(data_dir: str) -> list[docker.ContainerVolumeArgs]:
        """Folders of the machine, not Docker volumes: they outlive every container and are easy to look into."""
        folders = ((f"{data_dir}/models", vllm.MODELS_DIR, True), (f"{data_dir}/cache", vllm.CACHE_DIR, False),
                   (f"{data_dir}/vllm", vllm.CONFIG_DIR, True))  # fmt: skip
        return [
            docker.ContainerVolumeArgs(host_path=outside, container_path=inside, read_only=read_only)
            for outside, inside, read_only in folders
        ]
