package consumers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// tenantTraffic is what happens to some companies, in an order in which each topic has it. Half of them only subscribe, half
// only change users and configuration, so that the state at the end does not depend on how the two topics are interleaved.
func tenantTraffic(id string, companies int, seed uint64) []tenantMessage {
	random := rand.New(rand.NewPCG(seed, 1))
	start := time.Now().Add(-20 * 24 * time.Hour).UTC().Truncate(time.Microsecond)
	var all []tenantMessage
	for i := range companies {
		c := fmt.Sprintf("%s-%d", id, i)
		at, n := start, 0
		say := func(eventType, data string) tenantMessage {
			n++
			at = at.Add(time.Duration(1+random.IntN(3600)) * time.Second)
			return tenantEvent(fmt.Sprintf("%s-%d", c, n), eventType, c, data, at)
		}
		var own []tenantMessage
		if i%2 == 0 {
			own = append(own,
				say(events.TypePaymentReceived, fmt.Sprintf(`"payment_id":"%s-p0","amount_minor":4900,"currency":"USD","paid_at":%q`, c, start.Format(time.RFC3339))),
				say(events.TypeUpgradeRequested, fmt.Sprintf(`"new_tier":"pro","payment":{"payment_id":"%s-p0"}`, c)),
				say(events.TypePaymentReceived, fmt.Sprintf(`"payment_id":"%s-p0","amount_minor":4900,"currency":"USD","paid_at":%q`, c, start.Format(time.RFC3339))),
				say(events.TypePaymentFailed, fmt.Sprintf(`"payment_id":"%s-p1"`, c)),
				say(events.TypePaymentReceived, fmt.Sprintf(`"payment_id":"%s-p1","amount_minor":1,"currency":"USD","paid_at":%q`, c, start.Format(time.RFC3339))),
				say(events.TypeUpgradeRequested, `"new_tier":"enterprise","expected_tier":"pro"`),
				say(events.TypeUpgradeRequested, `"new_tier":"pro"`),
				say(events.TypeDowngradeRequested, `"new_tier":"pro","effective":"immediate"`),
				say(events.TypeCancelRequested, ""),
				say(events.TypeUpgradeRequested, `"new_tier":"enterprise"`),
				say(events.TypeCancelRequested, `"effective":"immediate"`),
				say(events.TypeUpgradeRequested, `"new_tier":"pro"`),
				say(events.TypeExpired, ""))
			own = append([]tenantMessage{own[0], registration(c, start)}, own[1:]...)
		} else {
			own = append(own, registration(c, start),
				say(events.TypeConfigUpdated, fmt.Sprintf(`"config":{"n":%d}`, i)),
				say(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u2","email":"u2@x"`, c)),
				say(events.TypeUserRemoved, fmt.Sprintf(`"user_id":"%s-u1"`, c)),
				say(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u2","email":"u2@x"`, c)),
				say(events.TypeConfigUpdated, `"config":{"max_users":7}`),
				say(events.TypeSchemaUpgradeRequested, ""),
				say(events.TypeUserErasureRequested, fmt.Sprintf(`"user_id":"%s-u2"`, c)))
			if i%4 == 3 {
				own = append(own, say(events.TypeCompanyClosed, fmt.Sprintf(`"purge":%t`, i%8 == 7)), say(events.TypeConfigUpdated, `"config":{}`))
			}
		}
		// Resends of anything that has been sent, in between and at the end.
		for range 3 {
			k := random.IntN(len(own))
			to := k + 1 + random.IntN(len(own)-k)
			own = slices.Insert(own, to, own[k])
		}
		all = append(all, own...)
	}
	return all
}

// expectedTenants is what the messages lead to when each is applied once, in order, by nobody who could fail.
func expectedTenants(t testing.TB, messages []tenantMessage) (tables, results []string) {
	t.Helper()
	f := &tenantFixture{dsn: postgrestest.New(t)}
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: f.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tenants := store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tier.Default())})
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		e, err := decoder.Decode(&events.Record{Topic: m.Topic, Key: []byte(m.Key), Value: m.Value, Headers: m.Head})
		if err != nil {
			t.Fatal(err)
		}
		done, err := tenants.Apply(t.Context(), e, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range done {
			for _, r := range one.Results {
				if r.Event == nil {
					results = append(results, "tombstone "+r.Key)
					continue
				}
				p := published{r.Topic, r.Event.Type, r.Key, string(r.Event.Data), r.Event.CausationSource + "\n" + r.Event.CausationID}
				results = append(results, r.Event.ID+" "+p.steady(t))
			}
		}
		if err := tenants.MarkPublished(t.Context(), done); err != nil {
			t.Fatal(err)
		}
	}
	return f.snapshot(t), results
}

