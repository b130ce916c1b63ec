"""Search by meaning: both SDKs' embeddings over real HTTP, the vectors that are kept, and the way without them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.host.http_server import LoopbackServer
from local.model import chat_simulator as sim
from local.model.chat_simulator import ChatSimulator, Fault
from local.testing.world import build_settings
from shared.composition import build_agent
from shared.errors import (
    AgentError,
    ConfigurationError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.meaning import PAUSE, VECTOR_FILE, MeaningIndex, VectorFile
from shared.knowledge.passages import Passage
from shared.model.azure_inference_sdk import build_azure_inference_embeddings
from shared.model.embeddings import BATCH, DIMENSIONS, EmbeddingModel, Vector, normalize
from shared.model.openai_sdk import build_openai_embeddings
from shared.settings import Secret

Build = Callable[..., EmbeddingModel]
KEY = "a-key-that-must-stay-secret"
CANARY = "canary-in-the-text"
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture(
    params=[build_azure_inference_embeddings, build_openai_embeddings], ids=["azure-ai-inference", "openai"]
)
def build(request: pytest.FixtureRequest) -> Build:
    chosen: Build = request.param
    return chosen


@pytest.fixture
def simulator() -> ChatSimulator:
    return ChatSimulator(api_key=KEY, deployments={"embed"})


@pytest.fixture
def url(simulator: ChatSimulator) -> Iterator[str]:
    with LoopbackServer(simulator.app) as server:
        yield server.url


# The service


def test_texts_become_vectors_of_length_one_in_their_order(
    build: Build, simulator: ChatSimulator, url: str
) -> None:
    texts = [f"passage number {n}" for n in range(BATCH + 1)]
    model = build(url, Secret(KEY), "embed")
    vectors = model.embed(texts)
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * len(texts)
    assert sum(x * x for x in vectors[0]) == pytest.approx(1)
    assert list(vectors[BATCH]) == list(model.embed(texts[BATCH:])[0])
    assert [len(call.body["input"]) for call in simulator.calls] == [BATCH, 1, 1]
    call = simulator.calls[0]
    assert (call.path, call.deployment, call.body["dimensions"]) == ("/openai/v1/embeddings", "embed", 512)
    assert call.api_version in (None, "v1")


REFUSALS: list[tuple[Fault, type[AgentError], str]] = [
    (sim.throttled(retry_after="7"), ThrottledError, "HTTP 429"),
    (sim.refused(503, headers={"Retry-After": "7"}), UnavailableError, "HTTP 503"),
    (sim.refused(500), UnavailableError, "HTTP 500"),
    (sim.refused(408), UnavailableError, "HTTP 408"),
    (sim.cut_before_answer, UnavailableError, "gave no embeddings"),
    (sim.cut_mid_body, UnavailableError, "gave no embeddings"),
    (sim.answering("{}"), TransientError, "without a vector for each text"),
    (sim.answering("[1]"), TransientError, "gave no embeddings"),
    (sim.answering("<html>", content_type="text/html"), TransientError, "gave no embeddings"),
    (sim.answering('{"data": [{"index": 0, "embedding": [0, 0]}]}'), TransientError, "for each text"),
    (sim.answering('{"data": [{"index": 1, "embedding": [1, 0]}]}'), TransientError, "for each text"),
    (sim.refused(401), ConfigurationError, "MODEL_API_KEY"),
    (sim.refused(404, "DeploymentNotFound"), ConfigurationError, "EMBEDDING_DEPLOYMENT"),
    (sim.refused(400, "OperationNotSupported"), ConfigurationError, "EMBEDDING_DEPLOYMENT"),
    (sim.refused(400, None, "Not for this model.", "dimensions"), ConfigurationError, "EMBEDDING_DEPLOYMENT"),
    (sim.refused(302), ConfigurationError, "it redirects"),
    (sim.refused(400, "invalid_value", f"what about {CANARY}?", "input"), PermanentError, "HTTP 400"),
]


@pytest.mark.parametrize(("fault", "error", "named"), REFUSALS, ids=[named for *_, named in REFUSALS])
def test_a_refusal_is_the_same_error_as_for_chat(
    build: Build, simulator: ChatSimulator, url: str, fault: Fault, error: type[AgentError], named: str
) -> None:
    simulator.script(fault)
    with pytest.raises(error, match=named) as caught:
        build(url, Secret(KEY), "embed").embed([CANARY])
    assert CANARY not in str(caught.value)
    assert KEY not in str(caught.value)
    if isinstance(caught.value, TransientError) and named in ("HTTP 429", "HTTP 503"):
        assert caught.value.retry_after_seconds == 7


def test_a_deployment_that_does_not_exist_names_its_setting(build: Build, url: str) -> None:
    with pytest.raises(ConfigurationError, match="EMBEDDING_DEPLOYMENT"):
        build(url, Secret(KEY), "other").embed(["text"])


# Ranking and keeping


class Concepts:
    """An embedding model that knows which words mean the same, and fails as often as it is told."""

    MEANINGS = (("parcel", "delivery", "shipment"), ("refund", "returns", "money"), ("battery", "charge"))

    def __init__(self, *failures: AgentError) -> None:
        self.failures = list(failures)
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.failures:
            raise self.failures.pop(0)
        self.embedded += texts
        return [
            normalize([0.01, *(sum(text.lower().count(word) for word in words) for words in self.MEANINGS)])
            for text in texts
        ]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


KNOWLEDGE = "# Delivery\nThree days.\n# Returns\nThirty days.\n# Battery\nTwo years.\n"


def open_source(
    root: Path, model: EmbeddingModel, clock: Callable[[], datetime] | None = None
) -> KnowledgeFiles:
    (root / "shared").mkdir(parents=True, exist_ok=True)
    (root / "shared" / "a.md").write_text(KNOWLEDGE, encoding="utf-8")
    (root / "sales").mkdir(exist_ok=True)
    (root / "sales" / "b.md").write_text("# Shipment\nSecret delivery.\n", encoding="utf-8")
    return KnowledgeFiles(
        root, MeaningIndex(lambda: model, VectorFile(root / VECTOR_FILE, "embed"), clock or Clock())
    )


def titles(found: Sequence[Passage]) -> list[str]:
    return [passage.title for passage in found]


def test_a_passage_is_found_that_has_none_of_the_querys_words(tmp_path: Path) -> None:
    source = open_source(tmp_path, Concepts())
    assert titles(source.search((), "Where is my parcel?"))[0] == "Delivery"
    assert titles(source.search((), "I want my money"))[0] == "Returns"


def test_words_and_meaning_count_together(tmp_path: Path) -> None:
    source = open_source(tmp_path, Concepts())
    assert titles(source.search((), "years: how long does the parcel take?"))[:2] == ["Battery", "Delivery"]


def test_the_folder_of_another_mailbox_is_not_found_by_meaning(tmp_path: Path) -> None:
    source = open_source(tmp_path, Concepts())
    assert "Shipment" not in titles(source.search((), "parcel"))
    assert titles(source.search(("sales",), "parcel"))[0] in {"Shipment", "Delivery"}


def test_vectors_are_computed_once_and_only_for_what_is_searched(tmp_path: Path) -> None:
    model = Concepts()
    source = open_source(tmp_path, model)
    source.read((), "parcel", 10_000)
    assert model.embedded == []  # it fits: nothing is searched
    source.search((), "parcel")
    source.search((), "refund")
    assert model.embedded == [
        "Delivery\nThree days.", "Returns\nThirty days.", "Battery\nTwo years.", "parcel", "refund",
    ]  # fmt: skip


def test_vectors_that_were_written_at_deployment_are_not_computed_again(tmp_path: Path) -> None:
    written = MeaningIndex(Concepts, VectorFile(tmp_path / VECTOR_FILE, "embed"), Clock())
    everything = open_source(tmp_path, Concepts()).list_passages(("sales",))
    assert written.save(everything) == 4
    model = Concepts()
    source = open_source(tmp_path, model)
    assert titles(source.search((), "parcel"))[0] == "Delivery"
    source.search(("sales",), "parcel")
    assert model.embedded == ["parcel", "parcel"]


def test_a_text_that_changed_and_another_deployment_are_embedded_anew(tmp_path: Path) -> None:
    passage = Passage("a.md", "Delivery", "Three days.")
    path = tmp_path / VECTOR_FILE
    MeaningIndex(Concepts, VectorFile(path, "embed"), Clock()).save([passage])
    for deployment, text in (("embed", "Four days."), ("other", "Three days.")):
        model = Concepts()
        MeaningIndex(lambda model=model: model, VectorFile(path, deployment), Clock()).rank(  # type: ignore[misc]  # a bound default
            "parcel", [Passage("a.md", "Delivery", text)]
        )
        assert model.embedded == [f"Delivery\n{text}", "parcel"]


def test_a_vector_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / VECTOR_FILE).write_bytes(b"no database " * 100)
    with pytest.raises(ConfigurationError, match=r"vectors\.sqlite.*knowledge --embed"):
        open_source(tmp_path, Concepts()).search((), "parcel")


@pytest.mark.parametrize(
    "failure", [UnavailableError("out of reach"), ThrottledError("slower"), PermanentError("refused")]
)
def test_without_the_embedding_service_the_search_goes_on_by_words_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: AgentError
) -> None:
    clock = Clock()
    model = Concepts(failure, failure)
    source = open_source(tmp_path, model, clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert titles(source.search((), "my battery and my parcel")) == ["Battery"]
        clock.now += PAUSE + timedelta(seconds=1)
        assert titles(source.search((), "my battery and my parcel")) == ["Battery"]
        assert len(model.failures) == 0  # two tries in four searches
    assert [r.message for r in caplog.records if "by words alone" in r.message] == [
        f"knowledge is searched by words alone until embeddings work again: {failure}"
    ]
    clock.now += PAUSE + timedelta(seconds=1)
    assert "Delivery" in titles(source.search((), "my battery and my parcel"))


def test_what_was_embedded_before_a_failure_is_kept(tmp_path: Path) -> None:
    class FailsOnce(Concepts):
        def embed(self, texts: Sequence[str]) -> list[Vector]:
            if len(self.embedded) == BATCH and not self.failures:
                self.failures.append(ThrottledError("slower"))
                self.embedded.append("-")
            return super().embed(texts)

    clock, model = Clock(), FailsOnce()
    index = MeaningIndex(lambda: model, VectorFile(tmp_path / VECTOR_FILE, "embed"), clock)
    passages = [Passage("a.md", f"Title {n}", "parcel") for n in range(BATCH + 1)]
    assert index.rank("parcel", passages) == []
    clock.now += PAUSE + timedelta(seconds=1)
    assert len(index.rank("parcel", passages)) == BATCH + 1
    assert model.embedded.count("Title 0\nparcel") == 1


def test_a_wrong_deployment_stops_the_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        open_source(tmp_path, Concepts(ConfigurationError("EMBEDDING_DEPLOYMENT"))).search((), "parcel")


def test_a_query_without_text_is_not_embedded(tmp_path: Path) -> None:
    model = Concepts()
    assert open_source(tmp_path, model).search((), " \n") == ()
    assert model.embedded == []


@pytest.mark.parametrize("sdk", ["azure-ai-inference", "openai"])
def test_the_setting_adds_the_search_by_meaning(
    tmp_path: Path, simulator: ChatSimulator, url: str, sdk: str
) -> None:
    open_source(tmp_path / "knowledge", Concepts())
    settings = build_settings(
        tmp_path, config_path=tmp_path, embedding_deployment="embed", model_endpoint=url,
        model_api_key=Secret(KEY), model_sdk=sdk,
    )  # fmt: skip
    knowledge = build_agent(settings).pipeline.knowledge
    assert titles(knowledge.read((), "delivery", 1).passages) == []  # nothing fits into one token
    assert [call.path for call in simulator.calls] == ["/openai/v1/embeddings"] * 2
