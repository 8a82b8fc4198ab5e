package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/verify"
)

// A trouble is what may happen to a store under a running service.
type trouble struct {
	name       string
	begin, end func() error
	noBroker   bool   // nothing can be published while it lasts
	part, says string // a part, and what its reason in readiness must say; "": not asked for
}

// an engine that a trouble comes over.
type troubled interface {
	Freeze() error
	Thaw() error
	Kill() error
	Start(context.Context) error
}

func gone(t *testing.T, name string, e troubled) trouble {
	return trouble{name: name + " gone", begin: e.Kill, end: func() error { return e.Start(t.Context()) }}
}

func hung(name string, e troubled) trouble {
	return trouble{name: name + " hung", begin: e.Freeze, end: e.Thaw}
}

// slow lets an engine run for a tenth of the time.
func slow(name string, e troubled) trouble {
	var stop chan struct{}
	var stopped chan error
	return trouble{
		name: name + " ten times as slow",
		begin: func() error {
			stop, stopped = make(chan struct{}), make(chan error, 1)
			go func() {
				for {
					began := time.Now()
					if err := e.Freeze(); err != nil {
						stopped <- err
						return
					}
					<-time.After(45 * time.Millisecond)
					if err := e.Thaw(); err != nil {
						stopped <- err
						return
					}
					select {
					case <-stop:
						stopped <- nil
						return
					case <-time.After(time.Since(began) / 9):
					}
				}
			}()
			return nil
		},
		end: func() error { close(stop); return <-stopped },
	}
}

func both(a, b trouble) trouble {
	return trouble{
		name: a.name + ", " + b.name, noBroker: a.noBroker || b.noBroker,
		begin: func() error { return errors.Join(a.begin(), b.begin()) },
		end:   func() error { return errors.Join(a.end(), b.end()) },
	}
}

// withoutBroker marks a trouble of the broker.
func withoutBroker(t trouble) trouble { t.noBroker = true; return t }

// noConnections takes every connection that Postgres has, and ends those of the service again and again until it gets none.
func noConnections(t *testing.T, dsn string) trouble {
	var cancel context.CancelFunc
	var taken sync.WaitGroup
	pause := func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	take := func(ctx context.Context) {
		for ctx.Err() == nil {
			c, err := pgx.Connect(ctx, dsn)
			if err != nil {
				pause(ctx)
				continue
			}
			taken.Go(func() {
				<-ctx.Done()
				_ = c.Close(context.WithoutCancel(ctx))
			})
		}
	}
	return trouble{
		name: "Postgres out of connections", part: "subscription", says: "too many clients",
		begin: func() error {
			var ctx context.Context
			ctx, cancel = context.WithCancel(t.Context())
			admin, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err
			}
			for range 4 {
				taken.Go(func() { take(ctx) })
			}
			taken.Go(func() {
				for ctx.Err() == nil {
					_, _ = admin.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tenantflow%'")
					pause(ctx)
				}
				_ = admin.Close(context.WithoutCancel(ctx))
			})
			return nil
		},
		end: func() error { cancel(); taken.Wait(); return nil },
	}
}

