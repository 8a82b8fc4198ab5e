package consumers_test

import (
	"log/slog"
	"os"
	"testing"

	"tenantflow/internal/model"
)

func TestEveryUsageEventHasOneEffect(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	messages, want := traffic(t, model.Config{Seed: 1, Count: 20_000, Resends: 0.05, Conflicts: 0.002, Late: 0.05, Malformed: 0.01, Structured: 0.1})
	f.publish(t, messages)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	stop := f.start(t, consumer{log: log})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.verify(t, want)
}
