package postgres

import (
	"context"
	"fmt"
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
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var was int
	// A row that another process inserts at the same time is invisible to this statement, unless it is updated.
	err := t.store.pool.QueryRow(ctx, `WITH known AS (
			SELECT partitions FROM public.topic_partitions WHERE topic = $1
		), first AS (
			INSERT INTO public.topic_partitions AS t (topic, partitions) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM known)
			ON CONFLICT (topic) DO UPDATE SET partitions = t.partitions RETURNING partitions
		)
		SELECT partitions FROM known UNION ALL SELECT partitions FROM first`, topic, partitions).Scan(&was)
	if err != nil {
		return explain("look how many partitions a topic had", err)
	}
	if was != partitions {
		return &PartitionsError{Topic: topic, Was: was, Is: partitions}
	}
	return nil
}

// AcceptedPartitions is the number of partitions a topic was first consumed with, or that was accepted since; 0: it was never
// consumed.
func (t *Tenants) AcceptedPartitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var n int
	err := t.store.pool.QueryRow(ctx, "SELECT coalesce((SELECT partitions FROM public.topic_partitions WHERE topic = $1), 0)", topic).Scan(&n)
	if err != nil {
		return 0, explain("look how many partitions a topic had", err)
	}
	return n, nil
}

// AcceptPartitions makes a number of partitions the one that a topic must have.
func (t *Tenants) AcceptPartitions(ctx context.Context, topic string, partitions int) error {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	if _, err := t.store.pool.Exec(ctx, `INSERT INTO public.topic_partitions (topic, partitions) VALUES ($1, $2)
		ON CONFLICT (topic) DO UPDATE SET partitions = EXCLUDED.partitions, seen_at = now()`, topic, partitions); err != nil {
		return explain("accept the number of partitions of a topic", err)
	}
	return nil
}