func troubles(t *testing.T, s *stores) []trouble {
	setting := func(name, value string) trouble {
		alter := func(what string) error {
			_, err := s.clickhouse.Query(t.Context(), "ALTER TABLE tenantflow.usage_tracking "+what)
			return err
		}
		return trouble{begin: func() error { return alter("MODIFY SETTING " + name + " = " + value) }, end: func() error { return alter("RESET SETTING " + name) }}
	}
	full := setting("min_free_disk_bytes_to_perform_insert", "1000000000000000")
	full.name, full.part, full.says = "ClickHouse's disk full", "usage", "space"
	parts := setting("parts_to_throw_insert", "1")
	parts.name, parts.part, parts.says = "ClickHouse: too many parts", "usage", "Too many parts"
	memory := func(limit string) func() error {
		return func() error {
			o, err := redis.ParseURL(s.redis.URL())
			if err != nil {
				return err
			}
			c := redis.NewClient(o)
			defer func() { _ = c.Close() }()
			return c.ConfigSet(t.Context(), "maxmemory", limit).Err()
		}
	}
	return []trouble{
		gone(t, "ClickHouse", s.clickhouse), hung("ClickHouse", s.clickhouse), slow("ClickHouse", s.clickhouse), full, parts,
		gone(t, "Postgres", s.postgres), hung("Postgres", s.postgres), slow("Postgres", s.postgres), noConnections(t, s.postgres.DSN()),
		withoutBroker(gone(t, "Kafka", s.kafka)), withoutBroker(hung("Kafka", s.kafka)), slow("Kafka", s.kafka),
		gone(t, "Redis", s.redis), hung("Redis", s.redis), slow("Redis", s.redis),
		{name: "Redis out of memory", part: "quota", says: "OOM", begin: memory("1"), end: memory("0")},
		both(hung("ClickHouse", s.clickhouse), gone(t, "Redis", s.redis)),
		both(withoutBroker(gone(t, "Kafka", s.kafka)), hung("Postgres", s.postgres)),
	}
}

// A recovery is what one trouble was like.
type recovery struct {
	reasons       map[string]string // by part, what readiness said of it
	ready, caught []time.Duration   // after the trouble's end, until the service was ready, and until nothing lagged
}

// Everything that may happen to a store happens, again and again, to a service with usage, company and subscription events. Each time
// it comes back without help, and in the end nothing is lost: verify finds everything proven. TENANTFLOW_TEST_TROUBLE_ROUNDS says how often,
// TENANTFLOW_TEST_TROUBLE_SECONDS how long each lasts, TENANTFLOW_TEST_TROUBLE_ONLY which ("make trouble": each twenty times). Without them
// those happen once that readiness must name in a store's own words.
func TestRun_NothingIsLostInTrouble(t *testing.T) {
	t.Parallel()
	rounds := enginetest.Number(t, "TENANTFLOW_TEST_TROUBLE_ROUNDS", 0)
	lasts := time.Duration(enginetest.Number(t, "TENANTFLOW_TEST_TROUBLE_SECONDS", 5)) * time.Second
	kafka := enginetest.Kafka
	if rounds > 0 {
		kafka = enginetest.ApacheKafka
	}
	s := newStores(t, kafka(t))
	all := troubles(t, s)
	if rounds == 0 {
		rounds = 1
		all = slices.DeleteFunc(all, func(c trouble) bool {
			return c.says == "" // TestRun_TroubleOfStoresIsSaidOnceAndTruly has the others
		})
	}
	if only := os.Getenv("TENANTFLOW_TEST_TROUBLE_ONLY"); only != "" {
		all = slices.DeleteFunc(all, func(c trouble) bool { return c.name != only })
	}
	if _, errOut, code := tenantflow(t, s.environ, "migrate"); code != exitDone {
		t.Fatalf("migrate: exit code %d\n%s", code, errOut)
	}
	traffic := newLiveEvents(t, s.environ, "", 11)
	p := start(t, "tenantflow", s.environ, "run")
	untilQuiet(t, p)
	seen := make([]recovery, len(all))
	for range rounds {
		for i, c := range all {
			r := &seen[i]
			if r.reasons == nil {
				r.reasons = map[string]string{}
			}
			doing(t, traffic.publish(t.Context()))
			if err := c.begin(); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			said := c.says == ""
			for began := time.Now(); time.Since(began) < lasts || !said && time.Since(began) < enginetest.Patience; {
				if !c.noBroker {
					doing(t, traffic.publish(t.Context()))
				}
				_, body := get(t, p.url+"/readyz")
				var now readiness
				if err := json.Unmarshal([]byte(body), &now); err != nil {
					t.Fatalf("%v: %s", err, body)
				}
				for _, f := range now.Failing {
					r.reasons[f.Part] = f.Reason
					said = said || f.Part == c.part && strings.Contains(f.Reason, c.says)
				}
				<-time.After(100 * time.Millisecond)
			}
			if !said {
				t.Errorf("%s: %s does not say %q, but %q", c.name, c.part, c.says, r.reasons[c.part])
			}
			if err := c.end(); err != nil {
				t.Fatalf("the end of %s: %v", c.name, err)
			}
			ready, caught := untilQuiet(t, p)
			r.ready, r.caught = append(r.ready, ready), append(r.caught, caught)
			t.Logf("%s: ready again %.1f s after it ended, caught up after %.1f s", c.name, ready.Seconds(), caught.Seconds())
		}
	}
	if r := allProven(t, s.environ); r.Sum().Judged == 0 || r.Results.Looked == 0 {
		t.Errorf("verify judged %d offsets and looked for %d results: that proves nothing", r.Sum().Judged, r.Results.Looked)
	}
	_, metrics := get(t, p.url+"/metrics")
	for _, counted := range []string{
		"tenantflow_usage_insert_seconds_count ", "tenantflow_quota_count_seconds_count ", `tenantflow_effect_delay_seconds_count{consumer="usage",topic="usage.events"} `,
		`tenantflow_newest_effect_timestamp_seconds{consumer="company",topic="company.events"} `,
	} {
		if _, rest, found := strings.Cut(metrics, "\n"+counted); !found || strings.HasPrefix(rest, "0\n") {
			t.Errorf("%s is not counted", counted)
		}
	}
	p.signal(t, syscall.SIGTERM)
	log, code := p.wait(t)
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if code != exitDone || testing.Verbose() {
		t.Log(log)
	}
	for i, c := range all {
		r := seen[i]
		slices.Sort(r.ready)
		slices.Sort(r.caught)
		var said strings.Builder
		for part, reason := range r.reasons {
			fmt.Fprintf(&said, "; %s: %s", part, reason)
		}
		t.Logf("| %s | median %.1f s, most %.1f s | most %.1f s | %s", c.name, r.ready[len(r.ready)/2].Seconds(), r.ready[len(r.ready)-1].Seconds(), r.caught[len(r.caught)-1].Seconds(), said.String())
	}
}

