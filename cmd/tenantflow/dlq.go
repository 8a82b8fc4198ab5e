package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/service"
	"tenantflow/sinks/postgres"
)

func newDLQCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show, redrive and drop dead letters",
		Long: `Dlq works on dead letters: events that could not be taken, kept in <topic>.dlq with their original bytes.

A letter is named by its origin, GROUP/TOPIC/PARTITION/OFFSET: the consumer group that gave up, and the record it gave up
on. Letters can't be taken out of Kafka, so what was done about each is in Postgres, in the table dead_letters: it is open,
redriven, dropped or settled. docs/dead-letters.md has the whole story.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDLQListCommand(a), newDLQShowCommand(a), newDLQRedriveCommand(a), newDLQDropCommand(a))
	return cmd
}

// letterFlags choose letters.
type letterFlags struct {
	topics, reasons, companies, users, ids []string
	since, until                           string
	reasonFlag                             string // its name
}

// add adds the flags. reason is the name of the flag for dlq-reason.
func (f *letterFlags) add(cmd *cobra.Command, reason string) {
	f.reasonFlag = reason
	cmd.Flags().StringSliceVar(&f.topics, "topic", nil, "letters of these input topics (default: all)")
	cmd.Flags().StringSliceVar(&f.reasons, reason, nil, "letters with these reasons")
	cmd.Flags().StringSliceVar(&f.companies, "company", nil, "letters whose event names these companies")
	cmd.Flags().StringSliceVar(&f.users, "user", nil, "letters whose event names these users")
	cmd.Flags().StringSliceVar(&f.ids, "id", nil, "letters of the events with these ids")
	cmd.Flags().StringVar(&f.since, "since", "", "letters that failed at this time or later: RFC 3339, a day, or a duration before now (36h)")
	cmd.Flags().StringVar(&f.until, "until", "", "letters that failed before this time")
}

// filter reads the flags, and origins given as arguments. The topics are those to be read, with prefix.
func (f *letterFlags) filter(cfg *config.Config, origins []string) (filter deadletter.Filter, topics []string, err error) {
	for _, given := range f.topics {
		name, err := inputNamed(given, cfg.TopicPrefix)
		if err != nil {
			return filter, nil, err
		}
		filter.Topics = append(filter.Topics, cfg.TopicPrefix+name)
	}
	for _, given := range f.reasons {
		reason := events.Reason(given)
		if !slices.Contains(events.Reasons(), reason) {
			return filter, nil, invalid("--%s %s: there is no such reason; choose from %s", f.reasonFlag, given, joined(events.Reasons()))
		}
		filter.Reasons = append(filter.Reasons, reason)
	}
	filter.Companies, filter.Users, filter.IDs = f.companies, f.users, f.ids
	if filter.Since, err = timeFlag("since", f.since, time.Now()); err != nil {
		return filter, nil, err
	}
	if filter.Until, err = timeFlag("until", f.until, time.Now()); err != nil {
		return filter, nil, err
	}
	for _, text := range origins {
		o, err := deadletter.ParseOrigin(text)
		if err != nil {
			return filter, nil, invalid("%w", err)
		}
		filter.Origins = append(filter.Origins, o)
	}
	return filter, topicsOf(cfg, &filter), nil
}

// topicsOf lists the input topics, with prefix, that a filter can find letters of.
func topicsOf(cfg *config.Config, f *deadletter.Filter) []string {
	var all []string
	for _, t := range events.Topics() {
		name := cfg.TopicPrefix + t.Name
		named := len(f.Origins) == 0 || slices.ContainsFunc(f.Origins, func(o events.Origin) bool { return o.Topic == name })
		if t.Input && named && (len(f.Topics) == 0 || slices.Contains(f.Topics, name)) {
			all = append(all, name)
		}
	}
	return all
}

// inputNamed finds an input topic and returns its name without the prefix. It may be given with the prefix, and as the topic of its
// dead letters.
func inputNamed(given, prefix string) (string, error) {
	var known []string
	for _, t := range events.Topics() {
		if !t.Input {
			continue
		}
		for _, name := range []string{t.Name, prefix + t.Name} {
			if given == name || given == events.DeadLetterTopic(name) {
				return t.Name, nil
			}
		}
		known = append(known, t.Name)
	}
	return "", invalid("--topic %s: there is no such input topic; choose from %s", given, strings.Join(known, ", "))
}

func joined[T ~string](all []T) string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = string(one)
	}
	return strings.Join(names, ", ")
}

// timeFlag reads a point in time: RFC 3339, a UTC day, or a duration before now. Empty: the zero time.
func timeFlag(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	return time.Time{}, invalid("--%s %s: it is no time; write it as %s, as a day (%s) or as a duration before now (36h)",
		name, text, now.UTC().Format(time.RFC3339), now.UTC().Format(time.DateOnly))
}

// stateFlag reads the names of states.
func stateFlag(given []string) ([]postgres.LetterState, error) {
	var states []postgres.LetterState
	for _, name := range given {
		s := postgres.LetterState(name)
		if !slices.Contains(postgres.LetterStates(), s) {
			return nil, invalid("--state %s: there is no such state; choose from %s", name, joined(postgres.LetterStates()))
		}
		states = append(states, s)
	}
	return states, nil
}

// unknownState is shown for the state of a letter while Postgres does not answer.
const unknownState = "unknown"

// letterStates reads what was done about letters, if Postgres answers.
type letterStates struct {
	store   *postgres.Store
	failure error // why states are not known
}

// openLetterStates connects to Postgres, if it is there.
func openLetterStates(ctx context.Context, cfg *config.Config) *letterStates {
	const within = 2 * time.Second // a first page must not wait for a store that is down
	if cfg.PostgresDSN.Reveal() == "" {
		return &letterStates{failure: fmt.Errorf("%sPOSTGRES_DSN is not set", config.Prefix)}
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	store, err := service.OpenPostgres(ctx, cfg, showTimeout, slog.New(slog.DiscardHandler))
	return &letterStates{store: store, failure: err}
}

func (s *letterStates) close() {
	if s.store != nil {
		s.store.Close()
	}
}

// of returns the changes of letters, or nothing once Postgres does not answer.
func (s *letterStates) of(ctx context.Context, origins []events.Origin) map[events.Origin]postgres.LetterChange {
	if s.failure != nil || len(origins) == 0 {
		return nil
	}
	changes, err := s.store.LetterChanges(ctx, origins)
	s.failure = err
	return changes
}

// state names the state of a letter.
func (s *letterStates) state(changes map[events.Origin]postgres.LetterChange, o events.Origin) string {
	if s.failure != nil {
		return unknownState
	}
	if c, ok := changes[o]; ok {
		return string(c.State)
	}
	return string(postgres.LetterOpen)
}

// keep makes a Keep that leaves letters in the given states; none: all.
func (s *letterStates) keep(states []postgres.LetterState) func(context.Context, []*deadletter.Letter) ([]*deadletter.Letter, error) {
	if len(states) == 0 {
		return nil
	}
	return func(ctx context.Context, letters []*deadletter.Letter) ([]*deadletter.Letter, error) {
		changes, err := s.store.LetterChanges(ctx, originsOf(letters))
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(letters, func(l *deadletter.Letter) bool {
			state := postgres.LetterOpen
			if c, ok := changes[l.Origin]; ok {
				state = c.State
			}
			return !slices.Contains(states, state)
		}), nil
	}
}

func originsOf(letters []*deadletter.Letter) []events.Origin {
	origins := make([]events.Origin, len(letters))
	for i, l := range letters {
		origins[i] = l.Origin
	}
	return origins
}

// byCount writes counts as "12 invalid_data, 3 conflict", the largest first.
func byCount[K ~string](counts map[K]int64) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		if counts[a] != counts[b] {
			return int(counts[b] - counts[a])
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%d %s", counts[k], k)
	}
	return strings.Join(parts, ", ")
}
