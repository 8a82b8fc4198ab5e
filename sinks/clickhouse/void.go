package clickhouse

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ClickHouse/ch-go/proto"

	"tenantflow/events"
)

// A voided names the usage that a row takes back. Such rows are rare, so a block keeps them beside its columns.
type voided struct{ source, id string }

// sign is 1 for usage and -1 for a void.
func (b *Block) sign(i int) int8 {
	if _, void := b.voids[i]; void {
		return -1
	}
	return 1
}

// appendVoid notes that the newest row takes usage back.
func (b *Block) appendVoid(v *events.Voids) {
	const each = 64 // bytes of a map's entry
	if b.voids == nil {
		b.voids = map[int]voided{}
	}
	b.voids[len(b.offset)-1] = voided{string(v.Source), string(v.ID)}
	b.voidBytes += int64(len(v.Source) + len(v.ID) + each)
}

// LiveVoids are the rows not dropped that take usage back, in the order of their offsets.
func (b *Block) LiveVoids() []int {
	var rows []int
	for i := range b.voids {
		if !b.dropped[i] {
			rows = append(rows, i)
		}
	}
	slices.Sort(rows)
	return rows
}

// Only puts some rows back into what will be inserted, and takes all others out of it.
func (b *Block) Only(rows []int) {
	for i := range b.dropped {
		b.dropped[i] = true
	}
	for _, i := range rows {
		b.dropped[i] = false
	}
	b.live = len(rows)
}

// FindVoided looks up the usage that some rows of b, all of them voids, take back. Same says that it is usage, and that its data is
// what the void repeats. One query, whatever the number of rows.
func (s *Store) FindVoided(ctx context.Context, b *Block, rows []int) ([]Match, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	keys, err := b.keysBy(rows, func(i int) (id, source string, sign int8) {
		v := b.voids[i]
		return v.id, v.source, 1
	})
	if err != nil {
		return nil, fmt.Errorf("look up the usage of %d voids: %w", len(rows), err)
	}
	oldest, newest := b.span(rows)
	return s.find(ctx, keys, findSQL, oldest, newest)
}

// encodeSigns writes the column sign.
func encodeSigns(buf *proto.Buffer, b *Block, rows []int32) {
	out := grow(buf, len(rows))
	for i := range out {
		out[i] = 1
	}
	if len(b.voids) == 0 {
		return
	}
	for i, r := range rows {
		out[i] = byte(b.sign(int(r))) // #nosec G115 -- two's complement on the wire
	}
}

// encodeVoids writes the columns voids_source and voids_id.
func encodeVoids(buf *proto.Buffer, b *Block, rows []int32) {
	const sourceColumn, idColumn = "voids_source", "voids_id"
	if len(b.voids) == 0 {
		buf.PutString(sourceColumn)
		buf.PutString("LowCardinality(String)")
		encodeConstant(buf, "", len(rows))
		buf.PutString(idColumn)
		buf.PutString("String")
		clear(grow(buf, len(rows))) // a length of 0 each
		return
	}
	var sources dictionary
	for _, r := range rows {
		sources.append([]byte(b.voids[int(r)].source))
	}
	all := make([]int32, len(rows))
	for i := range all {
		all[i] = int32(i) // #nosec G115 -- a block holds far fewer than 2^31 rows
	}
	buf.PutString(sourceColumn)
	buf.PutString("LowCardinality(String)")
	encodeDictionary(buf, &sources, all)
	buf.PutString(idColumn)
	buf.PutString("String")
	for _, r := range rows {
		id := b.voids[int(r)].id
		buf.Buf = binary.AppendUvarint(buf.Buf, uint64(len(id)))
		buf.Buf = append(buf.Buf, id...)
	}
}
