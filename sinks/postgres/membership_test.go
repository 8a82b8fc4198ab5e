package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/directory"
)

// Events are dated long before they are applied here, as in a replay: whose a user was is a matter of their times.
func TestMemberships_AreThoseOfTheEventsTimes(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	other := *b
	other.company = b.company + "x"
	other.register(t)
	other.apply(t, other.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	user := b.company + "-mover"
	one := fmt.Sprintf(`"user_id":%q`, user)
	at := func(b *book, eventType, data string, hour int, want ...string) {
		t.Helper()
		e := b.event(eventType, data)
		e.Time = time.Date(2026, 2, 1, hour, 0, 0, 0, time.UTC)
		b.apply(t, e, want...)
	}
	at(b, events.TypeUserAdded, one+`,"email":"m@acme.example"`, 8, "company.user_provisioned")
	at(&other, events.TypeUserAdded, one+`,"email":"m@x.example"`, 9, "company.rejected user_exists")
	at(b, events.TypeUserRemoved, one, 12, "company.user_deprovisioned")
	at(&other, events.TypeUserAdded, one+`,"email":"m@x.example"`, 13, "company.user_provisioned")
	judge := func(want map[string]directory.Belonging) {
		t.Helper()
		users, err := b.store.Users(t.Context(), []string{user})
		if err != nil || len(users) != 1 {
			t.Fatalf("%+v, %v", users, err)
		}
		for hour, belongs := range want {
			var h int
			var company string
			if _, err := fmt.Sscan(hour, &h, &company); err != nil {
				t.Fatal(err)
			}
			id := map[string]string{"acme": b.company, "other": other.company}[company]
			if got := users[0].BelongedTo(id, time.Date(2026, 2, 1, h, 0, 0, 0, time.UTC), time.Now().Add(time.Hour)); got != belongs {
				t.Errorf("at %s: %v, want %v", hour, got, belongs)
			}
		}
	}
	const belongs, elsewhere, none = directory.Belongs, directory.BelongsElsewhere, directory.BelongsToNone
	want := map[string]directory.Belonging{"7 acme": none, "8 acme": belongs, "11 acme": belongs, "11 other": elsewhere, "12 acme": none, "12 other": none,
		"13 acme": elsewhere, "13 other": belongs, "23 other": belongs}
	judge(want)
	at(&other, events.TypeCompanyClosed, `"purge":true`, 20, "subscription.due", "company.archived", "company.config tombstone")
	want["19 other"], want["20 other"], want["20 acme"], want["23 other"] = belongs, none, none, none
	judge(want)
}
