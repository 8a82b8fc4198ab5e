package verify_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
	"tenantflow/sinks/dragonfly"
)

// A counted is an installation whose usage is counted.
type counted struct {
	*installation
	redis    *engine.Redis
	client   *redis.Client
	counting verify.Counting
	quotas   string

	strict atomic.Bool // some users are known to belong to other companies
}

func installCounted(t *testing.T, partitions int) *counted {
	t.Helper()
	c := &counted{installation: install(t, partitions), redis: enginetest.Redis(t)}
	o := enginetest.RedisOptions(t, c.redis.URL())
	c.client = redis.NewClient(o)
	t.Cleanup(func() { _ = c.client.Close() })
	c.quotas = c.topic + ".quotas"
	enginetest.CreateTopic(t, enginetest.SharedKafka(t), c.quotas, 1)
	c.counting = verify.Counting{
		Store: dragonfly.Config{Options: o, Topic: c.topic}, Group: c.topic + ".quota", ResendWindow: time.Minute, ResendRecords: 2000,
		Limits: events.UsageLimits{FutureTolerance: time.Hour, MaxAge: events.DefaultMaxAge},
	}
	return c
}

// AppliedThrough implements consumers.QuotaUsers.
func (c *counted) AppliedThrough() time.Time { return time.Now().Add(time.Hour) }

// ResolveMembers implements consumers.QuotaUsers.
func (c *counted) ResolveMembers(_ context.Context, users []string, out []*directory.Subscription) error {
	for i, u := range users {
		out[i] = nil
		if strings.HasSuffix(u, "3") && c.strict.Load() {
			out[i] = &directory.Subscription{UserID: u, CompanyID: "another", Memberships: []directory.Membership{{CompanyID: "another"}}}
		}
	}
	return nil
}

// count runs the service that counts until stop is called.
func (c *counted) count(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := dragonfly.Open(ctx, c.counting.Store)
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafkago.Transport{}
	group := kafka.NewGroup(kafka.Config{
		Name: "quota", Brokers: []string{c.installation.client.Addr.String()}, Transport: transport, Group: c.counting.Group, Topics: []string{c.topic},
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 4 * time.Second,
		BatchRows: 100, BatchInterval: 5 * time.Millisecond, CommitIdle: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}, consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession { return store.Session(topic, partition) },
		Users:   c, Topic: c.quotas, Limits: c.counting.Limits, ResendWindow: c.counting.ResendWindow, ResendRecords: c.counting.ResendRecords,
	}))
	return runGroup(ctx, t, cancel, group, func() {
		transport.CloseIdleConnections()
		_ = store.Close()
	})
}

func (c *counted) report(t *testing.T, repair bool) *verify.Report {
	t.Helper()
	return c.verify(t, repair, func(cfg *verify.Config) { cfg.Counting = &c.counting })
}

// settled verifies until everything is counted and can be judged.
func (c *counted) settled(t *testing.T) *verify.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	var r *verify.Report
	if err := enginetest.Eventually(ctx, func() bool {
		r = c.report(t, false)
		return len(r.Unproven) == 0 && r.Counters.Uncounted == 0
	}); err != nil {
		t.Fatalf("it can't be judged: %q, %+v", r.Unproven, r.Counters)
	}
	return r
}

// wrong is where counters are wrong.
func wrong(r *verify.Report) []string {
	var where []string
	for _, g := range r.Findings {
		if g.Kind == verify.WrongCounter {
			for _, f := range g.Samples {
				where = append(where, f.Where)
			}
		}
	}
	slices.Sort(where)
	return slices.Compact(where)
}

