"""One contract for both chat adapters, over real HTTP against the simulator."""

import datetime as dt
import gc
import ipaddress
import json
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.identity import CredentialUnavailableError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from local.host.http_server import LoopbackServer
from local.model import chat_simulator as sim
from local.model.chat_simulator import ChatSimulator, Fault
from shared.domain import Usage
from shared.errors import (
    AgentError,
    ConfigurationError,
    ContentFilteredError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.model.azure_inference_sdk import build_azure_inference_model
from shared.model.chat import ChatModel, ChatRequest, Conversation, Message, Picture, Tool, ToolCall
from shared.model.chat_wire import REASONING_HEADROOM_TOKENS, ChatRefusal
from shared.model.openai_sdk import build_openai_model
from shared.settings import Secret

Build = Callable[..., ChatModel]

KEY = "a-key-that-must-stay-secret"
CANARY = "canary-in-the-prompt"
REQUEST = ChatRequest(
    deployment="mail-mini",
    system="Answer.",
    user=f"Say something about {CANARY}.",
    schema_name="sample",
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["word"],
        "properties": {"word": {"type": "string"}},
    },
    max_output_tokens=200,
)

FILTERED = b'{"error": {"code": "content_filter"}}'
REFUSALS: list[tuple[str, Fault, type[AgentError]]] = [
    ("429", sim.throttled(retry_after="1"), ThrottledError),
    ("408", sim.refused(408), UnavailableError),
    ("500", sim.refused(500, "InternalServerError"), UnavailableError),
    ("503", sim.refused(503, headers={"Retry-After": "1"}), UnavailableError),
    ("cut before the answer", sim.cut_before_answer, UnavailableError),
    ("cut within the answer", sim.cut_mid_body, UnavailableError),
    ("409", sim.refused(409, "Conflict"), UnavailableError),
    ("424", sim.refused(424, "FailedDependency"), UnavailableError),
    ("425", sim.refused(425), UnavailableError),
    ("499", sim.refused(499), UnavailableError),
    (
        "a gateway's page",
        sim.answering("<html>down</html>", content_type="text/html", status=503),
        UnavailableError,
    ),
    ("html", sim.answering(f"<html>{CANARY}</html>", content_type="text/html"), TransientError),
    ("html announced as json", sim.answering(f"<html>{CANARY}</html>"), TransientError),
    ("broken json", sim.answering(f'{{"choices": ["{CANARY}"'), TransientError),
    ("broken utf-8", sim.answering(b'{"choices": "\xff"}'), TransientError),
    ("json that is no object", sim.answering("[1]"), TransientError),
    ("empty object", sim.answering("{}"), TransientError),
    ("choices that are none", sim.answering('{"choices": [7], "usage": 7}'), TransientError),
    ("no choices", sim.without_choices, TransientError),
    ("no content", sim.saying(None), TransientError),
    (
        "a filter behind a byte order mark",
        sim.answering(b"\xef\xbb\xbf" + FILTERED, status=400),
        ContentFilteredError,
    ),
    ("a 500 that is no text", sim.answering(b"\xff\xfe{", status=500), UnavailableError),
    ("400", sim.refused(400, "invalid_value", f"what about {CANARY}?", "messages"), PermanentError),
    ("400 with a sentence for a code", sim.refused(400, f"no {CANARY}", "?", f"no {CANARY}"), PermanentError),
    ("413", sim.refused(413, "too_large"), PermanentError),
    ("401", sim.refused(401, "401"), ConfigurationError),
    ("403", sim.refused(403, "PermissionDenied", f"{CANARY} {KEY}"), ConfigurationError),
    ("404", sim.refused(404, "DeploymentNotFound"), ConfigurationError),
    ("filtered prompt", sim.filtered_prompt("jailbreak"), ContentFilteredError),
    ("filtered completion", sim.filtered_completion("hate"), ContentFilteredError),
]


@pytest.fixture(
    params=[build_azure_inference_model, build_openai_model], ids=["azure-ai-inference", "openai"]
)
def build(request: pytest.FixtureRequest) -> Build:
    chosen: Build = request.param
    return chosen


@pytest.fixture
def simulator() -> ChatSimulator:
    return ChatSimulator(api_key=KEY, reasoning_deployments={"thinker"})


