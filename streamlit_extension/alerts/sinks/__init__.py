"""Where alerts go: one small file for each kind of sink, and the table that makes them from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamlit_extension.alerts.message import Links

if TYPE_CHECKING:
    from streamlit_extension.alerts.delivery import Sink
    from streamlit_extension.settings import Settings


def links_from(settings: Settings) -> Links:
    """Return the bases of links that `[notify]` names; the path prefix belongs to the public one."""
    notify = settings.notify
    public = f"{notify.public_url.rstrip('/')}{settings.path_prefix}" if notify.public_url else None
    return Links(public, notify.jaeger_url)


def sinks_from(settings: Settings) -> tuple[Sink, ...]:
    """Return the log and every sink that `[notify]` configures; what is not configured is not imported."""
    from streamlit_extension.alerts.sinks.log import LogSink

    notify, links = settings.notify, links_from(settings)
    sinks: list[Sink] = [LogSink()]
    if notify.email.host:
        from streamlit_extension.alerts.sinks.email import EmailSink

        sinks.append(EmailSink(notify.email, links))
    if notify.slack.webhook_url is not None:
        from streamlit_extension.alerts.sinks.slack import SlackSink

        sinks.append(SlackSink(notify.slack.webhook_url.reveal, links))
    if notify.slack.token is not None and notify.slack.channel:
        from streamlit_extension.alerts.sinks.slack_api import SlackApiSink

        chat = notify.slack
        sinks.append(SlackApiSink(notify.slack.token.reveal, notify.slack.channel, links, api_url=chat.api_url))
    if notify.pagerduty.routing_key is not None:
        from streamlit_extension.alerts.sinks.pagerduty import PagerDutySink

        sinks.append(PagerDutySink(notify.pagerduty.routing_key.reveal, links, events_url=notify.pagerduty.events_url))
    if urls := notify.url_values():
        from streamlit_extension.alerts.sinks.urls import UrlSink

        sinks += [UrlSink(number, notify.url_values, links) for number in range(len(urls))]
    return tuple(sinks)
