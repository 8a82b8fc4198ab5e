package postgres

import (
	"context"
	"fmt"
	"time"
)

// Activity is when a user of a company was last active.
type Activity struct {
	CompanyID, UserID string
	At                time.Time
}

// Touch moves users' last_activity on to the given times, in the directory and in the company's own schema, where that is an
// hour or more after what stands there. It returns how many have moved. A user who is not one of the company is skipped. It makes no
// copy of a subscription stale. The error is to be classified.
func (s *Store) Touch(ctx context.Context, seen []Activity) (int64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	companies, users, times := make([]string, len(seen)), make([]string, len(seen)), make([]time.Time, len(seen))
	for i, a := range seen {
		companies[i], users[i], times[i] = a.CompanyID, a.UserID, a.At
	}
	var moved int64
	if err := s.pool.QueryRow(ctx, "SELECT public.touch_users($1, $2, $3)", companies, users, times).Scan(&moved); err != nil {
		return 0, explain(fmt.Sprintf("note when %d users were active", len(seen)), err)
	}
	return moved, nil
}
