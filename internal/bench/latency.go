package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
)

// How latency is measured.
const (
	warmUp       = 5 * time.Second
	loneProbes   = 60                    // events published when nothing else is under way
	look         = 10 * time.Millisecond // from one look into the table to the next: the error of the measurement
	probeCompany = "bench-probe"
)

// latency measures the time from publishing an event to finding its row, under a steady load or, without one, for an
// event alone.
func (w *world) latency(ctx context.Context, name string, steady bool, settings ...string) (_ Measurement, err error) {
	m := Measurement{Name: name}
	database, err := w.database(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	d := dataset{prefix: name + ".", partitions: w.Partitions}
	if err := w.topics(ctx, d.prefix, d.partitions); err != nil {
		return m, err
	}
	group := w.group(name)
	r, err := w.service(name, settings...).start(ctx, d, database, group)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := w.awaitGroup(ctx, r, group, 1); err != nil {
		return m, err
	}
	p := &prober{world: w, database: database, sent: map[string]time.Time{}, writer: &kafkago.Writer{
		Addr: w.client.Addr, Transport: w.client.Transport, Topic: d.topic(), Balancer: kafka.Partitioner{},
		RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 1,
	}}
	defer func() { err = errors.Join(err, p.writer.Close()) }()
	before, err := w.times(r.pid())
	if err != nil {
		return m, err
	}
	began := time.Now()
	if steady {
		err = p.underLoad(ctx, d)
	} else {
		err = p.alone(ctx)
	}
	if err != nil {
		return m, err
	}
	run, err := w.finish(ctx, r, finished{database: database, rows: p.rows, took: time.Since(began), before: before})
	if err != nil {
		return m, err
	}
	m.Rows = p.rows
	m.add(run)
	m.Latency = latencyOf(p.took)
	return m, r.alive()
}

// A prober publishes events and looks for their rows.
type prober struct {
	*world
	database string
	writer   *kafkago.Writer
	rows     int // published, probes included

	mu   sync.Mutex
	sent map[string]time.Time // by user, those not found yet
	took []time.Duration
}

// send publishes one probe: an event of a user that only it has.
func (p *prober) send(ctx context.Context, n int) error {
	user := "probe-" + strconv.Itoa(n)
	now := time.Now()
	p.mu.Lock()
	p.sent[user] = now
	p.mu.Unlock()
	if err := p.writer.WriteMessages(ctx, probeEvent(user, user, now)); err != nil {
		return fmt.Errorf("publish a probe: %w", err)
	}
	p.rows++
	return nil
}

// probeEvent is a usage event of now.
func probeEvent(user, id string, now time.Time) kafkago.Message {
	return usageEvent(probeCompany, user, id, now)
}

// usageEvent is an event of a user, whose record is keyed by the user.
func usageEvent(company, user, id string, now time.Time) kafkago.Message {
	at := now.UTC().Format(time.RFC3339Nano)
	return kafkago.Message{
		Key: []byte(user),
		Value: fmt.Appendf(nil, `{"company_id":%q,"user_id":%q,"subscription_tier":"pro","service_name":"bench","api_endpoint":"/probe",`+
			`"data_points_consumed":1,"processing_time_ms":1,"timestamp":%q}`, company, user, at),
		Headers: []kafkago.Header{
			{Key: "content-type", Value: []byte("application/json")}, {Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_id", Value: []byte(id)}, {Key: "ce_source", Value: []byte("/bench")},
			{Key: "ce_type", Value: []byte("usage.recorded.v1")}, {Key: "ce_time", Value: []byte(at)},
		},
	}
}

// look asks for the rows of probes, and reports how many are still missing.
func (p *prober) look(ctx context.Context) (missing int, err error) {
	text, err := p.clickhouse.Query(ctx, "SELECT user_id FROM "+p.database+".usage_tracking WHERE company_id = '"+probeCompany+"'")
	if err != nil {
		return 0, err
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for user := range strings.FieldsSeq(text) {
		if sent, ok := p.sent[user]; ok {
			p.took = append(p.took, now.Sub(sent))
			delete(p.sent, user)
		}
	}
	return len(p.sent), nil
}

// alone sends one probe after the other, each when the one before has been found and some time has passed, so that the
// service is idle.
func (p *prober) alone(ctx context.Context) error {
	for n := range loneProbes {
		if err := p.send(ctx, n); err != nil {
			return err
		}
		err := p.await(ctx, "a probe", time.Minute, look/2, func() (bool, error) {
			missing, err := p.look(ctx)
			return missing == 0, err
		})
		if err != nil {
			return err
		}
		// Not always at the same point of the service's waits.
		pause := time.NewTimer(100*time.Millisecond + time.Duration(n%7)*70*time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// underLoad publishes at a steady rate, and probes among it.
func (p *prober) underLoad(ctx context.Context, d dataset) error {
	g, err := steadyEvents(warmUp + steadyTime)
	if err != nil {
		return err
	}
	p.rows += g.Config().Count
	return p.steadily(ctx, d, g, p.keepProbing)
}

// keepProbing sends probes until ctx ends, after the warm-up, and returns when all are found.
func (p *prober) keepProbing(ctx context.Context) error {
	outlive := context.WithoutCancel(ctx)
	began := time.Now()
	next := began.Add(warmUp)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; {
		<-tick.C
		if time.Now().After(next) {
			next = next.Add(steadyProbes)
			if err := p.send(outlive, n); err != nil {
				return err
			}
			n++
		}
		if _, err := p.look(outlive); err != nil {
			return err
		}
	}
	return p.await(outlive, "the last probes", time.Minute, look, func() (bool, error) {
		missing, err := p.look(outlive)
		return missing == 0, err
	})
}

// latencyOf sums up how long each probe took.
func latencyOf(took []time.Duration) *Latency {
	slices.Sort(took)
	at := func(share float64) float64 {
		if len(took) == 0 {
			return 0
		}
		i := min(len(took)-1, int(share*float64(len(took))))
		return float64(took[i].Microseconds()) / 1000
	}
	return &Latency{P50: at(0.5), P99: at(0.99), Max: at(1), Probes: len(took)}
}
