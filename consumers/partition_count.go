package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// PartitionCount is a stand-in until the runtime's own comes.
func (p *Partition) PartitionCount(ctx context.Context, _ time.Time) (int, error) {
	meta, err := p.group.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{p.topic}})
	if err != nil {
		return 0, err
	}
	for _, t := range meta.Topics {
		if t.Name == p.topic && t.Error == nil {
			return len(t.Partitions), nil
		}
	}
	return 0, fmt.Errorf("topic %s is not there", p.topic)
}
