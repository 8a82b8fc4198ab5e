package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/replay"
	"tenantflow/internal/service"
	"tenantflow/internal/task"
	"tenantflow/internal/telemetry"
)

// replayFlags are the flags of replay.
type replayFlags struct {
	from, to            string
	partitions          []int
	companies, types    []string
	idsFrom             string
	file, archive       string
	effects             []string
	dryRun, yes, detach bool
	list                string
	rate                float64
	maxLag              time.Duration

	// What check makes of them.
	topic        string // without prefix
	identities   [][]byte
	lower, upper replay.Bound
}

func newReplayCommand(a *app) *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay TOPIC",
		Short: "Find events whose effect is missing and publish them again",
		Long: `Replay reads a topic and publishes those events again whose effect is missing in the stores: usage without a row in
ClickHouse, company and subscription events that the inbox does not know. It writes to no store itself: the original bytes,
key and headers go to the original topic and partition once more, and the service decides about them as about any event. An
event that has had its effect is left alone, so a replay may be repeated at any time, and beside live traffic.

Without --from, --to and a filter it looks at everything that the topic holds and the service has consumed. A bound is a time
(2026-11-23, 2026-11-23T10:00:00Z), which is compared with the times of the records in Kafka, or an offset, which counts in
every partition chosen. The lower bound is included, the upper one is not.

It shows how many events it would publish, and asks. With --yes it begins at once; with --dry-run it publishes nothing.

A replay is a task: it goes on where it was if its process dies, and a topic has at most one. Ctrl-C stops it, and
"tenantflow task resume" goes on. With --detach the part jobs of the service works on it.

Each record read has one outcome: published; already_there (it has had its effect: a success, too); settled (there is nothing to
bring back: it is or was a dead letter); conflict (another event has its identity); erased and purged (its user or company is to
be forgotten); filtered; too_old (older than what the table keeps); failed (too large to be published with the added headers, or gone from the log).

Exit codes: 0 done; 1 failed, stopped, or another task is active on the topic; 2 the command line or the configuration is
wrong.`,
		Example: `  tenantflow replay usage.events --from 2026-11-23 --to 2026-11-24 --dry-run
  tenantflow replay usage.events --company acme --company globex --yes
  tenantflow replay usage.events --dry-run --list missing.jsonl
  tenantflow replay usage.events --ids-from missing.jsonl --yes --detach
  tenantflow replay usage.events --from-archive /var/lib/tenantflow/archive --from 2026-06-01 --to 2026-07-01`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.replayTopic(cmd, &f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "the first record: a time or an offset")
	flags.StringVar(&f.to, "to", "", "the record behind the last one: a time or an offset")
	flags.IntSliceVar(&f.partitions, "partition", nil, "only these partitions")
	flags.StringSliceVar(&f.companies, "company", nil, "only events of these companies")
	flags.StringSliceVar(&f.types, "type", nil, "only events of these types")
	flags.StringVar(&f.idsFrom, "ids-from", "", "only the events that a file names, - for standard input: lines of JSON with source and id, or of both with a blank between them")
	flags.StringVar(&f.file, "from-file", "", "read this `FILE` of lines of JSON, as generate writes them, and not the topic's log")
	flags.StringVar(&f.archive, "from-archive", "", "read the topic's archive below this `DIRECTORY`, as archive writes it, and not the topic's log")
	flags.StringSliceVar(&f.effects, "effects", nil, "the consumers whose effects are brought back (default: that of the topic)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "publish nothing: count what is missing by day and company")
	flags.StringVar(&f.list, "list", "", "with --dry-run: write each missing event to a file, as lines for --ids-from")
	flags.Float64Var(&f.rate, "rate", 0, "how many events to publish a second at most (0: no bound)")
	flags.DurationVar(&f.maxLag, "max-lag", replay.DefaultMaxLag, "pause while the consumer group is further behind than this; go on below half of it")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.detach, "detach", false, "leave the work to the part jobs of the service, and return")
	return cmd
}

