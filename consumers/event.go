package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
)

// An EventHandler consumes a topic event by event.
type EventHandler interface {
	// Handle brings all effects of one record into the stores; when it returns nil they are durable. A record may
	// come again, and must then change nothing. The record is valid during the call only.
	//
	// A record that is Large goes to the dead letters without being handled.
	//
	// Errors: an *events.Rejection sends the record to the dead letters; a *StopError stops the partition; a
	// *FatalError the consumer; anything else is transient, and the record comes again after a while. Nothing
	// behind it in its partition is handled before it.
	Handle(ctx context.Context, r *events.Record) error
}

// EachEvent makes a BatchHandler of an EventHandler. The records of a partition are handled one after the other; their
// offsets are committed together.
func EachEvent(h EventHandler) BatchHandler { return eachEvent{h} }

type eachEvent struct{ handler EventHandler }

func (e eachEvent) Open(_ context.Context, p *Partition) (BatchPartition, error) {
	return &eventPartition{Partition: p, handler: e.handler}, nil
}

type eventPartition struct {
	*Partition
	handler EventHandler
}

// records is the batch of an eventPartition: copies, in order.
type records struct {
	all   []events.Record
	bytes int64
}

func (b *records) Add(r *events.Record) {
	b.all = append(b.all, CopyRecord(r))
	b.bytes += recordBytes(r)
}

func (b *records) Close() {}

func (b *records) Rows() int { return len(b.all) }

func (b *records) Bytes() int64 { return b.bytes }

func (p *eventPartition) Begin() Batch { return &records{} }

func (p *eventPartition) End(Batch) {}

func (p *eventPartition) Write(ctx context.Context, b Batch, _ Range) error {
	batch, ok := b.(*records)
	if !ok {
		return fmt.Errorf("write events: not a batch of events: %T", b)
	}
	for i := range batch.all {
		if err := p.handle(ctx, &batch.all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *eventPartition) handle(ctx context.Context, r *events.Record) error {
	if r.Large != nil {
		return p.DeadLetter(ctx, []DeadLetter{{Record: *r, Rejection: r.Large.Rejection(), Attempts: 1}})
	}
	delays := retryDelays()
	for attempt := 1; ; attempt++ {
		err := p.handler.Handle(ctx, r)
		var rejection *events.Rejection
		var stop *StopError
		var failure *FatalError
		switch {
		case err == nil:
			p.Waiting(nil)
			return nil
		case errors.As(err, &rejection):
			return p.DeadLetter(ctx, []DeadLetter{{Record: *r, Rejection: rejection, Attempts: attempt}})
		case errors.As(err, &stop), errors.As(err, &failure), errors.Is(err, errLost):
			return err
		}
		err = fmt.Errorf("handle event %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		p.Waiting(err)
		if waitErr := pause(ctx, min(delays.NextBackOff(), 5*time.Second)); waitErr != nil {
			return err
		}
	}
}
