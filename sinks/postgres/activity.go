package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
	companies, users, times := make([]string, len(seen)), make([]string, len(seen)), make([]time.Time, len(seen))
	for i, a := range seen {
		companies[i], users[i], times[i] = a.CompanyID, a.UserID, a.At
	}
	doing := fmt.Sprintf("note when %d users were active", len(seen))
	return collectOne(ctx, s, doing, pgx.RowTo[int64], "SELECT public.touch_users($1, $2, $3)", companies, users, times)
}
