package yearload

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/events"
	"tenantflow/internal/yearmodel"
	"tenantflow/sinks/postgres"
)

// source is where the events of the year come from.
const source = "/year"

// partitions are how many the events of companies are spread over.
const partitions = 8

// Companies applies the lives of a world, several companies at a time, and returns how many events they were. None of them may be
// refused: a life that the service does not understand is no judge of it.
func Companies(ctx context.Context, tenants *postgres.Tenants, w *yearmodel.World) (applied int, err error) {
	decoder, err := events.NewDecoder("")
	if err != nil {
		return 0, err
	}
	const atOnce = 4
	var all errgroup.Group
	all.SetLimit(atOnce)
	var offset atomic.Int64
	for n, c := range w.Companies {
		all.Go(func() error {
			l := &loader{tenants: tenants, decoder: decoder, company: c, partition: n % partitions, offset: &offset}
			for _, step := range c.Steps {
				if err := l.step(ctx, step); err != nil {
					return fmt.Errorf("company %s (%s): %w", c.ID, c.Kind, err)
				}
			}
			return nil
		})
	}
	err = all.Wait()
	return int(offset.Load()), err
}

// A loader applies the life of one company.
type loader struct {
	tenants   *postgres.Tenants
	decoder   *events.Decoder
	company   *yearmodel.Company
	partition int
	offset    *atomic.Int64
}

func (l *loader) step(ctx context.Context, s yearmodel.Step) error {
	if s.Event == nil {
		return l.pass(ctx, s.Passed)
	}
	data, err := json.Marshal(s.Event.Data)
	if err != nil {
		return fmt.Errorf("write %s: %w", s.Event.ID, err)
	}
	envelope := events.Envelope{Source: source, ID: s.Event.ID, Type: s.Event.Type, Time: s.Event.At, DataContentType: "application/json", Data: data}
	value, headers := envelope.EncodeBinary()
	e, err := l.decoder.Decode(&events.Record{Topic: s.Event.Topic, Key: []byte(s.Event.Company), Value: value, Headers: headers, Time: time.Now()})
	if err != nil {
		return fmt.Errorf("read %s %s: %w", s.Event.Type, data, err)
	}
	return l.apply(ctx, e)
}

// pass applies everything that is due by a time, as the schedule publishes it.
func (l *loader) pass(ctx context.Context, by time.Time) error {
	for {
		due, err := l.tenants.Due(ctx, l.partition, by, 1000)
		if err != nil {
			return err
		}
		applied := false
		for _, e := range due {
			if e.Key != l.company.ID { // it has a loader of its own
				continue
			}
			if err := l.apply(ctx, e); err != nil {
				return err
			}
			applied = true
		}
		if !applied {
			return nil
		}
	}
}

// apply applies an event, and what it publishes for its company's subscription.
func (l *loader) apply(ctx context.Context, e *events.Event) error {
	done, err := l.tenants.Apply(ctx, e, postgres.Place{Partition: l.partition, Offset: l.offset.Add(1), Appended: time.Now()})
	if err != nil {
		return fmt.Errorf("apply %s %s of %s: %w", e.Type, e.Data, e.Time.Format(time.RFC3339), err)
	}
	if len(done) == 0 {
		return fmt.Errorf("apply %s %s of %s: it waits", e.Type, e.Data, e.Time.Format(time.RFC3339))
	}
	for _, one := range done {
		for _, r := range one.Results {
			switch {
			case r.Event == nil:
			case strings.HasSuffix(r.Event.Type, ".rejected.v1"):
				return fmt.Errorf("%s %s of %s was refused: %s", e.Type, e.Data, e.Time.Format(time.RFC3339), r.Event.Data)
			case r.Topic == events.TopicSubscription:
				if err := l.apply(ctx, &events.Event{Key: l.company.ID, Envelope: *r.Event}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
