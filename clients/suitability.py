"""What a client's product cannot do with the model that is served, and what to set in its place."""

from collections.abc import Iterable, Sequence

from catalog.models import KNOWN_MODELS, billions_of
from settings import Model, Settings

NEEDS_TOOLS = frozenset({"picoclaw", "archi"})
"""Who sends tools with every request, and gets nothing but 400 from a model that is served without a parser."""

SEATABLE_BILLIONS = 8
"""Parameters. SeaTable's prerequisites page: models with fewer gave no useful results in its own tests."""


def warnings(settings: Settings) -> Iterable[str]:
    """One line for the agents and one for the SeaTable clients where the model lacks what they need."""
    agents = _clients(settings, NEEDS_TOOLS)
    if agents and settings.model.parser is None:
        yield (
            f"{agents}: sends tools with every request, and {settings.model.name} is served without a tool "
            "parser: each is answered with 400. Set seatable-vllm:model.tool_parser"
        )
    seatable = _clients(settings, {"seatable"})
    if seatable and (lacking := seatable_lacks(settings.model)):
        yield f"{seatable}: {settings.model.name} {'; '.join(lacking)}. {_remedy(settings.model)}"


def seatable_lacks(model: Model) -> Sequence[str]:
    """What does not work in SeaTable with this model; what is not known of the model is not guessed."""
    size = billions_of(model.name)
    found = []
    if size is not None and size < SEATABLE_BILLIONS:
        found.append(
            f"has {size:.2g} billion parameters, and SeaTable found no useful results below "
            f"{SEATABLE_BILLIONS} billion"
        )
    if model.vision == "no":
        found.append("reads no pictures, so OCR and whatever else sends one is answered with 400")
    if model.parser is None:
        found.append("is served without a tool parser, so a request with tools is answered with 400")
    return found


def _remedy(model: Model) -> str:
    size = billions_of(model.name)
    if model.vision == "no" or (size is not None and size < SEATABLE_BILLIONS):
        pick = to_pick()
        return (
            f"For all of SeaTable's AI functions set seatable-vllm:model.name to one of {SEATABLE_BILLIONS} "
            f"billion or more that reads pictures, such as {pick}; `scripts/plan {pick}` finds a machine for it"
        )
    return "Set seatable-vllm:model.tool_parser if SeaTable is to use tools"


def to_pick() -> str:
    """The smallest model of the catalogue that lacks nothing."""
    fitting = [name for name in KNOWN_MODELS if not seatable_lacks(Model(name=name))]
    return min(fitting, key=lambda name: KNOWN_MODELS[name].weights_gib)


def _clients(settings: Settings, kinds: frozenset[str] | set[str]) -> str:
    """The names of the clients of these kinds, with commas between."""
    return ", ".join(name for name, client in settings.clients.items() if client.kind in kinds)
