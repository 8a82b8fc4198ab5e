package postgres_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
)

func TestInbox_AnEventOfNoYearIsRefusedAndStopsNothing(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	for at, reason := range map[time.Time]events.Reason{
		time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)): events.TimestampTooOld,
		time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC):            events.TimestampInFuture,
	} {
		for _, e := range []*events.Event{b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), b.event(events.TypeUserErasureRequested, `"user_id":"u"`)} {
			e.Time = at
			if _, err := b.tenants.Apply(t.Context(), e, b.place(0)); !isRejection(err, reason) {
				t.Errorf("%s: %v, want %s", at, err, reason)
			}
		}
	}
	b.register(t)
	if got := b.row(t, "SELECT state, count(*) FROM inbox GROUP BY 1"); got != "(done,1)" {
		t.Errorf("inbox: %s", got)
	}
}

func TestInbox_ARowThatCantBeReadStepsAsideAlone(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{
		"none":                "NULL",
		"no object":           "'[]'",
		"an unknown type":     `json_build_object('source', source, 'id', event_id, 'type', 'x', 'time', now(), 'key', company_id, 'data', '{}'::json)`,
		"no time":             `json_build_object('source', source, 'id', event_id, 'type', type, 'time', 'x', 'key', company_id, 'data', event->'data')`,
		"another one's":       `json_build_object('source', 'x', 'id', event_id, 'type', type, 'time', now(), 'key', company_id, 'data', event->'data')`,
		"data that is a text": `json_build_object('source', source, 'id', event_id, 'type', type, 'time', now(), 'key', company_id)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			other := b.another(t)
			bad := b.event(events.TypeConfigUpdated, `"config":{"a":1}`)
			b.apply(t, bad)
			b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"b":1}`))
			other.apply(t, other.event(events.TypeConfigUpdated, `"config":{"b":1}`))
			b.exec(t, "UPDATE inbox SET event = "+event+", wait_until = now() - interval '1 hour' WHERE event_id = '"+bad.ID+"'",
				"UPDATE inbox SET wait_until = now() - interval '1 hour' WHERE company_id = '"+other.company+"'")
			done, err := b.tenants.GiveUp(t.Context(), 0, 10)
			if got := told(t, done); err != nil || !slices.Equal(got, []string{"company.rejected unknown_company"}) {
				t.Errorf("given up: %q, %v", got, err)
			}
			b.apply(t, b.registration(), "company.created", "subscription.created", "company.config_changed", "company.config_changed")
			if got := b.row(t, "SELECT event_id, fault IS NOT NULL FROM inbox WHERE state = 'held'"); got != "("+bad.ID+",t)" {
				t.Errorf("held: %s", got)
			}
			if backlog, err := b.tenants.Backlog(t.Context()); err != nil || backlog.Faulty != 1 || backlog.Waiting != 0 {
				t.Errorf("backlog: %+v, %v", backlog, err)
			}
			b.apply(t, bad, "company.config_changed") // delivered again, it can be read
			if got := b.row(t, "SELECT count(*) FROM inbox WHERE state = 'held' OR fault IS NOT NULL"); got != "(0)" {
				t.Errorf("%s rows are left", got)
			}
		})
	}
}

