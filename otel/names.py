"""Every span, metric, attribute and event name that is emitted, with unit and allowed values.

Semantic conventions (https://opentelemetry.io/docs/specs/semconv/) first, in their stable names; own names only where
the conventions have none.
"""

from __future__ import annotations

from enum import StrEnum

from otel.records import DropReason, Signal


class Attribute(StrEnum):
    """Attribute names."""

    ALERT_NOTIFICATION_OUTCOME = "alert.notification.outcome"  # own: delivered | failed
    ALERT_RULE_NAME = "alert.rule.name"  # own
    ALERT_SINK_NAME = "alert.sink.name"  # own: log, email, slack, pagerduty, url1-scheme
    APP_SCREEN_NAME = "app.screen.name"  # semantic conventions (app): name of the page
    BUSINESS_EVENT_NAME = "business.event.name"  # own
    CACHE_OUTCOME = "streamlit.cache.outcome"  # own: hit | miss
    CIRCUIT_NAME = "circuit_breaker.name"  # own: the dependency, as the application calls it
    CIRCUIT_OUTCOME = "circuit_breaker.outcome"  # own: success | failure | rejected
    CIRCUIT_STATE = "circuit_breaker.state"  # own: closed | open | half_open
    CPU_MODE = "cpu.mode"  # semantic conventions (cpu)
    CODE_FUNCTION_NAME = "code.function.name"  # semantic conventions (code)
    CLIENT_ADDRESS = "client.address"  # semantic conventions (client); on spans alone
    CPYTHON_GC_GENERATION = "cpython.gc.generation"  # semantic conventions (cpython); a number
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
    DISK_IO_DIRECTION = "disk.io.direction"  # semantic conventions (disk)
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
    MEMORY_HOLDER = "streamlit.memory.holder"  # own
    NETWORK_INTERFACE_NAME = "network.interface.name"  # semantic conventions (network)
    NETWORK_IO_DIRECTION = "network.io.direction"  # semantic conventions (network)
    NETWORK_PROTOCOL_VERSION = "network.protocol.version"  # semantic conventions (network)
    RUN_OUTCOME = "streamlit.run.outcome"  # own: success | rerun | stopped | error | compile_error
    RUN_TRIGGER = "streamlit.run.trigger"  # own: connect | widget | rerun | page | timer | source | other
    RUN_TYPE = "streamlit.run.type"  # own: full | fragment
    SESSION_ID = "session.id"  # semantic conventions (session); never on a metric
    SERVER_ADDRESS = "server.address"  # semantic conventions (server)
    SERVER_PORT = "server.port"  # semantic conventions (server)
    SYSTEM_DEVICE = "system.device"  # semantic conventions (system)
    SYSTEM_FILESYSTEM_MOUNTPOINT = "system.filesystem.mountpoint"  # semantic conventions (system)
    SYSTEM_FILESYSTEM_STATE = "system.filesystem.state"  # semantic conventions (system)
    SYSTEM_MEMORY_STATE = "system.memory.state"  # semantic conventions (system)
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

    ALERT_ACTIVE = "alert.active"  # own
    ALERT_NOTIFICATIONS = "alert.notification.finished"  # own
    ALERT_NOTIFICATIONS_WAITING = "alert.notification.waiting"  # own
    BUSINESS_EVENTS = "business.events"
    CACHE_EVICTIONS = "streamlit.cache.evictions"
    CACHE_REQUESTS = "streamlit.cache.requests"
    CIRCUIT_CALLS = "circuit_breaker.calls"  # own
    CIRCUIT_STATES = "circuit_breaker.active"  # own
    CPYTHON_GC_COLLECTED = "cpython.gc.collected_objects"
    CPYTHON_GC_COLLECTIONS = "cpython.gc.collections"
    CPYTHON_GC_UNCOLLECTABLE = "cpython.gc.uncollectable_objects"
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
    MEMORY_GROWTH = "streamlit.memory.growth"  # own
    MEMORY_MEDIA = "streamlit.memory.media"
    MEMORY_SESSION_STATE = "streamlit.memory.session_state"
    MEMORY_UPLOADS = "streamlit.memory.uploads"
    PROCESS_CPU_TIME = "process.cpu.time"
    PROCESS_FILE_DESCRIPTORS = "process.unix.file_descriptor.count"
    PROCESS_FILE_DESCRIPTOR_LIMIT = "process.unix.file_descriptor.limit"  # own, beside the conventions' count
    PROCESS_MEMORY_USAGE = "process.memory.usage"
    PROCESS_MEMORY_VIRTUAL = "process.memory.virtual"
    PROCESS_THREADS = "process.thread.count"
    PROCESS_UPTIME = "process.uptime"
    RUN_ACTIVE = "streamlit.script_run.active"
    RUN_DURATION = "streamlit.script_run.duration"
    SESSION_ACTIVE = "streamlit.session.active"
    SESSION_DURATION = "streamlit.session.duration"
    SYSTEM_CPU_LOGICAL = "system.cpu.logical.count"
    SYSTEM_CPU_TIME = "system.cpu.time"
    SYSTEM_CPU_UTILIZATION = "system.cpu.utilization"
    SYSTEM_DISK_IO = "system.disk.io"
    SYSTEM_DISK_OPERATIONS = "system.disk.operations"
    SYSTEM_FILESYSTEM_USAGE = "system.filesystem.usage"
    SYSTEM_FILESYSTEM_UTILIZATION = "system.filesystem.utilization"
    SYSTEM_MEMORY_LIMIT = "system.memory.limit"
    SYSTEM_MEMORY_USAGE = "system.memory.usage"
    SYSTEM_MEMORY_UTILIZATION = "system.memory.utilization"
    SYSTEM_NETWORK_DROPPED = "system.network.packet.dropped"
    SYSTEM_NETWORK_ERRORS = "system.network.errors"
    SYSTEM_NETWORK_IO = "system.network.io"
    SYSTEM_NETWORK_PACKETS = "system.network.packet.count"
    SYSTEM_PROCESSES = "system.process.count"
    TELEMETRY_DELIVERED = "telemetry.delivered"
    TELEMETRY_DROPPED = "telemetry.dropped"
    TELEMETRY_EMITTED = "telemetry.emitted"
    TELEMETRY_QUEUED = "telemetry.queued"
    TELEMETRY_SPOOLED = "telemetry.spooled"


