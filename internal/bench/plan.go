package bench

import (
	"context"
	"fmt"
)

// what each measurement is, in a few words.
func what(name string) string {
	return map[string]string{
		Tenantflow:        "the service at its defaults, every guarantee on",
		KafkaEngine:       "ClickHouse's Kafka table engine and a view, at least once",
		InsertLimit:       "the engine alone, one insert of a file in its own format",
		InsertLimitTwo:    "the same rows in four files, two inserts at a time",
		InsertLimitSorted: "the same, rows sorted by the table's key beforehand",
		WithoutGuarantees: "the service's code without intents and deduplication",
		LargeBatches:      "the service, TENANTFLOW_USAGE_BATCH_ROWS=200000",
		Structured:        "the service, structured content mode",
		Payload1K:         "the service, 1 KB of data in each event",
		Payload10K:        "the service, 10 KB of data in each event",
		Duplicates:        "the service, 1 % resends and 5 % late by up to a day",
		ManyPartitions:    "the service, 64 partitions",
		LoneDefault:       "an event published alone, at defaults",
		LoneTuned:         "an event published alone, batch interval 50 ms",
		LatencyDefault:    "20,000 events/s, at defaults",
		LatencyTuned:      "20,000 events/s, batch interval 50 ms",
		Profiled:          "the service's code in the process that profiles it",
		Quota:             "quotas counted by the service at its defaults, every guarantee on; company-like",
		QuotaKnown:        "the same events read again, all counted already; company-like",
		QuotaRecount:      "the same events counted again in a new epoch; company-like",
		QuotaBaseline:     "INCRBY and EXPIRE for each event in pipelines, no guarantee; company-like",
		QuotaEach:         "quotas, batches of 5,000; one event a user and batch",
		QuotaEachBaseline: "INCRBY and EXPIRE for each event; one event a user and batch",
		QuotaTakeover:     "partitions taken over, the recent-identity filter full",
		UsageAndQuota:     "rows and quotas, in one process at its defaults",
		QuotaFresh:        "20,000 events/s and 2,000 HTTP requests/s, at defaults: published to counted",
		QuotaHTTP:         "the same: GET /v1/users/{id}/quota, from when it was due",
		Reserve:           "the same load: POST /v1/users/{id}/reservations, 2,000/s, held for a second",
		QuotaMemory:       "what a counted event weighs in Redis",
		Tenants:           "companies, through the running service",
		TenantsBlocked:    "companies whose neighbours can't go on, through the running service",
		Analytics:         "analyses of a made year over HTTP, each held against an independent model",
		QuotaProfiled:     "the quota consumer's code in the process that profiles it",
	}[name]
}

