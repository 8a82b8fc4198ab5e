package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// How the insert limit is measured: so many inserts at a time, each of a file of its own, which is one block.
const (
	limitInserts = 2
	limitFiles   = 4
)

// rowFiles writes the rows of a dataset to files in ClickHouse's own column format, once, in the order of the log. Rows
// that are sorted by the table's key beforehand spare the engine its sort; they are written besides.
func (w *world) rowFiles(ctx context.Context, d dataset) (unsorted, sorted []string, err error) {
	dir := filepath.Join(w.Dir, "rows")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	database, err := w.database(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	r, err := w.service(Tenantflow).start(ctx, d, database, w.group("source"))
	if err != nil {
		return nil, nil, err
	}
	err = w.await(ctx, "rows for the insert limit", 10*time.Minute, 100*time.Millisecond, func() (bool, error) {
		if err := r.alive(); err != nil {
			return false, err
		}
		n, err := w.number(ctx, "SELECT count() FROM "+database+".usage_tracking")
		return n >= d.rows, err
	})
	if err := errors.Join(err, r.stop()); err != nil {
		return nil, nil, err
	}
	per := (d.rows + limitFiles - 1) / limitFiles
	for i := range limitFiles {
		for _, order := range []struct {
			name, by string
			files    *[]string
		}{
			{"log", "_partition, _offset", &unsorted},
			{"key", "company_id, user_id, timestamp, event_id", &sorted},
		} {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.native", order.name, i))
			// _insert_by is written anew: the deadline of these rows has passed.
			query := fmt.Sprintf(`INSERT INTO FUNCTION file('%[1]s', 'Native')
SELECT * REPLACE (now64(3, 'UTC') + INTERVAL 1 DAY AS _insert_by) FROM
(
    SELECT * FROM (SELECT * FROM %[2]s.usage_tracking ORDER BY _partition, _offset LIMIT %[3]d OFFSET %[4]d) ORDER BY %[5]s
)
SETTINGS max_block_size = %[3]d, min_insert_block_size_rows = %[3]d, engine_file_truncate_on_insert = 1`,
				path, database, per, i*per, order.by)
			if _, err := w.clickhouse.Query(ctx, query); err != nil {
				return nil, nil, fmt.Errorf("write %s: %w", path, err)
			}
			*order.files = append(*order.files, path)
		}
	}
	return unsorted, sorted, nil
}

// insertLimit has the engine insert files, and nothing else.
func (w *world) insertLimit(ctx context.Context, files []string, rows int) (_ Run, err error) {
	database, err := w.database(ctx)
	if err != nil {
		return Run{}, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	before, err := w.times(0)
	if err != nil {
		return Run{}, err
	}
	began := time.Now()
	var inserts errgroup.Group
	inserts.SetLimit(limitInserts)
	for _, path := range files {
		inserts.Go(func() error {
			insert := fmt.Sprintf("INSERT INTO %s.usage_tracking FROM INFILE '%s' SETTINGS max_insert_threads = 1, async_insert = 0 FORMAT Native", database, path)
			_, err := w.clickhouse.Query(ctx, insert)
			return err
		})
	}
	if err := inserts.Wait(); err != nil {
		return Run{}, fmt.Errorf("insert from files: %w", err)
	}
	took := time.Since(began)
	n, err := w.number(ctx, "SELECT count() FROM "+database+".usage_tracking")
	if err != nil {
		return Run{}, err
	}
	if n != rows {
		return Run{}, fmt.Errorf("insert from %s: %d rows, want %d", strings.Join(files, ", "), n, rows)
	}
	return w.finish(ctx, &running{}, finished{database: database, rows: rows, took: took, before: before})
}
