package consumers_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/tenantmodel"
	"tenantflow/sinks/postgres"
)

// checkAudit sees that every company's chain is whole, and ends where its head says.
func (f *tenantFixture) checkAudit(t testing.TB) {
	t.Helper()
	store := openTables(t, f.dsn)
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
	ClickHouse           string // where usage is looked up; empty: it is not
}

func (c tenantCrash) run() error {
	step := enginetest.KillAt(c.Step, c.Nth)
	f := &tenantFixture{brokers: c.Brokers, prefix: c.Prefix, dsn: c.DSN, partitions: c.Partitions}
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	f.client = &kafkago.Client{Addr: kafkago.TCP(f.brokers), Transport: transport}
	return tenantService{session: crashSession, rows: rowsOf(c.ClickHouse),
		storeStep: func(s postgres.TenantStep) { step(string(s)) }, step: func(s consumers.TenantStep) { step(string(s)) },
	}.run(context.Background(), f)
}

// crashAt runs a child until it has killed itself. It reports whether it did, or consumed everything before.
func (f *tenantFixture) crashAt(t *testing.T, step string, nth int32) bool {
	t.Helper()
	return enginetest.StartChild(t, tenantChildEnv, tenantCrash{f.brokers, f.prefix, f.dsn, f.partitions, step, nth, ""}).UntilKilled(t, step, func() bool { return f.consumed(t) })
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
			g := f.produce(t, tenantmodel.Config{Seed: uint64(i), Companies: 8, Events: 120})
			for _, nth := range []int32{1, 3} {
				if !f.crashAt(t, step, nth) {
					t.Fatalf("the child never came to %s a %d. time", step, nth)
				}
			}
			f.start(t, tenantService{session: crashSession})
			f.judge(t, g)
		})
	}
}

// What is due is in the log, and that is not noted: it is published again, and happens once.
func TestDue_AKillAfterItIsPublishedChangesNothing(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	g := f.produce(t, tenantmodel.Config{Seed: 11, Companies: 6, Events: 8, Lapsed: 1})
	step := string(consumers.TenantDuePublished)
	enginetest.StartChild(t, tenantChildEnv, tenantCrash{f.brokers, f.prefix, f.dsn, f.partitions, step, 1, ""}).UntilKilled(t, step, func() bool { return false })
	f.start(t, tenantService{session: crashSession})
	f.awaitResults(t, g.Expected().Results)
	f.judge(t, g)
}

func TestKillsAtRandomBordersOfTheTenantPathChangeNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := newTenantFixture(t, enginetest.SharedApacheKafka(t), "")
	g := f.produce(t, tenantmodel.Config{Seed: seed, Companies: 16, Events: 300, Conflicts: 0.02})
	steps := tenantSteps()
	for range 4 {
		if !f.crashAt(t, steps[random.IntN(len(steps))], 1+random.Int32N(20)) {
			break
		}
	}
	f.start(t, tenantService{session: crashSession})
	f.judge(t, g)
}

func TestOffsetsThatAreSetBackChangeNoCompany(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	g := f.produce(t, tenantmodel.Config{Seed: 5, Companies: 8, Events: 150})
	stop := f.start(t, tenantService{})
	f.judge(t, g)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	before, results := f.snapshot(t), f.results(t)
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		(&quotaFixture{fixture: &fixture{Log: *f.log(topic)}}).setOffsets(t, 0)
	}
	f.start(t, tenantService{})
	f.judge(t, g)
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
	g, messages := tenantStream(t, tenantmodel.Config{Seed: 6, Companies: 24, Events: 400})
	third := len(messages) / 3
	f.start(t, tenantService{})
	f.send(t, messages[:third]...)
	stop := f.start(t, tenantService{})
	f.send(t, messages[third:2*third]...)
	enginetest.Await(t, "something to be done by the two", func() bool {
		return f.query(t, "SELECT count(*) > 20 FROM inbox")[0] == "(t)"
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.send(t, messages[2*third:]...)
	f.judge(t, g)
}

func TestAPostgresThatIsKilledUnderLoadChangesNoCompany(t *testing.T) {
	t.Parallel()
	server := enginetest.Postgres(t, enginetest.Durable)
	dsn := postgrestest.On(t, server.DSN())
	f := newTenantFixture(t, enginetest.SharedKafka(t), dsn)
	g, messages := tenantStream(t, tenantmodel.Config{Seed: 7, Companies: 24, Events: 400})
	f.start(t, tenantService{})
	for part := range 3 {
		f.send(t, messages[part*len(messages)/3:(part+1)*len(messages)/3]...)
		enginetest.Await(t, "load", func() bool {
			return f.query(t, fmt.Sprintf("SELECT count(*) > %d FROM inbox", 10+part*40))[0] == "(t)"
		})
		if err := server.StopImmediate(); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.judge(t, g)
}

func TestACutAfterTheCommitWasSentAppliesOnce(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	address := strings.Split(strings.TrimPrefix(f.dsn[strings.Index(f.dsn, "@")+1:], "//"), "/")[0]
	proxy := enginetest.Proxy(t, address)
	g, messages := tenantStream(t, tenantmodel.Config{Seed: 8, Companies: 12, Events: 200})
	f.start(t, tenantService{dsn: strings.Replace(f.dsn, address, proxy.Addr(), 1)})
	for part := range 3 {
		// Prepared statements go by name; the record of an event and its commit go in one request, so the request that names
		// its inbox row is the one.
		trap := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte(`"consumer"`)) })
		f.send(t, messages[part*len(messages)/3:(part+1)*len(messages)/3]...)
		kafkatest.Await(t, "something to be committed", trap.Caught())
		proxy.Cut()
	}
	f.judge(t, g)
}

// deaf is a store that never notes what is published.
type deaf struct{ consumers.TenantStore }

func (deaf) MarkPublished(context.Context, []postgres.Applied) error { return nil }

func TestWhatNobodyIsKnownToHavePublishedIsPublishedAgainWithTheSameIDs(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	g := f.produce(t, tenantmodel.Config{Seed: 9, Companies: 4, Events: 60})
	stop := f.start(t, tenantService{noSweep: true, store: func(s consumers.TenantStore) consumers.TenantStore { return deaf{s} }})
	f.awaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Nothing is left to be consumed, so only the sweep can find what is not noted, and so much later than here.
	f.exec(t, "UPDATE inbox SET applied_at = applied_at - interval '1 hour'")
	f.start(t, tenantService{})
	f.judge(t, g)
}
