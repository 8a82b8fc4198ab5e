package kafka_test

import (
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/internal/kafka"
)

// Another client's function is the judge: kgo's default partitioner places keys as the Java client does.
func TestPartitioner_PlacesKeysAsTheJavaClient(t *testing.T) {
	t.Parallel()
	const n = 12
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	judge := kgo.StickyKeyPartitioner(nil).ForTopic("events")
	for _, key := range []string{"", "a", "acme", "company-42", "0b8f6f0e-2c6e-4a53-9d35-6a2b9f0f3a11", "\xff\xfe", "ü", "a key of some length, so that no byte is left out"} {
		got := kafka.Partitioner{}.Balance(kafkago.Message{Key: []byte(key)}, all...)
		if want := judge.Partition(&kgo.Record{Key: []byte(key)}, n); got != want {
			t.Errorf("key %q goes to partition %d, want %d", key, got, want)
		}
	}
	if got := (kafka.Partitioner{}).Balance(kafkago.Message{Key: []byte("acme"), WriterData: 7}, all...); got != 7 {
		t.Errorf("a message of partition 7 goes to %d", got)
	}
}
