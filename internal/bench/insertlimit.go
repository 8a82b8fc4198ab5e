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

// The insert limit is measured in three ways: one insert of a file of all rows, with the engine's own settings, as a person
// would do it; the rows in limitFiles files, each one block, limitInserts at a time; and those with their rows sorted by the table's key, which
// spares the engine its sort.
const (
	limitInserts = 2
	limitFiles   = 4
)

// rowFiles writes the rows of a dataset to files in ClickHouse's own column format, once, and gives the files of each
// way to insert them.
func (w *world) rowFiles(ctx context.Context, d dataset) (files map[string][]string, err error) {
	dir := filepath.Join(w.Dir, "rows")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	database, err := w.database(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	r, err := w.service(Tenantflow).start(ctx, d, database, w.group("source"))
	if err != nil {
		return nil, err
	}
	_, err = w.awaitRows(ctx, r, database, d)
	if err := errors.Join(err, r.stop()); err != nil {
		return nil, err
	}
	files = map[string][]string{}
	for _, way := range []struct {
		name  string
		files int
		block int // rows
		order string
	}{
		{InsertLimit, 1, 65_536, "_partition, _offset"},
		{InsertLimitTwo, limitFiles, d.rows, "_partition, _offset"},
		{InsertLimitSorted, limitFiles, d.rows, "company_id, user_id, timestamp, event_id"},
	} {
		per := (d.rows + way.files - 1) / way.files
		for i := range way.files {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.native", way.name, i))
			// _insert_by is replaced: the deadline of these rows has passed.
			query := fmt.Sprintf(`INSERT INTO FUNCTION file('%[1]s', 'Native')
SELECT * REPLACE (now64(3, 'UTC') + INTERVAL 1 DAY AS _insert_by) FROM
(
    SELECT * FROM (SELECT * FROM %[2]s.usage_tracking ORDER BY _partition, _offset LIMIT %[3]d OFFSET %[4]d) ORDER BY %[5]s
)
SETTINGS max_block_size = %[6]d, min_insert_block_size_rows = %[6]d, engine_file_truncate_on_insert = 1`,
				path, database, per, i*per, way.order, way.block)
			if _, err := w.clickhouse.Query(ctx, query); err != nil {
				return nil, fmt.Errorf("write %s: %w", path, err)
			}
			files[way.name] = append(files[way.name], path)
		}
	}
	return files, nil
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
