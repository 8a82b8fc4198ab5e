package migrations

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// query is a statement of the folder queries.
func query(name string) string {
	text, err := files.ReadFile("queries/" + name + ".sql")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}

// onConn gives do a connection of the pool for as long as it runs, as pgx has it.
func (p *Postgres) onConn(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error { return do(driver.(*stdlib.Conn).Conn()) })
}

// A querier is a *pgx.Conn or a pgx.Tx.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// collect runs a query and reads its rows by the names of their columns.
func collect[T any](ctx context.Context, on querier, query string, args ...any) ([]T, error) {
	rows, _ := on.Query(ctx, query, args...) // its error comes with the rows
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// collectOne runs a query and reads its one row; without one the error is pgx.ErrNoRows.
func collectOne[T any](ctx context.Context, on querier, query string, args ...any) (T, error) {
	rows, _ := on.Query(ctx, query, args...) // its error comes with the rows
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
}
