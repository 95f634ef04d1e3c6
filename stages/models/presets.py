"""Which providers are known, and what is true of each: a table, and the words `provider/model` read against it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar, cast

from pipeline.calls.estimate import TokenCharge
from pipeline.calls.parameters import PARAMETERS, Parameters
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.ports import OpenModel, Resource
from stages.models.body import SchemaMode, TokenField
from stages.models.endpoint import Endpoint
from stages.models.openai import OpenAIModel
from stages.models.simulated import SimulatedModel

M = TypeVar("M", OpenAIModel, SimulatedModel)

ModelLike: TypeAlias = str | Resource[OpenModel]


@dataclass(frozen=True, slots=True)
class Preset:
    """What is true of one provider. `hosts` are the endings of hosts that its key may be sent to."""

    base_url: str | None  #: None: every account has its own, so it must be given
    key: str | None
    hosts: tuple[str, ...] = ()
    key_optional: bool = False
    token_field: TokenField = "max_tokens"
    schema_mode: SchemaMode = "json_schema"
    prices: str | None = None
    token_charge: TokenCharge = "used"
    responses: bool = False  #: it has the Responses API too
    stream_usage: bool = True
    finish_optional: bool = False


PRESETS: Final[Mapping[str, Preset]] = {
    "openai": Preset(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        ("api.openai.com",),
        token_field="max_completion_tokens",
        prices="openai",
        token_charge="most",
        responses=True,
    ),
    "azure": Preset(
        None,
        "AZURE_OPENAI_API_KEY",
        (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
        token_field="max_completion_tokens",
        prices="azure",
        token_charge="most",
        responses=True,
    ),
    # For trying things out, as its own documentation says: fields it does not know are ignored, schemas among them.
    "anthropic": Preset(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        ("api.anthropic.com",),
        schema_mode="json_object",
        prices="anthropic",
        token_charge="uncached",
    ),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        ("generativelanguage.googleapis.com",),
        prices="google",
    ),
    "groq": Preset(
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        ("api.groq.com",),
        token_field="max_completion_tokens",
        prices="groq",
        responses=True,
    ),
    "openrouter": Preset(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", ("openrouter.ai",), prices="openrouter", responses=True
    ),
    "mistral": Preset(
        "https://api.mistral.ai/v1", "MISTRAL_API_KEY", ("api.mistral.ai",), prices="mistral", stream_usage=False
    ),
    "together": Preset("https://api.together.ai/v1", "TOGETHER_API_KEY", ("api.together.ai",), prices="together"),
    "fireworks": Preset(
        "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", ("api.fireworks.ai",), prices="fireworks"
    ),
    "deepseek": Preset(
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        ("api.deepseek.com",),
        schema_mode="json_object",
        prices="deepseek",
    ),
    "moonshot": Preset(
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        ("api.moonshot.ai",),
        schema_mode="json_object",
        prices="moonshotai",
        responses=True,
    ),
    "ollama": Preset("http://localhost:11434/v1", None, responses=True, finish_optional=True),
    "vllm": Preset(
        "http://localhost:8000/v1",
        "VLLM_API_KEY",
        ("localhost", "127.0.0.1"),
        key_optional=True,
        responses=True,
    ),
    "lmstudio": Preset("http://localhost:1234/v1", None, responses=True),
    "llamacpp": Preset("http://localhost:8080/v1", None, responses=True),
}

#: Options of the definitions that are the preset's to say, not the user's.
_FIXED: Final = (
    "provider",
    "model",
    "price_provider",
    "token_charge",
    "adapts",
    "api_key_optional",
    "apis",
    "parameters",
)


def as_model(model: ModelLike) -> Resource[OpenModel]:
    """Return `model` itself when it is a definition, else what `provider/model` stands for."""
    return resolve(model) if isinstance(model, str) else model


def resolve(use: str, **options: object) -> OpenAIModel | SimulatedModel:
    """Return the definition of `provider/model`, with `options` of the definition and of `Parameters` over the preset.

    Raises `DefinitionError` for an unknown provider or option, with the nearest right word.
    """
    provider, slash, model = use.partition("/")
    known = ("sim", *PRESETS)
    if provider not in known:
        raise _wrong("use", f"unknown provider {provider!r} in {use!r}", _nearest(provider, known))
    if not slash or not model:
        raise _wrong("use", f"{use!r} names no model", f"write {provider}/MODEL")
    if provider == "sim":
        return _build(SimulatedModel, {"model": model}, options)
    return _build(OpenAIModel, *_with_preset(provider, model, PRESETS[provider], options))


def _with_preset(
    provider: str, model: str, preset: Preset, options: Mapping[str, object]
) -> tuple[dict[str, object], Mapping[str, object]]:
    """Return the preset's fields, less a key that a given base URL would carry to a host it is not bound to."""
    given = options.get("base_url")
    if given is None and preset.base_url is None:
        host = f"RESOURCE{preset.hosts[0]}" if preset.hosts else "HOST"
        message = f"{provider} needs base_url: each resource has its own address"
        raise _wrong("base_url", message, f"base_url: https://{host}/openai/v1/")
    key = preset.key
    if given is not None and options.get("api_key_env") is None and key is not None:
        host = Endpoint.of(str(given), keyed=False).host
        if not any(host == each or (each.startswith(".") and host.endswith(each)) for each in preset.hosts):
            if not preset.key_optional:
                message = f"the key in {key} belongs to {preset.hosts[0].lstrip('.')}, not to {host}"
                hint = (
                    "name the variable of this host's key in api_key_env; for a server without a key: use: vllm/MODEL"
                )
                raise _wrong("base_url", message, hint)
            key = None
    fixed: dict[str, object] = {
        "provider": provider,
        "model": model,
        "base_url": preset.base_url,
        "api_key_env": key,
        "api_key_optional": preset.key_optional and options.get("api_key_env") is None,
        "token_field": preset.token_field,
        "schema_mode": preset.schema_mode,
        "price_provider": preset.prices,
        "token_charge": preset.token_charge,
        "apis": ("chat", "responses") if preset.responses else ("chat",),
        "stream_usage": preset.stream_usage,
        "finish_optional": preset.finish_optional,
    }
    return fixed, options


def _build(definition: type[M], fixed: Mapping[str, object], options: Mapping[str, object]) -> M:
    fields = [each.name for each in dataclasses.fields(definition) if each.name not in _FIXED]
    allowed = (*fields, *PARAMETERS)
    own: dict[str, object] = {}
    asked: dict[str, object] = {}
    for name, value in options.items():
        if name not in allowed:
            raise _wrong(name, "is not an option of a model", _nearest(name, allowed))
        # A simulated model's `seed` is its own; it has no other use for one.
        (own if name in fields else asked)[name] = value
    if own.get("fallback") is not None:
        own["fallback"] = _models(own["fallback"])
    given = {name: value for name, value in own.items() if value is not None or name == "timeout"}
    build = cast("Callable[..., M]", definition)
    return build(**{**fixed, **given}, parameters=Parameters().updated(asked))


def _models(given: object) -> object:
    """Resolve what is written as `provider/model`; what else is there, the definition looks at."""
    if isinstance(given, list | tuple):
        models = cast("Sequence[object]", given)
        return tuple(resolve(each) if isinstance(each, str) else each for each in models)
    return (resolve(given),) if isinstance(given, str) else given


def _nearest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _wrong(option: str, message: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, option, message, hint))
