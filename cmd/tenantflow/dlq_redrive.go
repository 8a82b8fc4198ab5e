package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/redrive"
	"tenantflow/internal/service"
	"tenantflow/internal/task"
	"tenantflow/internal/telemetry"
)

// dlqRedriveFlags are the flags of dlq redrive.
type dlqRedriveFlags struct {
	letterFlags
	fix, by                  string
	all, dryRun, yes, detach bool
	rate                     float64
}

func newDLQRedriveCommand(a *app) *cobra.Command {
	var f dlqRedriveFlags
	cmd := &cobra.Command{
		Use:   "redrive ORIGIN... | filters | --all  [--fix FILE|JSON] [--dry-run]",
		Short: "Publish the events of dead letters again, as they are or patched",
		Long: `Redrive publishes the events of open dead letters again, to their original topic and partition, with the original key, headers
and bytes; or with data that --fix has mended. Events of one key keep their order. An event that has had its effect is not
published again, so a redrive may be repeated at any time.

--fix takes a JSON patch (RFC 6902), or the name of a file with one. It applies to the event's data: /user_id is the data's member
user_id. A path that begins with /data, or names an attribute of the event (/type, /time, /subject), applies to the whole event;
/partitionkey is the record's key. Source and id are the event's identity, and a patch that changes them is refused. Each patched
event is checked before anything is published.

Only the consumer that reads the topic acts on a redriven record (usage, subscription or company). Quotas never change: what
was counted is not counted again.

It says how many letters are chosen and asks. A redrive is a task of each topic (see "tenantflow task"); with --detach the part
jobs of the service works on it.

Each chosen letter has one outcome: published; already_there (its event has had its effect, and the letter is settled); not_open
(it was redriven, dropped or settled before); conflict (another event has its identity); invalid (it would be a dead letter again);
unpatched (the patch does not apply); too_large (its bytes are not there); erased and purged (its user or company is to be
forgotten); failed (too large to be published with the added headers, or gone from the log).

Exit codes: 0 done, also where letters stay open; 1 failed, stopped, or another task is active on the topic; 2 the command line or
the configuration is wrong.`,
		Example: `  tenantflow dlq redrive --topic usage.events --reason rejected_by_store --dry-run
  tenantflow dlq redrive tenantflow.usage/usage.events/3/1042 --fix '[{"op":"replace","path":"/user_id","value":"u-7"}]'
  tenantflow dlq redrive --company acme-1 --reason invalid_data --fix fix.json --rate 100 --yes --detach`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.rate < 0:
				return invalid("--rate %v is negative", f.rate)
			case f.dryRun && f.detach:
				return invalid("--dry-run publishes nothing, so there is no task to detach")
			case !f.dryRun && !f.yes && !telemetry.IsTerminal(cmd.InOrStdin()):
				return invalid("redrive publishes events and asks before it does, and there is no terminal to ask on: look with --dry-run, and give --yes")
			}
			return a.redriveLetters(cmd, &f, args)
		},
	}
	f.add(cmd, "reason")
	flags := cmd.Flags()
	flags.StringVar(&f.fix, "fix", "", "a JSON patch (RFC 6902) for the events, or the name of a file with one, - for standard input")
	flags.StringVar(&f.by, "by", "", "who redrives them (default: the user and host of this process)")
	flags.BoolVar(&f.all, "all", false, "every letter, if no filter is given")
	flags.BoolVar(&f.dryRun, "dry-run", false, "publish nothing: say what would become of each letter")
	flags.Float64Var(&f.rate, "rate", 0, "how many events to publish a second at most (0: no bound)")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.detach, "detach", false, "leave the work to the part jobs of the service, and return")
	return cmd
}

// readFix reads the patch: from a file, unless the flag is the patch itself.
func readFix(cmd *cobra.Command, flag string) ([]byte, error) {
	text := []byte(strings.TrimSpace(flag))
	switch {
	case len(text) == 0:
		return nil, nil
	case flag == "-":
		read, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, invalid("--fix: read standard input: %w", err)
		}
		text = read
	case text[0] != '[' && text[0] != '{':
		read, err := os.ReadFile(flag)
		if err != nil {
			return nil, invalid("--fix: %w", err)
		}
		text = read
	}
	text = bytes.TrimSpace(text)
	if _, err := deadletter.ParseFix(text); err != nil {
		return nil, invalid("--fix: %w", err)
	}
	return text, nil
}

