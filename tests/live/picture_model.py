"""A model that reads pictures, small enough to be started with random weights in seconds, and pictures for it.

Its parts are those that need no torchvision, which the made image of vLLM lacks. Every text is a few unknown words
for its tokenizer.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORDS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
"""The whole vocabulary, by token."""

LAYERS = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}

SIDE = 28
"""Pixels of a picture's side as the model reads it: 2 by 2 patches, which is 4 tokens."""

PATCH = 14

FILES: Mapping[str, Any] = {
    "config.json": {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "bfloat16",
        "image_token_index": WORDS.index("<image>"),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            **LAYERS,
            "model_type": "llama",
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": 64,
            "max_position_embeddings": 4096,
        },
        "vision_config": {
            **LAYERS,
            "model_type": "clip_vision_model",
            "image_size": SIDE,
            "patch_size": PATCH,
            "projection_dim": 64,
        },
    },
    "processor_config.json": {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": PATCH,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
        "image_processor": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": SIDE},
            "crop_size": {"height": SIDE, "width": SIDE},
        },
    },
    "tokenizer.json": {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: token for token, word in enumerate(WORDS)},
                  "unk_token": "<unk>"},
        "added_tokens": [
            {"id": token, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for token, word in enumerate(WORDS)
        ],
    },
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaProcessor",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "extra_special_tokens": ["<image>"],
    },
    "chat_template.jinja": (
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}"
        "{% endfor %}{% endif %}{% endfor %}"
    ),
}  # fmt: skip


def write_model(folder: Path) -> None:
    """Makes the folder with everything but weights."""
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def png(width: int, height: int) -> bytes:
    """A black picture: 50 million pixels are 6 kB, and 150 MB once they are unpacked."""
    row = b"\0" * (1 + (width + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(row * height)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
