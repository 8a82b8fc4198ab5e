// Package bench measures the usage consumer beside what people would use instead of it: ClickHouse's own Kafka table
// engine, the engine's insert limit, and the consumer's own code without its guarantees. All read the same events from
// the same Apache Kafka into the same tables of the same ClickHouse engine, one after the other, in one run.
//
// The quota consumer is measured likewise, beside a pipeline that counts the same events in the same Redis by INCRBY and
// EXPIRE and promises nothing; and how soon its counts are seen, how fast they are served over HTTP, what they weigh.
//
// Companies are measured without a rival: what one more costs, how fast their events are, what a change of tier takes. So are the analyses, over a
// made year of which an independent model knows every answer (internal/yearmodel).
//
// What counts are the ratios within one run. The absolute numbers belong to the machine, on which the broker, the engine,
// the contender and this program share the processors.
package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenantflow/internal/engine"
)

// Config says what is measured.
type Config struct {
	Events     int           // of the backlog every contender reads; default 2,000,000
	Runs       int           // of each contender; default 3
	BlockedFor time.Duration // how long a phase of tenants_blocked takes, to a round of all companies; default 30s
	Partitions int           // of the topics; default 8
	Companies  int           // that are registered; default 2,000
	YearRows   int           // of usage, in the year that analyses are measured over; default 20,000,000
	Only       []string      // names of measurements; empty: all

	Binary  string // path of tenantflow; default bin/tenantflow
	Dir     string // for data and logs, emptied at the start; default .local/bench
	JSON    string // where the measurements are written; default .local/bench.json
	Profile string // a file for a CPU profile of the usage consumer, and with .quota behind it the quota consumer's; empty: none

	Out io.Writer // the report
	Log io.Writer // what is under way
}

// The names of the measurements, in the order in which they are made.
const (
	Tenantflow        = "tenantflow"
	KafkaEngine       = "kafka_engine"
	InsertLimit       = "insert_limit"
	InsertLimitTwo    = "insert_limit_two"    // made with insert_limit
	InsertLimitSorted = "insert_limit_sorted" // made with insert_limit
	WithoutGuarantees = "without_guarantees"
	LargeBatches      = "large_batches"
	Structured        = "structured"
	Payload1K         = "payload_1k"
	Payload10K        = "payload_10k"
	Duplicates        = "duplicates"
	ManyPartitions    = "partitions_64"
	LatencyDefault    = "latency_default"
	LatencyTuned      = "latency_tuned"
	LoneDefault       = "lone_default"
	LoneTuned         = "lone_tuned"
	Profiled          = "profiled"
	Quota             = "quota"
	QuotaBaseline     = "quota_baseline"
	QuotaKnown        = "quota_known"   // of what quota has counted
	QuotaRecount      = "quota_recount" // likewise
	QuotaEach         = "quota_each"
	QuotaEachBaseline = "quota_each_baseline"
	UsageAndQuota     = "usage_and_quota"
	QuotaFresh        = "quota_fresh"
	QuotaHTTP         = "quota_http" // made with quota_fresh
	Reserve           = "reserve"    // reservations in place of questions
	QuotaMemory       = "quota_memory"
	QuotaTakeover     = "quota_takeover"
	QuotaProfiled     = "quota_profiled"
	Tenants           = "tenants"
	TenantsBlocked    = "tenants_blocked"
	Analytics         = "analytics"
)

// Names are the measurements that Run makes when none is named.
func Names() []string {
	return []string{
		Tenantflow, KafkaEngine, InsertLimit, InsertLimitTwo, InsertLimitSorted, WithoutGuarantees, LargeBatches, Structured, Payload1K, Payload10K, Duplicates, ManyPartitions,
		Quota, QuotaKnown, QuotaRecount, QuotaBaseline, UsageAndQuota, QuotaEach, QuotaEachBaseline,
		LoneDefault, LoneTuned, LatencyDefault, LatencyTuned, QuotaFresh, QuotaHTTP, Reserve, QuotaMemory, QuotaTakeover, Tenants, TenantsBlocked, Analytics,
	}
}

// counts says whether a measurement needs Redis and Postgres, and stores whether ClickHouse has a part in it.
func counts(name string) bool {
	return slices.Contains([]string{Quota, QuotaKnown, QuotaRecount, QuotaBaseline, UsageAndQuota, QuotaEach, QuotaEachBaseline, QuotaFresh, QuotaHTTP,
		Reserve, QuotaMemory, QuotaTakeover, QuotaProfiled, Tenants, TenantsBlocked, Analytics}, name)
}

func stores(name string) bool { return !counts(name) || name == UsageAndQuota || name == Analytics }

// CPU is processor time for a row, in microseconds, of each process that had a part in it.
type CPU struct {
	Tenantflow float64 `json:"tenantflow"`
	ClickHouse float64 `json:"clickhouse"`
	Kafka      float64 `json:"kafka"`
	Redis      float64 `json:"redis,omitempty"`
}

