package consumers

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/directory"
	"tenantflow/sinks/postgres"
)

// activityStep is how far last_activity moves on at least: it is for people, and not worth a write an event.
const activityStep = time.Hour

// An ActivityStore keeps when users were active: *postgres.Store.
type ActivityStore interface {
	Touch(ctx context.Context, seen []postgres.Activity) (int64, error)
}

// ActivityConfig is what an Activity needs.
type ActivityConfig struct {
	Store ActivityStore

	// Every is the time from one write to the next. Default: 5s.
	Every time.Duration

	// Users bounds how many users are remembered, some 200 bytes each. Default: 50000.
	Users int

	Registry prometheus.Registerer // nil: nowhere
	Logger   *slog.Logger          // default: none
}

// Activity keeps users' last_activity, from the events that are counted. The counting never waits for it: what it receives
// goes to memory, and from there to Postgres every few seconds, while Run runs. While Postgres is away users wait, up to a
// bound; beyond it they are counted as dropped, and their next event makes up for it.
type Activity struct {
	cfg     ActivityConfig
	metrics *activityMetrics

	mu      sync.Mutex
	users   map[string]*active
	waiting []string        // users with something to write, each once
	apart   map[string]bool // companies whose last write failed though it was theirs alone
}

// active is what is known of a user, all times in milliseconds since the Unix epoch.
type active struct {
	company string
	written int64 // what Postgres has got from here; 0: nothing
	latest  int64 // to be written; 0: nothing
}

// NewActivity makes an Activity. Nothing is written until Run.
func NewActivity(cfg ActivityConfig) *Activity {
	cfg.Every = cmp.Or(cfg.Every, 5*time.Second)
	cfg.Users = cmp.Or(cfg.Users, 50_000)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Activity{cfg: cfg, users: map[string]*active{}, apart: map[string]bool{}, metrics: newActivityMetrics(cfg.Registry)}
}

// note takes the groups of a counted batch. known holds what is known of the user of each; nil: the user is unknown. Groups
// that were refused because the user belongs to another company say nothing about the user.
func (a *Activity) note(groups []quotaGroup, known []*directory.Subscription) {
	if a == nil {
		return
	}
	const step = int64(activityStep / time.Millisecond)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range groups {
		g, sub := &groups[i], known[i]
		if sub == nil || sub.CompanyID != g.company || sub.LastActivity != nil && g.newest < sub.LastActivity.UnixMilli()+step {
			continue
		}
		u := a.users[g.user]
		switch {
		case u != nil && u.company == g.company && (u.latest == 0 && u.written != 0 && g.newest < u.written+step || g.newest <= u.latest):
			continue
		case u == nil:
			if a.crowded(g.company) || len(a.users) >= a.cfg.Users && !a.forget() {
				a.metrics.dropped.Inc()
				continue
			}
			u = &active{}
			// The name is a part of the batch's memory, which must not be kept for its sake.
			a.users[string([]byte(g.user))] = u
		}
		if u.company != g.company {
			u.company, u.written = string([]byte(g.company)), 0
		}
		if u.latest == 0 {
			a.waiting = append(a.waiting, sub.UserID)
		}
		u.latest = g.newest
	}
	a.metrics.waiting.Set(float64(len(a.waiting)))
}

// forget makes room by forgetting every user of whom nothing is to be written, and reports whether there is room now. At
// worst they are written once more, which changes nothing.
func (a *Activity) forget() bool {
	if len(a.waiting) >= a.cfg.Users {
		return false
	}
	for user, u := range a.users {
		if u.latest == 0 {
			delete(a.users, user)
		}
	}
	return true
}

// Run writes until ctx ends, and then once more what is left, for a second or two. What could not be written then is
// dropped.
func (a *Activity) Run(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	failing := false
	for ended := false; !ended; {
		writing, cancel := ctx, context.CancelFunc(func() {})
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
			writing, cancel = context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		}
		err := a.flush(writing)
		cancel()
		switch {
		case err != nil && ctx.Err() != nil && !ended:
			// the write was cut off by the end; it is tried once more
		case err != nil:
			if !failing {
				a.cfg.Logger.WarnContext(ctx, "users' last activity can't be written; trying again", slog.Any("reason", err))
			}
			failing = true
		case failing:
			a.cfg.Logger.InfoContext(ctx, "users' last activity is written again")
			failing = false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metrics.dropped.Add(float64(len(a.waiting)))
	a.waiting = nil
	a.metrics.waiting.Set(0)
}

type activityMetrics struct {
	waiting                    prometheus.Gauge
	written, dropped, failures prometheus.Counter
}

func newActivityMetrics(reg prometheus.Registerer) *activityMetrics {
	m := &activityMetrics{
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_activity_waiting_users",
			Help: "Users whose last activity is still to be written to Postgres."}),
		written: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_activity_written_total",
			Help: "Users whose last activity was moved on in Postgres."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_activity_dropped_total",
			Help: "Times a user's activity was not kept for writing because too many wait, or was left at the end. The user's next event makes up for it."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_activity_failures_total",
			Help: "Writes of users' last activity that failed and were put off."}),
	}
	if reg != nil {
		reg.MustRegister(m.waiting, m.written, m.dropped, m.failures)
	}
	return m
}
