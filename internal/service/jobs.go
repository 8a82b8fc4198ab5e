package service

import "context"

// runJobs does what is due at intervals, until ctx ends.
func runJobs(ctx context.Context, r *Running) error {
	r.Ready()
	if err := verifyOnSchedule(ctx, r); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
