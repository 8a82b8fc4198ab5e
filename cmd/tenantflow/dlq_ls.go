package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/deadletter"
	"tenantflow/sinks/postgres"
)

// dlqListFlags are the flags of dlq ls.
type dlqListFlags struct {
	letterFlags
	states []string
	oldest bool
	limit  int
	scan   int64
	all    bool
	cursor string
}

func newDLQListCommand(a *app) *cobra.Command {
	var f dlqListFlags
	cmd := &cobra.Command{
		Use:   "ls [filters] [--oldest] [--limit N] [--cursor C] [--scan N | --all]",
		Short: "List dead letters, the newest first",
		Long: `Ls lists dead letters, a page at a time, the newest first. A letter that was written twice is listed once.

It reads each partition from the end backwards, until the page is full or --scan records were looked at, and always says how
far it looked. Where there is more, the last line says how to go on. --all looks at everything.

It also works while Postgres is down: the state of the letters is unknown then, and --state can't be used.

Exit codes: 0 listed; 1 Kafka does not answer; 2 the command line or the configuration is wrong.`,
		Example: `  tenantflow dlq ls
  tenantflow dlq ls --topic usage.events --reason invalid_data --since 24h --state open
  tenantflow dlq ls --company acme-1 --all -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.limit < 0:
				return invalid("--limit %d is negative", f.limit)
			case f.scan <= 0:
				return invalid("--scan %d: it is a number of records, 1 or more; --all looks at all of them", f.scan)
			case f.all && cmd.Flags().Changed("scan"):
				return invalid("--all looks at everything, --scan at no more than so many records; give one of them")
			}
			return a.listLetters(cmd, &f)
		},
	}
	f.add(cmd, "reason")
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "letters in these states: open, redriven, dropped, settled (default: all)")
	cmd.Flags().BoolVar(&f.oldest, "oldest", false, "the oldest first")
	cmd.Flags().IntVar(&f.limit, "limit", 50, "letters of a page; 0: all")
	cmd.Flags().Int64Var(&f.scan, "scan", 50_000, "look at no more than so many records")
	cmd.Flags().BoolVar(&f.all, "all", false, "look at all records, until the page is full")
	cmd.Flags().StringVar(&f.cursor, "cursor", "", "go on where a page ended; give the same filters")
	return cmd
}

func (a *app) listLetters(cmd *cobra.Command, f *dlqListFlags) error {
	cfg, err := a.config(config.Kafka)
	if err != nil {
		return err
	}
	filter, topics, err := f.filter(cfg, nil)
	if err != nil {
		return err
	}
	wanted, err := stateFlag(f.states)
	if err != nil {
		return err
	}
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer done()
	ctx := cmd.Context()
	states := openLetterStates(ctx, cfg)
	defer states.close()
	if len(wanted) > 0 && states.failure != nil {
		return fmt.Errorf("--state needs Postgres, where the states are: %w", states.failure)
	}
	q := deadletter.Query{Filter: filter, Oldest: f.oldest, Limit: f.limit, Scan: f.scan, Cursor: f.cursor, Keep: states.keep(wanted)}
	if f.all {
		q.Scan = 0
	}
	page, err := (&deadletter.Reader{Client: client, Topics: topics}).Page(ctx, q)
	var wrong *deadletter.CursorError
	switch {
	case errors.As(err, &wrong):
		return invalid("--cursor: %w", err)
	case err != nil:
		return fmt.Errorf("list the dead letters at %s: %w", strings.Join(cfg.KafkaBrokers, ","), err)
	}
	changes := states.of(ctx, originsOf(page.Letters))
	list := letterList{Letters: []listedLetter{}, Looked: page.Looked, Next: page.Next}
	for _, l := range page.Letters {
		list.Letters = append(list.Letters, listed(l, states.state(changes, l.Origin)))
	}
	for _, l := range page.Looked {
		list.LookedAt += l.To - l.From
		list.Records += l.LogTo - l.LogFrom
	}
	if states.failure != nil {
		list.StatesUnknown = states.failure.Error()
	}
	if a.output == outputJSON {
		return a.show(cmd.OutOrStdout(), &list, nil)
	}
	if err := a.show(cmd.OutOrStdout(), nil, list.table); err != nil {
		return err
	}
	return list.remarks(cmd.OutOrStdout())
}

// letterList is what dlq ls shows.
type letterList struct {
	Letters  []listedLetter      `json:"letters"`
	Looked   []deadletter.Looked `json:"looked"`     // offsets of each partition
	LookedAt int64               `json:"looked_at"`  // offsets, of all partitions together
	Records  int64               `json:"of_offsets"` // that the dead letter topics hold
	Next     string              `json:"next,omitempty"`

	StatesUnknown string `json:"states_unknown,omitempty"` // why
}

// listedLetter is a letter as it is shown.
type listedLetter struct {
	Origin    string        `json:"origin"`
	Group     string        `json:"group"`
	Topic     string        `json:"topic"`
	Partition int           `json:"partition"`
	Offset    int64         `json:"offset"`
	Reason    events.Reason `json:"reason"`
	Error     string        `json:"error"`
	Attempts  int           `json:"attempts"`
	FailedAt  time.Time     `json:"failed_at"`
	State     string        `json:"state"`

	Source  string `json:"event_source,omitempty"`
	ID      string `json:"event_id,omitempty"`
	Type    string `json:"event_type,omitempty"`
	Company string `json:"company_id,omitempty"`
	User    string `json:"user_id,omitempty"`
	Bytes   int    `json:"bytes"` // of the value; of a too_large letter, of the value that is not there

	Written  time.Time        `json:"written_at"`
	Place    deadletter.Place `json:"letter"` // where it stands in the dead letter topic
	ReplayID string           `json:"replay_id,omitempty"`
	ReplayOf string           `json:"replay_of,omitempty"`
}

func listed(l *deadletter.Letter, state string) listedLetter {
	one := listedLetter{
		Origin: deadletter.FormatOrigin(l.Origin), Group: l.Group, Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
		Reason: l.Reason, Error: l.Detail, Attempts: l.Attempts, FailedAt: l.FailedAt.UTC(), State: state,
		Source: l.Source, ID: l.ID, Type: l.Type, Company: l.Company, User: l.User, Bytes: l.Bytes,
		Written: l.Written, Place: l.Place, ReplayID: l.ReplayID, ReplayOf: l.ReplayOf,
	}
	if l.Large != nil {
		one.Bytes = l.Large.ValueBytes
	}
	return one
}

func (l *letterList) table() *table {
	const words = 60 // of an error; show has all of it
	t := &table{head: []string{"failed at", "origin", "reason", "state", "company", "event", "bytes", "error"}}
	for i := range l.Letters {
		one := &l.Letters[i]
		t.add(one.FailedAt.Format("2006-01-02T15:04:05Z"), onLine(one.Origin, 0), onLine(string(one.Reason), 0), one.State, orDash(onLine(one.Company, 50)),
			orDash(onLine(one.ID, 50)), strconv.Itoa(one.Bytes), onLine(one.Error, words))
	}
	return t
}

// remarks says how far the page looked, and how to go on.
func (l *letterList) remarks(w io.Writer) error {
	var lines []string
	for _, p := range l.Looked {
		if p.LogTo > p.LogFrom {
			lines = append(lines, fmt.Sprintf("%s/%d: looked at offsets %d-%d of %d-%d", p.Topic, p.Partition, p.From, p.To, p.LogFrom, p.LogTo))
		}
	}
	lines = append(lines, fmt.Sprintf("%d letters; looked at %d of %d offsets", len(l.Letters), l.LookedAt, l.Records))
	if l.Next != "" {
		lines = append(lines, "there is more: go on with the same filters and --cursor "+l.Next)
	}
	if l.StatesUnknown != "" {
		lines = append(lines, "the states are unknown: "+l.StatesUnknown)
	}
	if _, err := fmt.Fprintln(w, "\n"+strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// onLine makes a text of unknown origin safe for a line of a terminal, and cuts it to so many characters; 0: not at all.
func onLine(s string, most int) string {
	if most > 0 && utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "..."
	}
	return escapeControls(s, false)
}

// escapeControls writes characters that a terminal may obey, or can't show, as escapes. Line feeds and tabs may stay.
func escapeControls(s string, lines bool) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || lines && (r == '\n' || r == '\t') {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// changeLine says what was done about a letter.
func changeLine(c postgres.LetterChange) string {
	text := fmt.Sprintf("%s at %s by %s", c.State, c.At.Format(time.RFC3339), onLine(c.By, 0))
	if c.Why != "" {
		text += ": " + onLine(c.Why, 0)
	}
	if c.Task != "" {
		text += " (task " + onLine(c.Task, 0) + ")"
	}
	return text
}
