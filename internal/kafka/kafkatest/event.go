package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/retry"
)

// An EventHandler consumes a topic event by event.
type EventHandler interface {
	// Handle brings all effects of one record into the stores; when it returns nil they are durable. A record may
	// come again, and must then change nothing. The record is valid during the call only.
	//
	// A record that is Large goes to the dead letters without being handled.
	//
	// Errors: an *events.Rejection sends the record to the dead letters; a *kafka.StopError stops the partition; a
	// *kafka.FatalError the consumer; anything else is transient, and the record comes again after a while. Nothing
	// behind it in its partition is handled before it.
	Handle(ctx context.Context, r *events.Record) error
}

// EventFunc is an EventHandler.
type EventFunc func(ctx context.Context, r *events.Record) error

// Handle calls f.
func (f EventFunc) Handle(ctx context.Context, r *events.Record) error { return f(ctx, r) }

// EachEvent makes a BatchHandler of an EventHandler. The records of a partition are handled one after the other; their
// offsets are committed together.
func EachEvent(h EventHandler) kafka.BatchHandler { return eachEvent{h} }

type eachEvent struct{ handler EventHandler }

func (e eachEvent) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return &eventPartition{Partition: p, handler: e.handler}, nil
}

type eventPartition struct {
	*kafka.Partition
	handler EventHandler
}

func (p *eventPartition) Begin() kafka.Batch { return &eventBatch{partition: p} }

type eventBatch struct {
	kafka.Records
	partition *eventPartition
}

func (b *eventBatch) Write(ctx context.Context, _ kafka.Range) error {
	for i := range b.All {
		if err := b.partition.handle(ctx, &b.All[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *eventPartition) handle(ctx context.Context, r *events.Record) error {
	if r.Large != nil {
		return p.DeadLetter(ctx, []kafka.DeadLetter{{Record: *r, Rejection: r.Large.Rejection(), Attempts: 1}})
	}
	attempts := 0
	var rejection *events.Rejection
	err := retry.Do(ctx, func() error { attempts++; return p.handler.Handle(ctx, r) }, func(err error) error {
		if errors.As(err, &rejection) || kafka.Final(err) {
			return err
		}
		p.Waiting(fmt.Errorf("handle event %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err))
		return nil
	})
	if rejection != nil {
		return p.DeadLetter(ctx, []kafka.DeadLetter{{Record: *r, Rejection: rejection, Attempts: attempts}})
	}
	if err == nil {
		p.Waiting(nil)
	}
	return err
}

// A Journal keeps the values of the records it was given, by partition, in order.
type Journal struct {
	mu    sync.Mutex
	taken map[int][]string
}

// Handle takes a record.
func (j *Journal) Handle(_ context.Context, r *events.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.taken == nil {
		j.taken = map[int][]string{}
	}
	j.taken[r.Partition] = append(j.taken[r.Partition], string(r.Value))
	return nil
}

// Of returns what was taken from a partition so far.
func (j *Journal) Of(partition int) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.taken[partition])
}

// Count is how many records were taken so far.
func (j *Journal) Count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, values := range j.taken {
		n += len(values)
	}
	return n
}
