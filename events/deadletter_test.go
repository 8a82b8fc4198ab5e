package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var failedAt = time.Date(2026, 7, 31, 14, 0, 0, 123456789, time.FixedZone("", 7200))

func TestADeadLetterIsTheRecordWithHeadersBehindIt(t *testing.T) {
	t.Parallel()
	r := binaryRecord(usageJSON)
	before := len(r.Headers)
	key, value, headers := NewDeadLetter(r, "tenantflow.usage", Reject(InvalidData, "at %s: wrong", "/x"), 3, failedAt)
	if string(key) != "acme" || string(value) != usageJSON {
		t.Errorf("key %q, value %q", key, value)
	}
	want := append(binaryRecord(usageJSON).Headers,
		Header{"dlq-reason", []byte("invalid_data")}, Header{"dlq-error", []byte("at /x: wrong")},
		Header{"dlq-topic", []byte("usage.events")}, Header{"dlq-partition", []byte("3")}, Header{"dlq-offset", []byte("42")},
		Header{"dlq-attempts", []byte("3")}, Header{"dlq-failed-at", []byte("2026-07-31T12:00:00.123Z")},
		Header{"dlq-group", []byte("tenantflow.usage")})
	if !reflect.DeepEqual(headers, want) {
		t.Errorf("headers\n%q\nwant\n%q", headers, want)
	}
	if len(r.Headers) != before || cap(r.Headers) > before && r.Headers[:before+1][before].Key != "" {
		t.Error("the record's own headers were written to")
	}
}

func TestADeadLetterComesBackToItsOrigin(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*Record{
		"event":          binaryRecord(usageJSON),
		"tombstone":      {Topic: "t", Key: []byte("k")},
		"empty value":    {Topic: "t", Key: []byte("k"), Value: []byte{}},
		"no key":         {Topic: "t", Value: []byte("x"), Headers: []Header{{"a", nil}, {"a", []byte("2")}}},
		"anything":       {Topic: "t", Key: []byte("\xff\x00"), Value: []byte("\x00\xff"), Headers: []Header{{"\xff", []byte("\xff")}}},
		"forged headers": {Topic: "t", Key: []byte("k"), Value: []byte("x"), Headers: []Header{{"dlq-null", []byte("value")}, {"dlq-reason", []byte("nonsense")}, {"dlq-topic", []byte("other")}, {"dlq-offset", []byte("x")}}},
	} {
		key, value, headers := NewDeadLetter(r, "g", Reject(MalformedData, "d"), 1, failedAt)
		letter := &Record{Topic: "t.dlq", Key: key, Value: value, Headers: headers}
		got, err := ParseDeadLetter(letter)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := &DeadLetter{
			Origin: Origin{Group: "g", Topic: r.Topic, Partition: r.Partition, Offset: r.Offset},
			Reason: MalformedData, Detail: "d", Attempts: 1, FailedAt: failedAt.UTC().Truncate(time.Millisecond),
			Key: r.Key, Value: r.Value, Headers: r.Headers,
		}
		if len(got.Headers) == 0 && len(want.Headers) == 0 {
			got.Headers, want.Headers = nil, nil
		}
		if !reflect.DeepEqual(got, want) || !got.Redrivable() {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}

		// A client that gives an empty slice for null: the tombstone is still one.
		if letter.Value == nil {
			letter.Value = []byte{}
			if got, err = ParseDeadLetter(letter); err != nil || got.Value != nil {
				t.Errorf("%s: value %v, error %v", name, got.Value, err)
			}
		}
		// A broker or proxy may add headers of its own behind.
		letter.Headers = append(letter.Headers, Header{"x", nil})
		if got, err = ParseDeadLetter(letter); err != nil || len(got.Headers) != len(r.Headers)+1 {
			t.Errorf("%s: headers %q, error %v", name, got.Headers, err)
		}
	}
}

func TestARecordTooLargeIsNamedByItsHash(t *testing.T) {
	t.Parallel()
	for _, headerBytes := range []int{10, 1 << 20} {
		r := binaryRecord(strings.Repeat("x", 5<<20))
		r.Time = failedAt
		r.Headers = []Header{{"h", bytes.Repeat([]byte("h"), headerBytes)}}
		key, value, headers := NewDeadLetter(r, "g", Reject(TooLarge, "too large"), 1, failedAt)
		size := len(key) + len(value)
		for _, h := range headers {
			size += len(h.Key) + len(h.Value)
		}
		if size > 32<<10 {
			t.Errorf("the dead letter has %d bytes", size)
		}
		got, err := ParseDeadLetter(&Record{Key: key, Value: value, Headers: headers})
		if err != nil {
			t.Fatal(err)
		}
		sum, keySum := sha256.Sum256(r.Value), sha256.Sum256(r.Key)
		want := &LargeRecord{
			Topic: TopicUsage, Partition: 3, Offset: 42, KeyBytes: 4, HeaderBytes: headerBytes + 1, ValueBytes: 5 << 20,
			KeySHA256: hex.EncodeToString(keySum[:]), ValueSHA256: hex.EncodeToString(sum[:]), KeyKept: headerBytes == 10,
			OriginalTime: "2026-07-31T12:00:00.123456789Z",
		}
		if !reflect.DeepEqual(got.Large, want) || got.Value != nil || got.Redrivable() {
			t.Errorf("got %+v, want %+v", got.Large, want)
		}
		if kept := string(got.Key) == "acme" && len(got.Headers) == 1; kept != want.KeyKept {
			t.Errorf("key %q and %d headers kept", got.Key, len(got.Headers))
		}
		if !json.Valid(value) {
			t.Errorf("value %q", value)
		}
	}
}

