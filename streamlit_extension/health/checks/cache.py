"""The caches: a Redis by URL, and Streamlit's own."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from otel.instrumentation.streamlit import CacheStatistics, cache_statistics
from streamlit_extension.health.checks.database import error_line
from streamlit_extension.health.checks.system import memory_limit_bytes
from streamlit_extension.health.model import CheckResult, Outcome


def streamlit_caches() -> CacheStatistics | None:
    """Streamlit's own caches, or None where nothing is cached.

    They are read only where the application has loaded them: importing Streamlit takes longer than a check may.
    """
    caching = sys.modules.get("streamlit.runtime.caching")
    if caching is None or getattr(caching.__spec__, "_initializing", False):
        return None
    counted = cache_statistics()
    if counted is not None and counted.used_bytes is not None:
        return counted
    used_bytes = _cached_data_bytes(caching)
    if counted is None:
        return None if used_bytes is None else CacheStatistics(None, None, None, used_bytes, None, 0)
    return replace(counted, used_bytes=used_bytes)


def _cached_data_bytes(caching: Any) -> int | None:
    """Bytes in `st.cache_data`, by Streamlit's own provider; None where nothing is cached or the seam is missing.

    These are what Streamlit's budget counts. Of `st.cache_resource` it would walk through the application's living
    objects, which takes as long as they are large and may run their code.
    """
    try:
        families = caching.get_data_cache_stats_provider().get_stats()
        sizes = [stat.byte_length for stats in families.values() for stat in stats]
    except Exception:  # an internal that has moved, or a storage of the application's own
        return None
    return sum(sizes) if sizes else None


class CacheCheck:
    """Checks the cache.

    Arguments:
        url: gives the URL of a Redis (`redis://`, `rediss://`, `unix://`), or None when none is configured.
        timeout_s: for connecting and for each answer.
        statistics: gives what is known of Streamlit's own caches.

    One client is kept between runs; `close` ends it.
    """

    def __init__(
        self,
        url: Callable[[], str | None] = lambda: None,
        *,
        timeout_s: float = 2.0,
        statistics: Callable[[], CacheStatistics | None] = streamlit_caches,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._statistics = statistics
        self._client: Any = None
        self._client_url: str | None = None

    def prepare(self) -> None:
        """Import what a client is made of, which says nothing of the Redis and must not count as its time."""
        url = self._url()
        if url is not None:
            self._use(url)

    def __call__(self) -> CheckResult:
        """Run once."""
        url = self._url()
        own = _streamlit_detail(self._statistics())
        if url is None:
            return CheckResult(Outcome.NOT_CONFIGURED) if own is None else CheckResult(Outcome.OK, detail=own)
        began_s = time.perf_counter()
        try:
            info = self._ask(url)
        except ImportError:
            return CheckResult(Outcome.FAILED, error="health.cache.url needs the package redis, which is not installed")
        except Exception as error:
            return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=error_line(error))
        detail = _redis_detail(info)
        if own is not None:
            detail["streamlit"] = own
        return CheckResult(Outcome.OK, time.perf_counter() - began_s, detail)

    def _ask(self, url: str) -> Mapping[str, Any]:
        self._use(url)
        self._client.ping()
        with contextlib.suppress(_redis_refusal()):  # some hosted ones refuse INFO: then only that it answers is known
            info: Mapping[str, Any] = self._client.info()
            return info
        return {}

    def _use(self, url: str) -> None:
        """Have a client for `url`, which has connected to nothing yet when it is new."""
        if self._client is None or self._client_url != url:
            self.close()
            self._client, self._client_url = _redis_client(url, self._timeout_s), url

    def close(self) -> None:
        """Close the client that is kept."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()


def _redis_client(url: str, timeout_s: float) -> Any:
    """A client with one connection, which asks again once when a kept connection turns out dead."""
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=1,
            protocol=2,  # what every Redis speaks, and it says plainly that a password is missing
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
    except ValueError:  # its text repeats what may be a part of the password
        raise ValueError("health.cache.url is not a valid redis://, rediss:// or unix:// URL") from None


def _redis_refusal() -> type[Exception]:
    from redis.exceptions import ResponseError

    refusal: type[Exception] = ResponseError
    return refusal


def _redis_detail(info: Mapping[str, Any]) -> dict[str, Any]:
    hits, misses = int(info.get("keyspace_hits", 0)), int(info.get("keyspace_misses", 0))
    detail: dict[str, Any] = {}
    if hits + misses:
        detail["hit_rate_percent"] = 100.0 * hits / (hits + misses)
    if "used_memory" in info:
        limit = int(info.get("maxmemory", 0)) or memory_limit_bytes()
        detail["memory_usage_percent"] = min(100.0, 100.0 * int(info["used_memory"]) / limit)
    return detail


def _streamlit_detail(found: CacheStatistics | None) -> dict[str, Any] | None:
    if found is None:
        return None
    detail: dict[str, Any] = {}
    if found.hits is not None and found.misses is not None and found.hits + found.misses:
        detail["hit_rate_percent"] = 100.0 * found.hits / (found.hits + found.misses)
    if found.used_bytes is not None:
        detail["memory_usage_percent"] = min(
            100.0, 100.0 * found.used_bytes / (found.budget_bytes or memory_limit_bytes())
        )
    return detail
