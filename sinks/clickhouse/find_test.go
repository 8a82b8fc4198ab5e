package clickhouse

import (
	"testing"
)

func TestFindComparesTheWholeEvent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	base := plain(7)
	neighbours := plains(5)
	s.insert(t, blockOf(append(neighbours, base)...))

	find := func(b *Block) map[int]Match {
		t.Helper()
		matches, err := s.Find(t.Context(), b, b.all())
		if err != nil {
			t.Fatal(err)
		}
		byRow := map[int]Match{}
		for _, m := range matches {
			if _, twice := byRow[m.Row]; twice {
				t.Errorf("row %d was found twice", m.Row)
			}
			byRow[m.Row] = m
		}
		return byRow
	}

	resend := base
	resend.offset = 1000
	if found := find(blockOf(plain(100), resend)); len(found) != 1 || found[1] != (Match{Row: 1, Same: true, Topic: "usage", Partition: 0, Offset: 7}) {
		t.Errorf("a resend and a new event: found %+v", found)
	}
	// What makes another event, or an event that stands elsewhere in the table, is not found; any other content is,
	// and is distinguished.
	for name, other := range variants(base) {
		found := find(blockOf(other))
		switch name {
		case "id", "source", "user", "company", "timestamp":
			if len(found) != 0 {
				t.Errorf("another %s: found %+v", name, found)
			}
		default:
			if m, ok := found[0]; !ok || m.Same || m.Offset != 7 {
				t.Errorf("another %s: found %+v", name, found)
			}
		}
	}
	// Only the rows asked for.
	matches, err := s.Find(t.Context(), blockOf(neighbours...), []int{1, 3})
	if err != nil || len(matches) != 2 {
		t.Errorf("two of five: %+v, %v", matches, err)
	}
	for _, m := range matches {
		if m.Row != 1 && m.Row != 3 || m.Offset != int64(m.Row) || !m.Same {
			t.Errorf("two of five: %+v", m)
		}
	}
	if matches, err := s.Find(t.Context(), blockOf(base), nil); err != nil || len(matches) != 0 {
		t.Errorf("none: %+v, %v", matches, err)
	}
}

func TestFindSeesTheSameEventInEveryPartitionAndMonth(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	b := NewBlock()
	for i := range 8 {
		r := plain(i).monthsAgo(i % 4)
		u := r.usage()
		b.Append(u, u.IdentityHash(), r.offset)
	}
	in := b.Intent("usage.other", 300, 0, 8, 0, 8)
	in.InsertBy = s.Deadline()
	if err := s.Insert(t.Context(), in, b, 0, 8); err != nil {
		t.Fatal(err)
	}
	matches, err := s.Find(t.Context(), b, b.all())
	if err != nil || len(matches) != 8 {
		t.Fatalf("%+v, %v", matches, err)
	}
	for _, m := range matches {
		if !m.Same || m.Topic != "usage.other" || m.Partition != 300 || m.Offset != int64(m.Row) {
			t.Errorf("%+v", m)
		}
	}
}

// Texts that mean something to SQL, or that a comparison could take for others.
func TestFindIsExactInTexts(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	ids := []string{"", "a", "A", "a ", " a", "a\x00", "\x00", "ä", "a\u0308", "'", "''", `\`, `\'`, "%", "_", "a\nb", "🦉", "\xff\xfe", "?", "{a:String}", "$1"}
	stored, others := NewBlock(), NewBlock()
	for i, id := range ids {
		r := plain(0)
		r.id, r.offset = id, int64(i)
		if i%2 == 0 {
			u := r.usage()
			stored.Append(u, u.IdentityHash(), r.offset)
		}
		u := r.usage()
		others.Append(u, u.IdentityHash(), r.offset)
	}
	s.insert(t, stored)
	matches, err := s.Find(t.Context(), others, others.all())
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	for _, m := range matches {
		found[m.Row] = true
		if !m.Same || m.Offset != int64(m.Row) {
			t.Errorf("id %q: %+v", ids[m.Row], m)
		}
	}
	for i, id := range ids {
		if found[i] != (i%2 == 0) {
			t.Errorf("id %q: found %v", id, found[i])
		}
	}
}

func TestFindComparesExtremeAmounts(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	big := plain(0)
	big.processing, big.revenue, big.points = maxDecimal18, maxDecimal18, maxPoints
	s.insert(t, blockOf(big))
	less := big
	less.revenue--
	matches, err := s.Find(t.Context(), blockOf(big, less), []int{0, 1})
	if err != nil || len(matches) != 2 {
		t.Fatalf("%+v, %v", matches, err)
	}
	for _, m := range matches {
		if m.Same != (m.Row == 0) {
			t.Errorf("%+v", m)
		}
	}
}

func TestFindIdentityLooksAtTheIdentityAlone(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	base := plain(7)
	s.insert(t, blockOf(append(plains(5), base)...))
	for name, other := range variants(base) {
		b := blockOf(plain(100), other)
		matches, err := s.FindIdentity(t.Context(), "usage", 0, 0, b, b.all())
		if err != nil {
			t.Fatal(err)
		}
		if name == "id" || name == "source" {
			if len(matches) != 0 {
				t.Errorf("another %s: found %+v", name, matches)
			}
			continue
		}
		if len(matches) != 1 || matches[0] != (Match{Row: 1, Topic: "usage", Offset: 7}) {
			t.Errorf("another %s: found %+v", name, matches)
		}
	}
	b := blockOf(base)
	for name, c := range map[string]struct {
		topic     string
		partition int
		from      int64
		found     int
	}{
		"from its offset on":        {"usage", 0, 7, 1},
		"from behind it on":         {"usage", 0, 8, 0},
		"in another partition":      {"usage", 1, 0, 0},
		"in another topic":          {"other", 0, 0, 0},
		"from the beginning":        {"usage", 0, 0, 1},
		"from before the beginning": {"usage", 0, -5, 1},
	} {
		matches, err := s.FindIdentity(t.Context(), c.topic, c.partition, c.from, b, b.all())
		if err != nil || len(matches) != c.found {
			t.Errorf("%s: %+v, %v", name, matches, err)
		}
	}
}