func TestWordsForAPersonAreCutAtACharacter(t *testing.T) {
	t.Parallel()
	_, _, headers := NewDeadLetter(binaryRecord(""), "g", Reject(InvalidData, "%s", "\xff"+strings.Repeat("ü", 5000)), 1, failedAt)
	for _, h := range headers {
		if h.Key == HeaderError && (len(h.Value) > maxErrorBytes || len(h.Value) < maxErrorBytes-4 || !utf8.Valid(h.Value)) {
			t.Errorf("%d bytes: %q", len(h.Value), h.Value)
		}
	}
}

func TestARecordThatIsNoDeadLetterIsAnError(t *testing.T) {
	t.Parallel()
	_, value, headers := NewDeadLetter(binaryRecord(usageJSON), "g", Reject(Conflict, "d"), 1, failedAt)
	for i, h := range headers {
		if !strings.HasPrefix(h.Key, "dlq-") {
			continue
		}
		without := append(append([]Header{}, headers[:i]...), headers[i+1:]...)
		if _, err := ParseDeadLetter(&Record{Topic: "t.dlq", Value: value, Headers: without}); err == nil || !strings.Contains(err.Error(), h.Key) {
			t.Errorf("without %s: %v", h.Key, err)
		}
	}
	for _, broken := range []string{HeaderPartition, HeaderOffset, HeaderAttempts, HeaderFailedAt} {
		changed := append([]Header{}, headers...)
		for i := range changed {
			if changed[i].Key == broken {
				changed[i].Value = []byte("x")
			}
		}
		if _, err := ParseDeadLetter(&Record{Value: value, Headers: changed}); err == nil {
			t.Errorf("broken %s is no error", broken)
		}
	}
	if _, err := ParseDeadLetter(binaryRecord(usageJSON)); err == nil {
		t.Error("an event was taken for a dead letter")
	}
}

func TestTopicsOfDeadLettersAreNamedAfterTheirTopics(t *testing.T) {
	t.Parallel()
	if got := DeadLetterTopic("eu." + TopicUsage); got != "eu.usage.events.dlq" {
		t.Error(got)
	}
	if topic, ok := DeadLettersOf("eu.usage.events.dlq"); !ok || topic != "eu.usage.events" {
		t.Error(topic, ok)
	}
	if _, ok := DeadLettersOf(TopicUsage); ok {
		t.Error("an input topic was taken for one of dead letters")
	}
}

// Nothing that was not read can be understood, whatever there is of it.
func TestLargeRecord_IsRefusedByEveryDecoder(t *testing.T) {
	t.Parallel()
	large := LargeRecord{Topic: "usage.events", Partition: 3, Offset: 9, KeyBytes: 4, HeaderBytes: 20_000, ValueBytes: 9 << 20, KeySHA256: "a", ValueSHA256: "b"}
	rec := &Record{Topic: "usage.events", Partition: 3, Offset: 9, Large: &large}
	general, err := NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = general.Decode(rec)
	var usage Usage
	for name, err := range map[string]error{"general": err, "usage": NewUsageDecoder(UsageLimits{}).Decode(rec, time.Now(), &usage)} {
		var rejection *Rejection
		if !errors.As(err, &rejection) || rejection.Reason != TooLarge || !strings.Contains(rejection.Detail, "9437184") {
			t.Errorf("%s: %v", name, err)
		}
	}
	key, value, headers := NewDeadLetter(rec, "g", Reject(Conflict, "words"), 1, time.Now())
	letter, err := ParseDeadLetter(&Record{Key: key, Value: value, Headers: headers})
	if err != nil {
		t.Fatal(err)
	}
	if letter.Reason != TooLarge || letter.Detail != "conflict: words" || letter.Large == nil || *letter.Large != large || letter.Key != nil {
		t.Errorf("the dead letter is %+v: %+v", letter, letter.Large)
	}
}
