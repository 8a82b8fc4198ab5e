package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tenantflow/events"
)

// A voiding is what became of one usage event that was wrong, and was taken back.
type voiding struct {
	command       string
	before, after string // rows, calls and data points of the user
	quota         reply  // when it was taken back
	counted       int64  // calls of the day before that
}

// takeBack runs the service once more, when everything is compared, for one usage event that is wrong.
func (d *demo) takeBack(ctx context.Context) error {
	if err := d.service.start(); err != nil {
		return err
	}
	if err := d.voidOne(ctx); err != nil {
		return err
	}
	if err := d.service.stop(); err != nil {
		return err
	}
	if err := d.service.command(ctx, "verify"); err != nil {
		return err
	}
	d.say("a wrong usage event taken back, and all of it verified again")
	return nil
}

// voidOne has a user of the story's company use something by mistake, and takes that back.
func (d *demo) voidOne(ctx context.Context) error {
	const id, points = "demo-mistake", 40
	user := storyCompany + "-u1"
	at := time.Now().UTC().Add(-10 * time.Minute).Truncate(time.Second)
	e := &events.Envelope{ID: id, Source: "/demo", Type: events.TypeUsageRecorded, Time: at, Data: fmt.Appendf(nil,
		`{"company_id":%q,"user_id":%q,"subscription_tier":"free","service_name":"market-data","api_endpoint":"/v1/ticks","data_points_consumed":%d,"processing_time_ms":1}`,
		storyCompany, user, points)}
	if err := d.publish(ctx, message(events.TopicUsage, storyCompany, e)); err != nil {
		return fmt.Errorf("publish a usage event to be taken back: %w", err)
	}
	got := &d.result.voiding
	got.command = fmt.Sprintf(`tenantflow usage void --company %s --user %s --source /demo --id %s --timestamp %s --reason "a mistake"`, storyCompany, user, id, at.Format(time.RFC3339))
	today := at.Format(time.DateOnly) == time.Now().UTC().Format(time.DateOnly) // else it counts for the day before
	var err error
	if got.before, err = d.awaitUsage(ctx, user, fmt.Sprintf("1 row, 1 call, %d data points", points)); err != nil {
		return err
	}
	if got.quota, err = d.awaitQuota(ctx, user, func(r reply) bool { return !today || r.Usage == 1 }); err != nil {
		return err
	}
	got.counted = got.quota.Usage
	if err := d.service.command(ctx, "usage", "void", "--company", storyCompany, "--user", user, "--source", "/demo", "--id", id, "--timestamp", at.Format(time.RFC3339),
		"--reason", "a mistake", "--wait", "60s"); err != nil {
		return err
	}
	if got.after, err = d.awaitUsage(ctx, user, "2 rows, 0 calls, 0 data points"); err != nil {
		return err
	}
	got.quota, err = d.awaitQuota(ctx, user, func(r reply) bool { return r.Usage == 0 })
	return err
}

// awaitUsage asks ClickHouse until it has of a user what it should.
func (d *demo) awaitUsage(ctx context.Context, user, want string) (got string, err error) {
	err = d.until(ctx, "the usage of "+user+" to be "+want, func() (bool, error) {
		var rows, calls, points int64
		err := d.db.QueryRowContext(ctx, "SELECT toInt64(count()), toInt64(sum(sign)), toInt64(sum(sign * toInt64(data_points_consumed))) FROM usage_tracking WHERE user_id = ?", user).
			Scan(&rows, &calls, &points)
		got = fmt.Sprintf("%s, %s, %d data points", plural(rows, "row"), plural(calls, "call"), points)
		return got == want, err
	})
	return got, err
}

// awaitQuota asks for a user's quota until it is as it should be.
func (d *demo) awaitQuota(ctx context.Context, user string, right func(reply) bool) (got reply, err error) {
	err = d.until(ctx, "the quota of "+user, func() (bool, error) {
		var err error
		got, err = d.ask(ctx, user)
		return got.code == http.StatusOK && right(got), err
	})
	return got, err
}

// until looks again and again until it is so.
func (d *demo) until(ctx context.Context, what string, so func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		done, err := so() // there is no answer while the service starts
		if err == nil && done {
			return nil
		}
		if err := d.service.died(); err != nil {
			return err
		}
		if time.Since(began) > stalled {
			return errors.Join(err, fmt.Errorf("waited for %s for %s; the service's log ends:\n%s", what, stalled, d.service.logTail()))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
