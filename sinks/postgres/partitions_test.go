package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"tenantflow/sinks/postgres"
)

// All partitions of a topic are opened at the same time, by several processes.
func TestPartitions_FirstLooksAtTheSameTimeAgree(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	for i := range 30 {
		topic := fmt.Sprintf("%s-topic-%d", b.company, i)
		var all errgroup.Group
		for range 8 {
			all.Go(func() error { return b.tenants.CheckPartitions(t.Context(), topic, 8) })
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		var differs *postgres.PartitionsError
		if err := b.tenants.CheckPartitions(t.Context(), topic, 9); !errors.As(err, &differs) || differs.Was != 8 || differs.Is != 9 {
			t.Errorf("got %v, want 9 partitions instead of 8", err)
		}
	}
}
