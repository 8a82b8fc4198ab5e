package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/service"
	"tenantflow/internal/verify"
)

// verifyFlags are the flags of verify.
type verifyFlags struct {
	repair  bool
	dryRun  bool
	yes     bool
	lower   bool
	since   string
	samples int
}

func newVerifyCommand(a *app) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [--repair] [--since T]",
		Short: "Prove that no event was lost, none counted or charged twice and no audit record changed; with --repair mend what can be mended",
		Long: `Verify reads the log of usage events up to the committed offsets and compares it with what is stored:

  - every offset is a row, a known duplicate or a dead letter, and every row is at the place of its own event;
  - no event has two rows;
  - every hourly, daily and monthly total is what the rows add up to.

If the address of Dragonfly is set, it also looks at quotas:

  - the counters of every user, of today and of the days that are kept, are what the log says.

If the address of Postgres is set, it also looks at companies:

  - every company and subscription event is in the inbox or a dead letter;
  - every result is on its topic once, as the inbox has it, and there is none that no event has led to;
  - the audit log of each company is a whole chain: no record was changed, removed or put in;
  - its subscription, transactions, payments and history are what the audit log says, and no period is charged twice;
  - its users and limits are the same wherever they are kept;
  - the last configuration that was published of each is the one it has.

With --since, only what came since a time is looked at, and it says what is not.

The service may run meanwhile; what is under way is not judged. With --repair, later copies of an event are removed,
wrong totals are corrected, configurations and missing results published again; then everything is verified once more, and that is what is
reported. What a repair is about to do is shown before it does anything. On a terminal it then asks, unless --yes is given; elsewhere it goes
on. With --dry-run it only shows it. Money is never repaired: what is wrong in the books is named.
Where counters are wrong, the running service is made to count again from the first day with a wrong one: run verify again when it
has. A missing event is not repaired here: it has to be published again. A total that is higher than its rows is not lowered where rows may be
missing, unless --lower says that none is.

Exit codes: 0 everything is as it should be, if need be after the repair; 1 differences are left, or something could not
be judged; 2 the configuration is wrong, or the topic or the tables do not exist. docs/verify.md says what each finding means and what to do.`,
		Example: `  tenantflow verify
  tenantflow verify --since 2h
  tenantflow verify --repair --dry-run
  tenantflow verify --repair
  tenantflow verify -o json > report.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.samples < 0 {
				return invalid("--samples %d is negative", f.samples)
			}
			if f.lower && !f.repair {
				return invalid("--lower says what --repair may do; give both")
			}
			if (f.dryRun || f.yes) && !f.repair {
				return invalid("--dry-run and --yes are about --repair; give that as well")
			}
			return a.verify(cmd, f)
		},
	}
	cmd.Flags().BoolVar(&f.repair, "repair", false, "remove later copies of an event, correct wrong totals, recount wrong counters, publish stale configurations and missing results again")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "with --repair: show what it would do, and change nothing")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "with --repair: do not ask on a terminal")
	cmd.Flags().StringVar(&f.since, "since", "", "look only at what came since then: a time (RFC 3339) or how long ago (2h, 90m)")
	cmd.Flags().BoolVar(&f.lower, "lower", false, "with --repair: make totals what the rows add up to also where rows may be missing")
	cmd.Flags().IntVar(&f.samples, "samples", 10, "how many findings of each kind the table shows (JSON has up to 1000)")
	return cmd
}

func (a *app) verify(cmd *cobra.Command, f verifyFlags) error {
	cfg, err := a.config(config.Kafka, config.ClickHouse)
	if err != nil {
		return err
	}
	since, err := sinceTime(f.since, time.Now())
	if err != nil {
		return err
	}
	shown := newProgress(cmd.ErrOrStderr(), "verify")
	report, err := service.Verify(cmd.Context(), cfg, service.Verifying{
		Repair: f.repair && !f.dryRun, Lower: f.lower, Since: since, Log: a.logger(cfg, cmd.ErrOrStderr()),
		Approve: func(p verify.Plan) (bool, error) { return a.approve(cmd, p, f.yes) },
		Progress: func(p verify.Progress) {
			shown.update(slog.String("stage", p.Stage), slog.Int64("done", p.Done), slog.Int64("of", p.Total), slog.Int64("differences", p.Differences))
		},
	})
	if errors.Is(err, verify.ErrNotThere) {
		return invalid("%w (has `tenantflow migrate` been run?)", err)
	}
	if err != nil {
		return err
	}
	shown.done(slog.Int64("offsets", report.Sum().Judged), slog.Int64("differences", report.Differences()))
	if f.dryRun && a.output != outputJSON {
		for _, line := range planLines(report.Plan) {
			if !strings.HasPrefix(line, " ") { // else it is a thing that the line above is about
				line = "a repair would " + line
			}
			report.Notes = append(report.Notes, line)
		}
	}
	if err := a.showReport(cmd.OutOrStdout(), report, f.samples); err != nil {
		return err
	}
	switch different, unknown := report.Differences(), report.NotJudged(); {
	case different > 0:
		return fmt.Errorf("%d differences", different)
	case len(report.Unproven) > 0:
		return errors.New(report.Unproven[0])
	case unknown > 0:
		return fmt.Errorf("%d totals could not be judged: inserts into them were under way each time, or one is pending; run it again when fewer run", unknown)
	}
	return nil
}

// showReport prints a report: as JSON, or as tables under one another.
func (a *app) showReport(w io.Writer, r *verify.Report, samples int) error {
	if a.output == outputJSON {
		return a.show(w, r, nil)
	}
	fmt.Fprintf(w, "log of %s, group %s\n\n", r.Topic, r.Group)
	if err := a.show(w, nil, func() *table { return partitionTable(r) }); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := a.show(w, nil, func() *table { return aggregateTable(r) }); err != nil {
		return err
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(w)
		if err := a.show(w, nil, func() *table { return findingTable(r, samples) }); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	for _, line := range remarks(r) {
		fmt.Fprintln(w, line)
	}
	return nil
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

func partitionTable(r *verify.Report) *table {
	t := &table{head: []string{"partition", "log start", "committed", "log end", "judged", "rows", "duplicates", "dead letters", "expired", "no event", "missing", "differences"}}
	for _, p := range r.Partitions {
		t.add(strconv.Itoa(p.Partition), count(p.LogStart), count(p.Committed), count(p.LogEnd), count(p.Judged), count(p.Rows),
			count(p.Duplicates), count(p.DeadLetters), count(p.Expired), count(p.NoEvent), count(p.Missing), count(p.Differences))
	}
	s := r.Sum()
	t.add("all", "", "", "", count(s.Judged), count(s.Rows), count(s.Duplicates), count(s.DeadLetters), count(s.Expired), count(s.NoEvent), count(s.Missing), count(s.Differences))
	return t
}

func aggregateTable(r *verify.Report) *table {
	t := &table{head: []string{"totals", "keys", "different", "busy", "expired"}}
	for _, a := range r.Aggregates {
		t.add(a.View, count(a.Keys), count(a.Different), count(a.Busy), count(a.Expired))
	}
	return t
}

func findingTable(r *verify.Report, samples int) *table {
	t := &table{head: []string{"finding", "where", "event", "what"}}
	for _, g := range r.Findings.Sorted() {
		weight := "difference"
		if g.Information {
			weight = "for information"
		}
		t.add(string(g.Kind), fmt.Sprintf("%d times", g.Count), "", weight)
		for _, f := range g.Samples[:min(samples, len(g.Samples))] {
			t.add("", f.Where, f.Event, f.Detail)
		}
		if rest := g.Count - int64(min(samples, len(g.Samples))); rest > 0 {
			t.add("", fmt.Sprintf("and %d more", rest), "", "")
		}
	}
	return t
}

// remarks are the sentences under the tables: what was not judged, what was mended, and the verdict.
func remarks(r *verify.Report) []string {
	var lines []string
	say := func(n int64, format string) {
		if n > 0 {
			lines = append(lines, fmt.Sprintf(format, n))
		}
	}
	s := r.Sum()
	say(s.NotConsumed, "%d offsets are not consumed yet: not judged")
	say(s.Pending, "%d offsets of these belong to inserts whose outcome is not settled yet")
	say(s.RowsBefore, "%d rows are from before the start of the log: only counted")
	say(s.RowsAfter, "%d rows are from behind the committed offsets: only counted")
	say(r.OtherTopics, "%d rows are from other topics: only counted")
	say(r.DeadLetters.Gone, "%d offsets of the dead letter topic have left its log: an event whose dead letter was there counts as missing")
	say(r.DeadLetters.NoLetters, "%d records of the dead letter topic are no dead letters")
	say(r.NotJudged(), "%d totals differ while inserts into them are under way or pending: not judged")
	if c := r.Counters; c.Shares > 0 {
		lines = append(lines, fmt.Sprintf("%d counters of users' days were compared with %d events of the log", c.Shares, c.Events))
	}
	say(r.Counters.Uncounted, "%d offsets are not counted against quotas yet: not judged")
	say(r.Counters.NotInLog, "%d counters are of days of which the log does not hold everything: not judged, and a recount can't mend them")
	for _, i := range r.Inboxes {
		lines = append(lines, fmt.Sprintf("%s: %d events up to the committed offsets of %s, of which %d are in the inbox, %d dead letters and %d of the service's schedule",
			i.Topic, i.Judged, i.Group, i.InInbox, i.DeadLetters, i.Schedule))
		say(i.NotConsumed, "%d offsets there are not consumed yet: not judged")
		say(i.TooOld, "%d events there are older than the dead letters that are kept: not judged")
	}
	if r.Results.Events > 0 {
		lines = append(lines, fmt.Sprintf("%d results of %d events in the inbox were looked for among %d records", r.Results.Looked, r.Results.Events, r.Results.Records))
	}
	say(r.Results.Voids, "%d voids that were decided were looked for among the rows")
	say(r.Results.YoungVoids, "%d voids were published just now, and may not be stored yet: not judged")
	say(r.Results.TooOld, "%d results are older than what their topics hold: not judged")
	if b := r.Books; b.Companies > 0 {
		lines = append(lines, fmt.Sprintf("%d companies: their audit logs, %d transactions, %d payments and %d users were looked at", b.Companies, b.Transactions, b.Payments, b.Users))
	}
	say(r.Books.Untold, "%d companies have no whole audit log from their registration on: their books were looked at only in themselves")
	say(r.Companies, "%d published configurations were compared")
	lines = append(lines, r.Notes...)
	say(r.Repairs.RowsRemoved, "repaired: %d later copies of events removed")
	say(r.Repairs.DeadLetters, "repaired: %d dead letters written for those of them with other data")
	say(r.Repairs.TotalsMended, "repaired: %d totals corrected by their difference")
	say(r.Repairs.Configs, "repaired: %d configurations published again")
	say(r.Repairs.Results, "repaired: %d results published again")
	say(r.Repairs.Sums, "repaired: %d counters made what their partitions have counted")
	if r.Repairs.Recounts > 0 {
		lines = append(lines, fmt.Sprintf("repaired: the running service counts %s and the days since again; run verify again when it has", r.Repairs.RecountsFrom))
	}
	say(r.Repairs.TotalsRebuilt, "repaired: %d totals whose largest timestamp was too large")
	if n := r.Differences(); n > 0 {
		lines = append(lines, r.Unproven...)
		return append(lines, fmt.Sprintf("FAILED: %d differences in %d offsets (%.1f s)", n, s.Judged, r.Seconds))
	}
	if len(r.Unproven) > 0 {
		lines = append(lines, r.Unproven...)
		return append(lines, fmt.Sprintf("NOT PROVEN: no differences in %d offsets, but not everything could be judged (%.1f s)", s.Judged, r.Seconds))
	}
	if n := r.NotJudged(); n > 0 {
		return append(lines, fmt.Sprintf("NOT PROVEN: no differences in %d offsets, but %d totals could not be judged (%.1f s)", s.Judged, n, r.Seconds))
	}
	return append(lines, fmt.Sprintf("passed: %d offsets are accounted for, and all judged totals are right (%.1f s)", s.Judged, r.Seconds))
}
