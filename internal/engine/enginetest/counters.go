package enginetest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tenantflow/internal/engine"
)

// dragonflyEnv names the Dragonfly that counters are tested on: the address of one that runs, HOST:PORT, or a program to start, with flags
// behind it. Empty: a Redis takes its place.
const dragonflyEnv = "TENANTFLOW_TEST_DRAGONFLY"

// Counters starts a store of counters: a Redis, or the program that TENANTFLOW_TEST_DRAGONFLY names. A test that asks for an append-only
// file gets a Redis in any case, as only that has one.
func Counters(t testing.TB, opts ...Option) *engine.Redis {
	t.Helper()
	_, command := dragonfly(t)
	var o engine.Options
	for _, opt := range opts {
		opt(&o)
	}
	if command == nil || o.Persistence == engine.AppendOnly {
		return Redis(t, opts...)
	}
	return start(t, func(ctx context.Context, o engine.Options) (*engine.Redis, error) {
		return engine.StartDragonfly(ctx, command, o)
	}, opts)
}

// DragonflyAddress is the address of a Dragonfly that runs already, for one test at a time; empty: none is named.
func DragonflyAddress(t testing.TB) string {
	t.Helper()
	address, _ := dragonfly(t)
	return address
}

// dragonfly reads the variable.
func dragonfly(t testing.TB) (address string, command []string) {
	t.Helper()
	named := strings.Fields(os.Getenv(dragonflyEnv))
	if len(named) == 0 {
		return "", nil
	}
	if _, err := exec.LookPath(named[0]); err == nil {
		return "", named
	}
	if _, _, err := net.SplitHostPort(named[0]); err != nil || strings.Contains(named[0], "/") {
		t.Fatalf("%s: %q is neither HOST:PORT nor a program", dragonflyEnv, named[0])
	}
	return named[0], nil
}
