package main

import (
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/jobs"
	"tenantflow/sinks/postgres"
)

func TestJobs_ListShowsEveryJobAndItsLastSlot(t *testing.T) {
	t.Parallel()
	slot := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	all := []jobs.Job{
		{Name: events.JobRecommendations, Every: jobs.Month, Catchup: jobs.Each(time.Hour, 1)},
		{Name: events.JobBillingExport, Every: jobs.Month, Catchup: jobs.Each(time.Hour, 1)},
		{Name: events.JobBusinessMetrics, Every: jobs.Hour, Catchup: jobs.OnTime(time.Hour)},
	}
	list := listJobs(all, []postgres.JobInfo{
		{Job: events.JobBillingExport, PlannedTo: slot, LastSlot: &slot, State: postgres.SlotDone, Result: []byte(`{"companies":3}`), Missed: 2},
		{Job: events.JobBusinessMetrics, PlannedTo: slot, LastSlot: &slot, State: postgres.SlotQueued, Error: strings.Repeat("no\n", 100), Open: 1, Skipped: 4},
		{Job: "of_a_later_version", PlannedTo: slot},
	})
	if len(list) != 3 || list[0].Job != events.JobBillingExport || list[2].NextSlot != nil {
		t.Fatalf("got %+v", list)
	}
	table := jobsTable(list)
	for i, want := range []string{
		`billing_export month all 2026-12-01T00:00:00Z done 2027-01-01T00:00:00Z 0 2 0 {"companies":3}`,
		`business_metrics hour none 2026-12-01T00:00:00Z queued 2026-12-01T01:00:00Z 1 0 4 ` + strings.Repeat("no ", 26) + "no...",
		`recommendations month all none none none 0 0 0 `,
	} {
		if got := strings.Join(table.rows[i], " "); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestJobs_SlotIsABeginThatHasCome(t *testing.T) {
	t.Parallel()
	job := &jobs.Job{Name: events.JobBillingExport, Every: jobs.Month}
	now := time.Date(2026, 12, 15, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{"": "2026-12-01", "2026-11-01": "2026-11-01", "2026-11-01T01:00:00+01:00": "2026-11-01", "2026-12-01T00:00:00Z": "2026-12-01"} {
		if got, err := slotNamed(job, text, now); err != nil || got.UTC().Format(time.DateOnly) != want {
			t.Errorf("--slot %q: got %s, %v; want %s", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"2026-11-02": "is the begin of a month in UTC; the one that lies before it is 2026-11-01T00:00:00Z", "2027-01-01": "has not come yet", "november": "--slot november",
		"2026-11-01T00:00:00.5Z": "is the begin of a month",
	} {
		if got, err := slotNamed(job, text, now); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--slot %s: got %s, %v; want an error with %q", text, got, err, says)
		}
	}
}

func TestJobs_UnknownJobIsAnErrorOfUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"jobs", "run"}, {"jobs", "run", "lunch"}, {"jobs", "run", "lunch", "dinner"}} {
		_, stderr, code := tenantflow(t, nil, args...)
		if code != exitInvalid || !strings.Contains(stderr, "choose from ") {
			t.Errorf("%q: exit %d, %s", args, code, stderr)
		}
	}
}
