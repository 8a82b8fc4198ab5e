package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// collect runs a query and reads all of its rows. The error says what was being done.
func collect[T any](ctx context.Context, s *Store, doing string, read pgx.RowToFunc[T], query string, args ...any) ([]T, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, _ := s.pool.Query(ctx, query, args...) // its error comes with the rows
	found, err := pgx.CollectRows(rows, read)
	if err != nil {
		return nil, s.explain(doing, err)
	}
	return found, nil
}

// collectOne runs a query and reads its one row; without one the error is pgx.ErrNoRows.
func collectOne[T any](ctx context.Context, s *Store, doing string, read pgx.RowToFunc[T], query string, args ...any) (T, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, _ := s.pool.Query(ctx, query, args...) // its error comes with the rows
	found, err := pgx.CollectExactlyOneRow(rows, read)
	if err != nil {
		return found, s.explain(doing, err)
	}
	return found, nil
}

// exec runs a statement and returns how many rows it has changed.
func (s *Store) exec(ctx context.Context, doing, statement string, args ...any) (int64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := s.pool.Exec(ctx, statement, args...)
	if err != nil {
		return 0, s.explain(doing, err)
	}
	return tag.RowsAffected(), nil
}

// into reads the one row of a batch's statement, by the names of its columns.
func into[T any](row *T) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*row, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
		return err
	}
}
