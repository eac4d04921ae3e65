"""The proof that the tool parser knows the model's tokenizer, before an old engine is stopped for it."""

import shlex
from typing import TypedDict

import pulumi

from catalog import vllm
from components.confined import RUN_OPTIONS
from components.image import ContainerImage
from components.machine import Machine
from components.weights import Weights
from settings import Model

TYPE = "seatable-vllm:index:ParserProof"


OTHER_TOKENIZER = frozenset({"tokenizer", "tokenizer-revision", "trust-remote-code", "skip-tokenizer-init"})
"""Options with which the tokenizer is not the plain one in the model's folder; then nothing is asked."""


def can_be_proved(model: Model) -> bool:
    """Whether a parser was chosen by hand, and the tokenizer that it has to suit is known.

    The catalogue's own choices have been tried; asking vLLM again would make every start some ten seconds longer.
    """
    return model.tool_parser not in (None, "none") and not OTHER_TOKENIZER & set(model.extra_args)


class ParserProofArgs(TypedDict):
    """Which parser, for which model."""

    machine: Machine
    """The machine that has the model."""
    image: ContainerImage
    """The engine's image; its vLLM is asked."""
    weights: Weights
    """The model's folder, with the tokenizer in it."""
    model: Model
    """The model and its tool parser."""


class ParserProof(pulumi.ComponentResource):
    """A tool parser that the engine will take."""

    proved: pulumi.Resource
    """Done when that is so, or vLLM cannot say it before a load."""

    def __init__(self, name: str, args: ParserProofArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        machine, model = args["machine"], args["model"]
        program = args["image"].reference.apply(
            lambda image: parser_program(image, f"{machine.data_dir}/models", model)
        )
        ran = machine.run(
            f"{name}-fits",
            {"program": program, "triggers": [model.revision or ""]},
            parent=self,
            depends_on=[args["image"].present, args["weights"].present],
        )
        self.proved = ran.resource
        self.register_outputs({})


# vLLM raises the same error itself, but minutes later: after the load and the compilation.
_ASK = """\
import sys
try:
    from vllm.parser.parser_manager import ParserManager
    from vllm.tokenizers import get_tokenizer
    folder, parser, mode = sys.argv[1:]
    tokenizer = get_tokenizer(folder, tokenizer_mode=mode)
    ParserManager.get_parser(
        tool_parser_name=parser, reasoning_parser_name=None, enable_auto_tools=True, model_name=folder,
        tokenizer=tokenizer,
    )
except Exception as error:
    told = " ".join(str(error).split())
    if isinstance(error, TypeError) and "cannot be used with the tokenizer of" in told:
        sys.exit(told)
    # Another vLLM, or a tokenizer that wants options of its own: the engine will say it.
    print(f"not to be told before the load: {type(error).__name__}: {told[:200]}")
else:
    print("the tool parser knows this tokenizer")
"""


def parser_program(image: str, models: str, model: Model) -> str:
    """A bash program that asks the image's vLLM whether a tool parser suits the tokenizer in models/MODEL.

    It takes seconds and no GPU. Parsers without tokens of their own, such as hermes, suit any tokenizer.
    """
    variables = " ".join(
        f"{name}={shlex.quote(value)}"
        for name, value in (
            ("image", image),
            ("models", models),
            ("folder", vllm.model_folder(model.name)),
            ("parser", model.parser or ""),
            ("mode", str(model.extra_args.get("tokenizer-mode", "auto"))),
        )
    )
    return f"""\
set -euo pipefail
{variables}
if ! told=$(docker run --rm --interactive --network none {RUN_OPTIONS} \\
    --user "$(id -u):$(id -g)" \\
    --volume "$models:{vllm.MODELS_DIR}:ro" \\
    --env HOME=/tmp --env HF_HUB_OFFLINE=1 --env VLLM_NO_USAGE_STATS=1 --env VLLM_LOGGING_LEVEL=ERROR \\
    --entrypoint python3 "$image" - "$folder" "$parser" "$mode" 2>&1 <<'ASK'
{_ASK}ASK
); then
  last=${{told##*$'\\n'}}
  case $last in
    *"cannot be used with the tokenizer of"*)
      echo "phase: model and tool parser" >&2
      echo "cause: the tool parser does not fit the model: $last" >&2
      echo "change: set seatable-vllm:model.tool_parser to the model family's parser, or to none" >&2
      exit 1;;
  esac
  echo "not to be told before the load: $last"
  exit 0
fi
echo "${{told##*$'\\n'}}"
"""
