package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/sinks/dragonfly"
)

const (
	// eachUsers take turns in dataEach: a batch with as many rows as a partition has users holds one event of each.
	eachUsers = 40_000
	// takeoverUsers do so in dataTakeover, which is there to be read.
	takeoverUsers = 2000
	// eachCompany is how many users a company has there.
	eachCompany = 200
)

// publishEach publishes an event of each user in turn, again and again: the traffic that costs most for each event, since one user
// and batch is one call.
func (w *world) publishEach(ctx context.Context, d *dataset, users int, start time.Time) error {
	d.rows, d.counters = d.events, map[string]int64{}
	d.members = members{company: map[string]string{}, tier: map[string]string{}}
	n, size := 0, 0
	err := w.publishAll(ctx, d, func() (kafka.Message, bool, error) {
		if n == d.events {
			return kafka.Message{}, false, nil
		}
		at := start.Add(time.Duration(n) * time.Microsecond)
		user, company := "each-"+strconv.Itoa(n%users), "each-"+strconv.Itoa(n%users/eachCompany)
		m := usageEvent(company, user, "each-"+strconv.Itoa(n), at)
		d.counters[dragonfly.QuotaKey(user, at)]++
		d.members.company[user], d.members.tier[company] = company, "pro"
		n++
		size += len(m.Value)
		return m, true, nil
	})
	d.bytes = size / d.events
	return err
}

// forgetProgress makes Redis forget how far each partition is counted, and nothing else: what a process leaves behind that dies before it
// has noted anything. The counters know better.
func (w *world) forgetProgress(ctx context.Context) error {
	return w.eachSentinel(ctx, func(key string) error {
		fields, err := w.counts.HKeys(ctx, key).Result()
		if err != nil {
			return err
		}
		for _, field := range fields {
			if strings.Contains(field, ".") { // not the topic's
				err = errors.Join(err, w.counts.HDel(ctx, key, field).Err())
			}
		}
		return err
	})
}

// forgetSentinels makes Redis look as if it had lost something, so that the next owner begins an epoch.
func (w *world) forgetSentinels(ctx context.Context) error {
	return w.eachSentinel(ctx, func(key string) error { return w.counts.Del(ctx, key).Err() })
}

func (w *world) eachSentinel(ctx context.Context, do func(key string) error) error {
	keys, err := w.counts.Keys(ctx, "quota_sentinel:*").Result()
	if err == nil && len(keys) == 0 {
		err = errors.New("there are none")
	}
	for _, key := range keys {
		err = errors.Join(err, do(key))
	}
	if err != nil {
		return fmt.Errorf("change the sentinels: %w", err)
	}
	return nil
}

// awaitRead waits until a service says that it is through with so many events. It asks less often while the end is far away, since
// the answer costs the service something.
func (w *world) awaitRead(ctx context.Context, r *running, rows int) error {
	began := time.Now()
	for {
		if err := r.alive(); err != nil {
			return err
		}
		read, err := readCounted(ctx, r.metrics)
		if err != nil || read >= float64(rows) {
			return err
		}
		wait := 50 * time.Millisecond
		if read > 0 {
			left := time.Since(began).Seconds() * (float64(rows) - read) / read
			wait = min(max(time.Duration(left/2*float64(time.Second)), 10*time.Millisecond), 500*time.Millisecond)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if time.Since(began) > 15*time.Minute {
			return fmt.Errorf("it has read %.0f of %d events in %s", read, rows, time.Since(began))
		}
	}
}
