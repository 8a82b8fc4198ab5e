package service

import (
	"context"
	"time"

	"tenantflow/internal/verify"
)

// verifyOnSchedule verifies at an interval what came since the last time, in one process of the installation at a time, until ctx ends. Without an
// interval it does nothing.
func verifyOnSchedule(ctx context.Context, r *Running) error {
	interval := r.Config.VerifyInterval
	if interval == 0 {
		return nil
	}
	store, err := OpenPostgres(ctx, r.Config, 0, r.Log)
	if err != nil {
		return err
	}
	defer store.Close()
	verify.NewSchedule(verify.ScheduleConfig{
		Interval: interval, Slots: store, Registry: r, Logger: r.Log,
		Verify: func(ctx context.Context, since time.Time) (*verify.Report, error) {
			return Verify(ctx, r.Config, Verifying{Since: since, Log: r.Log, Progress: func(verify.Progress) {}})
		},
	}).Run(ctx)
	return nil
}
