package clickhouse

import (
	"context"
	"testing"
)

func TestFindUsage_FindsARowByAllThatNamesIt(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	base := plain(7)
	base.revenue, base.processing, base.endpoint = 999_999_999_999_999_999, 12_346, "/a\x00b"
	rows := append(plains(5), base)
	s.insert(t, blockOf(rows...))
	keyOf := func(r row) EventKey {
		return EventKey{Source: r.source, ID: r.id, Company: r.company, User: r.user, Timestamp: r.at}
	}
	find := func(wanted ...row) []*StoredUsage {
		t.Helper()
		keys := make([]EventKey, len(wanted))
		for i, r := range wanted {
			keys[i] = keyOf(r)
		}
		found, err := s.FindUsage(t.Context(), keys)
		if err != nil || len(found) != len(wanted) {
			t.Fatalf("%d found, %v", len(found), err)
		}
		return found
	}
	want := StoredUsage{Tier: base.tier, Service: base.service, Endpoint: base.endpoint, DataPoints: base.points, ProcessingTime: base.processing,
		BillingPeriod: base.period, Revenue: base.revenue, Topic: "usage", Offset: 7}
	found := find(plain(100), base, rows[2], base)
	if found[0] != nil || found[1] == nil || *found[1] != want || found[2] == nil || found[2].Offset != 2 || found[3] == nil || *found[3] != want {
		t.Errorf("found %+v, want %+v", found, want)
	}
	for name, other := range variants(base) {
		named := name == "id" || name == "source" || name == "user" || name == "company" || name == "timestamp"
		if found := find(other); (found[0] == nil) != named {
			t.Errorf("another %s: found %+v", name, found[0])
		}
	}
	if found := find(); len(found) != 0 {
		t.Errorf("none: %v", found)
	}
	// What takes usage back can't be taken back, whatever it is called.
	s.exec(t, `INSERT INTO usage_tracking SELECT * REPLACE ('void' AS event_id, -1 AS sign, 100 AS _offset) FROM usage_tracking WHERE _offset = 7`)
	void := base
	void.id = "void"
	if found := find(void); found[0] != nil {
		t.Errorf("a void: found %+v", found[0])
	}
	// A row that landed twice is one usage.
	s.exec(t, `INSERT INTO usage_tracking SELECT * FROM usage_tracking WHERE _offset = 7`)
	if found := find(base); found[0] == nil || found[0].Offset != 7 {
		t.Errorf("twice: found %+v", found[0])
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := s.FindUsage(ended, []EventKey{keyOf(base)}); err == nil {
		t.Error("no error when it could not ask")
	}
}