UNITS: dict[Metric, str] = {
    Metric.ALERT_ACTIVE: "{alert}",
    Metric.ALERT_NOTIFICATIONS: "{notification}",
    Metric.ALERT_NOTIFICATIONS_WAITING: "{notification}",
    Metric.BUSINESS_EVENTS: "{event}",
    Metric.CACHE_EVICTIONS: "{eviction}",
    Metric.CACHE_REQUESTS: "{request}",
    Metric.CIRCUIT_CALLS: "{call}",
    Metric.CIRCUIT_STATES: "{circuit_breaker}",
    Metric.CPYTHON_GC_COLLECTED: "{object}",
    Metric.CPYTHON_GC_COLLECTIONS: "{collection}",
    Metric.CPYTHON_GC_UNCOLLECTABLE: "{object}",
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
    Metric.MEMORY_GROWTH: "By/s",
    Metric.MEMORY_MEDIA: "By",
    Metric.MEMORY_SESSION_STATE: "By",
    Metric.MEMORY_UPLOADS: "By",
    Metric.PROCESS_CPU_TIME: "s",
    Metric.PROCESS_FILE_DESCRIPTORS: "{file_descriptor}",
    Metric.PROCESS_FILE_DESCRIPTOR_LIMIT: "{file_descriptor}",
    Metric.PROCESS_MEMORY_USAGE: "By",
    Metric.PROCESS_MEMORY_VIRTUAL: "By",
    Metric.PROCESS_THREADS: "{thread}",
    Metric.PROCESS_UPTIME: "s",
    Metric.RUN_ACTIVE: "{run}",
    Metric.RUN_DURATION: "s",
    Metric.SESSION_ACTIVE: "{session}",
    Metric.SESSION_DURATION: "s",
    Metric.SYSTEM_CPU_LOGICAL: "{cpu}",
    Metric.SYSTEM_CPU_TIME: "s",
    Metric.SYSTEM_CPU_UTILIZATION: "1",
    Metric.SYSTEM_DISK_IO: "By",
    Metric.SYSTEM_DISK_OPERATIONS: "{operation}",
    Metric.SYSTEM_FILESYSTEM_USAGE: "By",
    Metric.SYSTEM_FILESYSTEM_UTILIZATION: "1",
    Metric.SYSTEM_MEMORY_LIMIT: "By",
    Metric.SYSTEM_MEMORY_USAGE: "By",
    Metric.SYSTEM_MEMORY_UTILIZATION: "1",
    Metric.SYSTEM_NETWORK_DROPPED: "{packet}",
    Metric.SYSTEM_NETWORK_ERRORS: "{error}",
    Metric.SYSTEM_NETWORK_IO: "By",
    Metric.SYSTEM_NETWORK_PACKETS: "{packet}",
    Metric.SYSTEM_PROCESSES: "{process}",
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

_DIRECTIONS = (Attribute.SYSTEM_DEVICE, Attribute.DISK_IO_DIRECTION)
_INTERFACES = (Attribute.NETWORK_INTERFACE_NAME, Attribute.NETWORK_IO_DIRECTION)
_FILE_SYSTEM = (Attribute.SYSTEM_FILESYSTEM_MOUNTPOINT, Attribute.SYSTEM_FILESYSTEM_STATE)
_OPERATION = (
    *(Attribute.DB_SYSTEM_NAME, Attribute.DB_NAMESPACE, Attribute.DB_OPERATION_NAME, Attribute.DB_COLLECTION_NAME),
    *(Attribute.DB_QUERY_SUMMARY, Attribute.DB_STATUS_CODE, Attribute.ERROR_TYPE),
    *(Attribute.SERVER_ADDRESS, Attribute.SERVER_PORT),
)
_REQUEST = (
    *(Attribute.HTTP_METHOD, Attribute.HTTP_ROUTE, Attribute.HTTP_STATUS, Attribute.ERROR_TYPE),
    *(Attribute.URL_SCHEME, Attribute.NETWORK_PROTOCOL_VERSION),
)
_NOTIFICATION = (Attribute.ALERT_SINK_NAME, Attribute.ALERT_NOTIFICATION_OUTCOME, Attribute.ERROR_TYPE)
_RUN = (Attribute.RUN_TYPE, Attribute.RUN_TRIGGER, Attribute.RUN_OUTCOME, Attribute.APP_SCREEN_NAME)

#: The attributes that a metric may have; one that is not listed has none.
METRIC_ATTRIBUTES: dict[Metric, tuple[Attribute, ...]] = {
    Metric.ALERT_ACTIVE: (Attribute.ALERT_RULE_NAME,),
    Metric.ALERT_NOTIFICATIONS: _NOTIFICATION,
    Metric.ALERT_NOTIFICATIONS_WAITING: (Attribute.ALERT_SINK_NAME,),
    Metric.BUSINESS_EVENTS: (Attribute.BUSINESS_EVENT_NAME,),
    Metric.CACHE_REQUESTS: (Attribute.CACHE_OUTCOME,),
    Metric.CIRCUIT_CALLS: (Attribute.CIRCUIT_NAME, Attribute.CIRCUIT_OUTCOME),
    Metric.CIRCUIT_STATES: (Attribute.CIRCUIT_NAME, Attribute.CIRCUIT_STATE),
    Metric.CPYTHON_GC_COLLECTED: (Attribute.CPYTHON_GC_GENERATION,),
    Metric.CPYTHON_GC_COLLECTIONS: (Attribute.CPYTHON_GC_GENERATION,),
    Metric.CPYTHON_GC_UNCOLLECTABLE: (Attribute.CPYTHON_GC_GENERATION,),
    Metric.DB_CONNECTION_COUNT: (Attribute.DB_POOL_NAME, Attribute.DB_CONNECTION_STATE),
    **{
        metric: (Attribute.DB_POOL_NAME,)
        for metric in Metric
        if metric.startswith("db.client.connection.") and metric is not Metric.DB_CONNECTION_COUNT
    },
    Metric.DB_OPERATION_DURATION: _OPERATION,
    Metric.HTTP_SERVER_DURATION: _REQUEST,
    Metric.MEMORY_GROWTH: (Attribute.MEMORY_HOLDER,),
    Metric.PROCESS_CPU_TIME: (Attribute.CPU_MODE,),
    Metric.RUN_ACTIVE: (Attribute.RUN_TYPE,),
    Metric.RUN_DURATION: (*_RUN, Attribute.ERROR_TYPE),
    Metric.SYSTEM_CPU_TIME: (Attribute.CPU_MODE,),
    Metric.SYSTEM_DISK_IO: _DIRECTIONS,
    Metric.SYSTEM_DISK_OPERATIONS: _DIRECTIONS,
    Metric.SYSTEM_FILESYSTEM_USAGE: _FILE_SYSTEM,
    Metric.SYSTEM_FILESYSTEM_UTILIZATION: _FILE_SYSTEM,
    Metric.SYSTEM_MEMORY_USAGE: (Attribute.SYSTEM_MEMORY_STATE,),
    Metric.SYSTEM_MEMORY_UTILIZATION: (Attribute.SYSTEM_MEMORY_STATE,),
    Metric.SYSTEM_NETWORK_DROPPED: _INTERFACES,
    Metric.SYSTEM_NETWORK_ERRORS: _INTERFACES,
    Metric.SYSTEM_NETWORK_IO: _INTERFACES,
    Metric.SYSTEM_NETWORK_PACKETS: _INTERFACES,
    Metric.TELEMETRY_DELIVERED: (Attribute.TELEMETRY_SIGNAL,),
    Metric.TELEMETRY_DROPPED: (Attribute.TELEMETRY_SIGNAL, Attribute.TELEMETRY_REASON),
    Metric.TELEMETRY_EMITTED: (Attribute.TELEMETRY_SIGNAL,),
    Metric.TELEMETRY_QUEUED: (Attribute.TELEMETRY_SIGNAL,),
    Metric.TELEMETRY_SPOOLED: (Attribute.TELEMETRY_SIGNAL,),
}

#: The values that an attribute of a metric may have, where they can be listed.
ALLOWED_VALUES: dict[Attribute, frozenset[str | int]] = {
    Attribute.ALERT_NOTIFICATION_OUTCOME: frozenset({"delivered", "failed"}),
    Attribute.ALERT_RULE_NAME: frozenset(
        {"cpu_usage", "memory_usage", "disk_usage", "error_rate", "response_time", "database_connections"}
        | {"memory_growth"}
    ),
    Attribute.CACHE_OUTCOME: frozenset({"hit", "miss"}),
    Attribute.CIRCUIT_OUTCOME: frozenset({"success", "failure", "rejected"}),
    Attribute.CIRCUIT_STATE: frozenset({"closed", "open", "half_open"}),
    Attribute.CPU_MODE: frozenset(
        {"user", "system", "nice", "idle", "iowait", "interrupt", "steal", "kernel"}  # the conventions' own
    ),
    Attribute.CPYTHON_GC_GENERATION: frozenset({0, 1, 2}),
    Attribute.DB_CONNECTION_STATE: frozenset({"idle", "used"}),
    Attribute.DISK_IO_DIRECTION: frozenset({"read", "write"}),
    Attribute.HTTP_METHOD: frozenset(
        {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE", "_OTHER"}
    ),
    Attribute.MEMORY_HOLDER: frozenset({"session_state", "cache", "uploads", "media"}),
    Attribute.NETWORK_IO_DIRECTION: frozenset({"receive", "transmit"}),
    Attribute.RUN_OUTCOME: frozenset({"success", "rerun", "stopped", "error", "compile_error"}),
    Attribute.RUN_TRIGGER: frozenset({"connect", "widget", "rerun", "page", "timer", "source", "other"}),
    Attribute.RUN_TYPE: frozenset({"full", "fragment"}),
    Attribute.SYSTEM_FILESYSTEM_STATE: frozenset({"used", "free", "reserved"}),
    Attribute.SYSTEM_MEMORY_STATE: frozenset({"used", "free"}),
    Attribute.TELEMETRY_REASON: frozenset(reason.value for reason in DropReason),
    Attribute.TELEMETRY_SIGNAL: frozenset(signal.value for signal in Signal),
}
