// Package task keeps long work that publishes events going until it is done, however often its process dies.
//
// A task is a row of the table tasks. The process that works on it holds a lease of 30 seconds and a fence, a number that
// grows with each owner: every change of the row names the fence, so a process that has lost its lease can't change it.
//
// The work goes in chunks, and a chunk in three steps:
//
//  1. Decide ([Work.Decide]): read the next records and decide what becomes of each. Nothing is published.
//  2. Propose: where something is to be published, the decision is stored in the row as pending, with the position and the
//     counts that follow from it.
//  3. Publish ([Work.Publish]), and then move position and counts and clear pending, in one transaction.
//
// A crash before step 2 has published nothing: the chunk is decided again. A crash behind it leaves the decision: the next
// owner publishes it again, and does not decide again. An event that is published twice has one effect, so that is harmless,
// and the counts are those of the first decision. So the report of a task that was killed any number of times equals that
// of one that was not.
//
//	store, err := task.Open(ctx, task.Config{DSN: dsn})
//	created, err := store.Create(ctx, task.New{Kind: task.Replay, Topic: topic, Spec: spec})
//	runner := task.NewRunner(store, task.RunnerConfig{Kinds: map[string]task.Kind{task.Replay: kind}})
//	finished, err := runner.Run(ctx, created.ID)
//
// [Runner.Serve] works on every task that no living process works on: what the part jobs of the service does.
package task
