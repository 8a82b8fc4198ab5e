package postgres

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
)

// A look-up whose time is over says who did not answer.
func TestStore_AFrozenServerIsNamed(t *testing.T) {
	t.Parallel()
	server := enginetest.Postgres(t)
	options, err := pgx.ParseConfig(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(options.Host, strconv.Itoa(int(options.Port)))
	var store *Store
	enginetest.Await(t, "the store to be opened", func() bool {
		store, err = Open(t.Context(), Config{DSN: server.DSN(), Timeout: time.Second})
		return err == nil
	})
	t.Cleanup(store.Close)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	_, err = store.Now(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), address+" gave no answer in time") || Classify(err) != Transient {
		t.Errorf("%v", err)
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
}

// One that waited for a connection says why there was none: the others' tries know it.
func TestStore_AWaitForAConnectionSaysWhyThereIsNone(t *testing.T) {
	t.Parallel()
	options, err := pgx.ParseConfig("postgres://there:5433/x")
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{dials: watchDials(options)}
	said := func() string { return s.explain("look", context.DeadlineExceeded).Error() }
	if want := "look in Postgres: there:5433 gave no answer in time (context deadline exceeded)"; said() != want {
		t.Errorf("%q, want %q", said(), want)
	}
	if _, err := options.DialFunc(t.Context(), "tcp", enginetest.ClosedAddress(t)); err == nil {
		t.Fatal("a closed port answers")
	}
	if !strings.Contains(said(), "connection refused") {
		t.Errorf("after a try that failed: %q", said())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	server := enginetest.SharedPostgres(t)
	running, err := pgx.ParseConfig(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(running.Host, strconv.Itoa(int(running.Port)))
	if _, err := options.DialFunc(ended, "tcp", address); err == nil || !strings.Contains(said(), "refused") {
		t.Errorf("a try that was given up says nothing: %v, %q", err, said())
	}
	conn, err := options.DialFunc(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if strings.Contains(said(), "refused") {
		t.Errorf("after a try that worked: %q", said())
	}
}
