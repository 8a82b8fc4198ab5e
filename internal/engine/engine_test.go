package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// restartable is what the tests of all engines need of one.
type restartable interface {
	Addr() string
	Start(context.Context) error
	Stop() error
	Kill() error
	Pid() int
}

// keepsItsData writes before each of a stop and a kill and reads after the start that follows.
func keepsItsData(t *testing.T, e restartable, write func(value string), values func() string) {
	t.Helper()
	addr := e.Addr()
	want := ""
	for _, end := range []struct {
		name string
		by   func() error
	}{{"stop", e.Stop}, {"kill", e.Kill}} {
		write(end.name)
		want += end.name + " "
		if err := end.by(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		if pid := e.Pid(); pid != 0 {
			t.Errorf("after %s there is still process %d", end.name, pid)
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatalf("start after %s: %v", end.name, err)
		}
		if got := values(); got != want {
			t.Errorf("after %s and start it holds %q, want %q", end.name, got, want)
		}
		if e.Addr() != addr {
			t.Errorf("after %s and start it listens on %s, was %s", end.name, e.Addr(), addr)
		}
	}
}

func TestRedisKeepsItsDataOverStopAndKill(t *testing.T) {
	t.Parallel()
	r := enginetest.Redis(t)
	client := redis.NewClient(enginetest.RedisOptions(t, r.URL()))
	defer client.Close()
	keepsItsData(t, r,
		func(v string) {
			if err := client.Append(t.Context(), "k", v+" ").Err(); err != nil {
				t.Fatal(err)
			}
		},
		func() string { return client.Get(t.Context(), "k").Val() })
}

func TestRedisWithSnapshotsForgetsWhatCameAfterTheLastOne(t *testing.T) {
	t.Parallel()
	r := enginetest.Redis(t, enginetest.Persist(engine.Snapshot))
	client := redis.NewClient(enginetest.RedisOptions(t, r.URL()))
	defer client.Close()
	client.Set(t.Context(), "k", "before", 0)
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.Set(t.Context(), "k", "after", 0)
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := client.Get(t.Context(), "k").Val(); got != "before" {
		t.Errorf("it holds %q, want the value of the last snapshot", got)
	}
}

func TestPostgresKeepsItsDataOverStopAndKill(t *testing.T) {
	t.Parallel()
	p := enginetest.Postgres(t)
	query := func(sql string) string {
		c, err := pgx.Connect(t.Context(), p.DSN())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		var s *string
		if err := c.QueryRow(t.Context(), sql).Scan(&s); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return *s
	}
	query("WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x")
	c, err := pgx.Connect(t.Context(), p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "CREATE TABLE kept (id serial, v text)"); err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context())) // an open session must not keep the server from stopping
	keepsItsData(t, p,
		func(v string) { query("INSERT INTO kept (v) VALUES ('" + v + " ') RETURNING v") },
		func() string { return query("SELECT string_agg(v, '' ORDER BY id) FROM kept") })

	if err := p.StopImmediate(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query("SELECT count(*)::text FROM kept"); got != "2" {
		t.Errorf("after an immediate stop the table has %s rows, want 2", got)
	}
}

func TestAFrozenEngineAnswersAgainWhenItIsThawed(t *testing.T) {
	t.Parallel()
	p := enginetest.Postgres(t)
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Ping(ctx); err == nil {
		t.Error("the frozen server answered")
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnEngineThatCannotStartSaysWhatItsLogSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data", "appendonlydir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "appendonlydir", "appendonly.aof.manifest"), []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := engine.StartRedis(t.Context(), engine.Options{Dir: dir})
	if err == nil {
		t.Fatal("redis started on a broken data directory")
	}
	for _, want := range []string{"start redis on 127.0.0.1:", "exit status 1", "manifest"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	t.Parallel()
	r := enginetest.Redis(t)
	_, err := engine.StartRedis(t.Context(), engine.Options{Dir: t.TempDir(), Port: r.Port()})
	if err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a second engine on the same port: %v", err)
	}
}

func TestADataDirectoryInUseIsNamed(t *testing.T) {
	t.Parallel()
	r := enginetest.Redis(t)
	dir := filepath.Dir(r.LogPath())
	_, err := engine.StartRedis(t.Context(), engine.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("a second engine on the same data: %v", err)
	}
}