// check reads the flags.
func (f *replayFlags) check(cmd *cobra.Command, cfg *config.Config, args []string) (err error) {
	if len(args) == 0 {
		return invalid("name the topic to be replayed, for example usage.events")
	}
	if f.topic, err = topicNamed(args[0], cfg.TopicPrefix); err != nil {
		return err
	}
	if len(f.effects) == 0 {
		f.effects = replay.Effects(f.topic)
	}
	if err := replay.CheckEffects(f.topic, f.effects); err != nil {
		return config.Invalid{Err: err}
	}
	if f.lower, err = bound("--from", f.from); err != nil {
		return err
	}
	if f.upper, err = bound("--to", f.to); err != nil {
		return err
	}
	switch {
	case f.rate < 0:
		return invalid("--rate %v is negative", f.rate)
	case f.maxLag <= 0:
		return invalid("--max-lag %s is not above 0", f.maxLag)
	case f.list != "" && !f.dryRun:
		return invalid("--list lists what --dry-run finds; give both")
	case f.dryRun && f.detach:
		return invalid("--dry-run publishes nothing, so there is no task to detach")
	case f.file != "" && f.archive != "":
		return invalid("--from-file and --from-archive are two sources; give one")
	case f.file != "" && (f.from != "" || f.to != "" || len(f.partitions) > 0):
		return invalid("--from, --to and --partition are about the topic's log, and --from-file reads another source")
	}
	if f.idsFrom != "" {
		if f.identities, err = readIdentities(cmd, f.idsFrom); err != nil {
			return err
		}
	}
	if !f.dryRun && !f.yes && !telemetry.IsTerminal(cmd.InOrStdin()) {
		return invalid("replay publishes events and asks before it does, and there is no terminal to ask on: look with --dry-run, and give --yes")
	}
	return nil
}

// source is where the records come from. Another process may go on with the task, so its path is absolute.
func (f *replayFlags) source() (replay.SourceSpec, error) {
	spec := replay.SourceSpec{Kind: replay.SourceKafka}
	switch {
	case f.file != "":
		spec = replay.SourceSpec{Kind: replay.SourceFile, Path: f.file}
	case f.archive != "":
		spec = replay.SourceSpec{Kind: replay.SourceArchive, Path: f.archive}
	}
	if spec.Path == "" {
		return spec, nil
	}
	path, err := filepath.Abs(spec.Path)
	if err != nil {
		return spec, invalid("%s: %w", spec.Path, err)
	}
	spec.Path = path
	return spec, nil
}

// bound reads a time or an offset.
func bound(flag, text string) (replay.Bound, error) {
	if text == "" {
		return replay.Unbounded(), nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return replay.Bound{Offset: n}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return replay.Bound{Time: t, Offset: -1}, nil
		}
	}
	return replay.Bound{}, invalid("%s %s is neither a time (2026-11-23 or 2026-11-23T10:00:00Z) nor an offset", flag, text)
}

// maxIdentities bounds what --ids-from may name: they travel in the task's row.
const maxIdentities = 1_000_000

// readIdentities reads the events that a file names.
func readIdentities(cmd *cobra.Command, file string) ([][]byte, error) {
	in, name, err := openLines(cmd, file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var all [][]byte
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var one struct{ Source, ID string }
		if line[0] == '{' {
			err = json.Unmarshal(line, &one)
		} else if fields := strings.Fields(string(line)); len(fields) == 2 {
			one.Source, one.ID = fields[0], fields[1]
		}
		if err != nil || one.Source == "" || one.ID == "" {
			return nil, invalid("%s:%d names no event: want JSON with source and id, or both with a blank between them", name, n)
		}
		if len(all) == maxIdentities {
			return nil, invalid("%s names more than %d events: divide it", name, maxIdentities)
		}
		all = append(all, task.Identity(one.Source, one.ID))
	}
	if err := lines.Err(); err != nil {
		return nil, invalid("read %s: %w", name, err)
	}
	if len(all) == 0 {
		return nil, invalid("%s names no event", name)
	}
	return all, nil
}