// A Run is one pass of a contender over its events.
type Run struct {
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rows_per_second"`
	CPU           CPU     `json:"cpu_us_per_row"`
	PeakRSS       float64 `json:"peak_rss_mb,omitempty"`       // of the service; 0 where there is none
	Allocations   float64 `json:"allocs_per_1000_rows"`        // heap objects of the service, everything included
	Collections   float64 `json:"garbage_collections"`         // of the service
	Inserts       float64 `json:"rows_per_insert,omitempty"`   // mean size of a part that an insert made
	AllocatedMB   float64 `json:"allocated_mb,omitempty"`      // by the service, in all
	KafkaRSS      float64 `json:"kafka_rss_mb,omitempty"`      // at its end
	ClickHouseRSS float64 `json:"clickhouse_rss_mb,omitempty"` // at its end
	RedisRSS      float64 `json:"redis_rss_mb,omitempty"`      // at its end
}

// A Latency is the time from just before an event is published to its row being found, in milliseconds.
type Latency struct {
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	Probes int     `json:"probes"`
}

// A Measurement is what a contender did in all its runs. Numbers without a name of their own are medians of the runs.
type Measurement struct {
	Name          string       `json:"name"`
	What          string       `json:"what"`
	Rows          int          `json:"rows"`
	DataBytes     int          `json:"data_bytes_per_event,omitempty"`
	RowsPerSecond float64      `json:"rows_per_second"`
	Min           float64      `json:"rows_per_second_min"`
	Max           float64      `json:"rows_per_second_max"`
	CPU           CPU          `json:"cpu_us_per_row"`
	PeakRSS       float64      `json:"peak_rss_mb"`
	Allocations   float64      `json:"allocs_per_1000_rows,omitempty"`
	Latency       *Latency     `json:"latency_ms,omitempty"`
	Weights       []Weight     `json:"redis_bytes,omitempty"`
	Takeover      *Takeover    `json:"takeover,omitempty"`
	Tenants       *TenantCost  `json:"tenants,omitempty"`
	Blocked       *BlockedCost `json:"tenants_blocked,omitempty"`
	Year          *YearCost    `json:"analytics,omitempty"`
	Runs          []Run        `json:"runs,omitempty"`
}

// add takes in one more run.
func (m *Measurement) add(r Run) {
	m.Runs = append(m.Runs, r)
	of := func(f func(Run) float64) []float64 {
		all := make([]float64, len(m.Runs))
		for i, r := range m.Runs {
			all[i] = f(r)
		}
		slices.Sort(all)
		return all
	}
	speeds := of(func(r Run) float64 { return r.RowsPerSecond })
	m.Min, m.RowsPerSecond, m.Max = speeds[0], median(speeds), speeds[len(speeds)-1]
	m.CPU = CPU{
		Tenantflow: median(of(func(r Run) float64 { return r.CPU.Tenantflow })),
		ClickHouse: median(of(func(r Run) float64 { return r.CPU.ClickHouse })),
		Kafka:      median(of(func(r Run) float64 { return r.CPU.Kafka })),
		Redis:      median(of(func(r Run) float64 { return r.CPU.Redis })),
	}
	m.PeakRSS = slices.Max(of(func(r Run) float64 { return r.PeakRSS }))
	m.Allocations = median(of(func(r Run) float64 { return r.Allocations }))
}

// median is the middle of sorted values, the mean of the two middle ones where their number is even.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (c *Config) withDefaults() error {
	root, err := engine.Root()
	if err != nil {
		return err
	}
	set := func(s *string, elem ...string) {
		if *s == "" {
			*s = filepath.Join(append([]string{root}, elem...)...)
		}
	}
	set(&c.Binary, "bin", "tenantflow")
	set(&c.Dir, ".local", "bench")
	set(&c.JSON, ".local", "bench.json")
	c.Events = cmp.Or(c.Events, 2_000_000)
	c.BlockedFor = cmp.Or(c.BlockedFor, 30*time.Second)
	c.Runs = cmp.Or(c.Runs, 3)
	c.Partitions = cmp.Or(c.Partitions, 8)
	c.Companies = cmp.Or(c.Companies, 2000)
	c.YearRows = cmp.Or(c.YearRows, 20_000_000)
	if c.Companies < 10*aloneCompanies {
		return fmt.Errorf("%d companies are too few: choose at least %d", c.Companies, 10*aloneCompanies)
	}
	if len(c.Only) == 0 {
		c.Only = Names()
	}
	if c.Profile != "" {
		for profile, of := range map[string]func(string) bool{Profiled: stores, QuotaProfiled: counts} {
			if slices.ContainsFunc(c.Only, of) && !slices.Contains(c.Only, profile) {
				c.Only = append(c.Only, profile)
			}
		}
	}
	if c.Profile == "" && (slices.Contains(c.Only, Profiled) || slices.Contains(c.Only, QuotaProfiled)) {
		return errors.New("a profile is to be measured, and no file is named for it: --profile")
	}
	known := append(Names(), Profiled, QuotaProfiled)
	for _, name := range c.Only {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no measurement %q; choose from %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// MeasureAll makes the measurements, writes them to the JSON file and reports them.
func MeasureAll(ctx context.Context, c Config) (err error) {
	if err := c.withDefaults(); err != nil {
		return err
	}
	w, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	began := time.Now()
	all, err := w.measure(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.WriteFile(c.JSON, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the measurements: %w", err)
	}
	report(c.Out, w.describe(ctx), all)
	w.say("all measured in %s; as JSON in %s", time.Since(began).Round(time.Second), c.JSON)
	return nil
}

// wanted says whether a measurement is to be made.
func (c *Config) wanted(name string) bool { return slices.Contains(c.Only, name) }
