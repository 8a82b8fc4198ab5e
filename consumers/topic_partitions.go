package consumers

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// partitions is how many the topic has.
func (p *Partition) partitions(ctx context.Context) (int, error) {
	res, err := p.group.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{p.Topic()}})
	if err != nil {
		return 0, fmt.Errorf("count the partitions of %s: %w", p.Topic(), err)
	}
	for _, t := range res.Topics {
		if t.Name == p.Topic() && t.Error == nil && len(t.Partitions) > 0 {
			return len(t.Partitions), nil
		}
	}
	return 0, fmt.Errorf("count the partitions of %s: the answer does not name it", p.Topic())
}