@pytest.fixture
def server(simulator: ChatSimulator) -> Iterator[LoopbackServer]:
    with LoopbackServer(simulator.app) as server:
        yield server


@pytest.fixture
def model(build: Build, server: LoopbackServer) -> ChatModel:
    return build(server.url, Secret(KEY), timeout_seconds=5.0)


class FakeCredential:
    """Gives one token, or fails; records the scopes that it was asked for."""

    def __init__(self, token: str = KEY, failure: Exception | None = None, seconds: float = 86_400) -> None:
        self.token = token
        self.expires_on = int(time.time() + seconds)
        self.failure = failure
        self.scopes: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.append(scopes)
        if self.failure is not None:
            raise self.failure
        return AccessToken(self.token, self.expires_on)


def raised_by(model: ChatModel, request: ChatRequest = REQUEST) -> AgentError:
    with pytest.raises(AgentError) as caught:
        model.complete(request)
    return caught.value


# ---- What goes out ---------------------------------------------------------------------------------


def test_request_carries_the_schema_the_token_limit_and_temperature_zero(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    model.complete(REQUEST)
    body = simulator.calls[0].body
    assert body.pop("messages") == [
        {"role": "system", "content": REQUEST.system},
        {"role": "user", "content": REQUEST.user},
    ]
    assert body.pop("response_format") == {
        "type": "json_schema",
        "json_schema": {"name": "sample", "schema": REQUEST.schema, "strict": True},
    }
    assert body.pop("model", "mail-mini") == "mail-mini"
    assert body == {"max_completion_tokens": 200, "temperature": 0}


def test_pictures_follow_the_text_inline(model: ChatModel, simulator: ChatSimulator) -> None:
    pictures = (Picture("image/png", b"one"), Picture("image/jpeg", b"two"))
    model.complete(replace(REQUEST, pictures=pictures))
    assert simulator.calls[0].body["messages"][1]["content"] == [
        {"type": "text", "text": REQUEST.user},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,b25l"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,dHdv"}},
    ]


@pytest.mark.parametrize(
    "message",
    [
        "Invalid content type. image_url is only supported by certain models.",
        "This model does not support image inputs.",
        "Image inputs are not supported by this model.",
    ],
)
def test_a_model_that_takes_no_images_is_a_wrong_setting_of_the_profile(
    model: ChatModel, simulator: ChatSimulator, message: str
) -> None:
    simulator.script(sim.refused(400, "invalid_value", message, "messages.[1].content.[1].type"))
    error = raised_by(model, replace(REQUEST, pictures=(Picture("image/png", b"one"),)))
    assert isinstance(error, ConfigurationError)
    assert "images to false in the mailbox's profile" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "Animated images are not supported.",
        "CMYK images are not supported by this model.",
        "The image is not supported: corrupt",
        "This model does not support image/tiff.",
        "This model does not support images with more than 8 bits.",
        "Your input image is not allowed by our safety system.",
    ],
)
def test_a_picture_that_the_service_refuses_is_no_wrong_setting(
    model: ChatModel, simulator: ChatSimulator, message: str
) -> None:
    simulator.script(sim.refused(400, "invalid_image", message, "messages.[1].content.[1]"))
    error = raised_by(model, replace(REQUEST, pictures=(Picture("image/png", b"one"),)))
    assert isinstance(error, PermanentError)  # and the draft is asked for without pictures


@pytest.mark.parametrize("slash", ["", "/"])
def test_both_sdks_post_to_the_v1_route_with_the_key_in_both_headers(
    build: Build, server: LoopbackServer, simulator: ChatSimulator, slash: str
) -> None:
    build(server.url + slash, Secret(KEY)).complete(REQUEST)
    (call,) = simulator.calls
    assert call.path == "/openai/v1/chat/completions"
    assert call.api_version == ("v1" if build is build_azure_inference_model else None)
    assert call.body["model"] == "mail-mini"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["api-key"] == KEY


