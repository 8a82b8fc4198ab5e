package clickhouse

import (
	"context"
	_ "embed"
	"fmt"

	"tenantflow/events"
)

//go:embed queries/places.sql
var placesSQL string

// A Place is where an event stands in the log, with the hash of its identity.
type Place struct {
	Offset   int64
	Identity uint64
}

// Places reads which events the table holds at the offsets [from, to) of a partition.
func (s *Store) Places(ctx context.Context, topic string, partition int, from, to int64) ([]Place, error) {
	fail := func(err error) ([]Place, error) {
		return nil, fmt.Errorf("read events stored from %s/%d [%d, %d): %w", topic, partition, from, to, err)
	}
	rows, err := s.conn.Query(wholeContext(ctx), placesSQL, topic, partition, from, to)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	var places []Place
	for rows.Next() {
		var id, source string
		var p Place
		if err := rows.Scan(&id, &source, &p.Offset); err != nil {
			return fail(err)
		}
		p.Identity = events.IdentityHash([]byte(source), []byte(id))
		places = append(places, p)
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	return places, nil
}
