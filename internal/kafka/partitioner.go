package kafka

import (
	"slices"

	kafkago "github.com/segmentio/kafka-go"
)

// A Partitioner puts messages where their key belongs, as Kafka's Java client does (murmur2): whichever client sends the events
// of a company, they meet in one partition. A message whose WriterData is the number of a partition goes there.
type Partitioner struct{ byKey kafkago.Murmur2Balancer }

// Balance chooses one of the partitions.
func (p Partitioner) Balance(m kafkago.Message, partitions ...int) int {
	if id, named := m.WriterData.(int); named && slices.Contains(partitions, id) {
		return id
	}
	return p.byKey.Balance(m, partitions...)
}