// judge waits until everything is done, and compares tables and results with what they must be.
func (f *tenantFixture) judge(t testing.TB, messages []tenantMessage, within time.Duration) {
	t.Helper()
	f.awaitConsumed(t, within)
	f.awaitPublished(t, within)
	tables, results := expectedTenants(t, messages)
	if d := differ(f.snapshot(t), tables); len(d) > 0 {
		t.Errorf("tables:\n%s", strings.Join(d, "\n"))
	}
	var got []string
	for id, p := range f.results(t) {
		if p.eventType == "" {
			got = append(got, id)
		} else {
			got = append(got, id+" "+p.steady(t))
		}
	}
	if d := differ(got, results); len(d) > 0 {
		t.Errorf("results:\n%s", strings.Join(d, "\n"))
	}
	f.checkAudit(t)
}

// checkAudit sees that every company's chain is whole, and ends where its head says.
func (f *tenantFixture) checkAudit(t testing.TB) {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: f.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	faults, err := store.VerifyAudit(t.Context(), "")
	if err != nil || len(faults) > 0 {
		t.Errorf("audit: %v, %v", faults, err)
	}
}

// tenantChildEnv carries a tenantCrash as JSON: then the test binary is the service, which kills itself.
const tenantChildEnv = "TENANT_CRASH_CHILD"

// A tenantCrash is where a child kills itself.
type tenantCrash struct {
	Brokers, Prefix, DSN string
	Partitions           int
	Step                 string // the border between steps
	Nth                  int32  // the time it comes by; from 1
}

func runTenantChild(config string) int {
	var c tenantCrash
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 2
	}
	var count atomic.Int32
	step := func(s string) {
		if s == c.Step && count.Add(1) == c.Nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way; nothing more must happen
		}
	}
	f := &tenantFixture{brokers: c.Brokers, prefix: c.Prefix, dsn: c.DSN, partitions: c.Partitions}
	transport := &kafka.Transport{}
	f.client = &kafka.Client{Addr: kafka.TCP(f.brokers), Transport: transport}
	err := tenantService{session: crashSession,
		storeStep: func(s postgres.TenantStep) { step(string(s)) }, step: func(s consumers.TenantStep) { step(string(s)) },
	}.run(context.Background(), f)
	fmt.Fprintln(os.Stderr, "child:", err)
	return 1
}

// crashAt runs a child until it has killed itself. It reports whether it did, or consumed everything before.
func (f *tenantFixture) crashAt(t *testing.T, step string, nth int32) bool {
	t.Helper()
	config, err := json.Marshal(tenantCrash{f.brokers, f.prefix, f.dsn, f.partitions, step, nth})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), tenantChildEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	return untilKilled(ctx, t, cmd, step, func() bool { return f.consumed(t) })
}

// untilKilled runs a child until it has killed itself, and reports false if all was done before it came to that.
func untilKilled(ctx context.Context, t *testing.T, cmd *exec.Cmd, where string, done func() bool) bool {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			killed := false
			if errors.As(err, &exit) {
				status, ok := exit.Sys().(syscall.WaitStatus)
				killed = ok && status.Signal() == syscall.SIGKILL
			}
			if !killed || ctx.Err() != nil {
				t.Fatalf("child to be killed at %s ended otherwise: %v", where, err)
			}
			return true
		case <-tick.C:
			if done() {
				_ = cmd.Process.Kill() // it never came by that border
				if err := <-ended; err == nil {
					t.Error("the child has ended by itself")
				}
				return false
			}
		}
	}
}

// tenantSteps are the borders of the path of an event, in its order.
func tenantSteps() []string {
	return []string{string(postgres.TenantDecided), string(postgres.TenantWritten), string(postgres.TenantCommitted),
		string(consumers.TenantApplied), string(consumers.TenantPublished), string(consumers.TenantMarked)}
}

func TestAKillAtAnyBorderOfTheTenantPathChangesNothing(t *testing.T) {
	t.Parallel()
	for i, step := range tenantSteps() {
		broker, name := enginetest.SharedKafka, "embedded"
		if i%2 == 1 {
			broker, name = enginetest.SharedApacheKafka, "apache"
		}
		t.Run(name+"/"+step, func(t *testing.T) {
			t.Parallel()
			f := newTenantFixture(t, broker(t), "")
			messages := tenantTraffic(unique(), 8, uint64(i))
			f.send(t, messages...)
			for _, nth := range []int32{1, 3} {
				if !f.crashAt(t, step, nth) {
					t.Fatalf("the child never came to %s a %d. time", step, nth)
				}
			}
			f.start(t, tenantService{session: crashSession})
			f.judge(t, messages, 2*time.Minute)
		})
	}
}