func (a *app) replayTopic(cmd *cobra.Command, f *replayFlags, args []string) error {
	stores := []config.Store{config.Kafka, config.Postgres}
	if len(args) > 0 && strings.HasSuffix(args[0], "usage.events") {
		stores = append(stores, config.ClickHouse)
	}
	cfg, err := a.config(stores...)
	if err != nil {
		return err
	}
	if err := f.check(cmd, cfg, args); err != nil {
		return err
	}
	ctx := cmd.Context()
	tasks, err := service.OpenTasks(ctx, cfg, a.logger(cfg, cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer func() { _ = tasks.Close() }() // everything was answered before

	request := replay.Request{
		Topic: f.topic, Partitions: f.partitions, From: f.lower, To: f.upper, Companies: f.companies, Types: f.types,
		Identities: f.identities, Effects: f.effects, Rate: f.rate, MaxLag: f.maxLag,
	}
	if request.Source, err = f.source(); err != nil {
		return err
	}
	plan, err := tasks.Replay.Plan(ctx, request)
	var wrong *replay.RequestError
	if errors.As(err, &wrong) {
		return config.Invalid{Err: err}
	}
	if err != nil {
		return err
	}
	if f.dryRun || !f.yes {
		dry, err := a.dryRun(cmd, tasks, plan, f)
		if err != nil {
			return err
		}
		if err := a.showDry(cmd.OutOrStdout(), dry, plan, f.dryRun); err != nil || f.dryRun {
			return err
		}
		n := dry.Counts[task.Published]
		if n == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nothing is missing")
			return nil
		}
		if ok, err := ask(cmd, fmt.Sprintf("publish %d events to %s again?", n, plan.Topic)); err != nil || !ok {
			return errors.Join(err, errors.New("nothing was published"))
		}
	}
	return a.beginReplay(cmd, tasks, plan, f)
}

// beginReplay makes the task, and works on it or leaves it to the service.
func (a *app) beginReplay(cmd *cobra.Command, tasks *service.Tasks, plan *replay.Plan, f *replayFlags) error {
	t, err := tasks.Store.Create(cmd.Context(), task.New{Kind: task.Replay, Topic: plan.Topic, Spec: plan.Spec, By: operator()})
	if err != nil {
		return err
	}
	if f.detach {
		fmt.Fprintf(cmd.ErrOrStderr(), "the part jobs of the service works on the task: look at it with `tenantflow task show %s`\n", t.ID)
		return a.showTask(cmd.OutOrStdout(), t)
	}
	if plan.Unconsumed > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d records at the end are not consumed yet: they are left out, and take effect by themselves\n", plan.Unconsumed)
	}
	return a.workOn(cmd, tasks, t.ID)
}

// dryRun finds out what is missing.
func (a *app) dryRun(cmd *cobra.Command, tasks *service.Tasks, plan *replay.Plan, f *replayFlags) (_ *replay.DryReport, err error) {
	var missing func(*replay.Event) error
	if f.list != "" {
		file, err := os.Create(f.list)
		if err != nil {
			return nil, invalid("--list: %w", err)
		}
		out := bufio.NewWriter(file)
		defer func() { err = errors.Join(err, out.Flush(), file.Close()) }()
		lines := json.NewEncoder(out)
		missing = func(e *replay.Event) error { return lines.Encode(e) }
	}
	shown := newTaskProgress(cmd.ErrOrStderr(), "replay")
	report, err := tasks.Replay.Dry(cmd.Context(), plan, missing, func(done, total int64, counts task.Counts) {
		shown.update(done, total, counts, "")
	})
	if err != nil {
		return nil, err
	}
	shown.done(plan.Records, plan.Records, report.Counts)
	return report, nil
}