// sums are the counters of all users and days.
func (c *counted) sums(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	keys := c.client.Scan(t.Context(), 0, "quota:{*", 1000).Iterator()
	for keys.Next(t.Context()) {
		values, err := c.client.HMGet(t.Context(), keys.Val(), "api_calls", "data_points").Result()
		if err != nil {
			t.Fatal(err)
		}
		out[keys.Val()] = fmt.Sprint(values...)
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// varied is traffic with something of everything, over the days whose counters are kept and those before.
func varied(t *testing.T, count int) *model.Generator {
	t.Helper()
	start := time.Now().UTC().Add(-10 * time.Minute)
	if today := time.Now().UTC().Truncate(24 * time.Hour); start.Before(today) {
		start = today // soon after midnight
	}
	g, err := model.New(model.Config{Seed: 5, Count: count, Start: start, Step: time.Millisecond, Companies: 10, UsersPerCompany: 10,
		Resends: 0.1, Conflicts: 0.01, Late: 0.2, LateSpan: 100 * time.Hour, Malformed: 0.02, Structured: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestCounters_HealthyTrafficHasNoFinding(t *testing.T) {
	t.Parallel()
	c := installCounted(t, 3)
	g := varied(t, 12_000)
	c.count(t)
	for part := range 6 {
		c.publish(t, g, 1500)
		// Membership changes while it counts: what was refused in one count is counted in another, and the other way round.
		c.strict.Store(part%2 == 0)
		if part == 3 {
			c.client.Del(t.Context(), dragonfly.SentinelKey(2))
			within, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
			defer cancel()
			if err := enginetest.Eventually(within, func() bool { // what follows comes after the rebuild has begun
				return c.client.Exists(within, dragonfly.SentinelKey(2)).Val() == 1
			}); err != nil {
				t.Fatal("no rebuild begins")
			}
		}
	}
	published := make(chan error, 1)
	go func() {
		_, err := model.Publish(t.Context(), g, model.Publishing{Client: c.installation.client, Topic: c.topic})
		published <- err
	}()
	judged := 0
	for running := true; running || judged < 1; {
		select {
		case err := <-published:
			if running = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
		r := c.report(t, false)
		if w := wrong(r); len(w) > 0 {
			t.Fatalf("while it counts: %+v", r.Findings)
		}
		if len(r.Unproven) == 0 {
			judged++
		}
	}
	r := c.settled(t)
	if w := wrong(r); len(w) > 0 || r.Counters.Shares < 100 || r.Counters.Events < 5000 {
		t.Errorf("%+v, findings %+v", r.Counters, r.Findings)
	}
	// Late events of users who had no counter of that day when the day was rebuilt.
	if r.Findings.Count(verify.LeftOut) == 0 {
		t.Error("no event was left out")
	}
	if r = c.report(t, true); r.Repairs.Recounts != 1 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	if r = c.settled(t); len(wrong(r)) > 0 || r.Findings.Count(verify.LeftOut) > 0 {
		t.Errorf("after the repair: %+v", r.Findings)
	}
}

func TestCounters_WhatWasChangedIsNamedAndRepaired(t *testing.T) {
	t.Parallel()
	c := installCounted(t, 2)
	g := varied(t, 4000)
	c.publish(t, g, 0)
	c.strict.Store(true)
	c.count(t)
	if w := wrong(c.settled(t)); len(w) > 0 {
		t.Fatalf("before anything was changed: %q", w)
	}
	before := c.sums(t)
	days := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		day := key[len(key)-len(time.DateOnly):]
		days[day] = append(days[day], key)
	}
	today, yesterday := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	if len(days[today]) < 10 || len(days[yesterday]) < 10 {
		t.Fatalf("counters of days: %v", days)
	}
	share := func(key string) string {
		for field := range c.client.HGetAll(t.Context(), key).Val() {
			if strings.Contains(field, ".") {
				return field
			}
		}
		t.Fatalf("%s has no share", key)
		return ""
	}
	change := map[string]func(key string) error{
		"deleted":      func(key string) error { return c.client.Del(t.Context(), key).Err() },
		"a sum":        func(key string) error { return c.client.HSet(t.Context(), key, "api_calls", 99_999).Err() },
		"a sum gone":   func(key string) error { return c.client.HDel(t.Context(), key, "data_points").Err() },
		"a share gone": func(key string) error { return c.client.HDel(t.Context(), key, share(key)).Err() },
		"a share": func(key string) error {
			field := share(key)
			part := strings.Fields(c.client.HGet(t.Context(), key, field).Val())
			part[2] = "7777"
			return c.client.HSet(t.Context(), key, field, strings.Join(part, " ")).Err()
		},
		"a watermark": func(key string) error {
			field := share(key)
			part := strings.Fields(c.client.HGet(t.Context(), key, field).Val())
			part[1] = "1"
			return c.client.HSet(t.Context(), key, field, strings.Join(part, " ")).Err()
		},
		"junk": func(key string) error { return c.client.HSet(t.Context(), key, share(key), "junk").Err() },
	}
	var want []string
	for i, what := range slices.Sorted(maps.Keys(change)) {
		for _, day := range []string{today, yesterday} {
			key := days[day][i]
			want = append(want, key)
			if err := change[what](key); err != nil {
				t.Fatalf("%s of %s: %v", what, key, err)
			}
		}
	}
	slices.Sort(want)
	r := c.report(t, false)
	if got := wrong(r); !slices.Equal(got, want) || len(r.Unproven) > 0 {
		t.Errorf("found %q, want %q; %+v", got, want, r.Findings)
	}
	r = c.report(t, true)
	if r.Repairs.Recounts != 1 || r.Repairs.RecountsFrom != yesterday || r.Repairs.Sums < 6 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	if r = c.settled(t); len(wrong(r)) > 0 {
		t.Errorf("after the repair: %+v", r.Findings)
	}
	if after := c.sums(t); !maps.Equal(before, after) {
		for key := range before {
			if before[key] != after[key] {
				t.Errorf("%s: %s, want %s", key, after[key], before[key])
			}
		}
	}
	if r = c.report(t, true); r.Repairs.Recounts != 0 || r.Repairs.Sums != 0 {
		t.Errorf("a second repair: %+v", r.Repairs)
	}
}

func TestCounters_WhatCannotBeJudgedIsSaid(t *testing.T) {
	t.Parallel()
	c := installCounted(t, 1)
	says := func(r *verify.Report, what string) {
		t.Helper()
		if len(r.Unproven) != 1 || !strings.Contains(r.Unproven[0], what) || len(wrong(r)) > 0 {
			t.Errorf("%q, findings %+v; want %q", r.Unproven, r.Findings, what)
		}
	}
	if r := c.report(t, false); len(r.Unproven) != 0 {
		t.Errorf("an empty log: %q", r.Unproven)
	}
	if r := c.verify(t, false); len(r.Unproven) != 0 || !strings.Contains(strings.Join(r.Notes, "\n"), "no address of Dragonfly") {
		t.Errorf("without an address: %q, %q", r.Unproven, r.Notes)
	}
	c.publish(t, varied(t, 500), 0)
	says(c.report(t, false), "is it running as group "+c.counting.Group)
	stop := c.count(t)
	c.settled(t)
	stop()
	c.client.Del(t.Context(), dragonfly.SentinelKey(1))
	says(c.report(t, true), "has not begun to count again")
	stop = c.count(t)
	c.settled(t)
	stop()
	// The log no longer holds the days as a whole.
	c.client.Del(t.Context(), slices.Collect(maps.Keys(c.sums(t)))[0])
	c.deleteRecords(t, 0, 100)
	if r := c.report(t, false); len(wrong(r)) > 0 || r.Counters.Shares != 0 || r.Counters.NotInLog == 0 {
		t.Errorf("%+v, %+v", r.Counters, r.Findings)
	}
	c.client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru")
	says(c.report(t, false), "the server evicts keys")
	if err := c.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	says(c.report(t, false), "refused")
}
