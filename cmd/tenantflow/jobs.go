package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/jobs"
	"tenantflow/internal/service"
	"tenantflow/sinks/postgres"
)

func newJobsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Look at the jobs of the schedule, and have one run",
		Long: `A job is work that is due at the begin of every hour, day, week or month in UTC. Each of these times is a slot: one event on
maintenance.events, and one run by one of the processes with the part jobs. A slot whose process died is run again. What of the
slots is made up for that came while no process ran is each job's rule: all of them, the latest, or none.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobsListCommand(a), newJobsRunCommand(a))
	return cmd
}

// A listedJob is a job as jobs ls shows it.
type listedJob struct {
	Job        string          `json:"job"`
	Every      string          `json:"every"`
	Catchup    string          `json:"catchup"`
	LastSlot   *time.Time      `json:"last_slot"` // null: there was none
	State      string          `json:"state"`     // of the last slot; empty: there was none
	Attempts   int             `json:"attempts"`
	StartedAt  *time.Time      `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	Error      string          `json:"error,omitempty"`
	Result     json.RawMessage `json:"result"`
	NextSlot   *time.Time      `json:"next_slot"` // null: no process with the part jobs has run
	Open       int64           `json:"open"`      // slots that have come and not ended
	Missed     int64           `json:"missed"`
	Skipped    int64           `json:"skipped"`
}

func newJobsListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the jobs, the last slot of each and what came of it",
		Long: `Ls lists the jobs: how often each is due, which missed slots are made up for, its last slot with its state and result, and the next
slot. Open are slots that have come and not ended; missed, those that came while no process ran and are not made up for;
skipped, those that were left out because the one before them was still at work.

States: due (its event is to be in the log), queued (the event was read), running, done, failed (it was not done before it was
too late), skipped.`,
		Example: `  tenantflow jobs ls
  tenantflow jobs ls -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(config.Postgres)
			if err != nil {
				return err
			}
			store, err := service.OpenPostgres(cmd.Context(), cfg, 0, a.logger(cfg, cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			defer store.Close()
			known, err := store.Jobs(cmd.Context())
			if err != nil {
				return err
			}
			list := listJobs(service.Schedule(nil), known)
			return a.show(cmd.OutOrStdout(), list, func() *table { return jobsTable(list) })
		},
	}
}

// listJobs joins the jobs of this version with what the table says of them.
func listJobs(all []jobs.Job, known []postgres.JobInfo) []listedJob {
	list := make([]listedJob, len(all))
	for i := range all {
		one := listedJob{Job: all[i].Name, Every: string(all[i].Every), Catchup: string(all[i].Catchup.Rule)}
		if at := slices.IndexFunc(known, func(k postgres.JobInfo) bool { return k.Job == one.Job }); at >= 0 {
			k := &known[at]
			next := all[i].Every.Next(k.PlannedTo)
			one.LastSlot, one.State, one.Attempts, one.StartedAt, one.FinishedAt = inUTC(k.LastSlot), k.State, k.Attempts, inUTC(k.StartedAt), inUTC(k.FinishedAt)
			one.Error, one.Result, one.NextSlot = k.Error, k.Result, &next
			one.Open, one.Missed, one.Skipped = k.Open, k.Missed, k.Skipped
		}
		list[i] = one
	}
	slices.SortFunc(list, func(a, b listedJob) int { return strings.Compare(a.Job, b.Job) })
	return list
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	utc := t.UTC()
	return &utc
}

func jobsTable(list []listedJob) *table {
	const widest = 80
	t := &table{head: []string{"job", "every", "missed ones", "last slot", "state", "next slot", "open", "missed", "skipped", "result"}}
	for i := range list {
		j := &list[i]
		result := string(j.Result)
		if j.Error != "" {
			result = j.Error
		}
		if len(result) > widest {
			result = result[:widest] + "..."
		}
		t.add(j.Job, j.Every, j.Catchup, timeOrNone(j.LastSlot), orNone(j.State), timeOrNone(j.NextSlot), count(j.Open), count(j.Missed), count(j.Skipped),
			strings.ReplaceAll(result, "\n", " "))
	}
	return t
}

func timeOrNone(t *time.Time) string {
	if t == nil {
		return orNone("")
	}
	return t.Format(time.RFC3339)
}

func newJobsRunCommand(a *app) *cobra.Command {
	var at, by string
	var wait bool
	cmd := &cobra.Command{
		Use:   "run JOB",
		Short: "Have a slot of a job run that was missed, skipped or has failed",
		Long: `Run publishes the event of a slot of a job: one of the processes with the part jobs does the work. The slot is named by the time at
which its hour, day, week or month began; without --slot it is the one that lies in the present. What a job of a month works on
is usually the month before: see its own description.

A slot has one effect. One that is done, or under way, is not run again; --wait waits also for one that is under way.

