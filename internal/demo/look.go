package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
)

// A result is what was found, and what was predicted.
type result struct {
	expected model.Expected

	published int64 // acknowledged messages
	logged    int64 // messages in the log
	killedAt  []kill
	consuming time.Duration // from the first start of the service to the last commit
	atWork    time.Duration // of that, while rows came in
	views     model.Tables
	rows      model.Tables
	letters   map[events.Reason]int64
	verified  bool
	quotas    *quotas
	counted   counted
	tenants   tenants
	voiding   voiding
	hourly    []sample
	monthly   []sample
	differ    []model.Difference
}

// A sample is one line of a view and what the model has for it.
type sample struct {
	key       string
	got, want model.Sums
}

// look reads what there is, by the model's own queries, and has the service verify itself.
func (d *demo) look(ctx context.Context) error {
	r := &d.result
	switch err := d.service.command(ctx, "verify"); {
	case err == nil:
		r.verified = true
	case errors.As(err, new(*exec.ExitError)):
		d.say("%v", err)
	default:
		return err
	}
	var err error
	if r.views, err = model.ReadViews(ctx, d.db); err != nil {
		return fmt.Errorf("read the views: %w", err)
	}
	if r.rows, err = model.ReadRows(ctx, d.db); err != nil {
		return fmt.Errorf("read the rows: %w", err)
	}
	if r.letters, err = model.ReadDeadLetters(ctx, d.client, events.DeadLetterTopic(events.TopicUsage)); err != nil {
		return err
	}
	if err := d.lookAtQuotas(ctx); err != nil {
		return err
	}
	if err := d.lookAtCompanies(ctx); err != nil {
		return err
	}
	r.compare()
	return nil
}

// compare notes all that is not as predicted.
func (r *result) compare() {
	want := r.expected
	r.differ = slices.Concat(model.Compare(r.views, want.Tables), model.CompareDeadLetters(r.letters, want.DeadLetters))
	for _, difference := range model.Compare(r.rows, want.Tables) {
		difference.Where = "summed from the rows: " + difference.Where
		r.differ = append(r.differ, difference)
	}
	if got := r.duplicates(); got != want.Duplicates {
		r.differ = append(r.differ, model.Difference{Where: "duplicates", Got: number(got), Want: number(want.Duplicates)})
	}
	if r.published != want.Messages {
		r.differ = append(r.differ, model.Difference{Where: "published", Got: number(r.published), Want: number(want.Messages)})
	}
	r.differ = append(r.differ, r.quotas.compare(&r.counted)...)
	r.differ = append(r.differ, r.tenants.compare()...)
	r.hourly = largest(r.views.Hourly, want.Tables.Hourly)
	r.monthly = largest(r.views.Monthly, want.Tables.Monthly)
}

// duplicates is what of the log became neither a row nor a dead letter.
func (r *result) duplicates() int64 { return r.logged - r.rows.Rows - r.letterTotal() }

func (r *result) letterTotal() int64 {
	var n int64
	for _, count := range r.letters {
		n += count
	}
	return n
}

func (r *result) passed() bool { return r.verified && len(r.differ) == 0 && len(r.killedAt) == kills }

// largest picks the groups with the most rows.
func largest(got, want map[string]model.Sums) []sample {
	const some = 4
	keys := slices.SortedFunc(maps.Keys(got), func(a, b string) int {
		if n := got[b].Rows - got[a].Rows; n != 0 {
			return int(n)
		}
		return strings.Compare(a, b)
	})
	var samples []sample
	for _, key := range keys[:min(some, len(keys))] {
		samples = append(samples, sample{key: key, got: got[key], want: want[key]})
	}
	return samples
}
