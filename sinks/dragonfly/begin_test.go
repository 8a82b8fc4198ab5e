package dragonfly_test

import (
	"testing"

	"tenantflow/sinks/dragonfly"
)

// Two partitions see the same loss. One begins an epoch and commits its number to Kafka, where the other finds it as the highest.
func TestBegin_AnEpochThatWasCommittedIsNotOutranked(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	one, other := session(t, store, 0), session(t, store, 1)
	doubted, err := other.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Begin(t.Context(), doubted, 0, dragonfly.Epoch{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	begun, err := one.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Begin(t.Context(), doubted, begun.Epoch.Number, dragonfly.Epoch{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	if now, err := one.Look(t.Context()); err != nil || now.Epoch.Number != begun.Epoch.Number {
		t.Errorf("another epoch was begun: %+v, %v; want %d", now, err, begun.Epoch.Number)
	}
}

// A partition looks while another begins an epoch: some sentinels have it, and some do not yet.
func TestBegin_ALookInItsMidstBeginsNoOther(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	one, other := session(t, store, 0), session(t, store, 1)
	state, err := one.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Begin(t.Context(), state, 0, dragonfly.Epoch{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	written := client.HGetAll(t.Context(), dragonfly.SentinelKey(7)).Val()
	client.Del(t.Context(), dragonfly.SentinelKey(7))
	doubted, err := other.Look(t.Context())
	if err != nil || doubted.Doubt != "lost" {
		t.Fatalf("%+v, %v", doubted, err)
	}
	client.HSet(t.Context(), dragonfly.SentinelKey(7), written)
	if err := other.Begin(t.Context(), doubted, 0, dragonfly.Epoch{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	if now, err := one.Look(t.Context()); err != nil || now.Epoch.Number != doubted.Epoch.Number {
		t.Errorf("another epoch was begun: %+v, %v; want %d", now, err, doubted.Epoch.Number)
	}
}
