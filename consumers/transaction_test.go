package consumers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/model"
)

// codecs are the ways in which a producer may compress its batches.
func codecs() map[string]kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
}

// Two producers write transactions to the same partition side by side, one of which always gives up, and a third writes
// between them without any.
func TestOfTransactionsOnlyTheCommittedOnesAreEvents(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, codec := range codecs() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newLog(t, broker, 1)
				plain := f.producer(t, kgo.ProducerBatchCompression(codec))
				keeps := f.producer(t, kgo.ProducerBatchCompression(codec), kgo.TransactionalID(f.topic+"-keeps"))
				quits := f.producer(t, kgo.ProducerBatchCompression(codec), kgo.TransactionalID(f.topic+"-quits"))
				send := func(client *kgo.Client, text string) {
					if err := client.ProduceSync(t.Context(), values(0, text+"-a", text+"-b")...).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				var want []string
				for i := range 5 {
					must(keeps.BeginTransaction())
					must(quits.BeginTransaction())
					for step, client := range []*kgo.Client{quits, keeps, plain, keeps, quits} {
						text := fmt.Sprintf("%d.%d", i, step)
						send(client, text)
						if client != quits {
							want = append(want, text+"-a", text+"-b")
						}
					}
					must(keeps.EndTransaction(t.Context(), kgo.TryCommit))
					must(quits.EndTransaction(t.Context(), kgo.TryAbort))
				}
				var taken journal
				f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) { c.BatchRows = 7 })
				f.awaitConsumed(t, 2*time.Minute) // the end of the log is a control record
				if got := taken.of(0); !slices.Equal(got, want) {
					t.Errorf("handled %d events, want %d:\n%v\n%v", len(got), len(want), got, want)
				}
				// An open transaction holds back what comes behind it, until it ends.
				must(keeps.BeginTransaction())
				send(keeps, "open")
				send(plain, "behind")
				must(keeps.EndTransaction(t.Context(), kgo.TryCommit))
				f.awaitConsumed(t, 2*time.Minute)
				if got := taken.of(0)[len(want):]; !slices.Equal(got, []string{"open-a", "open-b", "behind-a", "behind-b"}) {
					t.Errorf("then handled %v", got)
				}
			})
		}
	})
}

// What lies behind the beginning of an open transaction can't be read yet, however long the log is; what was read before
// it must not wait for it.
func TestAnOpenTransactionHoldsBackNothingThatCameBeforeIt(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		plain := f.producer(t)
		open := f.producer(t, kgo.TransactionalID(f.topic+"-open"))
		if err := plain.ProduceSync(t.Context(), values(0, "before-a", "before-b")...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := open.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		behind := make([]string, 40_000) // enough to look like a backlog
		for i := range behind {
			behind[i] = "open"
		}
		if err := open.ProduceSync(t.Context(), values(0, behind...)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		var taken journal
		f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) { c.BatchRows = 100_000 })
		eventually(t, "what came before the transaction is handled", time.Minute, func() bool {
			return slices.Equal(taken.of(0), []string{"before-a", "before-b"})
		})
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		f.awaitConsumed(t, 2*time.Minute)
		if got := taken.of(0); len(got) != 2 {
			t.Errorf("handled %d events, want 2", len(got))
		}
	})
}

// The broker may compress as well, whatever the producers do.
func TestATopicThatTheBrokerCompressesIsRead(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, codec := range codecs() {
			if name == "none" {
				continue
			}
			f := newLog(t, broker, 1, kafka.ConfigEntry{ConfigName: "compression.type", ConfigValue: name})
			var all []*kgo.Record
			for i, by := range []kgo.CompressionCodec{codec, kgo.NoCompression(), kgo.GzipCompression()} {
				records := numbered(0, 300)[100*i : 100*i+100]
				if err := f.producer(t, kgo.ProducerBatchCompression(by)).ProduceSync(t.Context(), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				all = append(all, records...)
			}
			var taken journal
			m := f.join(t, consumers.EachEvent(&taken))
			f.awaitConsumed(t, 2*time.Minute)
			if got := taken.of(0); !slices.Equal(got, texts(all)) {
				t.Errorf("%s: handled %d events, want %d", name, len(got), len(all))
			}
			_ = m.stop()
		}
	})
}

// openTransaction begins a transaction with one record in partition 0, and leaves it open until the test ends.
func (f *fixture) openTransaction(t *testing.T) *kgo.Client {
	t.Helper()
	open := f.producer(t, kgo.TransactionalID(f.topic+"-open"), kgo.TransactionTimeout(time.Minute))
	if err := open.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := open.ProduceSync(t.Context(), values(0, "open")...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return open
}

// The next owner looks at what the log holds around the committed offset. What it can't read yet must not keep it there.
func TestTransaction_OpenOneHoldsUpNoTakeover(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
		messages, _ := traffic(t, model.Config{Seed: 21, Count: 60})
		f.publish(t, messages[:50])
		f.finish(t, f.start(t, faulty(1000)))
		f.publish(t, messages[50:55])
		open := f.openTransaction(t)
		m := f.join(t, f.usage(t))
		eventually(t, "what came before the transaction is stored", time.Minute, func() bool { return f.count(t, "SELECT count() FROM usage_tracking") == 55 })
		eventually(t, "there is nothing to do", time.Minute, func() bool { return m.report().Lag == 0 })
		if n := m.metric(t, "tenantflow_partition_lag", map[string]string{"topic": f.topic, "partition": "0"}); n == 0 {
			t.Error("the lag does not show the record of the open transaction")
		}
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		f.publish(t, messages[55:])
		f.awaitConsumed(t, 2*time.Minute)
		if n := f.count(t, "SELECT count() FROM usage_tracking"); n != 60 {
			t.Errorf("%d rows, want 60", n)
		}
	})
}

func TestReadLog_EndsWhereAnOpenTransactionBegins(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, values(0, "a", "b")...)
		f.openTransaction(t)
		f.produce(t, values(0, "behind")...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, r := range []consumers.Range{{From: 0, To: 100}, {From: 2, To: 3}} {
			var got []string
			err := consumers.ReadLog(ctx, f.client, f.topic, 0, r, func(rec *events.Record) error {
				got = append(got, string(rec.Value))
				return nil
			})
			if want := []string{"a", "b"}[min(r.From, 2):]; err != nil || !slices.Equal(got, want) {
				t.Errorf("%s holds %v, %v; want %v", r, got, err, want)
			}
		}
	})
}
