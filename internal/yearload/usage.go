package yearload

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/events"
	"tenantflow/internal/yearmodel"
	"tenantflow/sinks/clickhouse"
)

// blockRows is how many rows are inserted at once.
const blockRows = 400_000

// topic is where the rows of the year say that they come from.
const topic = "year.usage.events"

// Usage inserts the usage of a world, and gives every row to see as well.
func Usage(ctx context.Context, store *clickhouse.Store, w *yearmodel.World, see func(*yearmodel.Row)) error {
	group, ctx := errgroup.WithContext(ctx)
	full, empty := make(chan *clickhouse.Block), make(chan *clickhouse.Block, 2)
	empty <- clickhouse.NewBlock()
	empty <- clickhouse.NewBlock()
	group.Go(func() error {
		defer close(full)
		return fill(ctx, w, see, full, empty)
	})
	group.Go(func() error {
		for b := range full {
			from, to := b.Offset(0), b.Offset(b.Len()-1)+1
			in := b.Intent(topic, 0, from, to, 0, b.Len())
			in.InsertBy = store.Deadline()
			if err := store.Insert(ctx, in, b, 0, b.Len()); err != nil {
				return err
			}
			b.Reset()
			empty <- b
		}
		return nil
	})
	return group.Wait()
}

// fill writes all rows into blocks, and passes the full ones on.
func fill(ctx context.Context, w *yearmodel.World, see func(*yearmodel.Row), full chan<- *clickhouse.Block, empty <-chan *clickhouse.Block) error {
	next := func() (*clickhouse.Block, error) {
		select {
		case b := <-empty:
			return b, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	pass := func(b *clickhouse.Block) error {
		select {
		case full <- b:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	b, err := next()
	if err != nil {
		return err
	}
	offset := int64(0)
	var e encoder
	err = w.Usage(func(r *yearmodel.Row) error {
		see(r)
		u := e.usage(r)
		b.Append(u, u.IdentityHash(), offset)
		offset++
		if b.Len() < blockRows {
			return nil
		}
		if err := pass(b); err != nil {
			return err
		}
		b, err = next()
		return err
	})
	if err != nil || b.Len() == 0 {
		return err
	}
	return pass(b)
}

// An encoder makes what the service makes of an event. Its memory is used again for the next one.
type encoder struct {
	made  events.Usage
	voids events.Voids
	// The texts of made, and the id of what it takes back.
	id, taken, company, user, tier []byte

	period      []byte
	first, last int64 // the milliseconds of its month; last is not in it
}

var (
	services    = [...][]byte{[]byte("trading"), []byte("data-bridge"), []byte("ai-orchestration"), []byte("analytics")}
	endpoints   = [...][]byte{[]byte("/v1/orders"), []byte("/v1/quotes"), []byte("/v1/history"), []byte("/v1/signals"), []byte("/v1/reports")}
	usageSource = []byte(source)
	voidSource  = []byte(events.VoidSource())
)

func (e *encoder) usage(r *yearmodel.Row) *events.Usage {
	e.company, e.user, e.tier = append(e.company[:0], r.Company...), append(e.user[:0], r.User...), append(e.tier[:0], r.Tier...)
	e.id = strconv.AppendInt(append(e.id[:0], "y-"...), r.Number, 10)
	e.made = events.Usage{ID: e.id, Source: usageSource, CompanyID: e.company, UserID: e.user, Tier: e.tier,
		Service: services[r.Number%int64(len(services))], Endpoint: endpoints[r.Number%int64(len(endpoints))],
		Timestamp: r.At, DataPoints: r.Points, ProcessingTime: r.ProcessingMicros, BillingPeriod: e.month(r.At), Revenue: r.RevenueMillionths}
	if r.Sign < 0 {
		e.taken = append(e.taken[:0], e.id...)
		e.id = append(e.id, "-void"...)
		e.voids = events.Voids{Source: usageSource, ID: e.taken, RecordedAt: r.At}
		e.made.ID, e.made.Source, e.made.Voids = e.id, voidSource, &e.voids
	}
	return &e.made
}

// month is the billing period of a time, which most rows share with the one before.
func (e *encoder) month(at int64) []byte {
	if at < e.first || at >= e.last {
		t := time.UnixMilli(at).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		e.first, e.last, e.period = first.UnixMilli(), first.AddDate(0, 1, 0).UnixMilli(), []byte(first.Format("2006-01"))
	}
	return e.period
}
