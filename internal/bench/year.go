package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/yearload"
	"tenantflow/internal/yearmodel"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// The year that analyses are measured over.
const (
	yearSeed      = 16
	yearCompanies = 200
	yearUsers     = 5000
	shownAtMost   = 20 // differences
)

// A YearCost is what the analyses of a made year have come to: every answer is held against the independent model's.
type YearCost struct {
	Companies       int          `json:"companies"`
	Users           int          `json:"users"`
	Rows            int          `json:"rows"`
	Events          int          `json:"events"` // of companies, what was due included
	RowsPerSecond   float64      `json:"rows_per_second_loaded"`
	EventsPerSecond float64      `json:"events_per_second_applied"`
	Answers         int          `json:"answers_compared"`
	Members         int          `json:"members_compared"`
	Asked           []AnswerTime `json:"asked"`
	ServiceMB       float64      `json:"service_peak_rss_mb"`
}

// An AnswerTime is how long an answer took over HTTP, one after the other, in milliseconds.
type AnswerTime struct {
	Name string  `json:"name"`
	Goal float64 `json:"goal_ms"`           // for 95 % of the answers
	Cold *Times  `json:"cold"`              // the first time that a service which has just started is asked about each company
	Warm *Times  `json:"warm"`              // afterwards
	Live *Times  `json:"beside_live_usage"` // the same beside 20,000 usage events a second
}

// Times are percentiles, in milliseconds.
type Times struct {
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	Max   float64 `json:"max"`
	Asked int     `json:"asked"`
}

func timesOf(took []time.Duration) *Times {
	if len(took) == 0 {
		return nil
	}
	l := latencyOf(took) // sorts
	return &Times{P50: l.P50, P95: float64(took[len(took)*95/100].Microseconds()) / 1000, Max: l.Max, Asked: len(took)}
}

// A yearBench is a made year in the stores, and the service that is asked about it.
type yearBench struct {
	*world
	*YearCost
	year     *yearmodel.World
	model    *yearmodel.Model
	database string // of ClickHouse
	books    string // the DSN of a database without other companies
	running  *running
	client   *http.Client
	others   bool // usage of other companies has come
}

// analytics loads a year and asks about it.
func (w *world) analytics(ctx context.Context) (_ *YearCost, err error) {
	y := &yearBench{world: w, YearCost: &YearCost{Companies: yearCompanies, Users: yearUsers, Rows: w.YearRows}, client: &http.Client{Timeout: time.Minute}}
	defer y.client.CloseIdleConnections()
	if y.year, err = yearmodel.New(yearmodel.Config{Seed: yearSeed, Companies: yearCompanies, Users: yearUsers, Rows: w.YearRows, Now: time.Now()}); err != nil {
		return nil, err
	}
	y.model = yearmodel.NewModel(y.year)
	if y.database, err = w.database(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), y.database)) }()
	if y.books, err = w.companiesOf(ctx, Analytics); err != nil {
		return nil, err
	}
	if err := y.load(ctx); err != nil {
		return nil, err
	}
	d := dataset{prefix: Analytics + ".", partitions: w.Partitions}
	if err := w.topics(ctx, d.prefix, d.partitions); err != nil {
		return nil, err
	}
	prefix := strings.TrimSuffix(w.group(Analytics), usageGroup)
	if y.running, err = w.countingService("usage,api", "TENANTFLOW_POSTGRES_DSN="+y.books)(ctx, d, y.database, prefix); err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, y.running.stop()); err != nil {
			err = fmt.Errorf("%w\n%s", err, y.running.logTail())
		}
	}()
	if err := w.awaitGroup(ctx, y.running, prefix+usageGroup, 1); err != nil {
		return nil, err
	}
	if err := y.measureAnswers(ctx, d); err != nil {
		return nil, err
	}
	y.ServiceMB, err = memory(y.running.pid(), "VmHWM")
	return y.YearCost, err
}

// load puts the year into the stores: usage by the service's own insert, companies by its rules and transactions.
func (y *yearBench) load(ctx context.Context) error {
	options, err := chgo.ParseDSN(y.clickhouse.DSNOf(y.database))
	if err != nil {
		return err
	}
	rows, err := clickhouse.Open(ctx, clickhouse.Config{Options: options, InsertTimeout: 2 * time.Minute})
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // everything was answered before
	began := time.Now()
	if err := yearload.Usage(ctx, rows, y.year, y.model.Add); err != nil {
		return fmt.Errorf("load the usage of the year: %w", err)
	}
	y.RowsPerSecond = float64(y.Rows) / time.Since(began).Seconds()
	y.say("%s: %d rows loaded in %.1f s, %.0f a second", Analytics, y.Rows, time.Since(began).Seconds(), y.RowsPerSecond)

	store, err := postgres.Open(ctx, postgres.Config{DSN: y.books})
	if err != nil {
		return err
	}
	defer store.Close()
	began = time.Now()
	tenants := store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	if y.Events, err = yearload.Companies(ctx, tenants, y.year); err != nil {
		return fmt.Errorf("load the companies of the year: %w", err)
	}
	y.EventsPerSecond = float64(y.Events) / time.Since(began).Seconds()
	y.say("%s: %d events of companies applied in %.1f s, %.0f a second", Analytics, y.Events, time.Since(began).Seconds(), y.EventsPerSecond)
	return y.await(ctx, "merges to end", 5*time.Minute, 100*time.Millisecond, func() (bool, error) {
		n, err := y.number(ctx, "SELECT count() FROM system.merges")
		return n == 0, err
	})
}
