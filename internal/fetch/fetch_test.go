package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/fetch"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// brokers are what every test of this package runs against.
func brokers(t *testing.T) map[string]*engine.Kafka {
	t.Helper()
	return map[string]*engine.Kafka{"embedded": enginetest.SharedKafka(t), "apache": enginetest.SharedApacheKafka(t)}
}

func clientOf(t *testing.T, k *engine.Kafka) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{DialTimeout: enginetest.Patience}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: transport}
}

func write(t *testing.T, c *kafka.Client, topic string, codec kafka.Compression, messages ...kafka.Message) {
	t.Helper()
	w := enginetest.Writer(c)
	w.Topic, w.BatchTimeout, w.Compression = topic, time.Millisecond, codec
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// readAll fetches n records from offset on.
func readAll(t *testing.T, r *fetch.Reader, offset int64, n int) []events.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	var out []events.Record
	for len(out) < n {
		got, err := r.Fetch(ctx, offset, 200*time.Millisecond, func(rec *events.Record) error {
			c := *rec
			c.Key, c.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
			c.Headers = nil
			for _, h := range rec.Headers {
				c.Headers = append(c.Headers, events.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
			}
			out = append(out, c)
			return nil
		})
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(out), n, err)
		}
		offset = got.Next
	}
	return out
}

func TestRecordsComeBackAsTheyWereSent(t *testing.T) {
	t.Parallel()
	for name, k := range brokers(t) {
		for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
			t.Run(fmt.Sprintf("%s/%s", name, codec), func(t *testing.T) {
				t.Parallel()
				c := clientOf(t, k)
				topic := enginetest.NewTopicOn(t, k, 1)
				at := time.UnixMilli(1_700_000_000_123)
				sent := []kafka.Message{
					{Key: []byte("k"), Value: []byte("v"), Time: at},
					{Key: nil, Value: []byte("no key"), Time: at.Add(time.Second)},
					{Key: []byte("tombstone"), Value: nil, Time: at.Add(-time.Second)},
					{Key: []byte{}, Value: []byte{}, Time: at},
					{Key: []byte("h"), Value: []byte(strings.Repeat("x", 200_000)), Time: at,
						Headers: []kafka.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{0}}}},
				}
				write(t, c, topic, codec, sent...)
				r := fetch.New(c, topic, 0)
				defer r.Close()
				got := readAll(t, r, 0, len(sent))
				for i, want := range sent {
					rec := got[i]
					if rec.Offset != int64(i) || rec.Topic != topic || !rec.Time.Equal(want.Time) {
						t.Errorf("record %d: offset %d of %s at %s; want at %s", i, rec.Offset, rec.Topic, rec.Time, want.Time)
					}
					if !bytes.Equal(rec.Key, want.Key) || (rec.Key == nil) != (want.Key == nil) {
						t.Errorf("record %d: key %q, want %q", i, rec.Key, want.Key)
					}
					if !bytes.Equal(rec.Value, want.Value) || (rec.Value == nil) != (want.Value == nil) {
						t.Errorf("record %d: value of %d bytes, want %d", i, len(rec.Value), len(want.Value))
					}
					if len(rec.Headers) != len(want.Headers) {
						t.Fatalf("record %d: %d headers, want %d", i, len(rec.Headers), len(want.Headers))
					}
					for j, h := range want.Headers {
						if rec.Headers[j].Key != h.Key || !bytes.Equal(rec.Headers[j].Value, h.Value) {
							t.Errorf("record %d: header %d is %q, want %q", i, j, rec.Headers[j], h)
						}
					}
				}
				if later := readAll(t, r, 3, 2); later[0].Offset != 3 {
					t.Errorf("reading from offset 3 began at %d, in the middle of a batch", later[0].Offset)
				}
			})
		}
	}
}

func TestAnOffsetOutOfRangeIsAnErrorAndTheReaderGoesOn(t *testing.T) {
	t.Parallel()
	for name, k := range brokers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := clientOf(t, k)
			topic := enginetest.NewTopicOn(t, k, 1)
			write(t, c, topic, 0, kafka.Message{Value: []byte("one")})
			r := fetch.New(c, topic, 0)
			defer r.Close()
			if _, err := r.Fetch(t.Context(), 17, time.Second, nil); !errors.Is(err, kafka.OffsetOutOfRange) {
				t.Errorf("fetch beyond the end: %v", err)
			}
			if got := readAll(t, r, 0, 1); string(got[0].Value) != "one" {
				t.Errorf("after the error: %q", got[0].Value)
			}
			if _, err := fetch.New(c, "no."+topic, 0).Fetch(t.Context(), 0, time.Second, nil); !errors.Is(err, kafka.UnknownTopicOrPartition) {
				t.Errorf("fetch of no topic: %v", err)
			}
		})
	}
}

func TestAContextThatEndsInterruptsAFetch(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKafka(t)
	c := clientOf(t, k)
	r := fetch.New(c, enginetest.NewTopicOn(t, k, 1), 0)
	defer r.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	began := time.Now()
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	if _, err := r.Fetch(ctx, 0, time.Minute, nil); !errors.Is(err, enough) {
		t.Errorf("interrupted fetch: %v", err)
	}
	if waited := time.Since(began); waited > 30*time.Second {
		t.Errorf("the fetch went on for %s", waited)
	}
}

func TestAnErrorOfTheCallerEndsTheFetchWhereItWas(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKafka(t)
	c := clientOf(t, k)
	topic := enginetest.NewTopicOn(t, k, 1)
	write(t, c, topic, 0, kafka.Message{Value: []byte("0")}, kafka.Message{Value: []byte("1")}, kafka.Message{Value: []byte("2")})
	r := fetch.New(c, topic, 0)
	defer r.Close()
	enough := errors.New("enough")
	got, err := r.Fetch(t.Context(), 0, time.Second, func(rec *events.Record) error {
		if rec.Offset == 1 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || got.Next != 1 {
		t.Errorf("next is %d, error %v; want 1 and the caller's own", got.Next, err)
	}
}
