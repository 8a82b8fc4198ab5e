package postgres

import (
	"context"
	_ "embed"
	"log/slog"
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
// is told. One that commits late is told when it does. A change is told once, but for an old position, or one of another
// Store, which may be told it again.
//
// If the new position is lower than the old one, the database was replaced or has gone back in time; the changes are then
// those from zero on. Ask at least once in directory.FeedReach: older changes are removed.
func (s *Store) Changes(ctx context.Context, since directory.Position) ([]directory.Change, directory.Position, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	before := since
	changes, seen, err := s.changes(ctx, since)
	if err == nil && seen.oldest < oldestAt(since) {
		// The ids of transactions only rise.
		s.snapshots.forget()
		changes, seen, err = s.changes(ctx, 0)
		since = 0
	}
	if err != nil {
		return nil, before, explain("read the changes", err)
	}
	return changes, s.snapshots.keep(since, seen), nil
}

func (s *Store) changes(ctx context.Context, since directory.Position) ([]directory.Change, snapshot, error) {
	query, from := changesSQL, []any{oldestAt(since), s.snapshots.at(since)}
	if since == 0 {
		query, from = changesLatelySQL, []any{directory.FeedReach}
	}
	rows, err := s.pool.Query(ctx, query, from...)
	if err != nil {
		return nil, snapshot{}, err
	}
	var text string
	var company, user *string
	var version *int64
	var changes []directory.Change
	_, err = pgx.ForEachRow(rows, []any{&text, &company, &user, &version}, func() error {
		if company != nil {
			changes = append(changes, directory.Change{CompanyID: *company, UserID: *user, Version: *version})
		}
		return nil
	})
	if err != nil {
		return nil, snapshot{}, err
	}
	seen, err := readSnapshot(text)
	return changes, seen, err
}

// PruneChanges removes changes that no reader needs any more and returns how many. Call it every few minutes: it removes
// only what could be read at the time of the call before, and so the first call removes nothing.
func (s *Store) PruneChanges(ctx context.Context) (int64, error) {
	one, cancel := s.bounded(ctx)
	var oldest uint64
	err := s.pool.QueryRow(one, "SELECT pg_snapshot_xmin(pg_current_snapshot())").Scan(&oldest)
	cancel()
	if err != nil {
		return 0, explain("remove old changes", err)
	}
	before := s.prunable.Swap(oldest)
	var removed int64
	for {
		one, cancel := s.bounded(ctx)
		tag, err := s.pool.Exec(one, pruneSQL, changesKept, before, pruneRows)
		cancel()
		if err != nil {
			return removed, explain("remove old changes", err)
		}
		removed += tag.RowsAffected()
		if tag.RowsAffected() < pruneRows {
			return removed, nil
		}
	}
}

// pruneInterval is how often Run removes old changes.
const pruneInterval = 5 * time.Minute

// Run removes old changes now and then, until ctx is done, and then returns nil. What fails is logged and tried again: the
// table grows meanwhile, and nothing else suffers.
func (s *Store) Run(ctx context.Context) error { return s.run(ctx, pruneInterval) }

func (s *Store) run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		removed, err := s.PruneChanges(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.LogAttrs(ctx, slog.LevelWarn, "old rows of the change feed could not be removed", slog.Any("error", err))
		case removed > 0:
			s.log.LogAttrs(ctx, slog.LevelDebug, "old rows of the change feed are removed", slog.Int64("rows", removed))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
