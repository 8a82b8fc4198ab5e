package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/service"
	"tenantflow/sinks/postgres"
)

// dlqDropFlags are the flags of dlq drop. Its --reason is why the letters are dropped, so the filter by dlq-reason has another name.
type dlqDropFlags struct {
	letterFlags
	why string
	by  string
	all bool
	yes bool
}

func newDLQDropCommand(a *app) *cobra.Command {
	var f dlqDropFlags
	cmd := &cobra.Command{
		Use:   "drop ORIGIN... | filters | --all  --reason TEXT [--yes]",
		Short: "Note that nothing will be done about dead letters, and why",
		Long: `Drop notes in Postgres that nothing will be done about dead letters: their state becomes dropped, with who did it, when and
why. The letters stay in Kafka, where none can be taken out, until their topic forgets them. Only open letters are dropped.

For each company that is registered, its audit log gets a record of it.

It says how many letters are meant and asks before it does anything, unless --yes is given.

Exit codes: 0 dropped; 1 a store does not answer, or the answer was no; 2 the command line or the configuration is wrong.`,
		Example: `  tenantflow dlq drop tenantflow.usage/usage.events/3/1042 --reason "test data"
  tenantflow dlq drop --topic usage.events --dlq-reason malformed_data --until 2026-11-01 --reason "sender mended, sent again" --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(f.why) == "" {
				return invalid("--reason is missing: say why nothing will be done about these letters")
			}
			return a.dropLetters(cmd, &f, args)
		},
	}
	f.add(cmd, "dlq-reason")
	cmd.Flags().StringVar(&f.why, "reason", "", "why they are dropped, in words for the audit log; required")
	cmd.Flags().StringVar(&f.by, "by", "", "who drops them (default: the user and host of this process)")
	cmd.Flags().BoolVar(&f.all, "all", false, "every letter, if no filter is given")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "don't ask")
	return cmd
}

// droppedLetters is what dlq drop shows.
type droppedLetters struct {
	Chosen  int64 `json:"chosen"`
	Dropped int64 `json:"dropped"`
	NotOpen int64 `json:"not_open"` // redriven, dropped or settled before
}

func (a *app) dropLetters(cmd *cobra.Command, f *dlqDropFlags, origins []string) error {
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
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer done()
	ctx := cmd.Context()
	store, err := service.OpenPostgres(ctx, cfg, dropTimeout, a.logger(cfg, cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer store.Close()

	reader := &deadletter.Reader{Client: client, Topics: topics}
	bounds, err := reader.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("look for dead letters at %s: %w", strings.Join(cfg.KafkaBrokers, ","), err)
	}
	var result droppedLetters
	reasons := map[events.Reason]int64{}
	found := map[events.Origin]bool{}
	if err := reader.All(ctx, bounds, &filter, func(l *deadletter.Letter) error {
		result.Chosen++
		reasons[l.Reason]++
		if len(filter.Origins) > 0 {
			found[l.Origin] = true
		}
		return nil
	}); err != nil {
		return err
	}
	if err := allFound(&filter, found); err != nil {
		return err
	}
	if result.Chosen > 0 {
		question := fmt.Sprintf("Drop %d dead letters (%s)? They can't be redriven afterwards.", result.Chosen, byCount(reasons))
		if err := agreed(cmd, question, f.yes); err != nil {
			return err
		}
		shown := newProgress(cmd.ErrOrStderr(), "dlq drop")
		d := postgres.Drop{ID: uuid.NewString(), By: cmp.Or(f.by, operator()), Why: f.why}
		if err := drop(ctx, reader, bounds, &filter, store, d, &result, func() {
			shown.update(slog.Int64("dropped", result.Dropped), slog.Int64("of", result.Chosen))
		}); err != nil {
			return fmt.Errorf("%w (%d letters are dropped)", err, result.Dropped)
		}
	}
	return a.show(cmd.OutOrStdout(), &result, func() *table {
		t := &table{}
		t.add("chosen", count(result.Chosen))
		t.add("dropped", count(result.Dropped))
		t.add("not open", count(result.NotOpen))
		return t
	})
}

// dropTimeout bounds one transaction of drop, which waits for the companies' locks.
const dropTimeout = time.Minute

// drop drops the letters in the bounds, some hundreds in a transaction.
func drop(ctx context.Context, reader *deadletter.Reader, bounds []deadletter.Stretch, filter *deadletter.Filter, store *postgres.Store,
	d postgres.Drop, result *droppedLetters, progress func(),
) error {
	const atOnce = 500
	var refs []postgres.LetterRef
	result.Chosen = 0 // the log may have forgotten some
	flush := func() error {
		n, err := store.DropLetters(ctx, refs, d)
		if err != nil {
			return err
		}
		result.Chosen += int64(len(refs))
		result.Dropped += int64(n)
		result.NotOpen += int64(len(refs) - n)
		refs = refs[:0]
		progress()
		return nil
	}
	if err := reader.All(ctx, bounds, filter, func(l *deadletter.Letter) error {
		if refs = append(refs, l.Ref()); len(refs) == atOnce {
			return flush()
		}
		return nil
	}); err != nil {
		return err
	}
	return flush()
}

// chosen refuses to take every letter for want of a filter.
func chosen(filter *deadletter.Filter, all bool) error {
	switch {
	case filter.Empty() && !all:
		return invalid("no letters are chosen: name origins or filters, or give --all for every letter")
	case !filter.Empty() && all:
		return invalid("--all takes every letter, and a filter some of them; give one of the two")
	}
	return nil
}

// allFound is an error for the first chosen origin that was not found.
func allFound(filter *deadletter.Filter, found map[events.Origin]bool) error {
	for _, o := range filter.Origins {
		if !found[o] {
			return fmt.Errorf("%s: %w", deadletter.FormatOrigin(o), deadletter.ErrNoLetter)
		}
	}
	return nil
}

// agreed says what is about to be done, and asks unless yes says that it may be.
func agreed(cmd *cobra.Command, question string, yes bool) error {
	if yes {
		fmt.Fprintln(cmd.ErrOrStderr(), question, "yes")
		return nil
	}
	if ok, err := ask(cmd, question); err != nil || !ok {
		return errors.Join(err, errors.New("nothing was done (where there is no terminal, give --yes)"))
	}
	return nil
}