func (a *app) redriveLetters(cmd *cobra.Command, f *dlqRedriveFlags, origins []string) error {
	fix, err := readFix(cmd, f.fix)
	if err != nil {
		return err
	}
	cfg, err := a.config(config.Kafka, config.Postgres)
	if err != nil {
		return err
	}
	filter, topics, err := f.filter(cfg, origins)
	if err != nil {
		return err
	}
	if err := chosen(&filter, f.all); err != nil {
		return err
	}
	if topics, err = redrivable(cfg, topics); err != nil {
		return err
	}
	if slices.Contains(topics, cfg.TopicPrefix+events.TopicUsage) { // whether a usage event has its row is asked there
		if cfg, err = a.config(config.Kafka, config.Postgres, config.ClickHouse); err != nil {
			return err
		}
	}
	tasks, err := service.OpenTasks(cmd.Context(), cfg, a.logger(cfg, cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer func() { _ = tasks.Close() }() // everything was answered before
	refused := newRefusals(cmd.ErrOrStderr())
	kind := tasks.Redrive.OnRefused(refused.add)
	tasks.Redrive = kind
	plans, err := planRedrive(cmd, kind, cfg, topics, redrive.Request{Filter: filter, Fix: fix, Rate: f.rate, By: cmp.Or(f.by, operator())})
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.dryRedrive(cmd, kind, plans)
	}
	var letters int64
	reasons := map[events.Reason]int64{}
	for _, p := range plans {
		letters += p.Letters
		for reason, n := range p.Reasons {
			reasons[reason] += n
		}
	}
	if letters == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no letters are chosen")
		return nil
	}
	if err := agreed(cmd, fmt.Sprintf("redrive %d dead letters (%s)?", letters, byCount(reasons)), f.yes); err != nil {
		return err
	}
	var failures []error
	for _, p := range plans {
		t, err := tasks.Store.Create(cmd.Context(), task.New{Kind: task.Redrive, Topic: p.Topic, Spec: p.Spec, By: p.Spec.By})
		switch {
		case err != nil:
		case f.detach:
			fmt.Fprintf(cmd.ErrOrStderr(), "the part jobs of the service works on the task: look at it with `tenantflow task show %s`\n", t.ID)
			err = a.showTask(cmd.OutOrStdout(), t)
		default:
			err = a.workOn(cmd, tasks, t.ID)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", p.Topic, err))
		}
	}
	refused.end()
	return errors.Join(failures...)
}

// redrivable leaves out the topics whose letters can't be redriven: on maintenance.events are only events of this service itself, and the
// schedule publishes again what is due. If there is no other the error says so.
func redrivable(cfg *config.Config, topics []string) ([]string, error) {
	own := cfg.TopicPrefix + events.TopicMaintenance
	if len(topics) == 1 && topics[0] == own {
		return nil, invalid("dead letters of %s are not redriven: the schedule itself publishes again what is due", own)
	}
	return slices.DeleteFunc(topics, func(topic string) bool { return topic == own }), nil
}

// planRedrive finds the letters, topic by topic. Topics without any are left out; an origin that is nowhere is an error.
func planRedrive(cmd *cobra.Command, kind *redrive.Kind, cfg *config.Config, topics []string, r redrive.Request) ([]*redrive.Plan, error) {
	var plans []*redrive.Plan
	found := map[events.Origin]bool{}
	for _, topic := range topics {
		r.Topic = strings.TrimPrefix(topic, cfg.TopicPrefix)
		p, err := kind.Plan(cmd.Context(), r)
		var wrong *redrive.RequestError
		if errors.As(err, &wrong) {
			return nil, invalid("%w", err)
		}
		if err != nil {
			return nil, err
		}
		for o := range p.Origins {
			found[o] = true
		}
		if p.Letters > 0 {
			plans = append(plans, p)
		}
	}
	return plans, allFound(&r.Filter, found)
}

// redriveReport is what a dry run shows.
type redriveReport struct {
	Chosen int64       `json:"chosen"`
	Counts task.Counts `json:"counts"` // by outcome; "published": what would be published
}

func (a *app) dryRedrive(cmd *cobra.Command, kind *redrive.Kind, plans []*redrive.Plan) error {
	report := redriveReport{Counts: task.Counts{}}
	for _, p := range plans {
		counts, err := kind.Dry(cmd.Context(), p)
		if err != nil {
			return err
		}
		report.Counts = report.Counts.Plus(counts)
	}
	report.Chosen = redrive.Chosen(report.Counts)
	return a.show(cmd.OutOrStdout(), &report, func() *table {
		t := &table{}
		for _, o := range redrive.Outcomes() {
			name, n := o.String(), report.Counts[o.String()]
			if o == redrive.Published {
				name = "would be published"
			} else if n == 0 {
				continue
			}
			t.add(strings.ReplaceAll(name, "_", " "), count(n))
		}
		t.add("chosen", count(report.Chosen))
		return t
	})
}

// refusals writes why letters stay open, the first ones one by one.
type refusals struct {
	w    io.Writer
	seen map[events.Origin]bool
	rest int
}

func newRefusals(w io.Writer) *refusals { return &refusals{w: w, seen: map[events.Origin]bool{}} }

func (r *refusals) add(o events.Origin, v redrive.Verdict) {
	const most = 20
	if r.seen[o] {
		return
	}
	if len(r.seen) == most {
		r.rest++
		return
	}
	r.seen[o] = true
	fmt.Fprintf(r.w, "%s: %s: %s\n", deadletter.FormatOrigin(o), v.Outcome, onLine(v.Why, 0))
}

func (r *refusals) end() {
	if r.rest > 0 {
		fmt.Fprintf(r.w, "and %d more\n", r.rest)
	}
}
