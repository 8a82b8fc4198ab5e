package consumers_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// An input is a record that must become a dead letter.
type input struct {
	name   string
	reason events.Reason
	record *kgo.Record
}

// usageRecord is a good usage event in binary mode, but for what is given: attributes and members of the data by name,
// members as JSON; what is "" is left out.
func usageRecord(id string, change map[string]string) *kgo.Record {
	now := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	attributes := [][2]string{{"ce_specversion", "1.0"}, {"ce_id", id}, {"ce_source", "/hostile"}, {"ce_type", "usage.recorded.v1"}, {"ce_time", now}}
	members := [][2]string{{"company_id", `"acme"`}, {"user_id", `"u-1"`}, {"subscription_tier", `"pro"`}, {"service_name", `"reporting"`},
		{"api_endpoint", `"/v1/x"`}, {"data_points_consumed", "1"}, {"processing_time_ms", "1.5"}}
	r := &kgo.Record{Key: []byte("acme"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}}
	for _, a := range attributes {
		if v, ok := change[a[0]]; ok {
			a[1] = v
		}
		if a[1] != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: a[0], Value: []byte(a[1])})
		}
	}
	for name := range change {
		known := func(m [2]string) bool { return m[0] == name }
		if !slices.ContainsFunc(attributes, known) && !slices.ContainsFunc(members, known) {
			members = append(members, [2]string{name, change[name]})
		}
	}
	var data []string
	for _, m := range members {
		if v, ok := change[m[0]]; ok {
			m[1] = v
		}
		if m[1] != "" {
			data = append(data, strconv.Quote(m[0])+":"+m[1])
		}
	}
	r.Value = []byte("{" + strings.Join(data, ",") + "}")
	return r
}

// hostile are inputs beside those of the model.
func hostile() []input {
	var out []input
	add := func(name string, reason events.Reason, r *kgo.Record) { out = append(out, input{name, reason, r}) }
	member := func(name, json string, reason events.Reason) {
		add(name+" "+json, reason, usageRecord(fmt.Sprint("hostile-", len(out)), map[string]string{name: json}))
	}
	for _, id := range []string{`' OR 1=1 --`, `x'; DROP TABLE usage_tracking; --`, `../../../etc/passwd`, `..`, `a/b`, `%2e%2e%2f`, `a.b`, `a b`, `{u}`,
		"асme", "acme\u200b", "\u202eemca", "ａｃｍｅ", "acme\u0301", `${jndi:ldap://x}`, `{{.}}`, "\\u0000", strings.Repeat("c", 51), ""} {
		for _, name := range []string{"company_id", "user_id"} {
			json := `"` + id + `"`
			member(name, json, events.InvalidData)
		}
	}
	for _, name := range []string{"company_id", "user_id", "service_name", "data_points_consumed", "subscription_tier"} {
		for _, json := range []string{"null", "true", "{}", "[]", `{"a":[1,{"b":2}]}`} {
			member(name, json, events.InvalidData)
		}
		member(name, "", events.InvalidData)
	}
	for _, json := range []string{"-1", "-0.1", "1e400", "9999999999999999999999999", "4294967296", "0.5", `"7"`, "1e-1", "-1e400"} {
		member("data_points_consumed", json, events.InvalidData)
	}
	for _, json := range []string{"NaN", "Infinity", "0x10", "01", "+1", "1.", ".5", "--1"} {
		member("data_points_consumed", json, events.MalformedData)
	}
	for _, json := range []string{"-0.001", `"1"`, "1e999", "-1e999", "null"} {
		member("processing_time_ms", json, events.InvalidData)
	}
	for _, json := range []string{`"-1"`, `"1e400"`, `"0.1234567"`, `"NaN"`, `"1,5"`, `" 1"`, "-3"} {
		member("revenue_attributed", json, events.InvalidData)
	}
	member("timestamp", `"9999-12-31T23:59:59Z"`, events.TimestampInFuture)
	member("timestamp", `"0001-01-01T00:00:00Z"`, events.TimestampTooOld)
	member("timestamp", `"1969-12-31T23:59:59.999Z"`, events.TimestampTooOld)
	member("timestamp", `"`+time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339)+`"`, events.TimestampInFuture)
	member("timestamp", `"`+time.Now().AddDate(-2, 0, -2).UTC().Format(time.RFC3339)+`"`, events.TimestampTooOld)

	add("deep data", events.MalformedData, &kgo.Record{Key: []byte("acme"), Headers: usageRecord("deep", nil).Headers, Value: bytes.Repeat([]byte("["), 50_000)})
	empty := usageRecord("empty value", nil)
	empty.Value = []byte{}
	add("an empty value", events.MalformedData, empty)
	tombstone := usageRecord("tombstone", nil)
	tombstone.Value = nil
	add("a tombstone with headers", events.MalformedEnvelope, tombstone)
	add("nothing at all", events.MalformedEnvelope, &kgo.Record{})
	keyless := usageRecord("keyless", nil)
	keyless.Key = nil
	add("no key", events.MissingKey, keyless)
	emptyKey := usageRecord("empty key", nil)
	emptyKey.Key = []byte{}
	add("an empty key", events.MissingKey, emptyKey)
	binaryKey := usageRecord("binary key", nil)
	binaryKey.Key = []byte{0xff, 0, 0xfe}
	add("a key that is no text", events.MalformedEnvelope, binaryKey)
	// The producer's own dlq- headers, repeated and null headers survive as well.
	strange := usageRecord("strange headers", map[string]string{"user_id": "7"})
	strange.Headers = append(strange.Headers, kgo.RecordHeader{Key: "dlq-reason", Value: []byte("mine")}, kgo.RecordHeader{Key: "x", Value: nil},
		kgo.RecordHeader{Key: "x", Value: []byte{}}, kgo.RecordHeader{Key: "x", Value: []byte{0, 0xff}}, kgo.RecordHeader{Key: "", Value: []byte("nameless")})
	add("strange headers", events.InvalidData, strange)
	return out
}

