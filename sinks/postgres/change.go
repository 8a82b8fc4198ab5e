package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
)

var (
	//go:embed changes.sql
	changesSQL string
	//go:embed changes_lately.sql
	changesLatelySQL string
	//go:embed prune.sql
	pruneSQL string
)

const (
	// changesKept is how long a change is kept: as far back as a new reader looks, and a while more.
	changesKept = directory.FeedReach + 10*time.Minute
	// pruneRows is how many changes one statement removes, so that none of them takes long.
	pruneRows = 10_000
)

// Changes returns the committed changes since a position, and the position to ask from next time. From zero on, they are
// those of the last directory.FeedReach. For each user, and for each company as a whole, only the last of several changes
// is told. A position is the id of the oldest transaction that was under way, so that one that commits late is told
// then; what was made since then and told is told again.
//
// Ask at least once in directory.FeedReach: older changes are removed.
func (s *Store) Changes(ctx context.Context, since directory.Position) ([]directory.Change, directory.Position, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	changes, next, err := s.changes(ctx, since)
	if err == nil && next < since {
		// Ids of transactions only rise: this is another server than the one the position is of, or an older copy of it.
		s.log.Warn("the change feed has gone back: the database was restored or replaced", "position", next, "before", since)
		changes, next, err = s.changes(ctx, 0)
	}
	if err != nil {
		return nil, since, explain("read the changes", err)
	}
	return changes, next, nil
}

func (s *Store) changes(ctx context.Context, since directory.Position) ([]directory.Change, directory.Position, error) {
	query, from := changesSQL, any(uint64(since))
	if since == 0 {
		query, from = changesLatelySQL, directory.FeedReach
	}
	rows, err := s.pool.Query(ctx, query, from)
	if err != nil {
		return nil, since, err
	}
	var oldest uint64
	var company, user *string
	var version *int64
	var changes []directory.Change
	_, err = pgx.ForEachRow(rows, []any{&oldest, &company, &user, &version}, func() error {
		if company != nil {
			changes = append(changes, directory.Change{CompanyID: *company, UserID: *user, Version: *version})
		}
		return nil
	})
	if err != nil {
		return nil, since, err
	}
	return changes, directory.Position(oldest), nil
}

// PruneChanges removes changes that no reader needs any more and returns how many. Call it every few minutes: it removes
// only what could be read at the time of the call before, and so the first call removes nothing.
func (s *Store) PruneChanges(ctx context.Context) (int64, error) {
	var oldest uint64
	one, cancel := s.bounded(ctx)
	err := s.pool.QueryRow(one, "SELECT pg_snapshot_xmin(pg_current_snapshot())").Scan(&oldest)
	cancel()
	if err != nil {
		return 0, explain("remove old changes", err)
	}
	before := s.prunable.Swap(oldest)
	var removed int64
	for before > 0 {
		one, cancel := s.bounded(ctx)
		tag, err := s.pool.Exec(one, pruneSQL, changesKept, before, pruneRows)
		cancel()
		if err != nil {
			return removed, explain("remove old changes", err)
		}
		removed += tag.RowsAffected()
		if tag.RowsAffected() < pruneRows {
			break
		}
	}
	return removed, nil
}
