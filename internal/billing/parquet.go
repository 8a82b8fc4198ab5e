package billing

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

//go:embed queries/parquet.sql
var parquetSQL string

// Parquet makes a Parquet file of an export: the columns of the CSV, typed, with the texts as they are. ClickHouse writes it each time, so the content never changes
// with a closed export, and the bytes may, with the version of ClickHouse.
func (e *Exporter) Parquet(ctx context.Context, x *Export) ([]byte, error) {
	var d Document
	if err := json.Unmarshal(x.JSON, &d); err != nil {
		return nil, fmt.Errorf("read the export of company %s in %s: %w", x.Company, x.Period, err)
	}
	return e.cfg.Rows.parquet(ctx, &d)
}

func (r *Rows) parquet(ctx context.Context, d *Document) ([]byte, error) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	encoder.SetEscapeHTML(false)
	for _, row := range d.table() {
		if err := encoder.Encode(row.typed()); err != nil {
			return nil, fmt.Errorf("write the lines of an export: %w", err)
		}
	}
	// The lines are a literal of the query, in which a character may take two.
	ctx = chgo.Context(ctx, chgo.WithSettings(chgo.Settings{"max_query_size": 4*lines.Len() + 1<<20, "date_time_input_format": "best_effort"}))
	answer, err := r.Conn.QueryFormat(ctx, "Parquet", parquetSQL, lines.String())
	if err != nil {
		return nil, fmt.Errorf("have ClickHouse write Parquet: %w", err)
	}
	file, err := io.ReadAll(answer)
	if err = errors.Join(err, answer.Close()); err != nil {
		return nil, fmt.Errorf("have ClickHouse write Parquet: %w", err)
	}
	// A file that is cut off lacks its end.
	if magic := []byte("PAR1"); !bytes.HasPrefix(file, magic) || !bytes.HasSuffix(file, magic) {
		return nil, errors.New("have ClickHouse write Parquet: the answer is no whole file")
	}
	return file, nil
}

// typed is the row with null for numbers and times that it lacks.
func (r *tableRow) typed() map[string]any {
	known := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	return map[string]any{
		"line": r.line, "company_id": r.company, "billing_period": r.period, "corrects_period": r.corrects, "cause": r.cause, "reference": r.reference, "type": r.kind, "status": r.status,
		"user_id": r.user, "subscription_tier": r.tier, "service_name": r.service, "calls": known(r.calls), "data_points": known(r.points), "identities": known(r.identities),
		"attributed_revenue": known(r.revenue), "amount": known(r.amount), "currency": r.currency, "starts_at": known(r.starts), "ends_at": known(r.ends), "happened_at": known(r.at), "detail": r.detail,
	}
}