def test_inference_sdk_says_who_asks_and_gives_each_request_an_id(
    server: LoopbackServer, simulator: ChatSimulator
) -> None:
    """Azure's logs know a call by its client request id; support asks for it."""
    model = build_azure_inference_model(server.url, Secret(KEY))
    for _ in range(2):
        model.complete(REQUEST)
    first, second = simulator.calls
    assert first.headers["user-agent"].startswith("azsdk-python-ai-inference/")
    assert first.headers["x-ms-client-request-id"] != second.headers["x-ms-client-request-id"] != ""
    assert first.headers["extra-parameters"] == "pass-through"  # the service takes what the SDK does not know


def test_each_deployment_gets_its_own_requests(model: ChatModel, simulator: ChatSimulator) -> None:
    for deployment in ("mail-mini", "mail-large", "mail-mini"):
        model.complete(replaced(deployment=deployment))
    assert [call.deployment for call in simulator.calls] == ["mail-mini", "mail-large", "mail-mini"]


def replaced(deployment: str) -> ChatRequest:
    return ChatRequest(
        deployment,
        REQUEST.system,
        REQUEST.user,
        REQUEST.schema_name,
        REQUEST.schema,
        REQUEST.max_output_tokens,
    )


# ---- What comes back -------------------------------------------------------------------------------


def test_completion_has_text_finish_reason_usage_and_the_reported_model(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.saying('{"word": "schön 了"}'))
    completion = model.complete(REQUEST)
    assert completion.text == '{"word": "schön 了"}'
    assert (completion.finish_reason, completion.model) == ("stop", "simulated-chat")
    assert completion.usage.calls == 1
    assert completion.usage.input_tokens == -(-len(REQUEST.system + REQUEST.user) // 4)
    assert completion.usage.output_tokens == 3  # the simulator counts the answer that the fault replaced


def test_input_from_the_prompt_cache_is_counted_as_part_of_the_input(model: ChatModel) -> None:
    request = replace(REQUEST, user="x" * 6_000)
    assert model.complete(request).usage.cached_input_tokens == 0
    usage = model.complete(request).usage
    assert 1_024 <= usage.cached_input_tokens <= usage.input_tokens
    assert usage.cached_input_tokens == (usage.input_tokens // 128) * 128


@pytest.mark.parametrize(
    ("details", "cached"), [(None, 0), ({}, 0), ({"cached_tokens": "many"}, 0), ({"cached_tokens": 99}, 7)]
)
def test_an_odd_count_of_cached_tokens_never_exceeds_the_input(
    model: ChatModel, simulator: ChatSimulator, details: object, cached: int
) -> None:
    def answer(build: Callable[[], sim.Payload]) -> sim.Payload:
        return build() | {
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": details}
        }

    simulator.script(answer)
    assert model.complete(REQUEST).usage == Usage(1, 7, 3, cached)


def test_text_cut_by_length_is_returned_with_its_finish_reason(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.cut_by_length)
    completion = model.complete(REQUEST)
    assert completion.finish_reason == "length"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(completion.text)


def test_limit_used_up_before_the_first_word_is_a_cut_and_not_a_failure(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.saying(None, finish_reason="length"))
    assert model.complete(REQUEST).text == ""


def test_filtered_prompt_names_the_filters_that_fired(model: ChatModel, simulator: ChatSimulator) -> None:
    simulator.script(sim.filtered_prompt("indirect_attack", "jailbreak"))
    error = raised_by(model)
    assert isinstance(error, ContentFilteredError)
    assert error.categories == ("indirect_attack", "jailbreak")


def test_filtered_prompt_is_known_by_its_inner_code_too(model: ChatModel, simulator: ChatSimulator) -> None:
    error = {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}
    simulator.script(sim.answering(json.dumps({"error": error}), status=400))
    error_raised = raised_by(model)
    assert isinstance(error_raised, ContentFilteredError)
    assert error_raised.categories == ()


def test_filtered_completion_names_the_filters_that_fired(model: ChatModel, simulator: ChatSimulator) -> None:
    simulator.script(sim.filtered_completion("self_harm"))
    error = raised_by(model)
    assert isinstance(error, ContentFilteredError)
    assert error.categories == ("self_harm",)


def test_refusal_by_the_model_itself_counts_as_filtered(model: ChatModel, simulator: ChatSimulator) -> None:
    message = {"role": "assistant", "content": None, "refusal": f"No, {CANARY}"}
    simulator.script(sim.answering(json.dumps({"choices": [{"finish_reason": "stop", "message": message}]})))
    error = raised_by(model)
    assert isinstance(error, ContentFilteredError)
    assert error.categories == ("refusal",)
    assert CANARY not in str(error)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (sim.throttled(), None),
        (sim.throttled(retry_after="7"), 7.0),
        (sim.throttled(retry_after_ms="1500"), 1.5),
        (sim.throttled(retry_after="7", retry_after_ms="6500"), 6.5),
        (sim.throttled(retry_after="86400"), 86400.0),
        (sim.throttled(retry_after="0"), 1.0),
        (sim.throttled(retry_after_ms="0"), 1.0),
        (sim.throttled(retry_after="soon"), None),
        (sim.throttled(retry_after="nan"), None),
        (sim.throttled(retry_after="Wed, 01 Jan 2020 00:00:00 GMT"), 1.0),
    ],
)
def test_throttling_carries_the_delay_that_the_service_asked_for(
    model: ChatModel, simulator: ChatSimulator, fault: Fault, seconds: float | None
) -> None:
    simulator.script(fault)
    error = raised_by(model)
    assert isinstance(error, ThrottledError)
    assert error.retry_after_seconds == seconds