// untilQuiet waits until the service is ready and nothing lags, and says when each was so.
func untilQuiet(t *testing.T, p *process) (ready, caught time.Duration) {
	t.Helper()
	began := time.Now()
	enginetest.Await(t, "the service is ready", func() bool {
		status, _ := get(t, p.url+"/readyz")
		return status == 200
	})
	ready = time.Since(began)
	enginetest.Await(t, "nothing lags", func() bool {
		_, body := get(t, p.url+"/metrics")
		partitions := 0
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "tenantflow_partition_lag_seconds{") {
				if _, value, _ := strings.Cut(line, "} "); strings.TrimSpace(value) != "0" {
					return false
				}
				partitions++
			}
		}
		return partitions > 0 && strings.Contains(body, "\ntenantflow_usage_open_intents 0\n")
	})
	return ready, time.Since(began)
}

// allProven waits until everything is handled and verify has proven it.
func allProven(t *testing.T, environ []string) (r verify.Report) {
	t.Helper()
	enginetest.Await(t, "everything is proven", func() bool {
		out, errOut, code := tenantflow(t, environ, "verify", "-o", "json")
		r = verify.Report{}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v: %s", err, errOut)
		}
		if r.Differences() != 0 {
			t.Fatalf("verify found %+v", r.Findings)
		}
		return code == exitDone && r.Sum().NotConsumed == 0 && r.Counters.Uncounted == 0 && r.Inboxes[0].NotConsumed == 0 && r.Inboxes[1].NotConsumed == 0
	})
	return r
}
