package postgres

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
)

func TestOldChangesGoByThemselvesUntilTheStoreIsToldToEnd(t *testing.T) {
	t.Parallel()
	dsn := enginetest.NewPostgresDatabase(t)
	log := make(lines, 100)
	s, err := Open(t.Context(), Config{DSN: dsn, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	// The table is not there to begin with: that is said, and nothing ends.
	ended := make(chan error, 1)
	running, end := context.WithCancel(ctx)
	go func() { ended <- s.run(running, 10*time.Millisecond) }()
	select {
	case line := <-log:
		if !strings.Contains(line, "could not be removed") {
			t.Errorf("it says: %s", line)
		}
	case <-ctx.Done():
		t.Fatal("nothing is said of the missing table")
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, `CREATE TABLE changes (xid xid8 DEFAULT pg_current_xact_id(), changed_at timestamptz DEFAULT now());
		INSERT INTO changes (changed_at) VALUES (now() - interval '3 hours'), (now())`); err != nil {
		t.Fatal(err)
	}
	if err := enginetest.Eventually(ctx, func() bool {
		var left int
		err := conn.QueryRow(ctx, "SELECT count(*) FROM changes").Scan(&left)
		return err == nil && left == 1
	}); err != nil {
		t.Error(err)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// lines holds the first lines of a log.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}