// recordOf makes a record of a message, in the partition of its key.
func (f *fixture) recordOf(m *model.Message) *kgo.Record {
	h := fnv.New32a()
	_, _ = h.Write(m.Key)
	r := &kgo.Record{Partition: int32(h.Sum32() % uint32(f.Partitions)), Key: m.Key, Value: m.Value}
	for _, header := range m.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
	}
	return r
}

// same reports whether a dead letter has the record's bytes, null and empty kept apart.
func same(l *events.DeadLetter, r *kgo.Record) error {
	equal := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	switch {
	case !equal(l.Key, r.Key):
		return fmt.Errorf("key %q, want %q", l.Key, r.Key)
	case !equal(l.Value, r.Value):
		return fmt.Errorf("value of %d bytes (nil: %v), want %d (nil: %v)", len(l.Value), l.Value == nil, len(r.Value), r.Value == nil)
	case len(l.Headers) != len(r.Headers):
		return fmt.Errorf("%d headers, want %d", len(l.Headers), len(r.Headers))
	}
	for i, h := range r.Headers {
		if l.Headers[i].Key != h.Key || !equal(l.Headers[i].Value, h.Value) {
			return fmt.Errorf("header %d is %q: %q (nil: %v), want %q: %q (nil: %v)", i, l.Headers[i].Key, l.Headers[i].Value, l.Headers[i].Value == nil, h.Key, h.Value, h.Value == nil)
		}
	}
	return nil
}

// checkLetters compares the dead letters with the inputs, which have their offsets by now. Each is there, and no other.
func (f *fixture) checkLetters(t *testing.T, inputs []input) {
	t.Helper()
	letters := f.LettersByOrigin(t)
	for _, in := range inputs {
		origin := events.Origin{Group: f.Group, Topic: f.Topic, Partition: int(in.record.Partition), Offset: in.record.Offset}
		l := letters[origin]
		delete(letters, origin)
		switch {
		case l == nil:
			t.Errorf("%s: lost", in.name)
		case l.Reason != in.reason:
			t.Errorf("%s: reason %s (%s), want %s", in.name, l.Reason, l.Detail, in.reason)
		case l.Detail == "" || l.Attempts != 1 || time.Since(l.FailedAt) > time.Hour:
			t.Errorf("%s: %+v", in.name, l)
		default:
			if err := same(l, in.record); err != nil {
				t.Errorf("%s: not the original bytes: %v", in.name, err)
			}
		}
	}
	for origin, l := range letters {
		t.Errorf("a dead letter of %v that nobody expects: %s: %s", origin, l.Reason, l.Detail)
	}
}

func TestWhatIsNoEventIsADeadLetterWithItsBytesAndTheEventsAroundItAreStored(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker})
		messages, want := traffic(t, model.Config{Seed: 51, Count: 700, Malformed: 0.3, Structured: 0.3})
		bad := hostile()
		var records []*kgo.Record
		var inputs []input
		for i := range messages {
			m := &messages[i]
			r := f.recordOf(m)
			records = append(records, r)
			if m.Reason != "" {
				inputs = append(inputs, input{m.Flaw, m.Reason, r})
			}
			if i < len(bad) {
				bad[i].record.Partition = int32(i % f.Partitions)
				records = append(records, bad[i].record)
				want.DeadLetters[bad[i].reason]++
			}
		}
		if len(bad) > len(messages) {
			t.Fatal("too few good events to stand around the bad ones")
		}
		f.Produce(t, records...)
		f.Join(t, f.usage(t))
		f.AwaitConsumed(t)
		f.verify(t, want)
		f.checkLetters(t, append(inputs, bad...))
	})
}

