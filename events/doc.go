// Package events reads, checks and writes the events of the platform's topics: CloudEvents 1.0 over Kafka, the event types,
// and the dead letters of events that can't be taken. It depends on neither a Kafka client nor a store.
//
// # Reading
//
// The reader of a topic fills a [Record]. Usage events, the many, go through a [UsageDecoder] into a [Usage] whose
// fields are ready for a column store; it allocates nothing. All other events go through a [Decoder], which gives an
// [Event] with its attributes and, by [Event.Payload], the struct of its type. Both accept exactly what the type's JSON
// Schema in package schemas accepts, and both keep amounts exact: integers and decimals never become floats.
//
// The only error of decoding is a [*Rejection], and trying again never helps. Of several things that are wrong it names
// the first in this order: the envelope (malformed_envelope, missing_attribute, unknown_type), the key (missing_key), the
// data (malformed_data, key_mismatch, invalid_data), the time (timestamp_in_future, timestamp_too_old).
//
// # Decisions where the specifications leave room
//
//   - A record is in structured mode if its content-type begins with application/cloudevents, in any case of letters. JSON
//     is the only format read; batches are refused.
//   - Data is judged by its bytes, whatever its content type says. In structured mode a JSON string is no object, even
//     if it holds the text of one.
//   - The header of a known attribute twice is refused; of two equal names in JSON the last one counts. Names are compared
//     exactly. Unknown attributes and fields are checked to be well-formed and otherwise ignored.
//   - A null attribute in structured mode is an absent one. A null field of the data is not: it has the wrong type.
//   - An empty key is no key. An empty id or source is a missing attribute.
//   - Timestamps are RFC 3339 with T or t and Z, z or an offset; leap seconds are refused. What is finer than a
//     millisecond is cut off.
//   - The data of events other than usage nests at most 100 levels deep.
//   - Numbers may have exponents: 1e2 and 5.0 are integers, as in JSON Schema.
//
// # Writing
//
// [NewResult] makes the event that another one causes: its id follows from the cause, so publishing it twice is harmless.
// [Envelope.EncodeBinary] gives the record's value and headers. [Envelope.ToStructured] and [ParseStructured] write and
// read events as JSON lines that carry the key of their record in the extension partitionkey.
//
// [NewDeadLetter] turns a record that was refused into a record of its dead letter topic, with the original key, headers and
// bytes; [ParseDeadLetter] gives them back, to be looked at or sent again.
package events
