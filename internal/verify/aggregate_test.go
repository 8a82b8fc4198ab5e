package verify_test

import (
	"fmt"
	"sync"
	"testing"

	"tenantflow/internal/model"
	"tenantflow/internal/verify"
)

// tampering changes a total by inserting into a store, as a view that ran twice or not at all would. Whatever the order in which they run, each
// is of a key of its own: the one out of nothing is neither the first nor the last.
func tampering() map[string]string {
	return map[string]string{
		"hourly too much": `INSERT INTO usage_hourly_store SELECT company_id, subscription_tier, service_name, hour, 1, 7, '0.5', '0.000001'
			FROM usage_hourly_store ORDER BY company_id, hour, subscription_tier, service_name LIMIT 1`,
		"hourly too little": `INSERT INTO usage_hourly_store SELECT company_id, subscription_tier, service_name, hour, -1, -7, '-0.5', '-12345678901.123456'
			FROM usage_hourly_store ORDER BY company_id DESC, hour DESC, subscription_tier DESC, service_name DESC LIMIT 1`,
		"hourly out of nothing": `INSERT INTO usage_hourly_store SELECT 'c00000-none', 'pro', 'none', max(hour), 3, 0, '0', '0' FROM usage_hourly_store`,
		"daily sum": `INSERT INTO usage_daily_store SELECT company_id, user_id, subscription_tier, day, 0, 0, '0.000001', toDateTime64(0, 3, 'UTC')
			FROM usage_daily_store ORDER BY company_id, user_id, day, subscription_tier LIMIT 1`,
		"daily maximum": `INSERT INTO usage_daily_store SELECT company_id, user_id, subscription_tier, day, 0, 0, '0', toDateTime64('2099-01-01 00:00:00.001', 3, 'UTC')
			FROM usage_daily_store ORDER BY company_id DESC, user_id DESC, day DESC, subscription_tier DESC LIMIT 1`,
		"monthly sum": `INSERT INTO billing_monthly_store SELECT company_id, user_id, subscription_tier, billing_period, -2, 5, '1', toDateTime64(0, 3, 'UTC')
			FROM billing_monthly_store ORDER BY company_id, billing_period, user_id, subscription_tier LIMIT 1`,
		"monthly sum and maximum": `INSERT INTO billing_monthly_store SELECT company_id, user_id, subscription_tier, billing_period, -2, 5, '1', toDateTime64('2099-01-01 00:00:00.001', 3, 'UTC')
			FROM billing_monthly_store ORDER BY company_id DESC, billing_period DESC, user_id DESC, subscription_tier DESC LIMIT 1`,
	}
}

func tamperedTotals(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	for round := range 2 { // the same again: its correction has the same sums as the first one
		for name, query := range tampering() {
			if err := in.db.Exec(t.Context(), query); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		r := in.verify(t, false)
		want(t, r, map[verify.Kind]int64{verify.WrongTotal: 7})
		for i, different := range []int64{3, 2, 2} {
			if r.Aggregates[i].Different != different {
				t.Errorf("round %d: %+v, want %d differences", round, r.Aggregates[i], different)
			}
		}
		r = in.verify(t, true)
		want(t, r, nil)
		if r.Repairs.TotalsMended != 5 || r.Repairs.TotalsRebuilt != 2 {
			t.Errorf("round %d: repaired %+v", round, r.Repairs)
		}
		in.matchesModel(t, g)
	}
	written := in.written(t)
	if r := in.verify(t, true); r.Differences() != 0 || r.Repairs != (verify.Repairs{}) {
		t.Errorf("the second repair: %+v, %+v", r.Repairs, r.Findings)
	}
	if again := in.written(t); again != written {
		t.Errorf("the second repair wrote to the stores: %d inserts before, %d after", written, again)
	}
}

// written counts the inserts into the stores. Merges do not change it.
func (in *installation) written(t *testing.T) int64 {
	t.Helper()
	return in.number(t, `SELECT toInt64(sum(last)) FROM (SELECT max(max_block_number) AS last FROM system.parts
		WHERE database = currentDatabase() AND table LIKE '%_store' AND active GROUP BY table, partition_id)`)
}

func twoRepairs(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	for name, query := range tampering() {
		if err := in.db.Exec(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var both sync.WaitGroup
	for range 3 {
		v := in.verifier(t)
		both.Go(func() {
			if _, err := v.Run(t.Context(), true); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	want(t, in.verify(t, false), nil)
	in.matchesModel(t, g)
}

func smallMaximum(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	in.exec(t, `ALTER TABLE usage_daily_store UPDATE last_activity = toDateTime64('2001-01-01 00:00:00', 3, 'UTC') WHERE 1 SETTINGS mutations_sync = 2`)
	keys := int64(len(g.Expected().Tables.Daily))
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.WrongTotal: keys})
	r := in.verify(t, true)
	want(t, r, nil)
	if r.Repairs.TotalsMended != keys {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

func busyKey(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	query := tampering()["daily sum"]
	if err := in.db.Exec(t.Context(), query); err != nil {
		t.Fatal(err)
	}
	// A row whose deadline lies ahead, as there always is one in a key with traffic.
	in.exec(t, "CREATE TABLE twin AS usage_tracking")
	in.exec(t, `INSERT INTO twin SELECT * REPLACE (now64(3) + INTERVAL 1 HOUR AS _insert_by) FROM usage_tracking
		ORDER BY company_id, user_id, toDate(timestamp), subscription_tier LIMIT 1`)
	in.exec(t, `ALTER TABLE usage_tracking DELETE WHERE (_partition, _offset) IN (SELECT _partition, _offset FROM twin) SETTINGS mutations_sync = 2`)
	in.exec(t, "ALTER TABLE usage_tracking ATTACH PARTITION ALL FROM twin")
	v := in.verifier(t)
	aggregates, err := v.CompareAggregates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, different := range []int64{0, 1, 0} {
		if a := aggregates[i]; a.Different != different || a.Busy != 0 {
			t.Errorf("%+v, want %d differences and no busy key", a, different)
		}
	}
	want(t, in.verify(t, true), nil)
	in.matchesModel(t, g)
}

func TestTheKeysOfAPendingInsertAreNotJudged(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 1, usual())
	partition, offset := in.aRow(t, 50)
	// As after a crash between the rows and their views: the group's position is before them, with the intent.
	in.exec(t, "TRUNCATE TABLE usage_daily_store")
	before := in.verify(t, false)
	if before.Aggregates[1].Different == 0 {
		t.Fatal("an empty store is not found")
	}
	in.commitWith(t, partition, 0, fmt.Sprintf("tf1 %d 1 0 202601:0000000000000001", offset+1_000_000))
	r := in.verify(t, true)
	if a := r.Aggregates[1]; a.Different != 0 || a.Busy != before.Aggregates[1].Different {
		t.Errorf("%+v, want %d busy keys", a, before.Aggregates[1].Different)
	}
	if r.Repairs != (verify.Repairs{}) || r.Sum().Judged != 0 || r.Sum().Pending == 0 {
		t.Errorf("%+v, %+v", r.Repairs, r.Sum())
	}
}
