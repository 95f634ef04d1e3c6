"""What curator reads from its environment, the same for each script that measures it."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path


def set_environment() -> None:
    """Switch off what would be kept or told, and count tokens by the vocabulary that LiteLLM brings along."""
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    vocabulary = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.update(
        CURATOR_DISABLE_CACHE="1",
        CURATOR_CACHE_DIR=tempfile.mkdtemp(),
        CURATOR_VIEWER="0",
        TELEMETRY_ENABLED="false",
        TIKTOKEN_CACHE_DIR=str(vocabulary),
        OPENAI_API_KEY="none",
    )