// showDry prints what a replay would do.
func (a *app) showDry(w io.Writer, r *replay.DryReport, plan *replay.Plan, whole bool) error {
	if a.output == outputJSON {
		if !whole {
			return nil // the result is that of the replay
		}
		return a.show(w, struct {
			*replay.DryReport
			Read       int64 `json:"read"`
			Unconsumed int64 `json:"unconsumed"`
		}{r, replay.Read(r.Counts), plan.Unconsumed}, nil)
	}
	if len(r.Missing) > 0 {
		if err := a.show(w, nil, func() *table {
			t := &table{head: []string{"day", "company", "missing"}}
			for _, d := range r.Missing {
				t.add(d.Day, d.Company, count(d.Events))
			}
			return t
		}); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if err := a.show(w, nil, func() *table { return outcomeTable(r.Counts, "would be published") }); err != nil {
		return err
	}
	if plan.Unconsumed > 0 {
		fmt.Fprintf(w, "%d records at the end are not consumed yet: they are left out, and take effect by themselves\n", plan.Unconsumed)
	}
	noteStillCounted(w, r.Counts)
	return nil
}

// noteStillCounted says what to do about rows that were deleted by hand.
func noteStillCounted(w io.Writer, c task.Counts) {
	if n := c[replay.StillCounted]; n > 0 {
		fmt.Fprintf(w, "up to %d of these events are in the totals although their rows are not in the table: the rows were deleted by hand. With the rows back, the totals count them twice; "+
			"`tenantflow verify --repair` makes the totals what the rows add up to, once the service has consumed them\n", n)
	}
}

// outcomeTable lists the outcomes that occurred, and their sum.
func outcomeTable(c task.Counts, published string) *table {
	t := &table{}
	for _, o := range replay.Outcomes() {
		name, n := o.String(), c[o.String()]
		if o == replay.Published {
			name = published
		} else if n == 0 {
			continue
		}
		t.add(strings.ReplaceAll(name, "_", " "), count(n))
	}
	t.add("read", count(replay.Read(c)))
	return t
}

// ask asks a person.
func ask(cmd *cobra.Command, question string) (bool, error) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// operator names who runs the command, for the row of the task.
func operator() string {
	name := os.Getenv("USER")
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// A taskProgress shows how far a task is: rate, share and time left.
type taskProgress struct {
	*progress
	first int64 // what was done at the beginning; negative: not known yet
}

func newTaskProgress(w io.Writer, command string) *taskProgress {
	return &taskProgress{progress: newProgress(w, command), first: -1}
}

// numbers are what is shown. Nothing is said of the whole where its size is not known.
func (p *taskProgress) numbers(done, total int64, counts task.Counts, waiting string) []slog.Attr {
	if p.first < 0 {
		p.first = done
	}
	var all []slog.Attr
	for _, name := range countNames(counts) {
		all = append(all, slog.Int64(name, counts[name]))
	}
	seconds := time.Since(p.start).Seconds()
	rate := 0.0
	if seconds > 0.5 {
		rate = float64(done-p.first) / seconds
		all = append(all, slog.Float64("per_second", float64(int64(rate))))
	}
	if total > 0 {
		share := float64(done) / float64(total)
		if p.terminal {
			all = append(all, slog.String("of", fmt.Sprintf("%.0f%%", 100*share)))
		} else {
			all = append(all, slog.Float64("share", float64(int64(share*10000))/10000))
		}
		if left := float64(total - done); rate > 0 && left > 0 {
			if p.terminal {
				all = append(all, slog.String("left", (time.Duration(left/rate)*time.Second).String()))
			} else {
				all = append(all, slog.Float64("seconds_left", float64(int64(left/rate))))
			}
		}
	}
	if waiting != "" {
		all = append(all, slog.String("waiting", waiting))
	}
	return all
}

func (p *taskProgress) update(done, total int64, counts task.Counts, waiting string) {
	p.progress.update(p.numbers(done, total, counts, waiting)...)
}

func (p *taskProgress) done(done, total int64, counts task.Counts) {
	p.progress.done(p.numbers(done, total, counts, "")...)
}
