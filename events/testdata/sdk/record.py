# Records what the CloudEvents SDK for Python hands to a Kafka client, for TestMessagesOfOfficialSDKsAreAccepted:
#   pip install cloudevents==2.2.0 && python record.py > python.json
import base64
import json
from datetime import datetime, timezone

from cloudevents.core.bindings import kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as OldCloudEvent
from cloudevents.v1.kafka import to_binary as old_to_binary, to_structured as old_to_structured

data = {
    "company_id": "acme", "user_id": "user-7", "subscription_tier": "pro", "service_name": "Kursdaten-Dienst für 東京 😀",
    "api_endpoint": '/v1/quotes?symbol=EUR"USD', "data_points_consumed": 120, "processing_time_ms": 12.3455,
    "timestamp": "2026-07-31T13:29:58.123+02:00", "revenue_attributed": "0.001250",
}
attributes = {
    "id": "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f", "source": "/data-bridge/eu-1", "type": "usage.recorded.v1",
    "specversion": "1.0", "datacontenttype": "application/json", "partitionkey": "acme",
}
extensions = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1",
              "causationid": "cause-1", "causationsource": "/cause"}
at = datetime(2026, 7, 31, 11, 30, tzinfo=timezone.utc)


def encoded(value):
    if value is None:
        return None
    return base64.b64encode(value if isinstance(value, bytes) else str(value).encode()).decode()


def record(name, message):
    return {"name": name, "key": encoded(message.key), "value": encoded(message.value),
            "headers": [{"key": k, "value": encoded(v)} for k, v in message.headers.items()]}


def new(data, **more):
    return CloudEvent(attributes={**attributes, "time": at, **more}, data=data)


def old(data, **more):
    return OldCloudEvent({**attributes, "time": at.isoformat(), **more}, data)


print(json.dumps([
    record("binary", kafka.to_binary(new(data), JSONFormat())),
    record("binary, extensions", kafka.to_binary(new(data, **extensions), JSONFormat())),
    record("structured", kafka.to_structured(new(data), JSONFormat())),
    record("structured, data as bytes", kafka.to_structured(new(json.dumps(data).encode()), JSONFormat())),
    record("binary, version 1 of the SDK", old_to_binary(old(data))),
    record("structured, version 1 of the SDK", old_to_structured(old(data, **extensions))),
], indent=1))
