package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
)

// Postgres refuses the login while the service runs, and later the database of ClickHouse is gone: the parts that need the store say so
// and go on when it is right again; the others don't notice.
func TestRun_AStoreThatRefusesStopsOnlyItsParts(t *testing.T) {
	t.Parallel()
	environ := append(ownStores(t), "TENANTFLOW_DRAGONFLY_URL="+enginetest.Redis(t).URL(), "TENANTFLOW_GROUP_PREFIX="+t.Name(),
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0", "TENANTFLOW_USAGE_BATCH_INTERVAL=50ms")
	admin, err := pgx.Connect(t.Context(), enginetest.SharedPostgres(t).DSN())
	if err != nil {
		t.Fatal(err)
	}
	postgres := func(statement string) {
		t.Helper()
		if _, err := admin.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	const role = "refused_login"
	postgres("CREATE ROLE " + role + " LOGIN SUPERUSER")
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	for i, setting := range environ {
		if dsn, ok := strings.CutPrefix(setting, "TENANTFLOW_POSTGRES_DSN="); ok {
			parsed, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			parsed.User = url.User(role)
			environ[i] = "TENANTFLOW_POSTGRES_DSN=" + parsed.String()
		}
	}
	migrate := func() {
		t.Helper()
		if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
			t.Fatalf("migrate: exit code %d\n%s", code, errOut)
		}
	}
	if _, errOut, code := tenantflow(t, environ, "config", "check", "--connect", "--only", "usage,company"); code != exitFailed || !strings.Contains(errOut, "not usable: clickhouse, kafka, postgres") {
		t.Errorf("config check before migrate: exit code %d\n%s", code, errOut)
	}
	migrate()
	looked(t, environ, "config", "check", "--connect", "--only", "usage,company")
	p := start(t, "tenantflow", environ, "run", "--only", "usage,company")
	within := func(what string, condition func(status int, body string) bool) {
		t.Helper()
		body := ""
		for deadline := time.Now().Add(enginetest.Patience); ; {
			var status int
			if status, body = get(t, p.url+"/readyz"); condition(status, body) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within %s\n%s", what, enginetest.Patience, body)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	ready := func(status int, _ string) bool { return status == http.StatusOK }
	within("ready", ready)

	postgres("ALTER ROLE " + role + " NOLOGIN")
	within("Postgres refuses the login", func(_ int, body string) bool {
		// Again and again: a login that was under way may come through after the first time.
		postgres("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + role + "'")
		return strings.Contains(body, "28000")
	})
	clickhouse := connectClickHouse(t, environ)
	produce := func(id string) {
		t.Helper()
		event := filepath.Join(t.TempDir(), "event.json")
		text := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/test","type":"usage.recorded.v1","time":%q,"partitionkey":"acme","data":{"company_id":"acme","user_id":"u","subscription_tier":"pro","service_name":"s","api_endpoint":"/","data_points_consumed":1,"processing_time_ms":1}}`,
			id, time.Now().UTC().Format(time.RFC3339Nano))
		if err := os.WriteFile(event, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", event); code != exitDone {
			t.Fatalf("produce: exit code %d\n%s", code, errOut)
		}
	}
	stored := func(id string) {
		t.Helper()
		within(id+" is stored", func(int, string) bool {
			var n uint64
			err := clickhouse.QueryRow(t.Context(), "SELECT count() FROM usage_tracking WHERE event_id = ?", id).Scan(&n)
			return err == nil && n == 1
		})
	}
	produce("while Postgres refuses")
	stored("while Postgres refuses")

	if err := clickhouse.Exec(t.Context(), "DROP DATABASE "+t.Name()+" SYNC"); err != nil {
		t.Fatal(err)
	}
	postgres("ALTER ROLE " + role + " LOGIN")
	produce("while there is no database")
	within("ClickHouse misses its database, and Postgres is back", func(status int, body string) bool {
		return status != http.StatusOK && strings.Contains(body, "migrate") && !strings.Contains(body, "28000")
	})
	migrate()
	within("ready again", ready)
	stored("while there is no database")
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}

// connectClickHouse connects to the ClickHouse of an installation.
func connectClickHouse(t *testing.T, environ []string) driver.Conn {
	t.Helper()
	for _, setting := range environ {
		if dsn, ok := strings.CutPrefix(setting, "TENANTFLOW_CLICKHOUSE_DSN="); ok {
			options, err := chgo.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := chgo.Open(options)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
	}
	t.Fatal("no address of ClickHouse")
	return nil
}
