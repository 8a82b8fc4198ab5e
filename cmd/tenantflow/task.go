package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/replay"
	"tenantflow/internal/service"
	"tenantflow/internal/task"
)

func newTaskCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "task",
		Short: "Look at replays and redrives, stop them and go on with them",
		Long: `A replay or redrive is a task: a row in Postgres with what is to be done, how far it is and what became of each record.
It outlives the process that works on it. A process holds a task for 30 seconds at a time; if it dies, another one goes on where
it was, and the counts are those of a run without a break. A topic has at most one active task.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTaskListCommand(a), newTaskShowCommand(a), newTaskStopCommand(a), newTaskResumeCommand(a))
	return cmd
}

func newTaskListCommand(a *app) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List tasks: the active ones, then the newest",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return invalid("--limit %d is not above 0", limit)
			}
			return a.withTasks(cmd.Context(), func(store *task.Store) error {
				all, err := store.List(cmd.Context(), limit)
				if err != nil {
					return err
				}
				if all == nil {
					all = []task.Task{}
				}
				return a.show(cmd.OutOrStdout(), all, func() *table {
					t := &table{head: []string{"task", "kind", "topic", "state", "published", "read", "created", "message"}}
					for i := range all {
						one := &all[i]
						t.add(one.ID, one.Kind, one.Topic, string(one.State), count(one.Counts[task.Published]), count(replay.Read(one.Counts)),
							one.CreatedAt.Format(time.RFC3339), one.Message)
					}
					return t
				})
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many tasks to list at most")
	return cmd
}

func newTaskShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show TASK",
		Short: "Show a task: what it does, how far it is, what became of the records",
		Args:  oneTask,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTasks(cmd.Context(), func(store *task.Store) error {
				t, err := store.Show(cmd.Context(), args[0])
				if err != nil {
					return noTask(err)
				}
				return a.showTask(cmd.OutOrStdout(), t)
			})
		},
	}
}

func newTaskStopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stop TASK",
		Short: "Stop a task; what it has published stays",
		Long: `Stop asks the process that works on a task to stop, and waits until it has. What was published stays, and the answer says how
much that is. "tenantflow task resume" goes on behind it.`,
		Args: oneTask,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTasks(cmd.Context(), func(store *task.Store) error {
				t, err := stopTask(cmd.Context(), store, args[0])
				if err != nil {
					return noTask(err)
				}
				if err := a.showTask(cmd.OutOrStdout(), t); err != nil {
					return err
				}
				if t.State == task.Stopping {
					return fmt.Errorf("the task is asked to stop, and its process (%s) has not answered yet", t.Owner)
				}
				return nil
			})
		},
	}
}

// stopTask stops a task and waits until its process has seen that, or its lease has run out.
func stopTask(ctx context.Context, store *task.Store, id string) (*task.Task, error) {
	const poll = 200 * time.Millisecond
	t, err := store.Stop(ctx, id)
	for patience := time.Now().Add(task.DefaultLease + 5*time.Second); err == nil && t.State == task.Stopping && time.Now().Before(patience); {
		select {
		case <-ctx.Done():
			return t, nil
		case <-time.After(poll):
		}
		if t, err = store.Show(ctx, id); err == nil && t.State == task.Stopping && (t.LeaseUntil == nil || time.Now().After(t.LeaseUntil.Add(time.Second))) {
			if again, err := store.Stop(ctx, id); err == nil { // its process has died
				t = again
			}
		}
	}
	return t, err
}

func newTaskResumeCommand(a *app) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "resume TASK",
		Short: "Go on with a task that was stopped or has failed",
		Args:  oneTask,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.config(config.Kafka, config.Postgres)
			if err != nil {
				return err
			}
			tasks, err := service.OpenTasks(cmd.Context(), cfg, a.logger(cfg, cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			defer func() { _ = tasks.Close() }() // everything was answered before
			t, err := tasks.Store.Resume(cmd.Context(), args[0])
			if err != nil {
				return noTask(err)
			}
			if detach {
				return a.showTask(cmd.OutOrStdout(), t)
			}
			return a.workOn(cmd, tasks, t.ID)
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "leave the work to the part jobs of the service, and return")
	return cmd
}

// oneTask wants the id of a task.
func oneTask(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return invalid("%s wants the id of one task; `tenantflow task ls` lists them", cmd.CommandPath())
	}
	return nil
}

// noTask makes a wrong id an error of usage.
func noTask(err error) error {
	if errors.Is(err, task.ErrNotFound) {
		return config.Invalid{Err: err}
	}
	return err
}

// withTasks opens the table of tasks.
func (a *app) withTasks(ctx context.Context, do func(*task.Store) error) error {
	cfg, err := a.config(config.Postgres)
	if err != nil {
		return err
	}
	store, err := task.Open(ctx, task.Config{DSN: cfg.PostgresDSN.Reveal()})
	if err != nil {
		return err
	}
	defer store.Close()
	return do(store)
}

// workOn works on a task until it has ended, and shows it.
func (a *app) workOn(cmd *cobra.Command, tasks *service.Tasks, id string) error {
	shown := newTaskProgress(cmd.ErrOrStderr(), "task "+id)
	var last task.Progress
	runner := task.NewRunner(tasks.Store, task.RunnerConfig{Kinds: tasks.Kinds(), Logger: tasks.Log, Progress: func(p task.Progress) {
		last = p
		shown.update(p.Done, p.Total, p.Task.Counts, p.Waiting)
	}})
	t, err := runner.Run(cmd.Context(), id)
	if err != nil {
		return err
	}
	shown.done(last.Done, last.Total, t.Counts)
	if err := a.showTask(cmd.OutOrStdout(), t); err != nil {
		return err
	}
	switch {
	case t.State == task.Stopped:
		return errors.New("stopped")
	case t.State == task.Failed:
		return errors.New(t.Message)
	case t.Counts[replay.Failed.String()] > 0:
		return fmt.Errorf("%d events could not be published", t.Counts[replay.Failed.String()])
	}
	return nil
}

// showTask prints a task.
func (a *app) showTask(w io.Writer, t *task.Task) error {
	if a.output == outputJSON {
		return a.show(w, struct {
			*task.Task
			Read int64 `json:"read"`
		}{t, replay.Read(t.Counts)}, nil)
	}
	err := a.show(w, nil, func() *table {
		out := &table{rows: [][]string{
			{"task", t.ID}, {"kind", t.Kind}, {"topic", t.Topic}, {"state", string(t.State)},
			{"created", t.CreatedAt.Format(time.RFC3339) + by(t.CreatedBy)},
		}}
		if t.State.Active() && t.Owner != "" {
			out.add("worked on by", t.Owner)
		}
		if t.FinishedAt != nil {
			out.add("ended", t.FinishedAt.UTC().Format(time.RFC3339))
		}
		for _, name := range countNames(t.Counts) {
			out.add(strings.ReplaceAll(name, "_", " "), count(t.Counts[name]))
		}
		out.add("read", count(replay.Read(t.Counts)))
		if t.Message != "" {
			out.add("", t.Message)
		}
		return out
	})
	if err != nil {
		return err
	}
	noteStillCounted(w, t.Counts)
	return nil
}

func by(name string) string {
	if name == "" {
		return ""
	}
	return " by " + name
}

// countNames lists the counts that are shown: the outcomes in their order, then those that another kind of task has.
func countNames(c task.Counts) []string {
	var names []string
	for _, o := range replay.Outcomes() {
		if c[o.String()] != 0 || o == replay.Published {
			names = append(names, o.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if c[name] != 0 && name != replay.StillCounted && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