// Of an event that is found first by another one of its company.
func TestInbox_AnUnreadableRowDoesNotStopTheNextEvent(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint) SELECT '/test', 'bad' || n, 'company.user_removed.v1', '"+b.company+"', 'waiting', '' FROM generate_series(1, 7) AS n")
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"b":1}`), "company.config_changed")
	if got := b.row(t, "SELECT state, count(*) FROM inbox GROUP BY 1 ORDER BY 1"); got != "(done,2) ; (held,7)" {
		t.Errorf("inbox: %s", got)
	}
}

func TestInbox_AResultThatCantBeReadStepsAsideAlone(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	e := b.registration()
	if _, err := b.tenants.Apply(t.Context(), e, b.place(0)); err != nil {
		t.Fatal(err)
	}
	b.exec(t, `UPDATE inbox SET result = '{"at": "x"}'`)
	if _, err := b.tenants.Apply(t.Context(), b.event(events.TypeConfigUpdated, `"config":{"a":1}`), b.place(0)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		left, err := b.tenants.Unpublished(t.Context(), -time.Hour, 10)
		if got := told(t, left); err != nil || !slices.Equal(got, []string{"company.config_changed"}) {
			t.Errorf("unpublished: %q, %v", got, err)
		}
		b.apply(t, e)
	}
	if backlog, err := b.tenants.Backlog(t.Context()); err != nil || backlog.Faulty != 1 || backlog.Unpublished != 1 {
		t.Errorf("backlog: %+v, %v", backlog, err)
	}
}

func TestInbox_AResendWrittenOtherwiseIsTheSameEvent(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	paid := func(amount, at, more string) string {
		return `"payment_id":"` + b.company + `-p","amount_minor":` + amount + `,"currency":"USD","paid_at":"` + at + `"` + more
	}
	e := b.event(events.TypePaymentReceived, paid("4900", "2026-01-31T10:00:00Z", ""))
	b.apply(t, e, "subscription.payment_recorded")
	again := func(data string) *events.Event {
		other := *e
		other.Data = []byte(fmt.Sprintf(`{%s,"company_id":%q}`, data, b.company))
		return &other
	}
	for _, data := range []string{paid("4900.0", "2026-01-31T10:00:00Z", ""), paid("49e2", "2026-01-31T10:00:00.000Z", ""),
		paid("4900", "2026-01-31T11:00:00+01:00", `,"note":"again"`)} {
		b.apply(t, again(data))
		if settled, err := b.tenants.Settled(t.Context(), []*events.Event{again(data)}); err != nil || !settled[0] {
			t.Errorf("%s: %v, %v", data, settled, err)
		}
	}
	if _, err := b.tenants.Apply(t.Context(), again(paid("4901", "2026-01-31T10:00:00Z", "")), b.place(0)); !isRejection(err, events.Conflict) {
		t.Errorf("another amount: %v", err)
	}
	// A row of the first version.
	b.exec(t, fmt.Sprintf("UPDATE inbox SET fingerprint = decode('%x', 'hex') WHERE event_id = '%s'", firstVersion(t, e), e.ID))
	b.apply(t, e)
	b.apply(t, again(paid("4900", "2026-01-31T10:00:00Z", ""))) // in another order
	if _, err := b.tenants.Apply(t.Context(), again(paid("4901", "2026-01-31T10:00:00Z", "")), b.place(0)); !isRejection(err, events.Conflict) {
		t.Errorf("another amount: %v", err)
	}
}

// firstVersion is the fingerprint as the first versions have stored it.
func firstVersion(t *testing.T, e *events.Event) []byte {
	t.Helper()
	var data any
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber()
	if err := d.Decode(&data); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(e.Type + "\n" + e.Key + "\n" + string(text)))
	return sum[:]
}

// An event of the first version that waits, with all its members, is applied under its old fingerprint.
func TestInbox_WhatWaitsSinceTheFirstVersionIsApplied(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	e := b.event(events.TypeConfigUpdated, `"config":{"n":1.50},"unknown":"<x>"`)
	b.apply(t, e)
	b.exec(t, fmt.Sprintf(`UPDATE inbox SET fingerprint = decode('%x', 'hex'), event = (jsonb_set(event::jsonb, '{data}', '%s'))::json`, firstVersion(t, e), e.Data))
	b.apply(t, b.registration(), "company.created", "subscription.created", "company.config_changed", "company.config_changed")
	b.apply(t, e)
}

func TestInbox_UnknownMembersAreNotKept(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro","contact":"ann@acme.example","payment":{"payment_id":"`+b.company+`-p","note":"kept"}`))
	if got := b.row(t, "SELECT event FROM inbox"); strings.Contains(got, "ann@") || !strings.Contains(got, "kept") {
		t.Errorf("waiting: %s", got)
	}
	b.apply(t, b.registration(), "company.created", "subscription.created", "company.config_changed", "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeUserErasureRequested, `"user_id":"`+b.company+`-u1","email":"ann@acme.example"`))
	if got := b.row(t, "SELECT event FROM inbox WHERE state = 'held'"); strings.Contains(got, "ann@") || !strings.Contains(got, b.company+"-u1") {
		t.Errorf("held: %s", got)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true,"contact":"ann@acme.example"`), "subscription.due", "company.archived", "company.config tombstone")
	if got := b.row(t, "SELECT count(*) FROM inbox WHERE event IS NOT NULL OR state = 'held' OR inbox::text LIKE '%ann@%'"); got != "(0)" {
		t.Errorf("after the purge %s rows keep an event", got)
	}
}
