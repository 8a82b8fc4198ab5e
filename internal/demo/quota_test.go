package demo

import (
	"maps"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
)

const testDay = "2026-11-23"

// noon is when the quotas of these tests are asked for.
func noon(t *testing.T, day string) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	return at.Add(12 * time.Hour)
}

// traffic is what three users of two companies have done: u-1 in two tiers, u-2 also on days before.
func traffic() model.Tables {
	return model.Tables{Daily: map[string]model.Sums{
		"acme|u-1|free|" + testDay:   {Rows: 60, DataPoints: 600},
		"acme|u-1|pro|" + testDay:    {Rows: 40, DataPoints: 400},
		"acme|u-2|pro|" + testDay:    {Rows: 85, DataPoints: 850},
		"acme|u-2|pro|2026-11-21":    {Rows: 7, DataPoints: 70},
		"acme|u-2|pro|2026-11-20":    {Rows: 8, DataPoints: 80},
		"globex|u-3|free|" + testDay: {Rows: 30, DataPoints: 300},
		"globex|u-4|free|2026-10-01": {Rows: 1, DataPoints: 1},
	}}
}

// asPredicted is what a service that makes no mistake leaves behind.
func asPredicted(t *testing.T, q *quotas) *counted {
	t.Helper()
	got := &counted{at: noon(t, testDay), counters: map[userDay]counter{}, events: q.thresholds(), asked: 2, answered: 2}
	for key, c := range q.counters {
		if kept(key.day, got.at) {
			got.counters[key] = c
		}
	}
	return got
}

func TestAUserIsPickedOnBothSidesOfTheLimitHoweverFewEventsThereAre(t *testing.T) {
	t.Parallel()
	q := newQuotas(traffic(), noon(t, testDay))
	if q.near != "u-2" || q.over != "u-1" || q.limitOf("u-1") != 100 || q.tenants[0].tier != "pro" || q.limitOf("u-3") != 1000 {
		t.Errorf("near %s, over %s, limits %d and %d of %+v", q.near, q.over, q.limitOf("u-1"), q.limitOf("u-3"), q.tenants)
	}
	if got := q.counters[userDay{"u-1", testDay}]; got != (counter{100, 1000}) {
		t.Errorf("the tiers of a user are not added up: %+v", got)
	}
	want := map[string]threshold{
		events.QuotaEventID("u-1", testDay, 80, 100):  {"u-1", 80},
		events.QuotaEventID("u-1", testDay, 100, 100): {"u-1", 100},
		events.QuotaEventID("u-2", testDay, 80, 100):  {"u-2", 80},
	}
	if got := q.thresholds(); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestCountersAreKeptForTheirDayAndTheLateness(t *testing.T) {
	t.Parallel()
	for day, want := range map[string]bool{testDay: true, "2026-11-22": true, "2026-11-21": true, "2026-11-20": false} {
		if got := kept(day, noon(t, testDay)); got != want {
			t.Errorf("%s is kept: %t", day, got)
		}
	}
}

func TestEveryMistakeInCountingIsNamed(t *testing.T) {
	t.Parallel()
	id := events.QuotaEventID("u-2", testDay, 80, 100)
	for want, mistake := range map[string]func(*counted){
		"":                           func(*counted) {},
		"quota of u-1 on " + testDay: func(c *counted) { c.counters[userDay{"u-1", testDay}] = counter{99, 990} },
		"quota of u-2 on 2026-11-21": func(c *counted) { delete(c.counters, userDay{"u-2", "2026-11-21"}) },
		"quota of u-9 on " + testDay: func(c *counted) { c.counters[userDay{"u-9", testDay}] = counter{1, 1} },
		"expiry of quota_other:{u}":  func(c *counted) { c.immortal = []string{"quota_other:{u}"} },
		"threshold events of u-1":    func(c *counted) { c.due = []userDay{{"u-1", testDay}} },
		"threshold event " + id:      func(c *counted) { delete(c.events, id) },
		"threshold event 7":          func(c *counted) { c.events["7"] = threshold{"u-3", 80} },
		"GET quota":                  func(c *counted) { c.wrong = []string{"500"} },
		"no answer":                  func(c *counted) { c.answered = 0 },
	} {
		q := newQuotas(traffic(), noon(t, testDay))
		got := asPredicted(t, q)
		mistake(got)
		found := model.Describe(q.compare(got))
		if want == "" && found != "" || want != "" && (strings.Count(found, "\n") != 1 || !strings.Contains(found, want)) {
			t.Errorf("%q: found %q", want, found)
		}
	}
}

func TestAMidnightOnTheWayIsNoMistake(t *testing.T) {
	t.Parallel()
	q := newQuotas(traffic(), noon(t, testDay))
	got := asPredicted(t, q)
	got.at = noon(t, "2026-11-24")
	delete(got.counters, userDay{"u-2", "2026-11-21"})                // expired meanwhile
	delete(got.events, events.QuotaEventID("u-1", testDay, 100, 100)) // counted when its day was over
	if found := q.compare(got); len(found) > 0 {
		t.Error(model.Describe(found))
	}
	got.counters[userDay{"u-1", testDay}] = counter{}
	if found := q.compare(got); len(found) != 1 {
		t.Errorf("a counter of the day before is not looked at: %s", model.Describe(found))
	}
	var out strings.Builder
	r := result{quotas: q, counted: *got}
	r.reportQuotas(&out)
	if !strings.Contains(out.String(), "it is a new day") {
		t.Errorf("the report does not say why there are fewer events:\n%s", &out)
	}
}

func TestNobodyIsNearALimitWhenTheDayHasJustBegun(t *testing.T) {
	t.Parallel()
	q := newQuotas(traffic(), noon(t, "2026-11-24"))
	if q.near != "" || q.over != "" || len(q.thresholds()) != 0 || len(q.watched()) != 1 {
		t.Errorf("near %q, over %q, %d events, asked for: %q", q.near, q.over, len(q.thresholds()), q.watched())
	}
}
