package postgres

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
)

var (
	//go:embed queries/changes.sql
	changesSQL string
	//go:embed queries/prune.sql
	pruneSQL string
)

const (
	// changesPage is how many changes one statement reads at most.
	changesPage = 10_000
	// changesKept is how long a change is kept: as far back as a new reader looks, and a while more.
	changesKept = directory.FeedReach + 10*time.Minute
	// pruneRows is how many changes one statement removes, so that none of them takes long.
	pruneRows = 10_000
)

// Changes reads the next page of the change feed. From the empty position, and from one of another origin, it begins with everything
// that is kept, which is the last directory.FeedReach and a little more. Each change is returned once; of several in a page that concern
// the same user or the same company, only the last. One that commits late is returned when it does. Ask at least once in
// directory.FeedReach: older changes are removed.
func (s *Store) Changes(ctx context.Context, since directory.Position) (directory.Feed, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	at, err := readPlace(since)
	if err != nil {
		return directory.Feed{}, err
	}
	// Both statements on one connection: it is one server's, whatever the address leads to meanwhile.
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return directory.Feed{}, s.explain("read the changes", err)
	}
	defer conn.Release()
	var origin, now string
	if err := conn.QueryRow(ctx, "SELECT coalesce(public.data_origin(), ''), pg_current_snapshot()::text").Scan(&origin, &now); err != nil {
		return directory.Feed{}, s.explain("read the changes", err)
	}
	if origin == "" {
		return directory.Feed{}, errors.New("read the changes in Postgres: the server is a standby, which may be behind the primary")
	}
	feed := directory.Feed{Origin: origin, Begun: at.Origin != origin}
	if feed.Begun {
		at = place{Origin: origin}
		if since != "" {
			s.pool.Reset() // the other connections may lead to the server of before
		}
	}
	if at.Target == "" {
		at.Target = now
	}
	if feed.Changes, feed.More, err = s.page(ctx, conn.Conn(), &at); err != nil {
		return directory.Feed{}, s.explain("read the changes", err)
	}
	feed.Next, err = at.position()
	return feed, err
}

// page reads one page and moves the place behind it. It reports whether there are more.
func (s *Store) page(ctx context.Context, conn *pgx.Conn, at *place) (changes []directory.Change, more bool, err error) {
	spans, err := at.left()
	if err != nil {
		return nil, false, err
	}
	n := 0
	if len(spans) > 0 {
		low, high := bounds(spans)
		var c directory.Change
		last := map[directory.Change]int{}  // places in changes, by what they concern
		take := func(rows pgx.Rows) error { // by position: a new reader takes millions
			_, err := pgx.ForEachRow(rows, []any{&at.XID, &c.Version, &c.CompanyID, &c.UserID}, func() error {
				n++
				at.Version = c.Version
				concerned := directory.Change{CompanyID: c.CompanyID, UserID: c.UserID}
				if i, again := last[concerned]; again {
					changes[i].Version = max(changes[i].Version, c.Version)
					return nil
				}
				last[concerned] = len(changes)
				changes = append(changes, c)
				return nil
			})
			return err
		}
		// Before the table is analysed, the planner takes a backlog of millions for a few rows and sorts them all for every page.
		b := &pgx.Batch{}
		b.Queue("BEGIN READ ONLY")
		b.Queue("SET LOCAL enable_seqscan = off")
		b.Queue("SET LOCAL enable_bitmapscan = off")
		b.Queue(changesSQL, low, high, at.XID, at.Version, s.changesPage).Query(take)
		b.Queue("COMMIT")
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, false, err
		}
	}
	if n == s.changesPage {
		return changes, true, nil
	}
	*at = place{Origin: at.Origin, Seen: at.Target}
	return changes, false, nil
}

// PruneChanges removes changes that no reader needs any more and returns how many. Call it every few minutes: it removes
// only what could be read at the time of the call before, and so the first call removes nothing.
func (s *Store) PruneChanges(ctx context.Context) (int64, error) {
	oldest, err := collectOne(ctx, s, "remove old changes", pgx.RowTo[uint64], "SELECT pg_snapshot_xmin(pg_current_snapshot())")
	if err != nil {
		return 0, err
	}
	before := s.prunable.Swap(oldest)
	var removed int64
	for {
		n, err := s.exec(ctx, "remove old changes", pruneSQL, changesKept, before, pruneRows)
		removed += n
		if err != nil || n < pruneRows {
			return removed, err
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
