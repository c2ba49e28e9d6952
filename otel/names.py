"""Every span, metric, attribute and event name that is emitted, with unit and allowed values.

Semantic conventions (https://opentelemetry.io/docs/specs/semconv/) first, in their stable names; own names only where
the conventions have none.
"""

from __future__ import annotations

from enum import StrEnum


class Attribute(StrEnum):
    """Attribute names."""

    APP_SCREEN_NAME = "app.screen.name"  # semantic conventions (app): name of the page
    BUSINESS_EVENT_NAME = "business.event.name"  # own
    CACHE_OUTCOME = "streamlit.cache.outcome"  # own: hit | miss
    CODE_FUNCTION_NAME = "code.function.name"  # semantic conventions (code)
    CLIENT_ADDRESS = "client.address"  # semantic conventions (client); on spans alone
    DB_BATCH_SIZE = "db.operation.batch.size"  # semantic conventions (db): sets of parameters, where more than one
    DB_COLLECTION_NAME = "db.collection.name"  # semantic conventions (db): the table, where there is only one
    DB_CONNECTION_STATE = "db.client.connection.state"  # semantic conventions (db): idle | used
    DB_NAMESPACE = "db.namespace"  # semantic conventions (db): the database's name
    DB_OPERATION_NAME = "db.operation.name"  # semantic conventions (db)
    DB_POOL_NAME = "db.client.connection.pool.name"  # semantic conventions (db)
    DB_QUERY_SUMMARY = "db.query.summary"  # semantic conventions (db): operations and tables
    DB_QUERY_TEXT = "db.query.text"  # semantic conventions (db): without literals; on spans alone
    DB_STATUS_CODE = "db.response.status_code"  # semantic conventions (db)
    DB_SYSTEM_NAME = "db.system.name"  # semantic conventions (db)
    ERROR_TYPE = "error.type"  # semantic conventions (error): class name of the exception
    EXCEPTION_MESSAGE = "exception.message"  # semantic conventions (exception); redacted
    EXCEPTION_STACKTRACE = "exception.stacktrace"  # semantic conventions (exception); redacted
    EXCEPTION_TYPE = "exception.type"  # semantic conventions (exception)
    FRAGMENT_ID = "streamlit.fragment.id"  # own: Streamlit's id; several that ran together are joined by commas
    HEALTH_CHECK_NAME = "health.check.name"  # own
    HEALTH_STATUS_NEW = "health.status.new"  # own
    HEALTH_STATUS_OLD = "health.status.old"  # own
    HTTP_METHOD_ORIGINAL = "http.request.method_original"  # semantic conventions (http); on spans alone
    HTTP_METHOD = "http.request.method"  # semantic conventions (http)
    HTTP_ROUTE = "http.route"  # semantic conventions (http)
    HTTP_STATUS = "http.response.status_code"  # semantic conventions (http)
    NETWORK_PROTOCOL_VERSION = "network.protocol.version"  # semantic conventions (network)
    RUN_OUTCOME = "streamlit.run.outcome"  # own: success | rerun | stopped | error | compile_error
    RUN_TRIGGER = "streamlit.run.trigger"  # own: connect | widget | rerun | page | timer | source | other
    RUN_TYPE = "streamlit.run.type"  # own: full | fragment
    SESSION_ID = "session.id"  # semantic conventions (session); never on a metric
    SERVER_ADDRESS = "server.address"  # semantic conventions (server)
    SERVER_PORT = "server.port"  # semantic conventions (server)
    TELEMETRY_REASON = "telemetry.reason"  # own: `otel.records.DropReason`
    TELEMETRY_SIGNAL = "telemetry.signal"  # own: traces | logs | metrics
    URL_PATH = "url.path"  # semantic conventions (url)
    URL_QUERY = "url.query"  # semantic conventions (url); values are redacted
    URL_SCHEME = "url.scheme"  # semantic conventions (url)
    USER_AGENT = "user_agent.original"  # semantic conventions (user agent); on spans alone


class SpanName(StrEnum):
    """Names of spans; those with a variable part are templates."""

    CALLBACK = "callback {function}"  # own: a widget's callback, child of its run
    HEALTH_STATUS_CHANGE = "health.status_change"  # own
    SCRIPT_RUN = "script_run {screen}"  # own: one run of a script or of fragments of it


class EventName(StrEnum):
    """Names of events of spans and of log records."""

    EXCEPTION = "exception"  # semantic conventions (exception)


