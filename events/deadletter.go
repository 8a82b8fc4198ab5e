package events

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Headers of a dead letter, added behind the original ones.
const (
	HeaderReason    = "dlq-reason"
	HeaderError     = "dlq-error" // words for a person
	HeaderTopic     = "dlq-topic"
	HeaderPartition = "dlq-partition"
	HeaderOffset    = "dlq-offset"
	HeaderAttempts  = "dlq-attempts"
	HeaderFailedAt  = "dlq-failed-at" // RFC 3339, UTC, milliseconds
	HeaderGroup     = "dlq-group"

	// HeaderNull is there only for a tombstone and says "value": not every client keeps null apart from empty.
	HeaderNull = "dlq-null"
)

// headersOfDeadLetters are the headers NewDeadLetter adds, in its order.
func headersOfDeadLetters() []string {
	return []string{HeaderReason, HeaderError, HeaderTopic, HeaderPartition, HeaderOffset, HeaderAttempts,
		HeaderFailedAt, HeaderGroup, HeaderNull}
}

const maxErrorBytes = 1024

// LargeRecordKeeps is how many bytes key and headers together may have before they, too, are left out where a LargeRecord
// stands for a record.
const LargeRecordKeeps = 16 << 10

// A LargeRecord stands, as JSON, for the bytes of a record that fits into no dead letter.
type LargeRecord struct {
	Topic        string `json:"topic"`
	Partition    int    `json:"partition"`
	Offset       int64  `json:"offset"`
	KeyBytes     int    `json:"key_bytes"`
	HeaderBytes  int    `json:"header_bytes"` // names and values
	ValueBytes   int    `json:"value_bytes"`
	KeySHA256    string `json:"key_sha256"` // hexadecimal
	ValueSHA256  string `json:"value_sha256"`
	KeyKept      bool   `json:"key_kept"` // key and headers of the dead letter are the original ones
	OriginalTime string `json:"original_time"`
}

// Rejection says that the record is too large for its reader.
func (l *LargeRecord) Rejection() *Rejection {
	return Reject(TooLarge, "the record is larger than what is read: a key of %d bytes, headers of %d, a value of %d",
		l.KeyBytes, l.HeaderBytes, l.ValueBytes)
}