func TestTheLargestMessageIsARowOrADeadLetter(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		const limit, room = 100_000, 64 << 10
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
		f.Limit(t, f.Topic, limit)
		f.Limit(t, events.DeadLetterTopic(f.Topic), limit+room)
		large := func(pad int, change map[string]string) *kgo.Record {
			all := map[string]string{"padding": `"` + strings.Repeat("p", pad) + `"`}
			for k, v := range change {
				all[k] = v
			}
			return usageRecord("large-1", all)
		}
		// How much fits is found out on a topic of its own.
		trial := enginetest.NewTopicOn(t, broker, 1, kafkago.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(limit)})
		client := f.Producer(t, kgo.ProducerBatchMaxBytes(900<<10))
		fits := func(pad int) bool {
			r := large(pad, nil)
			r.Topic = trial
			return client.ProduceSync(t.Context(), r).FirstErr() == nil
		}
		low, high := 0, limit
		for low+1 < high {
			if middle := (low + high) / 2; fits(middle) {
				low = middle
			} else {
				high = middle
			}
		}
		if low < limit-2000 {
			t.Fatalf("only %d bytes of padding fit", low)
		}
		row := large(low, nil)
		letter := large(low, map[string]string{"ce_type": "usage.recorded.v2"}) // as long as the other
		if err := client.ProduceSync(t.Context(), row).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), letter).FirstErr(); err != nil {
			t.Fatal(err)
		}
		// Compressed, a message may be far larger than what the topic takes.
		zipped := f.Producer(t, kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
		huge := large(3<<20, map[string]string{"ce_id": "huge-1"})
		lost := large(3<<20, map[string]string{"ce_id": "huge-2", "user_id": "7"})
		if err := zipped.ProduceSync(t.Context(), huge, lost).FirstErr(); err != nil {
			t.Fatal(err)
		}
		last := usageRecord("last", nil)
		f.Produce(t, last)

		f.Join(t, f.usage(t))
		f.AwaitConsumed(t)
		stored, err := f.db.Query(t.Context(), "SELECT event_id FROM usage_tracking ORDER BY event_id")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stored.Close() }()
		var ids []string
		for stored.Next() {
			var id string
			if err := stored.Scan(&id); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if !slices.Equal(ids, []string{"huge-1", "large-1", "last"}) {
			t.Errorf("stored: %v", ids)
		}
		origin := events.Origin{Group: f.Group, Topic: f.Topic, Partition: 0, Offset: lost.Offset}
		l := f.LettersByOrigin(t)[origin]
		if l == nil || l.Reason != events.TooLarge || l.Large == nil {
			t.Fatalf("the dead letter that fits nowhere: %+v", l)
		}
		sum := sha256.Sum256(lost.Value)
		if l.Large.Offset != lost.Offset || l.Large.ValueBytes != len(lost.Value) || l.Large.ValueSHA256 != hex.EncodeToString(sum[:]) ||
			!strings.Contains(l.Detail, string(events.InvalidData)) || !bytes.Equal(l.Key, lost.Key) {
			t.Errorf("the dead letter that fits nowhere: %+v: %+v", l, l.Large)
		}
		if one := f.LettersByOrigin(t)[events.Origin{Group: f.Group, Topic: f.Topic, Offset: letter.Offset}]; one == nil || one.Reason != events.UnknownType {
			t.Errorf("the largest dead letter: %+v", one)
		} else if err := same(one, letter); err != nil {
			t.Errorf("the largest dead letter: %v", err)
		}
	})
}

// One batch of a few kilobytes holds a quarter of a gigabyte, between good events.
func TestUsage_BatchThatInflatesIsADeadLetter(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{partitions: 1, broker: broker})
		messages, want := traffic(t, model.Config{Seed: 21, Count: 200})
		f.publish(t, messages[:100])
		large := usageRecord("large", nil)
		large.Value = make([]byte, 257<<20)
		client := f.Producer(t, kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(400<<20), kgo.BrokerMaxWriteBytes(500<<20), kgo.MaxBufferedBytes(1<<30))
		if err := client.ProduceSync(t.Context(), large).FirstErr(); err != nil {
			t.Fatal(err)
		}
		client.Close()
		f.publish(t, messages[100:])
		f.finish(t, f.start(t, faulty(1000)))
		want.DeadLetters[events.TooLarge]++
		f.verify(t, want)
		letter := f.LettersByOrigin(t)[events.Origin{Group: f.Group, Topic: f.Topic, Offset: large.Offset}]
		if letter == nil || letter.Large == nil {
			t.Fatalf("the dead letter is %+v", letter)
		}
		sum, key := sha256.Sum256(large.Value), sha256.Sum256(large.Key)
		l := letter.Large
		if l.ValueBytes != len(large.Value) || l.ValueSHA256 != hex.EncodeToString(sum[:]) || l.KeySHA256 != hex.EncodeToString(key[:]) ||
			!l.KeyKept || string(letter.Key) != "acme" || len(letter.Headers) != len(large.Headers) || letter.Redrivable() {
			t.Errorf("the dead letter is %+v: %+v", letter, l)
		}
	})
}