class Metric(StrEnum):
    """Names of metrics; the unit is in `UNITS`."""

    BUSINESS_EVENTS = "business.events"
    CACHE_EVICTIONS = "streamlit.cache.evictions"
    CACHE_REQUESTS = "streamlit.cache.requests"
    DB_CONNECTION_COUNT = "db.client.connection.count"
    DB_CONNECTION_CREATE_TIME = "db.client.connection.create_time"
    DB_CONNECTION_IDLE_MAX = "db.client.connection.idle.max"
    DB_CONNECTION_IDLE_MIN = "db.client.connection.idle.min"
    DB_CONNECTION_MAX = "db.client.connection.max"
    DB_CONNECTION_PENDING = "db.client.connection.pending_requests"
    DB_CONNECTION_TIMEOUTS = "db.client.connection.timeouts"
    DB_CONNECTION_USE_TIME = "db.client.connection.use_time"
    DB_CONNECTION_WAIT_TIME = "db.client.connection.wait_time"
    DB_OPERATION_DURATION = "db.client.operation.duration"
    HTTP_SERVER_DURATION = "http.server.request.duration"
    MEMORY_CACHE = "streamlit.memory.cache"
    MEMORY_MEDIA = "streamlit.memory.media"
    MEMORY_SESSION_STATE = "streamlit.memory.session_state"
    MEMORY_UPLOADS = "streamlit.memory.uploads"
    RUN_ACTIVE = "streamlit.script_run.active"
    RUN_DURATION = "streamlit.script_run.duration"
    SESSION_ACTIVE = "streamlit.session.active"
    SESSION_DURATION = "streamlit.session.duration"
    TELEMETRY_DELIVERED = "telemetry.delivered"
    TELEMETRY_DROPPED = "telemetry.dropped"
    TELEMETRY_EMITTED = "telemetry.emitted"
    TELEMETRY_QUEUED = "telemetry.queued"
    TELEMETRY_SPOOLED = "telemetry.spooled"


UNITS: dict[Metric, str] = {
    Metric.BUSINESS_EVENTS: "{event}",
    Metric.CACHE_EVICTIONS: "{eviction}",
    Metric.CACHE_REQUESTS: "{request}",
    Metric.DB_CONNECTION_COUNT: "{connection}",
    Metric.DB_CONNECTION_CREATE_TIME: "s",
    Metric.DB_CONNECTION_IDLE_MAX: "{connection}",
    Metric.DB_CONNECTION_IDLE_MIN: "{connection}",
    Metric.DB_CONNECTION_MAX: "{connection}",
    Metric.DB_CONNECTION_PENDING: "{request}",
    Metric.DB_CONNECTION_TIMEOUTS: "{timeout}",
    Metric.DB_CONNECTION_USE_TIME: "s",
    Metric.DB_CONNECTION_WAIT_TIME: "s",
    Metric.DB_OPERATION_DURATION: "s",
    Metric.HTTP_SERVER_DURATION: "s",
    Metric.MEMORY_CACHE: "By",
    Metric.MEMORY_MEDIA: "By",
    Metric.MEMORY_SESSION_STATE: "By",
    Metric.MEMORY_UPLOADS: "By",
    Metric.RUN_ACTIVE: "{run}",
    Metric.RUN_DURATION: "s",
    Metric.SESSION_ACTIVE: "{session}",
    Metric.SESSION_DURATION: "s",
    Metric.TELEMETRY_DELIVERED: "{record}",
    Metric.TELEMETRY_DROPPED: "{record}",
    Metric.TELEMETRY_EMITTED: "{record}",
    Metric.TELEMETRY_QUEUED: "{record}",
    Metric.TELEMETRY_SPOOLED: "{record}",
}

#: Bounds of `http.server.request.duration` and `db.client.operation.duration` in seconds: those that the semantic
#: conventions advise (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ and …/db/database-metrics/).
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
DB_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: Bounds of `streamlit.script_run.duration` in seconds: with bounds at the objectives of 0.1, 0.5, 1 and 5 s (the alert
#: on `response_time` looks at 5,000 ms), finer where an interface begins to feel slow.
RUN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Bounds of `streamlit.session.duration` in seconds: from a glance to a day.
SESSION_BUCKETS = (1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0)

#: What the metrics of databases and requests say of themselves, in the words of the semantic conventions.
DESCRIPTIONS: dict[Metric, str] = {
    Metric.DB_CONNECTION_COUNT: "The number of connections that are currently in state described by the state "
    "attribute.",
    Metric.DB_CONNECTION_CREATE_TIME: "The time it took to create a new connection.",
    Metric.DB_CONNECTION_IDLE_MAX: "The maximum number of idle open connections allowed.",
    Metric.DB_CONNECTION_IDLE_MIN: "The minimum number of idle open connections allowed.",
    Metric.DB_CONNECTION_MAX: "The maximum number of open connections allowed.",
    Metric.DB_CONNECTION_PENDING: "The number of current pending requests for an open connection.",
    Metric.DB_CONNECTION_TIMEOUTS: "The number of connection timeouts that have occurred trying to obtain a connection "
    "from the pool.",
    Metric.DB_CONNECTION_USE_TIME: "The time between borrowing a connection and returning it to the pool.",
    Metric.DB_CONNECTION_WAIT_TIME: "The time it took to obtain an open connection from the pool.",
    Metric.DB_OPERATION_DURATION: "Duration of database client operations.",
    Metric.HTTP_SERVER_DURATION: "Duration of HTTP server requests.",
}

#: The release of the semantic conventions that the names follow.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.43.0"
