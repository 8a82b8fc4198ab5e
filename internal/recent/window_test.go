package recent

import (
	"testing"

	"pgregory.net/rapid"
)

func TestWindow_AnswersAsALookOverTheLogWould(t *testing.T) {
	t.Parallel()
	type record struct {
		hash           uint64
		offset, second int64
	}
	rapid.Check(t, func(t *rapid.T) {
		records, seconds := rapid.Int64Range(1, 2000).Draw(t, "records"), rapid.Int64Range(1, 300).Draw(t, "seconds")
		n := rapid.IntRange(1, 4000).Draw(t, "events")
		seed, kinds := rapid.Uint64().Draw(t, "seed"), rapid.Uint64Range(1, 3000).Draw(t, "identities")
		crowd := uint64(1)<<rapid.IntRange(0, 7).Draw(t, "crowd") - 1 // bits that choose a bucket and are the same in all hashes
		var log []record
		offset, second := int64(1)<<32-1000, int64(1_700_000_000)
		for i := range uint64(n) {
			r := spread(seed + i)
			offset += 1 + int64(r%3)
			second += int64(r >> 8 % 4 / 3)
			log = append(log, record{spread(r>>16%kinds) &^ crowd, offset, second - int64(r>>40)%min(seconds, 20)})
		}
		w := NewWindow(records, seconds)
		late := NewWindow(records, seconds) // a process that has come later
		begins := rapid.IntRange(0, n-1).Draw(t, "begins")
		last := map[uint64]record{}
		for i, r := range log {
			before, found := last[r.hash]
			apart := max(r.second-before.second, before.second-r.second)
			want := found && r.offset-before.offset <= records && apart <= seconds
			last[r.hash] = r
			if got := w.Add(r.hash, r.offset, r.second); got != want {
				t.Fatalf("record %d: again %t, want %t", i, got, want)
			}
			if log[begins].offset-r.offset > records {
				continue
			}
			if got := late.Add(r.hash, r.offset, r.second); i >= begins && got != want {
				t.Fatalf("record %d, read from the window before %d on: again %t, want %t", i, begins, got, want)
			}
		}
		if int64(w.Len()) > records+1 {
			t.Fatalf("%d are remembered of %d", w.Len(), records)
		}
	})
}

func BenchmarkWindowAdd(b *testing.B) {
	w := NewWindow(1_000_000, 3600)
	b.ReportAllocs()
	for i := range b.N {
		w.Add(spread(uint64(i)), int64(i), int64(i/1000))
	}
	b.ReportMetric(float64(w.Bytes())/float64(w.Len()), "B/record")
}
