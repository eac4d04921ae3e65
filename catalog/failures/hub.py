"""The Hugging Face hub, in the words of huggingface_hub 2.4."""

from __future__ import annotations

from catalog.failures.failure import Failure

HUB: tuple[Failure, ...] = (
    Failure(
        "hub-rate-limit",
        r"429 Too Many Requests for url|429 Client Error|seatable-vllm: hub rate limit",
        "the Hugging Face hub has had too many requests from this address",
        "wait, or set a token: scripts/secret hugging_face_token --stack STACK",
        passing=True,
    ),
    Failure(
        "hub-token",
        r"Invalid credentials in Authorization header|Invalid user token|seatable-vllm: hub token refused"
        r"|Client error '401 Unauthorized' for url",
        "the Hugging Face hub does not know the token: a typing error, or it was revoked",
        "make a new one, then: scripts/secret hugging_face_token --stack STACK",
    ),
    Failure(
        "revision-unknown",
        r"RevisionNotFoundError|Revision Not Found|Invalid rev id|seatable-vllm: revision unknown",
        "the model has no such revision on the hub",
        "set seatable-vllm:model.revision to a commit of the model's repository, or leave it out",
    ),
    Failure(
        "model-unknown",
        r"RepositoryNotFoundError|404 Client Error|Repository Not Found|seatable-vllm: model unknown",
        "the hub knows no model of this name",
        "set seatable-vllm:model.name to the exact id on the hub, OWNER/NAME, letters as written there",
    ),
    Failure(
        "model-gated",
        r"GatedRepoError|Access to model \S+ is restricted|401 Client Error|403 Client Error"
        r"|403 Forbidden: Please enable access",
        "the model is gated, or the token may not read it",
        "accept its licence on the hub, then: scripts/secret hugging_face_token --stack STACK",
    ),
    Failure(
        "model-unreachable",
        r"seatable-vllm: model not here and hub not reached|LocalEntryNotFoundError"
        r"|[Cc]annot find the (?:requested files|appropriate snapshot)|Server error '5\d\d .*' for url",
        "the model's weights are not on the machine and the Hugging Face hub cannot be reached",
        "check seatable-vllm:model.name (OWNER/NAME) and the way out to the hub, "
        "or put the model's folder under models/ in the data directory",
    ),
)
