package enginetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
)

// engines are those that all tests of the process share. There is one set of them per process, as there is one
// testing.M: it exists between the beginning and the end of Run.
var engines atomic.Pointer[set]

// A set is a set of shared engines, each started when it is first asked for.
type set struct {
	dir        string
	clickhouse shared[*engine.ClickHouse]
	embedded   shared[*engine.Kafka]
	apache     shared[*engine.Kafka]
	postgres   shared[*engine.Postgres]
	redis      shared[*engine.Redis]
	names      atomic.Int64
}

// shared is an engine that is started once.
type shared[E ending] struct {
	once   sync.Once
	engine E
	ok     bool
	err    error
}

func (s *shared[E]) get(t testing.TB, name string, by func(context.Context, engine.Options) (E, error), kind engine.KafkaKind) E {
	t.Helper()
	all := engines.Load()
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		o := engine.Options{Dir: filepath.Join(all.dir, name), Unsynced: true, Kind: kind}
		s.engine, s.err = by(ctx, o)
		s.ok = s.err == nil
	})
	if s.err != nil {
		t.Fatalf("this test needs a real engine: %v", s.err)
	}
	return s.engine
}

func (s *shared[E]) end() error {
	if !s.ok {
		return nil
	}
	err := s.engine.Kill()
	s.engine.Release()
	return err
}

// Main runs the package's tests and then ends the shared engines. It is the body of TestMain.
func Main(m *testing.M) { os.Exit(Engines(m).Run()) }

// Runner is a testing.M, or something around it.
type Runner interface{ Run() int }

// Engines returns a Runner that ends the shared engines after the tests, for a TestMain that does more:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.Engines(m)) }
func Engines(m Runner) Runner { return &runner{m} }

type runner struct{ m Runner }

func (r *runner) Run() int {
	dir, err := os.MkdirTemp("", "tenantflow-engines-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the engines:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	all := &set{dir: dir}
	engines.Store(all)
	code := r.m.Run()
	engines.Store(nil)
	for _, end := range []func() error{all.clickhouse.end, all.embedded.end, all.apache.end, all.postgres.end, all.redis.end} {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "end a shared engine:", err)
			code = max(code, 1)
		}
	}
	return code
}

func current(t testing.TB) *set {
	t.Helper()
	all := engines.Load()
	if all == nil {
		t.Fatal("shared engines need a TestMain that calls enginetest.Main")
	}
	return all
}

// SharedClickHouse returns the ClickHouse server that the process's tests share.
func SharedClickHouse(t testing.TB) *engine.ClickHouse {
	t.Helper()
	return current(t).clickhouse.get(t, "clickhouse", engine.StartClickHouse, "")
}

// SharedKafka returns the embedded broker that the process's tests share.
func SharedKafka(t testing.TB) *engine.Kafka {
	t.Helper()
	return current(t).embedded.get(t, "kafka", engine.StartKafka, engine.Embedded)
}

// SharedApacheKafka returns the Apache Kafka broker that the process's tests share.
func SharedApacheKafka(t testing.TB) *engine.Kafka {
	t.Helper()
	return current(t).apache.get(t, "apache-kafka", engine.StartKafka, engine.Apache)
}

// SharedPostgres returns the PostgreSQL server that the process's tests share.
func SharedPostgres(t testing.TB) *engine.Postgres {
	t.Helper()
	return current(t).postgres.get(t, "postgres", engine.StartPostgres, "")
}

// SharedRedis returns the Redis server that the process's tests share.
func SharedRedis(t testing.TB) *engine.Redis {
	t.Helper()
	return current(t).redis.get(t, "redis", engine.StartRedis, "")
}

// name makes a name that no other test of this process has, with the test's own in it.
func (s *set) name(t testing.TB, separator string) string {
	base := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, t.Name())
	return fmt.Sprintf("t%d%s%s", s.names.Add(1), separator, base[:min(len(base), 60)])
}

// NewDatabase makes a database of the test's own on the shared ClickHouse and returns its DSN. It is dropped at the
// test's end.
func NewDatabase(t testing.TB) string {
	t.Helper()
	c := SharedClickHouse(t)
	name := current(t).name(t, "_")
	if _, err := c.Query(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if _, err := c.Query(ctx, "DROP DATABASE "+name+" SYNC"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return c.DSNOf(name)
}

// NewTopic makes a topic of the test's own on the shared embedded broker and returns its name.
func NewTopic(t testing.TB, partitions int, config ...kafka.ConfigEntry) string {
	t.Helper()
	return NewTopicOn(t, SharedKafka(t), partitions, config...)
}

// NewTopicOn is NewTopic on another broker.
func NewTopicOn(t testing.TB, k *engine.Kafka, partitions int, config ...kafka.ConfigEntry) string {
	t.Helper()
	name := current(t).name(t, ".")
	CreateTopic(t, k, name, partitions, config...)
	return name
}

// CreateTopic makes a topic by name, and returns when the broker serves it.
func CreateTopic(t testing.TB, k *engine.Kafka, name string, partitions int, config ...kafka.ConfigEntry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	transport := &kafka.Transport{DialTimeout: Patience}
	defer transport.CloseIdleConnections()
	// Without a time of its own the client gives the broker two seconds for the work.
	c := &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: transport, Timeout: Patience}
	resp, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: name, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: config}}})
	if err == nil {
		err = resp.Errors[name]
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	// Apache Kafka answers before the leaders are elected.
	led := func() bool {
		meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
		if err != nil || len(meta.Topics) != 1 || len(meta.Topics[0].Partitions) != partitions {
			return false
		}
		for _, p := range meta.Topics[0].Partitions {
			if p.Error != nil || p.Leader.Host == "" {
				return false
			}
		}
		return true
	}
	if err := Eventually(ctx, led); err != nil {
		t.Fatalf("wait for the leaders of topic %s: %v", name, err)
	}
}
