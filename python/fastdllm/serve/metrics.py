"""The metrics for Prometheus at /metrics. docs/serving.md lists the names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fastdllm.llm import LLM
from fastdllm.serve.responses import Stats

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PER_FORWARD = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class _Loads(Collector):
    """The engines' load at the time of the scrape."""

    def __init__(self, models: Mapping[str, LLM]) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield a family per number."""
        loads = {name: llm.engine.load() for name, llm in self._models.items()}
        for field, name, text in (
            ("running", "requests_running", "Answers that are decoded side by side"),
            ("waiting", "requests_waiting", "Answers that wait for a place"),
            ("max_batch", "batch_limit", "Answers that may be decoded side by side"),
            ("max_waiting", "waiting_limit", "Answers that may wait"),
            ("cache_bytes_used", "cache_used_bytes", "Set aside for K/V of running answers"),
            ("cache_bytes", "cache_limit_bytes", "Most bytes of K/V"),
        ):
            family = GaugeMetricFamily(f"fastdllm_{name}", text, labels=["model"])
            for model, load in loads.items():
                family.add_metric([model], getattr(load, field))
            yield family


class Metrics:
    """The counters of one app, in a registry of its own."""

    def __init__(self, models: Mapping[str, LLM]) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Loads(models))
        by_model = ["model"]
        self._requests = Counter(
            "fastdllm_requests",
            "Requests that ended, by the status that was sent (499: the client left before)",
            ["model", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "fastdllm_request_seconds",
            "From a request's arrival to its end",
            ["model", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_commit = Histogram(
            "fastdllm_time_to_first_commit_seconds",
            "From a request's arrival to an answer's first pass, of answers that stream",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self._per_forward = Histogram(
            "fastdllm_tokens_per_forward",
            "New tokens per pass of a finished answer",
            by_model,
            buckets=_PER_FORWARD,
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "fastdllm_prompt_tokens", "Prompt tokens of requests", by_model, registry=registry
        )
        self._new_tokens = Counter(
            "fastdllm_new_tokens",
            "New tokens of finished answers, without padding",
            by_model,
            registry=registry,
        )
        self._passes = Counter(
            "fastdllm_passes",
            "Passes of finished answers: refresh (began anew or filled the cache) or step",
            ["model", "kind"],
            registry=registry,
        )
        self._gone = Counter(
            "fastdllm_clients_gone",
            "Requests whose client left before the end",
            by_model,
            registry=registry,
        )
        self._rejected = Counter(
            "fastdllm_requests_rejected",
            "Requests refused with 429: the queue was full",
            by_model,
            registry=registry,
        )
        for model in models:
            for counter in (self._gone, self._rejected, self._new_tokens, self._prompt_tokens):
                counter.labels(model)
            for kind in ("refresh", "step"):
                self._passes.labels(model, kind)

    def first_commit(self, model: str, seconds: float) -> None:
        """Count the first pass of an answer that streams."""
        self._first_commit.labels(model).observe(seconds)

    def answered(self, model: str, new_tokens: int, stats: Stats) -> None:
        """Count a finished answer."""
        self._new_tokens.labels(model).inc(new_tokens)
        self._per_forward.labels(model).observe(stats.tokens_per_forward)
        self._passes.labels(model, "refresh").inc(stats.refresh_passes)
        self._passes.labels(model, "step").inc(stats.step_passes)

    def ended(
        self, model: str, route: str, status: int, seconds: float, *, gone: bool, prompt_tokens: int
    ) -> None:
        """Count a request that ended; model: "" where it named none that is served."""
        self._requests.labels(model, route, str(status)).inc()
        self._seconds.labels(model, route).observe(seconds)
        if prompt_tokens:
            self._prompt_tokens.labels(model).inc(prompt_tokens)
        if gone:
            self._gone.labels(model).inc()
        if status == 429:
            self._rejected.labels(model).inc()

    def text(self) -> bytes:
        """Return all in Prometheus's text format."""
        return generate_latest(self._registry)
