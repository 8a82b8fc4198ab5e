package service

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"tenantflow/internal/billing"
	"tenantflow/internal/jobs"
)

// A month that can't be closed yet is put off to when it can; anything else is a failure.
func TestExportBilling_IsPutOff(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ until, want time.Time }{{now.Add(24 * time.Hour), now.Add(24 * time.Hour)}, {time.Time{}, now.Add(billingAgain)}} {
		var notYet *jobs.NotYetError
		err := putOff(fmt.Errorf("close: %w", &billing.NotYetError{Period: "2026-11", Until: c.until, Why: "w"}), now, now)
		if !errors.As(err, &notYet) || !notYet.Until.Equal(c.want) || notYet.Why != "period 2026-11 can't be closed yet: w" {
			t.Errorf("%+v", err)
		}
	}
	if err := errors.New("refused"); !errors.Is(putOff(err, now, now), err) {
		t.Error("a failure was put off")
	}
	behind := &billing.NotYetError{Period: "2026-11", Why: "usage.events: partition 3 is behind"}
	var notYet *jobs.NotYetError
	if err := putOff(behind, now, now.Add(-time.Second)); !errors.Is(err, behind) || errors.As(err, &notYet) {
		t.Errorf("events that are behind for hours are put off: %v", err)
	}
}
