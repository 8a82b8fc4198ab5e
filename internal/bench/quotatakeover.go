package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"tenantflow/sinks/dragonfly"
)

// takeoverRecords is how many records the recent-identity filter of a partition holds at defaults.
const takeoverRecords = 1_000_000

// A Takeover is how soon partitions count that another process takes over: it reads the log before them, as far as the
// recent-identity filter reaches.
type Takeover struct {
	Partitions int     `json:"partitions"`
	Records    int     `json:"records"` // that all filters hold
	Seconds    float64 `json:"seconds"` // from having the partitions to an event of each being counted
}

// quotaTakeover has a service count a log, and another one take over.
func (w *world) quotaTakeover(ctx context.Context) (Measurement, error) {
	m := Measurement{Name: QuotaTakeover}
	d, err := w.dataset(ctx, dataTakeover)
	if err != nil {
		return m, err
	}
	m.Rows = d.rows
	if err := w.know(ctx, d.members); err != nil {
		return m, err
	}
	c := counter{name: QuotaTakeover, data: d.prefix, parts: []string{".quota"}, start: w.countingService("quota")}
	if _, err := w.count(ctx, c, d); err != nil {
		return m, err
	}
	now := time.Now()
	for p := range d.partitions {
		user := takeoverUser(p)
		event := usageEvent(probeCompany, user, user, now)
		record := kafka.Record{Key: kafka.NewBytes(event.Key), Value: kafka.NewBytes(event.Value), Headers: event.Headers}
		res, err := w.client.Produce(ctx, &kafka.ProduceRequest{Topic: d.topic(), Partition: p, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(record)})
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return m, fmt.Errorf("publish an event to %s/%d: %w", d.topic(), p, err)
		}
	}
	m.Takeover, m.PeakRSS, err = w.takeOver(ctx, c, d, now)
	if err == nil {
		w.say("%s: %d partitions with %d records in their filters count after %.1f s", QuotaTakeover, d.partitions, m.Takeover.Records, m.Takeover.Seconds)
	}
	return m, err
}

func takeoverUser(partition int) string { return "takeover-" + strconv.Itoa(partition) }

// takeOver starts the service again, and waits for the event of each partition.
func (w *world) takeOver(ctx context.Context, c counter, d dataset, sent time.Time) (_ *Takeover, peak float64, err error) {
	prefix := w.counted.prefix
	r, err := c.start(ctx, d, "", prefix)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := w.awaitGroup(ctx, r, prefix+c.parts[0], 1); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	err = w.await(ctx, "the partitions to count", 5*time.Minute, 20*time.Millisecond, func() (bool, error) {
		if err := r.alive(); err != nil {
			return false, err
		}
		for p := range d.partitions {
			n, err := w.counts.HGet(ctx, dragonfly.QuotaKey(takeoverUser(p), sent), "api_calls").Int()
			if err != nil && !errors.Is(err, redis.Nil) {
				return false, err
			}
			if n == 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, 0, err
	}
	t := &Takeover{Partitions: d.partitions, Records: d.partitions * takeoverRecords, Seconds: time.Since(began).Seconds()}
	peak, err = memory(r.pid(), "VmHWM")
	return t, peak, err
}
