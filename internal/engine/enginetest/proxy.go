package enginetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tenantflow/internal/engine"
)

// Proxy puts a proxy in front of the engine at HOST:PORT, for the length of the test.
func Proxy(t testing.TB, target string) *engine.Proxy {
	t.Helper()
	p, err := engine.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the proxy: %v", err)
		}
	})
	return p
}

// Patience is how long a test waits for what it expects: only a hang takes so long, or a machine that is very busy.
const Patience = 6 * time.Minute

// Await waits for what a test expects, as long as Patience allows. What says it in the words of a test that waited in vain.
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := Eventually(ctx, condition); err != nil {
		t.Fatalf("%s: not within %s", what, Patience)
	}
}

// Eventually polls until the condition holds, or returns the error of ctx when that ends before. Give ctx a deadline.
func Eventually(ctx context.Context, condition func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the condition does not hold yet: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
