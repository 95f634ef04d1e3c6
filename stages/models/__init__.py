"""Models that agents ask: any server of the OpenAI-compatible protocol, and a simulated one.

`as_model("openai/gpt-5.5")` or `resolve("sim/default", latency="1s", seed=7)` make a frozen definition; nothing is
opened, read or imported for it. A run opens it, and only then the key is read and the SDK is loaded.
"""

from stages.models.openai import OpenAIModel
from stages.models.presets import as_model, resolve
from stages.models.simulated import SimulatedModel

__all__ = ["OpenAIModel", "SimulatedModel", "as_model", "resolve"]