def test_throttling_until_a_date_is_counted_from_the_services_own_date(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    simulator.script(sim.throttled(retry_after=format_datetime(until, usegmt=True)))
    error = raised_by(model)
    assert isinstance(error, ThrottledError)
    assert error.retry_after_seconds == pytest.approx(90, abs=10)


def test_server_error_carries_its_retry_after(model: ChatModel, simulator: ChatSimulator) -> None:
    simulator.script(sim.refused(503, headers={"Retry-After": "12"}))
    error = raised_by(model)
    assert isinstance(error, TransientError)
    assert error.retry_after_seconds == 12.0


# ---- Every failure: its kind, one request, nothing leaks -------------------------------------------


@pytest.mark.parametrize(("fault", "kind"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_failure_has_its_kind_takes_one_request_and_shows_neither_key_nor_prompt(
    model: ChatModel, simulator: ChatSimulator, fault: Fault, kind: type[AgentError]
) -> None:
    simulator.script(fault)
    error = raised_by(model)
    assert type(error) is kind
    assert len(simulator.calls) == 1
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(model)
    assert KEY not in shown
    assert CANARY not in shown


@pytest.mark.parametrize("status", [200, 500])
def test_json_too_deep_to_read_is_an_unreadable_answer(
    model: ChatModel, simulator: ChatSimulator, status: int
) -> None:
    simulator.script(sim.answering("[" * 100_000, status=status))
    gc.collect()  # otherwise what earlier tests left may be finalized at the limit of recursion
    assert isinstance(raised_by(model), TransientError)


def test_server_error_of_an_unknown_type_is_tried_again(model: ChatModel, simulator: ChatSimulator) -> None:
    simulator.script(sim.answering(b"\x00", content_type="image/png", status=502))
    assert isinstance(raised_by(model), TransientError)


def test_next_request_after_a_failure_succeeds(model: ChatModel, simulator: ChatSimulator) -> None:
    for fault in (sim.cut_before_answer, sim.cut_mid_body, sim.answering("<html>", content_type="text/html")):
        simulator.script(fault)
        raised_by(model)
        assert model.complete(REQUEST).finish_reason == "stop"


def test_silence_ends_at_the_time_out_with_one_request(
    build: Build, server: LoopbackServer, simulator: ChatSimulator
) -> None:
    released = threading.Event()
    simulator.script(sim.hang_until(released))
    try:
        error = raised_by(build(server.url, Secret(KEY), timeout_seconds=0.3))
    finally:
        released.set()
    assert type(error) is UnavailableError
    assert "Timeout" in str(error)
    assert len(simulator.calls) == 1


def test_refused_connection_is_transient_and_names_the_host(build: Build) -> None:
    server = LoopbackServer(ChatSimulator().app)
    server.start()
    server.stop()
    error = raised_by(build(server.url, Secret(KEY)))
    assert type(error) is UnavailableError
    assert f"MODEL_ENDPOINT's host {server.url.removeprefix('http://')}" in str(error)


def test_permanent_error_names_status_code_and_parameter_without_the_services_text(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.refused(400, "invalid_value", f"bad {CANARY}", "messages"))
    message = str(raised_by(model))
    assert "HTTP 400, invalid_value about messages" in message
    assert CANARY not in message


def test_unknown_deployment_names_the_settings_and_the_deployment(build: Build) -> None:
    with LoopbackServer(ChatSimulator(api_key=KEY, deployments={"another"}).app) as server:
        error = raised_by(build(server.url, Secret(KEY)))
    assert isinstance(error, ConfigurationError)
    for part in ("TRIAGE_DEPLOYMENT", "DRAFT_DEPLOYMENT", "'mail-mini'", "MODEL_ENDPOINT"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("status", "code", "message", "param"),
    [
        (400, "OperationNotSupported", "The chatCompletion operation does not work with the model.", None),
        (400, "DeploymentNotFound", "The API deployment for this resource does not exist.", None),
        (400, "model_not_supported", "Unsupported.", None),
        (400, None, "The model `gpt-35-turbo` has been deprecated.", None),
        (400, "invalid_value", "No.", "model"),
        (410, None, "Gone.", None),
        (410, "ModelDeprecated", "This model is retired.", None),
        (401, "unauthorized", "No access to the model.", "model"),
        (403, "model_not_found", "Project has no access to model.", None),
        (400, "invalid_value", "json_schema is not supported with this model.", "response_format"),
        (400, None, "Invalid parameter: 'response_format' of type 'json_schema' is not supported.", None),
        (422, "extra_forbidden", "No.", "response_format.json_schema"),
        (
            400,
            "BadRequest",
            "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later",
            None,
        ),
        (400, "BadRequest", "This API version is not enabled.", None),
    ],
)
def test_unsuitable_model_is_a_wrong_setting(
    model: ChatModel, simulator: ChatSimulator, status: int, code: str | None, message: str, param: str | None
) -> None:
    simulator.script(sim.refused(status, code, message, param))
    error = raised_by(model)
    assert isinstance(error, ConfigurationError)
    assert "set TRIAGE_DEPLOYMENT and DRAFT_DEPLOYMENT" in str(error)
    assert "structured outputs" in str(error)
    assert len(simulator.calls) == 1


@pytest.mark.parametrize(
    ("code", "message", "param"),
    [
        ("context_length_exceeded", "This model's maximum context length is 8192 tokens.", "messages"),
        ("context_length_exceeded", "This model's maximum context length is 8192 tokens.", None),
        ("invalid_value", "The model does not exist, says the email; json_schema, api version.", "messages"),
        ("string_above_max_length", "Too long.", "messages[1].content"),
    ],
)
def test_refusal_of_what_one_email_says_stays_its_own(
    model: ChatModel, simulator: ChatSimulator, code: str, message: str, param: str | None
) -> None:
    simulator.script(sim.refused(400, code, message, param))
    assert type(raised_by(model)) is PermanentError


@pytest.mark.parametrize("path", ["", "/", "/openai/v1", "/openai/v1/", "/openai/", "/v1/"])
def test_endpoint_may_have_the_path_that_azure_shows(
    build: Build, server: LoopbackServer, simulator: ChatSimulator, path: str
) -> None:
    build(server.url + path, Secret(KEY)).complete(REQUEST)
    assert len(simulator.calls) == 1


def test_wrong_key_names_its_setting(build: Build, server: LoopbackServer) -> None:
    error = raised_by(build(server.url, Secret("wrong")))
    assert isinstance(error, ConfigurationError)
    assert "MODEL_API_KEY" in str(error)


def test_code_that_only_repeats_the_status_is_left_out(model: ChatModel, simulator: ChatSimulator) -> None:
    simulator.script(sim.refused(401, "401"))
    assert "(HTTP 401)" in str(raised_by(model))


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops"])
def test_length_that_is_no_number_is_tried_again(build: Build, status: bytes) -> None:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: many\r\n\r\n{}" % status

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(head)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert isinstance(raised_by(build(url, Secret(KEY))), TransientError)
        thread.join()


def test_redirect_is_not_followed_so_the_key_stays_at_home(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    elsewhere = ChatSimulator()
    with LoopbackServer(elsewhere.app) as other:
        target = f"{other.url}/openai/v1/chat/completions"
        simulator.script(sim.refused(307, headers={"Location": target}))
        error = raised_by(model)
    assert isinstance(error, ConfigurationError)
    assert "redirect" in str(error)
    assert not elsewhere.calls


# ---- Conversations with tools -------------------------------------------------------------------------


LOOK = Tool("look", "Look something up.", REQUEST.schema)
ASKED = Message("user", f"What about {CANARY}?")
CONVERSATION = Conversation("mail-mini", "Help.", [ASKED], [LOOK], 300)


def test_conversation_carries_its_messages_and_strict_tools(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    call = ToolCall("call_7", "look", '{"word": "ü"}')
    answered = [ASKED, Message("assistant", "", (call,)), Message("tool", "found", tool_call_id="call_7")]
    model.converse(Conversation("mail-mini", "Help.", answered, [LOOK], 300))
    body = simulator.calls[0].body
    assert body.pop("model", "mail-mini") == "mail-mini"
    function = {"name": "look", "arguments": '{"word": "ü"}'}
    assert body.pop("messages") == [
        {"role": "system", "content": "Help."},
        {"role": "user", "content": ASKED.text},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_7", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "call_7"},
    ]
    described = {
        "name": "look",
        "description": LOOK.description,
        "parameters": REQUEST.schema,
        "strict": True,
    }
    assert body.pop("tools") == [{"type": "function", "function": described}]
    assert body == {"max_completion_tokens": 300, "temperature": 0}


def test_tools_to_be_called_come_back_as_the_model_wrote_them(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.calling(("look", '{"word": "a"}'), ("unknown", "{}"), ("look", "no JSON")))
    completion = model.converse(CONVERSATION)
    assert completion.tool_calls == (
        ToolCall("call_1", "look", '{"word": "a"}'),
        ToolCall("call_2", "unknown", "{}"),
        ToolCall("call_3", "look", "no JSON"),
    )
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")
    assert completion.usage.calls == 1
    assert completion.usage.input_tokens > 0


def test_conversation_that_ends_with_a_text_has_no_tool_calls(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    simulator.script(sim.saying("That is all."))
    completion = model.converse(CONVERSATION)
    assert (completion.text, completion.tool_calls, completion.finish_reason) == ("That is all.", (), "stop")


@pytest.mark.parametrize(
    "call",
    [
        7,
        {},
        {"id": "a", "function": {"name": "look"}},
        {"id": "a", "function": {"name": "look", "arguments": {"word": "a"}}},
        {"id": None, "function": {"name": "look", "arguments": "{}"}},
        {"id": "a", "function": "look"},
    ],
)
def test_tool_call_that_cannot_be_answered_is_no_completion(
    model: ChatModel, simulator: ChatSimulator, call: Any
) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    simulator.script(sim.answering(json.dumps({"choices": [{"finish_reason": "stop", "message": message}]})))
    with pytest.raises(TransientError, match="tool call"):
        model.converse(CONVERSATION)


@pytest.mark.parametrize(("fault", "kind"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_conversation_fails_by_what_the_caller_has_to_do_and_quotes_nothing(
    model: ChatModel, simulator: ChatSimulator, fault: Fault, kind: type[AgentError]
) -> None:
    simulator.script(fault)
    with pytest.raises(AgentError) as caught:
        model.converse(CONVERSATION)
    assert type(caught.value) is kind
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in str(caught.value)


def test_conversation_learns_what_a_deployment_takes_as_a_completion_does(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    model.converse(Conversation("thinker", "Help.", [ASKED], [LOOK], 300))
    model.complete(replaced("thinker"))
    sent = [("temperature" in call.body, call.body.get("reasoning_effort")) for call in simulator.calls]
    assert sent == [(True, None), (False, None), (False, "none"), (False, None)]


def test_a_model_that_refuses_to_think_about_tools_is_asked_not_to_and_still_thinks_about_drafts(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    model.complete(replaced("thinker"))
    simulator.calls.clear()
    for _ in range(2):
        model.converse(Conversation("thinker", "Help.", [ASKED], [LOOK], 300))
    model.complete(replaced("thinker"))
    sent = [(c.body.get("reasoning_effort"), c.body["max_completion_tokens"]) for c in simulator.calls]
    room = REASONING_HEADROOM_TOKENS
    assert sent == [(None, 300 + room), ("none", 300), ("none", 300), (None, 200 + room)]


@pytest.mark.parametrize(
    "error",
    [
        {
            "message": "Function tools with reasoning_effort are not supported. Set reasoning_effort to 'none'."
        },
        {"param": "reasoning_effort", "message": "Please use /v1/responses instead."},
    ],
)
def test_a_refusal_is_about_the_effort_though_none_was_sent(error: dict[str, str]) -> None:
    refusal = ChatRefusal(400, {}, json.dumps({"error": error}))
    assert refusal.find_unsupported({"max_completion_tokens": 300}) == "reasoning_effort"


@pytest.mark.parametrize(("effort", "room"), [("none", 0), ("high", REASONING_HEADROOM_TOKENS)])
def test_a_chosen_effort_is_sent_with_room_for_the_thinking(
    model: ChatModel, simulator: ChatSimulator, effort: str, room: int
) -> None:
    completion = model.complete(replace(replaced("thinker"), reasoning_effort=effort))
    body = simulator.calls[-1].body
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == (effort, 200 + room)
    assert (completion.usage.output_tokens > sim.REASONING_TOKENS) is (room > 0)


@pytest.mark.parametrize("deployment", ["thinker", "mail-mini"])
def test_an_effort_that_the_model_does_not_have_names_the_setting(
    model: ChatModel, simulator: ChatSimulator, deployment: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"DRAFT_REASONING_EFFORT .* or to default\."):
        model.complete(replace(replaced(deployment), reasoning_effort="minimal"))
    assert len(simulator.calls) == (2 if deployment == "thinker" else 1)


# ---- Deployments that take other parameters -------------------------------------------------------


def test_reasoning_deployment_is_asked_without_temperature_with_room_to_think_and_remembered(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    first = model.complete(replaced("thinker"))
    second = model.complete(replaced("thinker"))
    limits = [(c.body.get("temperature"), c.body["max_completion_tokens"]) for c in simulator.calls]
    assert limits == [
        (0, 200),
        (None, 200 + REASONING_HEADROOM_TOKENS),
        (None, 200 + REASONING_HEADROOM_TOKENS),
    ]
    assert first.finish_reason == second.finish_reason == "stop"
    assert first.usage.output_tokens > sim.REASONING_TOKENS


def test_what_one_deployment_refuses_is_still_sent_to_another(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    model.complete(replaced("thinker"))
    model.complete(REQUEST)
    assert simulator.calls[-1].body["temperature"] == 0


@pytest.mark.parametrize(
    "refusal",
    [
        sim.refused(400, None, "Unrecognized request argument supplied: max_completion_tokens"),
        sim.refused(400, "unsupported_parameter", "Not this one.", "max_completion_tokens"),
        sim.refused(
            400, "unsupported_parameter", "'max_completion_tokens' is not supported; use 'max_tokens'."
        ),
    ],
    ids=["by message", "by param", "by code and message"],
)
def test_older_deployment_gets_the_older_token_limit_and_is_remembered(
    model: ChatModel, simulator: ChatSimulator, refusal: Fault
) -> None:
    simulator.script(refusal)
    model.complete(REQUEST)
    model.complete(REQUEST)
    sent = [sorted(call.body.keys() & {"max_tokens", "max_completion_tokens"}) for call in simulator.calls]
    assert sent == [["max_completion_tokens"], ["max_tokens"], ["max_tokens"]]
    assert simulator.calls[-1].body["temperature"] == 0


def test_deployment_that_refuses_everything_is_asked_four_times_at_most(
    model: ChatModel, simulator: ChatSimulator
) -> None:
    names = (
        "temperature",
        "reasoning_effort",
        "max_completion_tokens",
        "max_tokens",
        "max_completion_tokens",
    )
    simulator.script(*(sim.refused(400, "unsupported_parameter", "No.", name) for name in names))
    error = raised_by(model)
    assert type(error) is ConfigurationError
    assert "DRAFT_DEPLOYMENT" in str(error)
    assert len(simulator.calls) == 4


def test_sixteen_threads_learn_a_new_deployment_keep_their_connections_and_get_their_own_answers(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(body: dict[str, Any]) -> str:
        return str(body["messages"][1]["content"])

    simulator = ChatSimulator(api_key=KEY, reasoning_deployments={"thinker"}, respond=echo)
    texts = [f"text {number}" for number in range(64)]
    with LoopbackServer(simulator.app) as server:
        model = build(server.url, Secret(KEY))

        def ask(text: str) -> str:
            return model.complete(ChatRequest("thinker", "s", text, "sample", REQUEST.schema, 200)).text

        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(ask, texts)) == texts
        assert len(texts) <= len(simulator.calls) <= len(texts) + 16
    assert "pool is full" not in caplog.text  # urllib3's word for connections opened anew each time


# ---- Signing in without a key -----------------------------------------------------------------------


@pytest.fixture
def https_server(
    simulator: ChatSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackServer]:
    """The simulator behind a certificate that both SDKs' HTTP stacks are told to trust."""
    certificate = tmp_path / "loopback.pem"
    write_certificate(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # requests, under azure-ai-inference
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # httpx2, under openai
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with LoopbackServer(simulator.app, ssl_context=context) as server:
        yield server


def write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


def test_identity_is_asked_for_the_cognitive_services_scope_and_its_token_is_sent(
    build: Build, https_server: LoopbackServer, simulator: ChatSimulator
) -> None:
    credential = FakeCredential()
    build(https_server.url, credential).complete(REQUEST)
    assert credential.scopes == [("https://cognitiveservices.azure.com/.default",)]
    (call,) = simulator.calls
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert "api-key" not in call.headers


def test_one_token_serves_until_it_is_to_be_renewed(build: Build, https_server: LoopbackServer) -> None:
    """The Azure CLI starts a program for every token that it is asked for."""
    lasting, ending = FakeCredential(), FakeCredential(seconds=60)
    for credential in (lasting, ending):
        model = build(https_server.url, credential)
        for _ in range(3):
            model.complete(REQUEST)
    assert (len(lasting.scopes), len(ending.scopes)) == (1, 3)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    build: Build, https_server: LoopbackServer, simulator: ChatSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other SDK is told to trust counts for nothing, nor does what the system trusts."""
    variable = "REQUESTS_CA_BUNDLE" if build is build_azure_inference_model else "SSL_CERT_FILE"
    monkeypatch.delenv(variable)
    error = raised_by(build(https_server.url, Secret(KEY)))
    assert type(error) is UnavailableError
    assert f"set {variable} to a file" in str(error)
    assert "HTTPS_PROXY" in str(error)
    assert not simulator.calls


@pytest.mark.parametrize("refusal", ["no proxy there", "proxy refuses"])
def test_a_proxy_that_lets_nothing_through_is_named(
    build: Build, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url if refusal == "proxy refuses" else "http://127.0.0.1:1")
    error = raised_by(build("https://resource.invalid", Secret(KEY)))
    assert type(error) is UnavailableError
    assert "Correct HTTPS_PROXY, or name the host in NO_PROXY" in str(error)


def test_refused_token_names_the_role_and_stays_unseen(build: Build, https_server: LoopbackServer) -> None:
    error = raised_by(build(https_server.url, FakeCredential("token-of-a-stranger")))
    assert isinstance(error, ConfigurationError)
    assert "Cognitive Services OpenAI User" in str(error)
    assert "token-of-a-stranger" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (CredentialUnavailableError("no identity here"), ConfigurationError),
        (ClientAuthenticationError("refused"), ConfigurationError),
        (ServiceRequestError("identity endpoint unreachable"), UnavailableError),
    ],
)
def test_identity_without_a_token_fails_by_what_an_operator_has_to_do(
    build: Build,
    https_server: LoopbackServer,
    simulator: ChatSimulator,
    failure: Exception,
    kind: type[AgentError],
) -> None:
    error = raised_by(build(https_server.url, FakeCredential(failure=failure)))
    assert type(error) is kind
    assert not simulator.calls


def test_inference_sdk_without_a_key_over_plain_http_is_not_built() -> None:
    with pytest.raises(ConfigurationError, match="plain http"):
        build_azure_inference_model("http://127.0.0.1:1", FakeCredential())