Exit codes: 0 the event is published, with --wait: the work is done; 1 the slot is done or under way already, a store does not
answer, or with --wait the work has failed; 2 there is no such job or slot, or the configuration is wrong.`,
		Example: `  tenantflow jobs run billing_export --slot 2026-11-01T00:00:00Z
  tenantflow jobs run business_metrics --wait`,
		RunE: func(cmd *cobra.Command, args []string) error {
			job, err := jobNamed(args)
			if err != nil {
				return err
			}
			return a.runJob(cmd, job, at, by, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&at, "slot", "", "begin of the hour, day, week or month, as RFC 3339 or a UTC day (default: of the present one)")
	flags.StringVar(&by, "by", "", "who asks for it (default: the user and host of this process)")
	flags.BoolVar(&wait, "wait", false, "wait until the work has ended")
	return cmd
}

// jobNamed finds the job that the one argument names.
func jobNamed(args []string) (*jobs.Job, error) {
	all := service.Schedule(nil)
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	if len(args) != 1 {
		return nil, invalid("tenantflow jobs run wants one job; choose from %s", orNone(strings.Join(names, ", ")))
	}
	at := slices.Index(names, args[0])
	if at < 0 {
		return nil, invalid("there is no job %s; choose from %s", args[0], orNone(strings.Join(names, ", ")))
	}
	return &all[at], nil
}

// slotNamed reads the slot of a job that a flag names; empty: the present one.
func slotNamed(job *jobs.Job, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return job.Every.Floor(now), nil
	}
	at, err := timeFlag("slot", text, now)
	switch {
	case err != nil:
		return at, err
	case !job.Every.Floor(at).Equal(at):
		return at, invalid("--slot %s: a slot of %s is the begin of a %s in UTC; the one that lies before it is %s", text, job.Name, job.Every, job.Every.Floor(at).Format(time.RFC3339))
	case at.After(now):
		return at, invalid("--slot %s has not come yet", text)
	}
	return at, nil
}

func (a *app) runJob(cmd *cobra.Command, job *jobs.Job, flag, by string, wait bool) error {
	cfg, err := a.config(config.Kafka, config.Postgres)
	if err != nil {
		return err
	}
	store, err := service.OpenPostgres(cmd.Context(), cfg, 0, a.logger(cfg, cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer store.Close()
	now, err := store.Now(cmd.Context())
	if err != nil {
		return err
	}
	at, err := slotNamed(job, flag, now)
	if err != nil {
		return err
	}
	if by == "" {
		by = operator()
	}
	slot := events.Slot{Job: job.Name, At: at}
	asked := service.AskForSlot(cmd.Context(), cfg, store, slot, by)
	if asked != nil && !errors.Is(asked, service.ErrSlotTaken) {
		return asked
	}
	shown, err := store.JobSlot(cmd.Context(), slot)
	wait = wait && (asked == nil || shown != nil && shown.FinishedAt == nil)
	if err == nil && wait {
		shown, err = awaitSlot(cmd.Context(), store, slot)
	}
	if err != nil {
		return err
	}
	if shown == nil {
		return fmt.Errorf("the slot %s of job %s is gone", at.Format(time.RFC3339), job.Name)
	}
	if err := a.showSlot(cmd, job.Name, shown); err != nil {
		return err
	}
	switch {
	case asked != nil && !wait:
		return fmt.Errorf("the slot %s of job %s is not run again: it is %s", at.Format(time.RFC3339), job.Name, shown.State)
	case wait && shown.State != postgres.SlotDone:
		return fmt.Errorf("the slot %s of job %s is %s: %s", at.Format(time.RFC3339), job.Name, shown.State, shown.Error)
	}
	return nil
}

// awaitSlot waits until a slot has ended, or an attempt at it has failed.
func awaitSlot(ctx context.Context, store *postgres.Store, slot events.Slot) (*postgres.JobSlot, error) {
	const poll = 200 * time.Millisecond
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		found, err := store.JobSlot(ctx, slot)
		if err != nil || found == nil || found.FinishedAt != nil || found.State == postgres.SlotQueued && found.Error != "" {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for slot %s of job %s: %w", slot.At.Format(time.RFC3339), slot.Job, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// A shownSlot is a slot as jobs run shows it.
type shownSlot struct {
	Job        string          `json:"job"`
	Slot       time.Time       `json:"slot"`
	State      string          `json:"state"`
	Attempts   int             `json:"attempts"`
	AskedBy    string          `json:"asked_by,omitempty"`
	StartedAt  *time.Time      `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	Error      string          `json:"error,omitempty"`
	Result     json.RawMessage `json:"result"`
}

func (a *app) showSlot(cmd *cobra.Command, job string, s *postgres.JobSlot) error {
	one := shownSlot{job, s.Slot.UTC(), s.State, s.Attempts, s.AskedBy, inUTC(s.StartedAt), inUTC(s.FinishedAt), s.Error, s.Result}
	return a.show(cmd.OutOrStdout(), one, func() *table {
		t := &table{rows: [][]string{{"job", job}, {"slot", one.Slot.Format(time.RFC3339)}, {"state", one.State}, {"attempts", count(int64(one.Attempts))}}}
		for _, row := range [][2]string{{"asked by", one.AskedBy}, {"error", one.Error}, {"result", string(one.Result)}} {
			if row[1] != "" {
				t.add(row[0], row[1])
			}
		}
		return t
	})
}
