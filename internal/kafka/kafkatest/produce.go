package kafkatest

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/internal/engine/enginetest"
)

// Producer returns a client that writes each record to the partition it names. The records' bytes reach the broker as
// they are: a nil key or value is none.
func (f *Log) Producer(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.Brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(f.Topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(50 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Produce writes records and sets their offsets.
func (f *Log) Produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	client := f.Producer(t)
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// OpenTransaction begins a transaction with one record in partition 0, and leaves it open until the test ends.
func (f *Log) OpenTransaction(t *testing.T) *kgo.Client {
	t.Helper()
	open := f.Producer(t, kgo.TransactionalID(f.Topic+"-open"), kgo.TransactionTimeout(2*enginetest.Patience))
	if err := open.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := open.ProduceSync(t.Context(), Values(0, "open")...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return open
}

// Values makes one record of a partition for each value.
func Values(partition int, of ...string) []*kgo.Record {
	out := make([]*kgo.Record, len(of))
	for i, v := range of {
		out[i] = &kgo.Record{Partition: int32(partition), Key: []byte("k"), Value: []byte(v)}
	}
	return out
}

// Numbered makes n records of a partition, whose values are unique and in order.
func Numbered(partition, n int) []*kgo.Record {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%d-%04d", partition, i))
	}
	return Values(partition, texts...)
}

// Texts are the values of records.
func Texts(records []*kgo.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}
