// Records what the CloudEvents SDK for JavaScript hands to a Kafka client, for TestMessagesOfOfficialSDKsAreAccepted:
//   npm install cloudevents@10.0.0 && node record.mjs > javascript.json
// Kafka clients for Node.js take a key and header values as text or bytes, and send an undefined header as null; so does this.
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const { CloudEvent, Kafka } = require("cloudevents");

const data = {
  company_id: "acme", user_id: "user-7", subscription_tier: "pro", service_name: "Kursdaten-Dienst für 東京 😀",
  api_endpoint: "/v1/quotes?symbol=EUR\"USD", data_points_consumed: 120, processing_time_ms: 12.3455,
  timestamp: "2026-07-31T13:29:58.123+02:00", revenue_attributed: "0.001250",
};
const attributes = {
  id: "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f", source: "/data-bridge/eu-1", type: "usage.recorded.v1",
  time: "2026-07-31T11:30:00.000Z", datacontenttype: "application/json", partitionkey: "acme",
};
const extensions = {
  traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate: "vendor=1",
  causationid: "cause-1", causationsource: "/cause", samplerate: 3, sampled: true,
};
const bytes = (v) => (v === undefined || v === null ? null : Buffer.from(v instanceof Uint8Array ? v : String(v)).toString("base64"));
// In binary mode the SDK leaves data that is an object to the caller to serialise.
const value = (v) => (typeof v === "string" || v instanceof Uint8Array ? v : JSON.stringify(v));
const record = (name, message) => ({
  name, key: bytes(message.key), value: bytes(value(message.value)),
  headers: Object.entries(message.headers).map(([key, v]) => ({ key, value: bytes(v) })),
});

console.log(JSON.stringify([
  record("binary", Kafka.binary(new CloudEvent({ ...attributes, data }))),
  record("binary, data as bytes, extensions", Kafka.binary(new CloudEvent({ ...attributes, ...extensions, subject: "s", dataschema: "https://example.com/s", data: Buffer.from(JSON.stringify(data)) }))),
  record("structured", Kafka.structured(new CloudEvent({ ...attributes, data }))),
  record("structured, extensions", Kafka.structured(new CloudEvent({ ...attributes, ...extensions, data }))),
  record("structured, data as bytes", Kafka.structured(new CloudEvent({ ...attributes, data: Buffer.from(JSON.stringify(data)) }))),
], null, 1));
