package events

import (
	"testing"

	"github.com/cespare/xxhash/v2"
)

// The expected ids were computed with Python's uuid.uuid5.
func TestIDsOfOutputEventsAreTheOnesTheContractDefines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{ResultID("/billing", "evt-1", TypeUpgraded, 0), "da6cc1a9-ae76-50f6-847b-5fabe7a42db5"},
		{ResultID("/billing", "evt-1", TypeUpgraded, 1), "c0e603da-cadd-5bbc-a767-a76fb7d67904"},
		{ResultID("/billing", "evt-1", TypeSubscriptionRejected, 0), "1699c435-8581-52eb-81e5-6d3963e08e33"},
		{ResultID("urn:zürich", "ü", TypeCompanyCreated, 0), "868d47da-e33c-5705-8262-1b400bddc5fa"},
		{QuotaEventID("u-1", "2026-07-31", 80, 1000), "677e6091-e85a-576c-a256-a7d9979394bf"},
		{QuotaEventID("u-1", "2026-07-31", 100, 1000), "a7e8b09d-db59-5c21-82cd-e56c0ef19b31"},
		{QuotaEventID("u-1", "2026-07-31", 100, 50000), "88e6e8f2-092d-5aa7-a3db-48c02e68ef92"},
	} {
		if c.got != c.want {
			t.Errorf("id %s, want %s", c.got, c.want)
		}
	}
}

func TestIdentityHashIsXXHashOfSourceLineFeedID(t *testing.T) {
	t.Parallel()
	u := Usage{Source: []byte("/data-bridge/eu-1/with/a/source/longer/than/a/block"), ID: []byte("evt-1")}
	if got, want := u.IdentityHash(), xxhash.Sum64String(string(u.Source)+"\n"+string(u.ID)); got != want {
		t.Errorf("hash %x, want %x", got, want)
	}
	if IdentityHash([]byte("a"), []byte("bc")) == IdentityHash([]byte("ab"), []byte("c")) {
		t.Error("the border between source and id does not count")
	}
	u.ID = make([]byte, 1000)
	if got, want := u.IdentityHash(), xxhash.Sum64String(string(u.Source)+"\n"+string(u.ID)); got != want {
		t.Errorf("hash of a long identity %x, want %x", got, want)
	}
}

func TestIdentityHashDoesNotAllocate(t *testing.T) {
	for _, size := range []int{36, 1000} {
		u := Usage{Source: []byte("/data-bridge/eu-1"), ID: make([]byte, size)}
		if n := testing.AllocsPerRun(100, func() { u.IdentityHash() }); n != 0 {
			t.Errorf("%v allocations for an id of %d bytes", n, size)
		}
	}
}

func BenchmarkIdentityHash(b *testing.B) {
	u := Usage{Source: []byte("/data-bridge/eu-1"), ID: []byte("0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f")}
	b.ReportAllocs()
	for b.Loop() {
		u.IdentityHash()
	}
}
