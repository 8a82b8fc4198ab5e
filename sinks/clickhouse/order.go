package clickhouse

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// An order puts the rows of a block into the order of the table's key - company, user, timestamp, event id - before
// they are sent. A block that arrives sorted spares the server its sort and lets the views aggregate runs of equal keys,
// which saves it more than this costs: rows are grouped by company and user in a hash table, the few groups are sorted,
// and each is then sorted by time, in which its rows nearly are already.
//
// The rows a block holds and the order in which they are compared, hashed and counted stay those of the log. Its memory
// is kept from block to block.
type order struct {
	slots  []int32 // open addressing: number of a group + 1; 0 is free
	group  []int32 // of each row
	member []int32 // of each group: one of its rows
	sorted []int32 // groups by company and user
	next   []int32 // of each group: where its next row goes
	rows   []int32
}

// of returns rows in the table's order. The result is valid until the next call.
func (o *order) of(b *Block, rows []int32) []int32 {
	o.gather(b, rows)
	groups := len(o.member)
	o.sorted = slices.Grow(o.sorted[:0], groups)[:groups]
	for g := range o.sorted {
		o.sorted[g] = int32(g) // #nosec G115 -- at most one for each row
	}
	slices.SortFunc(o.sorted, func(x, y int32) int {
		i, j := int(o.member[x]), int(o.member[y])
		if c := bytes.Compare(b.company.at(i), b.company.at(j)); c != 0 {
			return c
		}
		return bytes.Compare(b.user.at(i), b.user.at(j))
	})
	// next holds how many rows each group has; it becomes where the group begins.
	at := int32(0)
	for _, g := range o.sorted {
		n := o.next[g]
		o.next[g] = at
		at += n
	}
	o.rows = slices.Grow(o.rows[:0], len(rows))[:len(rows)]
	for i, r := range rows {
		g := o.group[i]
		o.rows[o.next[g]] = r
		o.next[g]++
	}
	from := int32(0)
	for _, g := range o.sorted {
		slices.SortFunc(o.rows[from:o.next[g]], func(i, j int32) int {
			if c := cmp.Compare(b.timestamp[i], b.timestamp[j]); c != 0 {
				return c
			}
			return bytes.Compare(b.eventID.at(int(i)), b.eventID.at(int(j)))
		})
		from = o.next[g]
	}
	return o.rows
}

// gather numbers the groups and counts their rows.
func (o *order) gather(b *Block, rows []int32) {
	size := 1 << bits.Len(uint(2*len(rows)))
	if cap(o.slots) < size {
		o.slots = make([]int32, size)
	}
	o.slots = o.slots[:size]
	clear(o.slots)
	mask := uint64(size - 1)
	o.group = slices.Grow(o.group[:0], len(rows))[:len(rows)]
	o.member, o.next = o.member[:0], o.next[:0]
	for i, r := range rows {
		company, user := b.company.at(int(r)), b.user.at(int(r))
		for slot := xxhash.Sum64(user) ^ xxhash.Sum64(company)<<1; ; slot++ {
			g := o.slots[slot&mask] - 1
			if g < 0 {
				g = int32(len(o.member)) // #nosec G115 -- at most one for each row
				o.slots[slot&mask] = g + 1
				o.member = append(o.member, r)
				o.next = append(o.next, 0)
			} else if m := int(o.member[g]); !bytes.Equal(b.user.at(m), user) || !bytes.Equal(b.company.at(m), company) {
				continue
			}
			o.group[i] = g
			o.next[g]++
			break
		}
	}
}