// NewDeadLetter makes the record that goes to the dead letter topic of rec's topic: original key, headers and bytes,
// and the dlq- headers behind them. The result shares rec's bytes. With reason too_large the value is a LargeRecord as
// JSON in place of the bytes; a record that is Large has no other reason.
//
// Group is the consumer group that gave up, attempts how often it had tried, failedAt when it stopped.
func NewDeadLetter(rec *Record, group string, rejection *Rejection, attempts int, failedAt time.Time) (key, value []byte, headers []Header) {
	key, value, headers = rec.Key, rec.Value, slices.Clip(slices.Clone(rec.Headers))
	if rec.Large != nil && rejection.Reason != TooLarge {
		rejection = Reject(TooLarge, "%s: %s", rejection.Reason, rejection.Detail)
	}
	if rejection.Reason == TooLarge {
		key, value, headers = largeRecord(rec)
	}
	add := func(name, text string) { headers = append(headers, Header{Key: name, Value: []byte(text)}) }
	add(HeaderReason, string(rejection.Reason))
	add(HeaderError, cut(rejection.Detail, maxErrorBytes))
	add(HeaderTopic, rec.Topic)
	add(HeaderPartition, strconv.Itoa(rec.Partition))
	add(HeaderOffset, strconv.FormatInt(rec.Offset, 10))
	add(HeaderAttempts, strconv.Itoa(attempts))
	add(HeaderFailedAt, failedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	add(HeaderGroup, group)
	if rec.Value == nil && rec.Large == nil {
		add(HeaderNull, "value")
	}
	return key, value, headers
}

func largeRecord(rec *Record) (key, value []byte, headers []Header) {
	large := LargeRecord{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset,
		KeyBytes: len(rec.Key), ValueBytes: len(rec.Value),
		KeySHA256: hexSHA256(rec.Key), ValueSHA256: hexSHA256(rec.Value),
		OriginalTime: rec.Time.UTC().Format(time.RFC3339Nano),
	}
	for _, h := range rec.Headers {
		large.HeaderBytes += len(h.Key) + len(h.Value)
	}
	large.KeyKept = large.KeyBytes+large.HeaderBytes <= LargeRecordKeeps
	if rec.Large != nil {
		large = *rec.Large
	}
	if large.KeyKept {
		key, headers = rec.Key, slices.Clip(slices.Clone(rec.Headers))
	}
	value, err := json.Marshal(large)
	if err != nil {
		value = []byte("{}") // strings and integers always marshal
	}
	return key, value, headers
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// cut shortens a text to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// An Origin is the identity of a dead letter: which group gave up on which record.
type Origin struct {
	Group     string
	Topic     string
	Partition int
	Offset    int64
}

// A DeadLetter is a record of a dead letter topic taken apart again.
type DeadLetter struct {
	Origin
	Reason   Reason
	Detail   string
	Attempts int
	FailedAt time.Time

	// Key, Value and Headers are the original record's. They share the bytes of the record parsed. Value is nil for a
	// tombstone. For reason too_large Large says what is not there, and Value is nil.
	Key     []byte
	Value   []byte
	Headers []Header
	Large   *LargeRecord
}

// ContentHash is [Record.ContentHash] of the original record, if its bytes are there. A letter names the record at its origin only if that
// is the same: a topic that was created again has other records at the same offsets.
func (d *DeadLetter) ContentHash() uint64 {
	r := Record{Key: d.Key, Value: d.Value, Headers: d.Headers}
	return r.ContentHash()
}

// Redrivable reports whether the original bytes are there to be sent again.
func (d *DeadLetter) Redrivable() bool { return d.Large == nil }

// ParseDeadLetter takes a record of a dead letter topic apart. The error says which header is absent or broken: then the
// record was not made by NewDeadLetter.
func ParseDeadLetter(r *Record) (*DeadLetter, error) {
	d := &DeadLetter{Key: r.Key, Value: r.Value, Headers: StripDeadLetterHeaders(r.Headers)}
	// NewDeadLetter's headers start with the last dlq-reason: what stands before it is the producer's.
	added := r.Headers[max(0, lastHeader(r.Headers, HeaderReason)):]
	get := func(name string) (string, error) {
		i := lastHeader(added, name)
		if i < 0 {
			return "", fmt.Errorf("parse dead letter at %s/%d/%d: no header %s", r.Topic, r.Partition, r.Offset, name)
		}
		return string(added[i].Value), nil
	}
	number := func(name string) (int64, error) {
		text, err := get(name)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse dead letter at %s/%d/%d: header %s: %w", r.Topic, r.Partition, r.Offset, name, err)
		}
		return n, nil
	}

	reason, err := get(HeaderReason)
	if err != nil {
		return nil, err
	}
	d.Reason = Reason(reason)
	if d.Topic, err = get(HeaderTopic); err != nil {
		return nil, err
	}
	if d.Group, err = get(HeaderGroup); err != nil {
		return nil, err
	}
	partition, err := number(HeaderPartition)
	if err != nil {
		return nil, err
	}
	d.Partition = int(partition)
	if d.Offset, err = number(HeaderOffset); err != nil {
		return nil, err
	}
	attempts, err := number(HeaderAttempts)
	if err != nil {
		return nil, err
	}
	d.Attempts = int(attempts)
	if d.Detail, err = get(HeaderError); err != nil {
		return nil, err
	}
	failedAt, err := get(HeaderFailedAt)
	if err != nil {
		return nil, err
	}
	if d.FailedAt, err = time.Parse(time.RFC3339Nano, failedAt); err != nil {
		return nil, fmt.Errorf("parse dead letter at %s/%d/%d: header %s: %w", r.Topic, r.Partition, r.Offset, HeaderFailedAt, err)
	}

	if lastHeader(added, HeaderNull) >= 0 {
		d.Value = nil
	}
	if d.Reason == TooLarge {
		d.Large = &LargeRecord{}
		if err := json.Unmarshal(r.Value, d.Large); err != nil {
			return nil, fmt.Errorf("parse dead letter at %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		d.Value = nil
	}
	return d, nil
}

// StripDeadLetterHeaders gives the headers as they were before NewDeadLetter. Headers of the same names that the producer
// itself had sent, before them, stay.
func StripDeadLetterHeaders(headers []Header) []Header {
	start := lastHeader(headers, HeaderReason)
	if start < 0 {
		return slices.Clone(headers)
	}
	names := headersOfDeadLetters()
	kept := slices.Clone(headers[:start])
	for _, h := range headers[start:] {
		if !slices.Contains(names, h.Key) {
			kept = append(kept, h)
		}
	}
	return kept
}

// LastHeader is the value of the last header of a name; nil: there is none.
func LastHeader(headers []Header, name string) []byte {
	if i := lastHeader(headers, name); i >= 0 {
		return headers[i].Value
	}
	return nil
}

func lastHeader(headers []Header, name string) int {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == name {
			return i
		}
	}
	return -1
}
