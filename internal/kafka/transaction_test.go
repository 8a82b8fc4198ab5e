package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
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
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, codec := range codecs() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := kafkatest.NewLog(t, broker, 1)
				plain := f.Producer(t, kgo.ProducerBatchCompression(codec))
				keeps := f.Producer(t, kgo.ProducerBatchCompression(codec), kgo.TransactionalID(f.Topic+"-keeps"), kgo.TransactionTimeout(2*enginetest.Patience))
				quits := f.Producer(t, kgo.ProducerBatchCompression(codec), kgo.TransactionalID(f.Topic+"-quits"), kgo.TransactionTimeout(2*enginetest.Patience))
				send := func(client *kgo.Client, text string) {
					if err := client.ProduceSync(t.Context(), kafkatest.Values(0, text+"-a", text+"-b")...).FirstErr(); err != nil {
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
				var taken kafkatest.Journal
				f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.BatchRows = 7 })
				f.AwaitConsumed(t) // the end of the log is a control record
				if got := taken.Of(0); !slices.Equal(got, want) {
					t.Errorf("handled %d events, want %d:\n%v\n%v", len(got), len(want), got, want)
				}
				// An open transaction holds back what comes behind it, until it ends.
				must(keeps.BeginTransaction())
				send(keeps, "open")
				send(plain, "behind")
				must(keeps.EndTransaction(t.Context(), kgo.TryCommit))
				f.AwaitConsumed(t)
				if got := taken.Of(0)[len(want):]; !slices.Equal(got, []string{"open-a", "open-b", "behind-a", "behind-b"}) {
					t.Errorf("then handled %v", got)
				}
			})
		}
	})
}

// What lies behind the beginning of an open transaction can't be read yet, however long the log is; what was read before
// it must not wait for it.
func TestAnOpenTransactionHoldsBackNothingThatCameBeforeIt(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		plain := f.Producer(t)
		open := f.Producer(t, kgo.TransactionalID(f.Topic+"-open"), kgo.TransactionTimeout(2*enginetest.Patience))
		if err := plain.ProduceSync(t.Context(), kafkatest.Values(0, "before-a", "before-b")...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := open.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		behind := make([]string, 40_000) // enough to look like a backlog
		for i := range behind {
			behind[i] = "open"
		}
		if err := open.ProduceSync(t.Context(), kafkatest.Values(0, behind...)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		var taken kafkatest.Journal
		f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.BatchRows = 100_000 })
		enginetest.Await(t, "what came before the transaction is handled", func() bool {
			return slices.Equal(taken.Of(0), []string{"before-a", "before-b"})
		})
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		f.AwaitConsumed(t)
		if got := taken.Of(0); len(got) != 2 {
			t.Errorf("handled %d events, want 2", len(got))
		}
	})
}

// The broker may compress as well, whatever the producers do.
func TestATopicThatTheBrokerCompressesIsRead(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, codec := range codecs() {
			if name == "none" {
				continue
			}
			f := kafkatest.NewLog(t, broker, 1, kafkago.ConfigEntry{ConfigName: "compression.type", ConfigValue: name})
			var all []*kgo.Record
			for i, by := range []kgo.CompressionCodec{codec, kgo.NoCompression(), kgo.GzipCompression()} {
				records := kafkatest.Numbered(0, 300)[100*i : 100*i+100]
				if err := f.Producer(t, kgo.ProducerBatchCompression(by)).ProduceSync(t.Context(), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				all = append(all, records...)
			}
			var taken kafkatest.Journal
			m := f.Join(t, kafkatest.EachEvent(&taken))
			f.AwaitConsumed(t)
			if got := taken.Of(0); !slices.Equal(got, kafkatest.Texts(all)) {
				t.Errorf("%s: handled %d events, want %d", name, len(got), len(all))
			}
			_ = m.Stop()
		}
	})
}

func TestReadLog_EndsWhereAnOpenTransactionBegins(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Values(0, "a", "b")...)
		f.OpenTransaction(t)
		f.Produce(t, kafkatest.Values(0, "behind")...)
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		for _, r := range []kafka.Range{{From: 0, To: 100}, {From: 2, To: 3}} {
			var got []string
			err := kafka.ReadLog(ctx, f.Client, f.Topic, 0, r, func(rec *events.Record) error {
				got = append(got, string(rec.Value))
				return nil
			})
			if want := []string{"a", "b"}[min(r.From, 2):]; err != nil || !slices.Equal(got, want) {
				t.Errorf("%s holds %v, %v; want %v", r, got, err, want)
			}
		}
	})
}
