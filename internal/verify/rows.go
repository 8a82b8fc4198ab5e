package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/cespare/xxhash/v2"

	"tenantflow/events"
	"tenantflow/internal/totals"
)

// A row is a stored row, reduced to what it is compared by.
type row struct {
	offset   int64
	identity uint64
	content  uint64
}

// A hasher makes the same hashes of an event as ClickHouse makes of its row (identity.sql, signed.sql).
type hasher struct{ text []byte }

func (h *hasher) content(u *events.Usage) uint64 {
	b := h.text[:0]
	for _, field := range [][]byte{u.UserID, u.CompanyID, u.Tier, u.BillingPeriod} {
		b = append(b, field...)
		b = append(b, '\n')
	}
	b = strconv.AppendInt(b, int64(len(u.Service)), 10)
	b = append(b, ':')
	b = append(b, u.Service...)
	b = append(b, u.Endpoint...)
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(u.Timestamp)) // #nosec G115 -- two's complement, as ClickHouse has it
	b = binary.LittleEndian.AppendUint32(b, u.DataPoints)
	b = binary.LittleEndian.AppendUint64(b, uint64(u.ProcessingTime)) // #nosec G115 -- as above
	b = binary.LittleEndian.AppendUint64(b, uint64(u.Revenue))        // #nosec G115 -- as above
	h.text = b
	content := xxhash.Sum64(b)
	if u.Voids == nil {
		return content
	}
	b = binary.LittleEndian.AppendUint64(b[:0], content)
	b = append(append(b, u.Voids.Source...), '\n')
	h.text = append(b, u.Voids.ID...)
	return xxhash.Sum64(h.text)
}

// A cursor walks through the rows of an offset range in the order of their offsets.
type cursor struct {
	answer *totals.Answer
	at     row
	done   bool
}

// rowsOf opens a cursor on the rows of [from, to) of a partition.
func (v *Verifier) rowsOf(ctx context.Context, partition int, from, to int64) (*cursor, error) {
	answer, err := totals.Ask(totals.Spill(ctx), v.conn, statement("rows", nil),
		totals.End{Row: "toInt64(0), toUInt64(0), toUInt64(0)", Order: "offset"},
		v.cfg.Topic, partition, from, to)
	if err != nil {
		return nil, fmt.Errorf("read the rows of %s/%d [%d, %d): %w", v.cfg.Topic, partition, from, to, err)
	}
	c := &cursor{answer: answer}
	if err := c.advance(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cursor) close() { _ = c.answer.Close() } // advance has said all there is

func (c *cursor) advance() error {
	if c.answer.Next(&c.at.offset, &c.at.identity, &c.at.content) {
		return nil
	}
	c.done = true
	if err := c.answer.Err(); err != nil {
		return fmt.Errorf("read rows by their place: %w", err)
	}
	return nil
}

// describe names the events of the rows at some places.
func (v *Verifier) describe(ctx context.Context, partition int, offsets []int64) (map[int64]string, error) {
	rows, err := v.conn.Query(ctx, statement("events_at", nil), v.cfg.Topic, partition, chgo.GroupSet{Value: anys(offsets)})
	if err != nil {
		return nil, fmt.Errorf("read the events of %d rows: %w", len(offsets), err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	names := map[int64]string{}
	for rows.Next() {
		var offset int64
		var source, id string
		if err := rows.Scan(&offset, &source, &id); err != nil {
			return nil, fmt.Errorf("read the events of %d rows: %w", len(offsets), err)
		}
		if names[offset] != "" {
			names[offset] += ", "
		}
		names[offset] += source + " " + id
	}
	return names, rows.Err()
}

func anys(in []int64) []any {
	out := make([]any, len(in))
	for i, n := range in {
		out[i] = n
	}
	return out
}
