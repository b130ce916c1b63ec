"""Chat telemetry: a span and the token counts of every chat completion, never its text."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

from shared.domain import TokenPrice
from shared.model.chat import ChatCompletion, ChatRequest, Conversation
from shared.services.health import Watch
from shared.telemetry import Value, measure, span

PROVIDER = "azure.ai.openai"

Asked = TypeVar("Asked", ChatRequest, Conversation)


def traced(
    complete: Callable[[Asked], ChatCompletion],
    endpoint: str,
    prices: Mapping[str, TokenPrice],
    watch: Watch = nullcontext,
) -> Callable[[Asked], ChatCompletion]:
    """The same completion with a span around it, and its tokens and estimated cost counted.

    `endpoint` is the model's address. `watch` sees whether each call works. Names: OpenTelemetry's
    semantic conventions for generative AI. Azure Monitor's exporter knows a model call by `gen_ai.system`,
    which the conventions have replaced by `gen_ai.provider.name`.
    """

    def complete_traced(asked: Asked) -> ChatCompletion:
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.system": PROVIDER,
            "gen_ai.request.model": asked.deployment,
            "gen_ai.request.max_tokens": asked.max_output_tokens,
            "agent.step": asked.schema_name if isinstance(asked, ChatRequest) else "ask",
        }
        with (
            watch(f"model {asked.deployment}"),
            span(f"chat {asked.deployment}", attributes, server=endpoint) as current,
        ):
            completion = complete(asked)
            usage = completion.usage
            current.set_attributes(
                {
                    "gen_ai.response.model": completion.model,
                    "gen_ai.response.finish_reasons": (completion.finish_reason,),
                    "gen_ai.usage.input_tokens": usage.input_tokens,
                    "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
                    "gen_ai.usage.output_tokens": usage.output_tokens,
                }
            )
        labels = {"gen_ai.operation.name": "chat", "gen_ai.request.model": asked.deployment}
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            by_kind = labels | {"gen_ai.token.type": kind}
            measure("histogram", "gen_ai.client.token.usage", "{token}", tokens, by_kind)
        price = prices.get(asked.deployment)
        if price is None:
            return completion
        dollars = price.cost(usage)
        measure("counter", "agent.model.cost", "USD", dollars, labels)
        return replace(completion, usage=replace(usage, dollars=dollars))

    return complete_traced