func TestKillsAtRandomBordersOfTheTenantPathChangeNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := newTenantFixture(t, enginetest.SharedApacheKafka(t), "")
	messages := tenantTraffic(unique(), 16, seed)
	f.send(t, messages...)
	steps := tenantSteps()
	for range 4 {
		if !f.crashAt(t, steps[random.IntN(len(steps))], 1+random.Int32N(20)) {
			break
		}
	}
	f.start(t, tenantService{session: crashSession})
	f.judge(t, messages, 2*time.Minute)
}

func TestOffsetsThatAreSetBackChangeNoCompany(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	messages := tenantTraffic(unique(), 8, 5)
	f.send(t, messages...)
	stop := f.start(t, tenantService{})
	f.judge(t, messages, time.Minute)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	before, results := f.snapshot(t), f.results(t)
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		(&quotaFixture{fixture: f.log(topic)}).setOffsets(t, 0)
	}
	f.start(t, tenantService{})
	f.judge(t, messages, time.Minute)
	if d := differ(f.snapshot(t), before); len(d) > 0 {
		t.Errorf("tables:\n%s", strings.Join(d, "\n"))
	}
	if again := f.results(t); len(again) != len(results) {
		t.Errorf("%d results, %d before", len(again), len(results))
	}
}

func TestTwoMembersAndRebalancesChangeNoCompany(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedApacheKafka(t), "")
	messages := tenantTraffic(unique(), 24, 6)
	third := len(messages) / 3
	f.start(t, tenantService{})
	f.send(t, messages[:third]...)
	stop := f.start(t, tenantService{})
	f.send(t, messages[third:2*third]...)
	eventually(t, "something to be done by the two", time.Minute, func() bool {
		return f.query(t, "SELECT count(*) > 20 FROM inbox")[0] == "(t)"
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.send(t, messages[2*third:]...)
	f.judge(t, messages, 2*time.Minute)
}

func TestAPostgresThatIsKilledUnderLoadChangesNoCompany(t *testing.T) {
	t.Parallel()
	server := enginetest.Postgres(t, enginetest.Durable)
	dsn := postgrestest.On(t, server.DSN())
	f := newTenantFixture(t, enginetest.SharedKafka(t), dsn)
	messages := tenantTraffic(unique(), 24, 7)
	f.start(t, tenantService{})
	for part := range 3 {
		f.send(t, messages[part*len(messages)/3:(part+1)*len(messages)/3]...)
		eventually(t, "load", time.Minute, func() bool {
			return f.query(t, fmt.Sprintf("SELECT count(*) > %d FROM inbox", 10+part*40))[0] == "(t)"
		})
		if err := server.StopImmediate(); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.judge(t, messages, 2*time.Minute)
}

func TestACutAfterTheCommitWasSentAppliesOnce(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	address := strings.Split(strings.TrimPrefix(f.dsn[strings.Index(f.dsn, "@")+1:], "//"), "/")[0]
	proxy := enginetest.Proxy(t, address)
	messages := tenantTraffic(unique(), 12, 8)
	f.start(t, tenantService{dsn: strings.Replace(f.dsn, address, proxy.Addr(), 1)})
	for part := range 3 {
		// Prepared statements go by name; the record of an event and its commit go in one request, so the request that names
		// its inbox row is the one.
		trap := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte(`"consumer"`)) })
		f.send(t, messages[part*len(messages)/3:(part+1)*len(messages)/3]...)
		select {
		case <-trap.Caught():
		case <-time.After(time.Minute):
			t.Fatal("nothing was committed")
		}
		proxy.Cut()
	}
	f.judge(t, messages, 2*time.Minute)
}

// deaf is a store that never notes what is published.
type deaf struct{ consumers.TenantStore }

func (deaf) MarkPublished(context.Context, []postgres.Applied) error { return nil }

func TestWhatNobodyIsKnownToHavePublishedIsPublishedAgainWithTheSameIDs(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	messages := tenantTraffic(unique(), 4, 9)
	f.send(t, messages...)
	stop := f.start(t, tenantService{noSweep: true, store: func(s consumers.TenantStore) consumers.TenantStore { return deaf{s} }})
	f.awaitConsumed(t, time.Minute)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Nothing is left to be consumed, so only the sweep can find what is not noted, and so much later than here.
	f.exec(t, "UPDATE inbox SET applied_at = applied_at - interval '1 hour'")
	f.start(t, tenantService{})
	f.judge(t, messages, time.Minute)
}
