package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// askVoid makes a request to take usage of a minute before it back.
func (b *book) askVoid(id string) *events.Event {
	return b.event(events.TypeUsageVoidRequested, fmt.Sprintf(`"user_id":"u-1","usage_source":"/gateway","usage_id":%q,"timestamp":%q,"reason":"wrong"`,
		id, b.usedAt().Format(time.RFC3339Nano)))
}

// usedAt is when all usage of the test was.
func (b *book) usedAt() time.Time { return time.Date(2026, 1, 31, 9, 0, 0, 123e6, time.UTC) }

// stored is usage as it was found.
func (b *book) stored(id string) *tenant.StoredUsage {
	partition := 4
	return &tenant.StoredUsage{Void: events.UsageVoided{CompanyID: b.company, UserID: "u-1", Tier: "pro", Service: "s", Endpoint: "/e", Timestamp: b.usedAt(),
		DataPoints: 7, ProcessingTime: 12_345, BillingPeriod: "2026-01", Revenue: 1_250, VoidsSource: "/gateway", VoidsID: id, VoidsRecordedAt: b.usedAt()},
		Key: "u-1", Partition: &partition}
}

// claim takes the requests of the company that are to be looked up.
func (b *book) claim(t *testing.T) []postgres.VoidRequest {
	t.Helper()
	all, err := b.tenants.ClaimVoids(t.Context(), 100, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// decide decides a request, and checks what it leads to.
func (b *book) decide(t *testing.T, r postgres.VoidRequest, usage *tenant.StoredUsage, want ...string) *postgres.Applied {
	t.Helper()
	one, err := b.tenants.DecideVoid(t.Context(), &r, usage)
	if err != nil {
		t.Fatal(err)
	}
	var done []postgres.Applied
	if one != nil {
		done = append(done, *one)
	}
	b.expect(t, "the request for "+r.Asks.UsageID, done, want)
	return one
}

func (b *book) waiting(t *testing.T) int64 {
	t.Helper()
	backlog, err := b.tenants.VoidBacklog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return backlog.Waiting
}

// A request waits alone: what comes behind it is applied, and its effect is dated as if nothing had.
func TestVoidRequest_WaitsAloneAndIsDecidedOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	request := b.askVoid("e-1")
	b.apply(t, request)
	b.apply(t, request) // it comes again
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"theme":"dark"}`), "company.config_changed")
	other := *request
	other.Data = []byte(strings.Replace(string(request.Data), "wrong", "other", 1))
	var rejected *events.Rejection
	if _, err := b.tenants.Apply(t.Context(), &other, b.place(3)); !errors.As(err, &rejected) || rejected.Reason != events.Conflict {
		t.Errorf("with other data: %v", err)
	}
	claimed := b.claim(t)
	if len(claimed) != 1 || claimed[0].Asks.UsageID != "e-1" || !claimed[0].Asks.Timestamp.Equal(b.usedAt()) || time.Since(claimed[0].Appended) > time.Hour {
		t.Fatalf("claimed %+v", claimed)
	}
	if again := b.claim(t); len(again) > 0 {
		t.Errorf("claimed again: %+v", again)
	}
	one := b.decide(t, claimed[0], b.stored("e-1"), "usage.voided", "company.usage_voided")
	void := one.Results[0]
	if id := events.VoidID("/gateway", "e-1", b.usedAt()); void.Event.ID != id || void.Topic != events.TopicUsage || void.Key != "u-1" || *void.Partition != 4 ||
		void.Event.Source != events.VoidSource() || void.Event.CausationID != request.ID || !void.Event.Time.Equal(request.Time) {
		t.Errorf("the void is %+v %+v", void, void.Event)
	}
	var u events.Usage
	value, headers := void.Event.EncodeBinary()
	if err := events.NewUsageDecoder(events.UsageLimits{}).Decode(&events.Record{Key: []byte("u-1"), Value: value, Headers: headers}, b.usedAt(), &u); err != nil ||
		u.Voids == nil || u.DataPoints != 7 || u.ProcessingTime != 12_345 || u.Revenue != 1_250 || u.Timestamp != b.usedAt().UnixMilli() {
		t.Errorf("the void reads as %+v, %v", u, err)
	}
	b.decide(t, claimed[0], b.stored("e-1")) // another process was slower
	b.apply(t, request)                      // it comes again
	if n := b.waiting(t); n != 0 {
		t.Errorf("%d wait", n)
	}
	if got := b.row(t, `SELECT usage_source, usage_id, usage_timestamp AT TIME ZONE 'UTC', request_id, voided_at = $2 FROM usage_voids WHERE company_id = $1`, b.company, request.Time); got !=
		fmt.Sprintf(`(/gateway,e-1,"2026-01-31 09:00:00.123",%s,t)`, request.ID) {
		t.Errorf("recorded is %s", got)
	}
	// The config that came behind it has moved the company on, and the void has not set that back.
	if got := b.row(t, "SELECT company_effect_at > $2 FROM company_heads WHERE company_id = $1", b.company, request.Time); got != "(t)" {
		t.Errorf("later than the request: %s", got)
	}
	if faults, err := b.store.VerifyAudit(t.Context(), b.company); err != nil || len(faults) > 0 {
		t.Errorf("audit: %v, %v", faults, err)
	}
	b.apply(t, b.askVoid("e-1"), "company.rejected already_voided")
	if n := b.waiting(t); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// Of two requests for the same usage the first in the log is decided first, whatever was found when.
func TestVoidRequest_RequestsForOneUsageKeepTheirOrder(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	for _, id := range []string{"e-1", "e-1", "e-2", "e-1"} {
		b.apply(t, b.askVoid(id))
	}
	var decided []string
	for round := range 4 {
		claimed := b.claim(t)
		var ids []string
		for _, r := range claimed {
			ids = append(ids, r.Asks.UsageID)
			want := []string{"usage.voided", "company.usage_voided"}
			if r.Asks.UsageID == "e-1" && round > 0 {
				want = []string{"company.rejected already_voided"}
			}
			b.decide(t, r, b.stored(r.Asks.UsageID), want...)
		}
		slices.Sort(ids)
		decided = append(decided, strings.Join(ids, "+"))
	}
	if want := []string{"e-1+e-2", "e-1", "e-1", ""}; !slices.Equal(decided, want) {
		t.Errorf("decided %q, want %q", decided, want)
	}
	if got := b.row(t, `SELECT usage_id, request_id = $2 AS first FROM usage_voids WHERE company_id = $1 AND usage_id = 'e-1'`, b.company, b.company+"-2"); got != "(e-1,t)" {
		t.Errorf("recorded %s", got)
	}
}

// Two processes that have both looked a usage up decide its request once.
func TestVoidRequest_TwoProcessesDecideARequestOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	for n := range 5 {
		b.apply(t, b.askVoid(fmt.Sprint("e-", n)))
	}
	claimed := b.claim(t)
	if len(claimed) != 5 {
		t.Fatalf("%d claimed", len(claimed))
	}
	var mu sync.Mutex
	var done []postgres.Applied
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			for i := range claimed {
				for {
					one, err := b.tenants.DecideVoid(context.WithoutCancel(t.Context()), &claimed[i], b.stored(claimed[i].Asks.UsageID))
					var blocked *postgres.BlockedError
					if errors.As(err, &blocked) {
						continue // the other one has the company's lock
					}
					if err != nil {
						t.Error(err)
					}
					if one != nil {
						mu.Lock()
						done = append(done, *one)
						mu.Unlock()
					}
					break
				}
			}
		})
	}
	both.Wait()
	if got := b.row(t, "SELECT count(*) FROM usage_voids WHERE company_id = $1", b.company); len(done) != 5 || got != "(5)" {
		t.Errorf("%d decided, recorded %s", len(done), got)
	}
	if faults, err := b.store.VerifyAudit(t.Context(), b.company); err != nil || len(faults) > 0 {
		t.Errorf("audit: %v, %v", faults, err)
	}
}

func TestVoidRequest_IsRefusedOrPutOff(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.apply(t, b.askVoid("early")) // before its company
	if n := b.waiting(t); n != 0 {
		t.Errorf("%d wait for their usage", n)
	}
	b.register(t)
	claimed := b.claim(t)
	if len(claimed) != 1 {
		t.Fatalf("%d claimed of a company that was registered after the request", len(claimed))
	}
	b.decide(t, claimed[0], nil, "company.rejected unknown_usage")
	b.apply(t, b.event(events.TypeUsageVoidRequested, `"user_id":"u-1","usage_source":"/gateway","usage_id":"old","timestamp":"2025-12-01T00:00:00Z","reason":"r"`),
		"company.rejected void_too_late")
	// What is put off comes again, and says why.
	b.apply(t, b.askVoid("e-1"))
	claimed = b.claim(t)
	if err := b.tenants.DeferVoids(t.Context(), claimed, "usage is behind"); err != nil {
		t.Fatal(err)
	}
	if got := b.row(t, "SELECT tries, why, next_try < clock_timestamp() + interval '600 milliseconds' AS soon FROM void_requests"); got != `(1,"usage is behind",t)` {
		t.Errorf("put off: %s", got)
	}
	enginetest.Await(t, "the request to be claimed again", func() bool { claimed = b.claim(t); return len(claimed) == 1 })
	// A company that is closed has its bill corrected.
	b.apply(t, b.askVoid("e-2"))
	b.apply(t, b.askVoid("e-3"))
	b.apply(t, b.event(events.TypeCompanyClosed, ""), "subscription.due", "company.archived")
	b.decide(t, claimed[0], b.stored("e-1"), "usage.voided", "company.usage_voided")
	b.apply(t, b.askVoid("e-4"), "company.rejected company_closed")
	// One that is purged has nothing left that names users, and every request has its answer.
	claimed = b.claim(t)
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
	for _, r := range claimed {
		b.decide(t, r, b.stored(r.Asks.UsageID), "company.rejected company_closed")
	}
	if got := b.row(t, `SELECT (SELECT count(*) FROM usage_voids) AS voids, (SELECT count(*) FROM void_requests) AS waiting,
		(SELECT count(*) FROM inbox WHERE (event::text || coalesce(result::text, '')) LIKE '%u-1"%') AS named`); len(claimed) != 2 || got != "(0,0,0)" {
		t.Errorf("after the purge %s, of %d", got, len(claimed))
	}
}

// A void repeats its usage byte for byte, also what a JSON column can't hold.
func TestVoidRequest_KeepsTextsThatPostgresCantHold(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.askVoid("e-1"))
	usage := b.stored("e-1")
	usage.Void.Endpoint = "/a\x00b\u00e9"
	one := b.decide(t, b.claim(t)[0], usage, "usage.voided", "company.usage_voided")
	var u events.Usage
	value, headers := one.Results[0].Event.EncodeBinary()
	if err := events.NewUsageDecoder(events.UsageLimits{}).Decode(&events.Record{Key: []byte("k"), Value: value, Headers: headers}, b.usedAt(), &u); err != nil || string(u.Endpoint) != usage.Void.Endpoint {
		t.Errorf("%q, %v", u.Endpoint, err)
	}
}

// The key of the usage's record may be any bytes.
func TestVoidRequest_KeepsKeysThatPostgresCantHold(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	for i, key := range []string{"a\x00b", "\x00", "\xff\xfe", "u-1"} {
		id := fmt.Sprint("e-", i)
		b.apply(t, b.askVoid(id))
		usage := b.stored(id)
		usage.Key = key
		one := b.decide(t, b.claim(t)[0], usage, "usage.voided", "company.usage_voided")
		if one == nil {
			t.Fatalf("with the key %q the request has no answer", key)
		}
		if got := one.Results[0].Key; got != key {
			t.Errorf("key %q, want %q", got, key)
		}
	}
}

// A void that its topic might not take is not decided: the request is held for a person, and others go on.
func TestVoidRequest_TooLargeAVoidIsHeldWithAFault(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	request := b.askVoid("e-1")
	b.apply(t, request)
	b.apply(t, b.askVoid("e-2"))
	for _, r := range b.claim(t) {
		usage := b.stored(r.Asks.UsageID)
		if r.Asks.UsageID == "e-1" {
			usage.Void.Endpoint = strings.Repeat("<", 200<<10) // six bytes each in JSON
			b.decide(t, r, usage)
			continue
		}
		usage.Void.Endpoint = strings.Repeat("x", 900<<10)
		b.decide(t, r, usage, "usage.voided", "company.usage_voided")
	}
	if got := b.row(t, "SELECT state, fault LIKE '%the void would have%' AS faulty FROM inbox WHERE event_id = $1", request.ID); got != "(held,t)" || b.waiting(t) != 0 {
		t.Errorf("the inbox says %s, %d wait", got, b.waiting(t))
	}
	if got := b.row(t, "SELECT count(*) FROM usage_voids"); got != "(1)" {
		t.Errorf("recorded %s", got)
	}
}

// A request that can't be read is out of the others' way, and mends when it comes again.
func TestVoidRequest_UnreadableRequestIsHeldWithAFault(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	request := b.askVoid("e-1")
	b.apply(t, request)
	b.apply(t, b.askVoid("e-2"))
	if _, err := b.conn.Exec(t.Context(), `UPDATE inbox SET event = '{"source":"/other"}' WHERE event_id = $1`, request.ID); err != nil {
		t.Fatal(err)
	}
	if claimed := b.claim(t); len(claimed) != 1 || claimed[0].Asks.UsageID != "e-2" || b.waiting(t) != 1 {
		t.Errorf("claimed %+v", claimed)
	}
	if got := b.row(t, "SELECT state, fault IS NOT NULL AS faulty FROM inbox WHERE event_id = $1", request.ID); got != "(held,t)" {
		t.Errorf("the inbox says %s", got)
	}
	b.apply(t, request)
	if claimed := b.claim(t); len(claimed) != 1 || claimed[0].Asks.UsageID != "e-1" {
		t.Errorf("claimed %+v when it came again", claimed)
	}
}

// A company that can't go on keeps its request, and a request does not keep its company from going on.
func TestVoidRequest_OfABlockedCompanyIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.askVoid("e-1"))
	claimed := b.claim(t)
	lock, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "SELECT public.lock_company($1)", b.company); err != nil {
		t.Fatal(err)
	}
	var blocked *postgres.BlockedError
	if _, err := b.tenants.DecideVoid(t.Context(), &claimed[0], b.stored("e-1")); !errors.As(err, &blocked) {
		t.Errorf("under another's lock: %v", err)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.row(t, "SELECT count(*) FROM company_blocks"); got != "(0)" {
		t.Errorf("%s companies are blocked by a request to take usage back", got)
	}
	b.decide(t, claimed[0], b.stored("e-1"), "usage.voided", "company.usage_voided")
}

// The window is the rules' to say.
func TestVoidRequest_WindowIsASetting(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.tenants = b.store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default(), VoidWindow: time.Minute})})
	b.register(t)
	b.apply(t, b.askVoid("e-1"), "company.rejected void_too_late")
}
