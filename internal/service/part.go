package service

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/config"
	"tenantflow/internal/health"
)

// A Part is one thing that a service runs.
type Part struct {
	Name   string         // also what its consumer group is called behind the prefix, if it has one
	Stores []config.Store // whose addresses it needs

	// Run works until ctx ends, then finishes what is under way and returns nil. After an error it is run again, unless that is a
	// [config.Invalid]. nil: the part is not there yet.
	Run func(ctx context.Context, r *Running) error
}

// Parts lists what there is, in the order in which it is shown.
func Parts() []Part {
	return []Part{
		{Name: "usage", Stores: []config.Store{config.Kafka, config.ClickHouse}, Run: runUsage},
		{Name: "quota", Stores: []config.Store{config.Kafka, config.Dragonfly, config.Postgres}, Run: runQuota},
		{Name: "subscription", Stores: []config.Store{config.Kafka, config.Postgres, config.Dragonfly}, Run: runSubscription},
		{Name: "company", Stores: []config.Store{config.Kafka, config.Postgres, config.Dragonfly}, Run: runCompany},
		{Name: "jobs", Stores: []config.Store{config.Kafka, config.Postgres, config.ClickHouse}, Run: runJobs},
		{Name: "api", Stores: []config.Store{config.Postgres, config.Dragonfly}, Run: runAPI},
	}
}

// Choose picks the parts that are named; or, where none is named, all that are there, and then the names of the others are missing.
// An error is a [config.Invalid] and begins with the flag --only.
func Choose(all []Part, only []string) (chosen []Part, missing []string, err error) {
	asked := make([]string, len(only))
	for i, name := range only {
		if asked[i] = strings.TrimSpace(name); !slices.Contains(names(all), asked[i]) {
			return nil, nil, config.Invalidf("--only %s: there is no such part; choose from %s", name, strings.Join(names(all), ", "))
		}
	}
	for _, p := range all {
		named := slices.Contains(asked, p.Name)
		switch {
		case named && p.Run == nil:
			return nil, nil, config.Invalidf("--only %s: this part is not there yet", p.Name)
		case p.Run == nil && len(only) == 0:
			missing = append(missing, p.Name)
		case named || len(only) == 0:
			chosen = append(chosen, p)
		}
	}
	return chosen, missing, nil
}

// Stores lists the stores that any of the parts needs.
func Stores(parts []Part) []config.Store {
	var stores []config.Store
	for _, p := range parts {
		stores = append(stores, p.Stores...)
	}
	slices.Sort(stores)
	return slices.Compact(stores)
}

func names(parts []Part) []string {
	all := make([]string, len(parts))
	for i, p := range parts {
		all[i] = p.Name
	}
	return all
}

// has reports whether a part runs in this process.
func (s *Service) has(name string) bool { return slices.Contains(names(s.parts), name) }

// A Running is one run of a part. It is a registry of the metrics of this run, which are gone when the run ends, so that the next one can
// register its own.
type Running struct {
	prometheus.Registerer // of the process

	Config *config.Config
	Log    *slog.Logger

	service *Service
	part    string

	mu  sync.Mutex
	own []prometheus.Collector
}

// Ready says that the part works. A part that consumes need not.
func (r *Running) Ready() { r.service.health.Set(r.part, health.Ready, "") }

// Register implements prometheus.Registerer.
func (r *Running) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own = append(r.own, c)
	return nil
}

// MustRegister implements prometheus.Registerer. It panics where a name is taken.
func (r *Running) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *Running) unregister() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.own {
		r.Unregister(c)
	}
	r.own = nil
}
