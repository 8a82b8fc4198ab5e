package operations

import (
	"context"
	"time"

	"tenantflow/internal/task"
)

const tasksShown = 10

// tasksFrom lists the tasks that are active, or have ended in the last day.
func tasksFrom(list func(context.Context, int) ([]task.Task, error)) func(context.Context) ([]Task, error) {
	return func(ctx context.Context) ([]Task, error) {
		found, err := list(ctx, tasksShown)
		if err != nil {
			return nil, err
		}
		all := []Task{}
		for i := range found {
			t := &found[i]
			if !t.State.Active() && time.Since(t.UpdatedAt) > 24*time.Hour {
				continue
			}
			all = append(all, Task{ID: t.ID, Kind: t.Kind, Topic: t.Topic, State: string(t.State), Counts: t.Counts, Message: shortened(t.Message), Owner: t.Owner,
				CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, Command: "tenantflow task show " + quoted(t.ID)})
		}
		return all, nil
	}
}
