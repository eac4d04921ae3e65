"""Where a PicoClaw client turns when this endpoint does not answer it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from settings.words import RulesError, Tree, text_like

Provider = Literal[
    "alibaba-coding", "alibaba-coding-anthropic", "anthropic", "anthropic-messages", "avian", "azure", "cerebras",
    "deepseek", "gemini", "gpt4free", "groq", "litellm", "lmstudio", "longcat", "mimo", "minimax", "mistral",
    "modelscope", "moonshot", "novita", "nvidia", "ollama", "openai", "openrouter", "qwen-intl", "qwen-portal",
    "qwen-us", "shengsuanyun", "siliconflow", "venice", "vivgrid", "vllm", "volcengine", "zai", "zhipu",
]  # fmt: skip
"""PicoClaw's providers that are asked over HTTP with a key or without one (`pkg/providers` at cf67dd38).

Not those that need the login of another program: bedrock, github-copilot, antigravity, claude-cli, codex-cli.
"""

NEEDS_BASE_URL: frozenset[Provider] = frozenset({"vllm", "azure"})
"""azure has no address of its own, and vllm's is port 8000 of PicoClaw's computer, which nothing here serves."""

ModelId = Annotated[
    str,
    text_like(
        r"(?!.*//)[^\s/\x00-\x1f][^\s\x00-\x1f]*",
        "is not a model id; write it as the provider lists it, such as meta-llama/llama-3.3-70b-instruct",
    ),
]
BaseUrl = Annotated[
    str,
    text_like(
        r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?",
        "is not a base URL; write one such as https://llm2.example.com/v1, without key or query",
    ),
]


class Fallback(Tree):
    """A model that takes over. Its key is the client's own affair: it stands in no setting of this program."""

    provider: Provider
    """Whose model it is, as PicoClaw names providers."""
    model: ModelId
    """The provider's id of the model."""
    base_url: BaseUrl | None = None
    """Where it is asked; None: the provider's own address."""

    @property
    def name(self) -> str:
        """What its entry is called in PicoClaw's files."""
        return f"{self.provider}/{self.model}"

    @property
    def identity(self) -> str:
        """What PicoClaw tells fallbacks apart by: two of one identity share one address and one key."""
        return self.name.lower()

    @model_validator(mode="after")
    def _has_an_address(self) -> Fallback:
        if self.provider in NEEDS_BASE_URL and self.base_url is None:
            raise RulesError(
                f"base_url: missing; provider {self.provider} needs the address of the endpoint, such as "
                "https://llm2.example.com/v1"
            )
        return self


def _with_names(value: object) -> object:
    """Shows how the form of older PicoClaw releases, PROVIDER/MODEL, is written here."""
    if isinstance(value, str):
        provider, _, model = value.partition("/")
        if not model:
            provider, model = "PROVIDER", value
        raise ValueError(f"is text; write {{provider: {provider}, model: {model}}}")
    return value


GivenFallback = Annotated[Fallback, BeforeValidator(_with_names)]
