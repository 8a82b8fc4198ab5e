// Package enginetest starts real engines for tests. An engine that can't start fails the test; it never skips it.
//
// Every function starts an engine of the test's own, which its cleanup ends. The Shared functions start one per test
// process, for tests that are content with a database or a topic of their own:
//
//	func TestMain(m *testing.M) { enginetest.Main(m) }
//
//	func TestRowsOfTwoBatchesAreKept(t *testing.T) {
//		dsn := enginetest.NewDatabase(t)
//		topic := enginetest.NewTopic(t, 3)
//		broker := enginetest.SharedKafka(t).Addr()
//		...
package enginetest

import (
	"context"
	"testing"
	"time"

	"tenantflow/internal/engine"
)

// An Option changes how an engine is started.
type Option func(*engine.Options)

// Durable makes PostgreSQL and the embedded broker sync what they write, which tests have no need of: the engines are
// killed, the machine is not.
func Durable(o *engine.Options) { o.Unsynced = false }

// Persist sets what Redis remembers.
func Persist(p engine.Persistence) Option {
	return func(o *engine.Options) { o.Persistence = p }
}

// KafkaConfig sets a broker setting by Kafka's own name.
func KafkaConfig(name, value string) Option {
	return func(o *engine.Options) {
		if o.KafkaConfig == nil {
			o.KafkaConfig = map[string]string{}
		}
		o.KafkaConfig[name] = value
	}
}

// ClickHouse starts a ClickHouse server.
func ClickHouse(t testing.TB, opts ...Option) *engine.ClickHouse {
	t.Helper()
	return start(t, engine.StartClickHouse, opts)
}

// Kafka starts an embedded broker.
func Kafka(t testing.TB, opts ...Option) *engine.Kafka {
	t.Helper()
	return start(t, engine.StartKafka, opts)
}

// ApacheKafka starts an Apache Kafka broker.
func ApacheKafka(t testing.TB, opts ...Option) *engine.Kafka {
	t.Helper()
	return start(t, engine.StartKafka, append([]Option{func(o *engine.Options) { o.Kind = engine.Apache }}, opts...))
}

// ApacheKafkaBehindProxy starts an Apache Kafka broker that sends its clients to a proxy in front of it. Addr is still
// the broker's own address: give clients the proxy's to begin with.
func ApacheKafkaBehindProxy(t testing.TB, opts ...Option) (*engine.Kafka, *engine.Proxy) {
	t.Helper()
	var proxy *engine.Proxy
	advertise := func(o *engine.Options) {
		o.Advertise = func(addr string) string {
			proxy = Proxy(t, addr)
			return proxy.Addr()
		}
	}
	k := ApacheKafka(t, append([]Option{advertise}, opts...)...)
	return k, proxy
}

// Postgres starts a PostgreSQL server.
func Postgres(t testing.TB, opts ...Option) *engine.Postgres {
	t.Helper()
	return start(t, engine.StartPostgres, opts)
}

// Redis starts a Redis server in Dragonfly's place.
func Redis(t testing.TB, opts ...Option) *engine.Redis {
	t.Helper()
	return start(t, engine.StartRedis, opts)
}

// Lua54 is the path of an interpreter of Lua 5.4, which is what runs Dragonfly's scripts.
func Lua54(t testing.TB) string {
	t.Helper()
	path, err := engine.Lua54(t.Context(), engine.Options{})
	if err != nil {
		t.Fatalf("this test needs the real interpreter: %v", err)
	}
	return path
}

// Promtool is the path of Prometheus' program that checks metrics and alerts.
func Promtool(t testing.TB) string {
	t.Helper()
	path, err := engine.Promtool(t.Context(), engine.Options{})
	if err != nil {
		t.Fatalf("this test needs the real program: %v", err)
	}
	return path
}

// ending is what every engine offers to be ended by.
type ending interface {
	Kill() error
	Release()
	LogTail() string
	Addr() string
}

func start[E ending](t testing.TB, by func(context.Context, engine.Options) (E, error), opts []Option) E {
	t.Helper()
	o := engine.Options{Dir: t.TempDir(), Unsynced: true}
	for _, opt := range opts {
		opt(&o)
	}
	// Installing counts too, the first time.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	e, err := by(ctx, o)
	if err != nil {
		t.Fatalf("this test needs a real engine: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the engine on %s ends:\n%s", e.Addr(), e.LogTail())
		}
		// Killed, not stopped: its data is thrown away, and a clean stop takes seconds.
		if err := e.Kill(); err != nil {
			t.Errorf("end the engine: %v", err)
		}
		e.Release()
	})
	return e
}
