"""Docker's own texts: the daemon, images and containers."""

from __future__ import annotations

from catalog.failures.failure import Failure

DOCKER: tuple[Failure, ...] = (
    Failure(
        "docker-permission",
        r"permission denied while trying to connect to the [Dd]ocker"
        r"|Docker daemon at unix://\S+: .*[Pp]ermission ?denied",
        "this user may not use Docker",
        "add the user to the group docker (usermod -aG docker USER) and log in again, or run as root",
    ),
    Failure(
        "docker-not-running",
        r"Cannot connect to the Docker daemon|error during connect|failed to connect to any docker daemon"
        r"|failed to connect to the docker API|Is the docker daemon running|Docker does not answer",
        "Docker does not answer",
        "start Docker (systemctl start docker, or scripts/up as root), or be in the group docker",
    ),
    Failure(
        "disk-full",
        r"[Nn]o space left on device|seatable-vllm: disk nearly full",
        "the disk is full, or would be",
        "free space, or set seatable-vllm:machine.data_dir to a folder on a larger disk",
    ),
    Failure(
        "data-dir",
        r"error while creating mount source path|seatable-vllm:machine\.data_dir \S+ cannot be made",
        "the data directory cannot be made",
        "set seatable-vllm:machine.data_dir to a folder that this user may write",
    ),
    Failure(
        "port-in-use",
        r"seatable-vllm: port in use|[Aa]ddress already in use|port is already allocated"
        r"|[Cc]annot bind UNIX socket",
        "a port that the stack wants is taken by another program",
        "set seatable-vllm:ports.edge or seatable-vllm:ports.engine to a free port, or end that program",
    ),
    Failure(
        "address-not-here",
        r"cannot bind socket \(Cannot assign requested address\)",
        "the edge is to listen on an address that the machine does not have",
        "compare seatable-vllm:domain.host and seatable-vllm:machine.ssh with the machine's own addresses "
        "(there: ip address)",
    ),
    Failure(
        "container-name-taken",
        r"Conflict\. The container name",
        "a container of somebody else has the name that the stack's would have",
        "remove or rename it (docker rm, docker rename), or give the stack's file another name",
    ),
    Failure(
        "image-rate-limit",
        r"toomanyrequests: ",
        "the image's registry has had too many requests from here",
        "wait, log in on the machine (docker login), or set seatable-vllm:images.vllm and images.haproxy to "
        "a mirror",
        passing=True,
    ),
    Failure(
        "image-platform",
        r"no matching manifest for|exec format error",
        "the image is not made for this machine's processor",
        "set seatable-vllm:images.vllm or seatable-vllm:images.haproxy to one that is",
    ),
    Failure(
        "image-cut-off",
        r"^(?:.*: )?unexpected EOF$|filesystem layer verification failed|^unknown blob$"
        r"|expected HTTP 206 from byte range request",
        "the image broke off on its way from the registry",
        "run up again, it goes on where it was; if it stays so, set seatable-vllm:images.vllm to a mirror",
        passing=True,
    ),
    Failure(
        "image-denied",
        r"Error response from daemon: (?:denied|unauthorized)",
        "the registry does not give the image to this machine, or does not have it",
        "log in on the machine (docker login), or correct seatable-vllm:images.vllm or images.haproxy",
    ),
    Failure(
        "registry-unreachable",
        r'Error response from daemon: (?:Get|Head) "https?://\S+/v2/|received unexpected HTTP status: 5\d\d',
        "the image's registry cannot be reached",
        "check the machine's way out, or set seatable-vllm:images.vllm and images.haproxy to a mirror; for a "
        "stack on this computer, scripts/up makes the pinned images from packages",
        passing=True,
    ),
    Failure(
        "image-missing",
        r"seatable-vllm: image missing|[Nn]o such image|manifest unknown|manifest for \S+ not found"
        r"|pull access denied|Unable to find image|unable to find or pull image",
        "a container image is neither here nor to be pulled",
        "check seatable-vllm:images; where nothing can be pulled, scripts/up makes the pinned ones",
    ),
    Failure(
        "gpu-runtime",
        r"could not select device driver|nvidia-container-cli|unknown or invalid runtime name: nvidia"
        r"|Unknown runtime specified nvidia",
        "Docker cannot hand the GPU to a container",
        "install the NVIDIA Container Toolkit, or set seatable-vllm:machine.gpus to none",
    ),
    Failure(
        "container-unhealthy",
        r"container failed to be in healthy state",
        "a container runs and does not work",
        "scripts/doctor says what its log shows; the container is kept for that",
    ),
)
