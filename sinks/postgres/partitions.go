package postgres

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/partitions_first.sql
	partitionsFirstSQL string
	//go:embed queries/partitions_accept.sql
	partitionsAcceptSQL string
)

// A PartitionsError says that a topic has another number of partitions than when it was first consumed.
type PartitionsError struct {
	Topic   string
	Was, Is int
}

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("topic %s has %d partitions and had %d: the later events of a company may be in another partition than its earlier ones. "+
		"Stop the producers, let the consumers finish what is in the topic, then accept the new number with \"tenantflow tenant partitions --accept\"",
		e.Topic, e.Is, e.Was)
}

// CheckPartitions compares the number of partitions of a topic with the one it had at the first call. Another one is a
// *PartitionsError.
func (t *Tenants) CheckPartitions(ctx context.Context, topic string, partitions int) error {
	was, err := collectOne(ctx, t.store, "look how many partitions a topic had", pgx.RowTo[int], partitionsFirstSQL, topic, partitions)
	if err != nil {
		return err
	}
	if was != partitions {
		return &PartitionsError{Topic: topic, Was: was, Is: partitions}
	}
	return nil
}

// AcceptedPartitions is the number of partitions a topic was first consumed with, or that was accepted since; 0: it was never
// consumed.
func (t *Tenants) AcceptedPartitions(ctx context.Context, topic string) (int, error) {
	return collectOne(ctx, t.store, "look how many partitions a topic had", pgx.RowTo[int],
		"SELECT coalesce((SELECT partitions FROM public.topic_partitions WHERE topic = $1), 0)", topic)
}

// AcceptPartitions makes a number of partitions the one that a topic must have.
func (t *Tenants) AcceptPartitions(ctx context.Context, topic string, partitions int) error {
	_, err := t.store.exec(ctx, "accept the number of partitions of a topic", partitionsAcceptSQL, topic, partitions)
	return err
}
