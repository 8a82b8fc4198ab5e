package verify

import (
	"fmt"
	"testing"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
)

// A result is looked for in the partition into which the service puts it.
func TestAResultsPartitionIsThatOfTheService(t *testing.T) {
	t.Parallel()
	topic := &resultTopic{ids: []int{0, 1, 2, 3, 4, 5, 6, 7}}
	for i := range 100 {
		company := fmt.Sprintf("company-%d", i)
		if got, want := topic.of(company), (kafka.Partitioner{}).Balance(kafkago.Message{Key: []byte(company)}, topic.ids...); got != want {
			t.Errorf("%s: partition %d, and it is published into %d", company, got, want)
		}
	}
}
