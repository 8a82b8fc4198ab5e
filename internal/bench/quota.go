package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A counter is a contender that counts the events of a dataset in Redis.
type counter struct {
	name  string
	data  string   // the prefix of its dataset
	parts []string // what it puts behind its prefix to name its consumer groups
	rows  bool     // it writes rows into ClickHouse as well
	plain bool     // it keeps plain counters, not hashes, and no progress

	// again makes Redis forget something of what was counted before, so that all is read again; nil: Redis is empty.
	again func(ctx context.Context) error

	// start sets it going. prefix is that of its consumer groups.
	start func(ctx context.Context, d dataset, database, prefix string) (*running, error)
}

// counters lists them, in the order of their turns.
func (w *world) counters() []counter {
	quota := []string{".quota"}
	return []counter{
		w.quota(),
		{name: QuotaKnown, data: dataBinary, parts: quota, again: w.forgetProgress, start: w.countingService("quota")},
		{name: QuotaRecount, data: dataBinary, parts: quota, again: w.forgetSentinels, start: w.countingService("quota")},
		{name: QuotaBaseline, data: dataBinary, parts: quota, plain: true, start: w.countingChild(Plain, "")},
		{name: UsageAndQuota, data: dataBinary, parts: []string{usageGroup, ".quota"}, rows: true, start: w.countingService("usage,quota")},
		{name: QuotaEach, data: dataEach, parts: quota, start: w.countingService("quota", "TENANTFLOW_QUOTA_BATCH_ROWS="+strconv.Itoa(eachUsers/w.Partitions))},
		{name: QuotaEachBaseline, data: dataEach, parts: quota, plain: true, start: w.countingChild(Plain, "")},
		{name: QuotaProfiled, data: dataBinary, parts: quota, start: w.countingChild(Counted, w.Profile+".quota")},
	}
}

// quota is the service that counts the company-like events.
func (w *world) quota() counter {
	return counter{name: Quota, data: dataBinary, parts: []string{".quota"}, start: w.countingService("quota")}
}

// countingService is the real binary.
func (w *world) countingService(parts string, settings ...string) func(ctx context.Context, d dataset, database, prefix string) (*running, error) {
	return func(ctx context.Context, d dataset, database, prefix string) (*running, error) {
		return w.runService(ctx, parts, d.prefix, database, prefix, append([]string{
			"TENANTFLOW_DRAGONFLY_URL=" + w.redis.URL(), "TENANTFLOW_POSTGRES_DSN=" + w.postgres.DSN(),
		}, settings...))
	}
}

// countingChild is this program; see Child.
func (w *world) countingChild(kind ChildKind, profile string) func(ctx context.Context, d dataset, database, prefix string) (*running, error) {
	return func(ctx context.Context, d dataset, _, prefix string) (*running, error) {
		return w.runChild(ctx, kind, d, prefix+".quota", profile, "--redis", w.redis.URL(), "--postgres", w.postgres.DSN())
	}
}

// count has a counter count a whole dataset into an empty Redis. The clock is that of backlog: from the moment at which the
// groups have their partitions to the moment at which every event is counted, and is a row where there are rows. The
// counters are then held against the model's, one by one.
func (w *world) count(ctx context.Context, c counter, d dataset) (_ Run, err error) {
	prefix := strings.TrimSuffix(w.group(c.name), usageGroup)
	if c.again == nil {
		err = w.forget(ctx)
	} else {
		if w.counted.data != d.prefix {
			if _, err := w.count(ctx, w.quota(), d); err != nil {
				return Run{}, err
			}
		}
		prefix = w.counted.prefix
		err = c.again(ctx)
	}
	if err != nil {
		return Run{}, err
	}
	database := ""
	if c.rows {
		if database, err = w.database(ctx); err != nil {
			return Run{}, err
		}
		defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	}
	r, err := c.start(ctx, d, database, prefix)
	if err != nil {
		return Run{}, fmt.Errorf("start %s: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	for _, part := range c.parts {
		if err := w.awaitGroup(ctx, r, prefix+part, 1); err != nil {
			return Run{}, fmt.Errorf("start %s: %w", c.name, err)
		}
	}
	began := time.Now()
	before, err := w.times(r.pid())
	if err != nil {
		return Run{}, err
	}
	heapBefore, err := readHeap(ctx, r.metrics)
	if err != nil {
		return Run{}, err
	}
	if c.again != nil {
		err = w.awaitRead(ctx, r, d.rows)
	} else {
		err = w.await(ctx, "the counts of "+c.name, 15*time.Minute, 20*time.Millisecond, func() (bool, error) {
			if err := r.alive(); err != nil {
				return false, err
			}
			return w.isCounted(ctx, c, d)
		})
	}
	if err == nil && c.rows {
		_, err = w.awaitRows(ctx, r, database, d)
	}
	took := time.Since(began)
	if err != nil {
		return Run{}, fmt.Errorf("%s: %w\n%s", c.name, err, r.logTail())
	}
	if _, wrong, err := w.sum(ctx, d, c.plain); err != nil || wrong != "" {
		return Run{}, errors.Join(err, fmt.Errorf("%s has counted wrongly: %s", c.name, wrong))
	}
	if !c.plain {
		w.counted = counted{prefix, d.prefix}
	}
	return w.finish(ctx, r, finished{database: database, rows: d.rows, took: took, before: before, heapBefore: heapBefore})
}

// isCounted looks cheaply first, since this look shares Redis with the contender: all counters are read only when the end is
// near.
func (w *world) isCounted(ctx context.Context, c counter, d dataset) (bool, error) {
	if c.plain {
		n, err := w.incremented(ctx)
		return n >= int64(d.rows), err
	}
	if near, err := w.sampled(ctx, d); err != nil || !near {
		return false, err
	}
	sum, _, err := w.sum(ctx, d, false)
	return sum >= int64(d.rows), err
}

// quotaMeasures makes the measurements that are no throughput.
func (w *world) quotaMeasures(ctx context.Context, made map[string]*Measurement) error {
	if w.wanted(QuotaFresh) || w.wanted(QuotaHTTP) {
		fresh, asked, err := w.quotaFresh(ctx, false)
		if err != nil {
			return fmt.Errorf("%s: %w", QuotaFresh, err)
		}
		for _, m := range []*Measurement{&fresh, &asked} {
			made[m.Name] = m
			w.say("%s: p50 %.1f ms, p99 %.1f ms, longest %.1f ms of %d", m.Name, m.Latency.P50, m.Latency.P99, m.Latency.Max, m.Latency.Probes)
		}
	}
	if w.wanted(Reserve) {
		_, m, err := w.quotaFresh(ctx, true)
		if err != nil {
			return fmt.Errorf("%s: %w", Reserve, err)
		}
		made[Reserve] = &m
		w.say("%s: p50 %.1f ms, p99 %.1f ms, longest %.1f ms of %d", m.Name, m.Latency.P50, m.Latency.P99, m.Latency.Max, m.Latency.Probes)
	}
	if w.wanted(QuotaTakeover) {
		m, err := w.quotaTakeover(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", QuotaTakeover, err)
		}
		made[QuotaTakeover] = &m
	}
	if w.wanted(QuotaMemory) {
		m, err := w.quotaMemory(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", QuotaMemory, err)
		}
		made[QuotaMemory] = &m
	}
	return nil
}
