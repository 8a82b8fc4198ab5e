package kafka

import (
	"context"
	"fmt"
	"slices"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/retry"
)

// expand gives results that are for every partition of their topic one for each. It tries again like Publish.
func (r *Results) expand(ctx context.Context, results []Result, waiting func(error)) ([]Result, error) {
	if !slices.ContainsFunc(results, func(one Result) bool { return one.Everywhere }) {
		return results, nil
	}
	var all []Result
	err := retry.Do(ctx, func() error {
		all = all[:0]
		for _, one := range results {
			if !one.Everywhere {
				all = append(all, one)
				continue
			}
			found, err := r.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{one.Topic}})
			if err == nil && len(found.Topics) == 1 {
				err = found.Topics[0].Error
			}
			if err != nil || len(found.Topics) != 1 || len(found.Topics[0].Partitions) == 0 {
				return fmt.Errorf("look up the partitions of %s: %w", one.Topic, errorOr(err, kafkago.UnknownTopicOrPartition))
			}
			for _, p := range found.Topics[0].Partitions {
				one.Partition = &p.ID
				all = append(all, one)
			}
		}
		return nil
	}, func(err error) error {
		waiting(err)
		return nil
	})
	return all, err
}

func errorOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