// measure makes all measurements that are wanted. The four that are compared with each other take turns, so that what the
// machine does meanwhile meets all of them.
func (w *world) measure(ctx context.Context) ([]Measurement, error) {
	made := map[string]*Measurement{}
	compared, err := w.compared(ctx)
	if err != nil {
		return nil, err
	}
	for n := range w.Runs {
		for _, c := range compared {
			r, err := c.run(ctx)
			if err != nil {
				return nil, err
			}
			m := made[c.name]
			if m == nil {
				m = &Measurement{Name: c.name, Rows: c.data.rows, DataBytes: c.data.bytes}
				made[c.name] = m
			}
			m.add(r)
			w.say("%s, run %d: %.0f rows/s; CPU a row %.2f us service, %.2f us ClickHouse, %.2f us Redis, %.2f us Kafka; peak %.0f MB",
				c.name, n+1, r.RowsPerSecond, r.CPU.Tenantflow, r.CPU.ClickHouse, r.CPU.Redis, r.CPU.Kafka, r.PeakRSS)
		}
	}
	tuned := "TENANTFLOW_USAGE_BATCH_INTERVAL=50ms"
	for _, l := range []struct {
		name     string
		steady   bool
		settings []string
	}{
		{LoneDefault, false, nil}, {LoneTuned, false, []string{tuned}}, {LatencyDefault, true, nil}, {LatencyTuned, true, []string{tuned}},
	} {
		if !w.wanted(l.name) {
			continue
		}
		m, err := w.latency(ctx, l.name, l.steady, l.settings...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		made[l.name] = &m
		w.say("%s: p50 %.0f ms, p99 %.0f ms, longest %.0f ms of %d", l.name, m.Latency.P50, m.Latency.P99, m.Latency.Max, m.Latency.Probes)
	}
	if err := w.quotaMeasures(ctx, made); err != nil {
		return nil, err
	}
	if w.wanted(Tenants) {
		cost, err := w.tenants(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Tenants, err)
		}
		made[Tenants] = &Measurement{Name: Tenants, Rows: cost.Companies, Tenants: cost}
	}
	if w.wanted(TenantsBlocked) {
		cost, err := w.tenantsBlocked(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", TenantsBlocked, err)
		}
		made[TenantsBlocked] = &Measurement{Name: TenantsBlocked, Rows: cost.Events, Blocked: cost}
	}
	if w.wanted(Analytics) {
		cost, err := w.analytics(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Analytics, err)
		}
		made[Analytics] = &Measurement{Name: Analytics, Rows: cost.Rows, PeakRSS: cost.ServiceMB, Year: cost}
	}
	var all []Measurement
	for _, name := range append(Names(), Profiled, QuotaProfiled) {
		if m := made[name]; m != nil {
			m.What = what(name)
			all = append(all, *m)
		}
	}
	return all, nil
}

// A pass makes one run of a measurement.
type pass struct {
	name string
	data dataset
	run  func(ctx context.Context) (Run, error)
}

// compared lists the measurements of throughput, with their events published.
func (w *world) compared(ctx context.Context) ([]pass, error) {
	var all []pass
	add := func(name, data string, c contender) error {
		if !w.wanted(name) {
			return nil
		}
		d, err := w.dataset(ctx, data)
		if err != nil {
			return err
		}
		all = append(all, pass{name, d, func(ctx context.Context) (Run, error) { return w.backlog(ctx, c, d) }})
		return nil
	}
	for _, c := range []struct {
		name, data string
		contender  contender
	}{
		{Tenantflow, dataBinary, w.service(Tenantflow)},
		{WithoutGuarantees, dataBinary, w.child(WithoutGuarantees, Unguarded, "")},
		{LargeBatches, dataBinary, w.service(LargeBatches, "TENANTFLOW_USAGE_BATCH_ROWS=200000")},
		{Profiled, dataBinary, w.child(Profiled, Guarded, w.Profile)},
		{KafkaEngine, dataRows, w.kafkaEngine()},
		{Structured, dataStructured, w.service(Structured)},
		{Payload1K, data1K, w.service(Payload1K)},
		{Payload10K, data10K, w.service(Payload10K)},
		{Duplicates, dataDuplicates, w.service(Duplicates)},
		{ManyPartitions, dataMany, w.service(ManyPartitions)},
	} {
		if err := add(c.name, c.data, c.contender); err != nil {
			return nil, err
		}
	}
	for _, c := range w.counters() {
		if !w.wanted(c.name) {
			continue
		}
		d, err := w.dataset(ctx, c.data)
		if err != nil {
			return nil, err
		}
		if err := w.know(ctx, d.members); err != nil {
			return nil, err
		}
		all = append(all, pass{c.name, d, func(ctx context.Context) (Run, error) { return w.count(ctx, c, d) }})
	}
	if !w.wanted(InsertLimit) {
		return all, nil
	}
	d, err := w.dataset(ctx, dataBinary)
	if err != nil {
		return nil, err
	}
	files, err := w.rowFiles(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("prepare the insert limit: %w", err)
	}
	for _, name := range []string{InsertLimit, InsertLimitTwo, InsertLimitSorted} {
		all = append(all, pass{name, d, func(ctx context.Context) (Run, error) { return w.insertLimit(ctx, files[name], d.rows) }})
	}
	return all, nil
}
