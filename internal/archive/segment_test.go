package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
)

// copyOf is a record that shares nothing with the one given.
func copyOf(r *events.Record) events.Record {
	c := *r
	c.Key, c.Value, c.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), nil
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, events.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	if r.Large != nil {
		l := *r.Large
		c.Large = &l
	}
	return c
}

// text shows all of a record, nil and empty bytes apart.
func text(r *events.Record) string {
	s := fmt.Sprintf("%s/%d@%d %d key %#v value %#v", r.Topic, r.Partition, r.Offset, r.Time.UnixMilli(), r.Key, r.Value)
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %q %#v", h.Key, h.Value)
	}
	if r.Large != nil {
		s += fmt.Sprintf(" large %+v", *r.Large)
	}
	return s
}

func texts(records []events.Record) []string {
	all := make([]string, len(records))
	for i := range records {
		all[i] = text(&records[i])
	}
	return all
}

// write makes a segment of records.
func write(t testing.TB, h head, limit int64, records []events.Record) ([]byte, File) {
	t.Helper()
	e, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	var out bytes.Buffer
	w, err := newSegmentWriter(&out, e, limit, h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.add(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.finish()
	if err != nil {
		t.Fatal(err)
	}
	if f.Bytes != int64(out.Len()) {
		t.Fatalf("the segment has %d bytes and says %d", out.Len(), f.Bytes)
	}
	return out.Bytes(), f
}

// read takes a segment apart.
func read(b []byte, h head, from int64) ([]events.Record, File, error) {
	d, err := newDecoder()
	if err != nil {
		return nil, File{}, err
	}
	defer d.Close()
	var all []events.Record
	s := &segmentReader{decoder: d}
	f, err := s.read(bytes.NewReader(b), h, from, func(r *events.Record) error {
		all = append(all, copyOf(r))
		return nil
	})
	return all, f, err
}

// anyRecords are records that a log may hold.
func anyRecords(h head) *rapid.Generator[[]events.Record] {
	anyBytes := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 40))
	name := rapid.OneOf(rapid.SampledFrom([]string{"ce_id", "ce_source", "ce_type", "", "CE_id"}), rapid.StringN(0, 8, 20))
	return rapid.Custom(func(t *rapid.T) []events.Record {
		offset := h.From
		var all []events.Record
		for range rapid.IntRange(1, 30).Draw(t, "records") {
			offset += rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 1<<40)).Draw(t, "hole")
			r := events.Record{Topic: h.Topic, Partition: h.Partition, Offset: offset, Time: time.UnixMilli(rapid.Int64Range(-1, 1<<42).Draw(t, "time")),
				Key: anyBytes.Draw(t, "key"), Value: anyBytes.Draw(t, "value")}
			for range rapid.IntRange(0, 5).Draw(t, "headers") {
				r.Headers = append(r.Headers, events.Header{Key: name.Draw(t, "name"), Value: anyBytes.Draw(t, "header")})
			}
			if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
				r.Value = nil
				r.Large = &events.LargeRecord{Topic: h.Topic, Partition: h.Partition, Offset: offset, KeyBytes: 3, HeaderBytes: 1 << 10, ValueBytes: 9 << 20,
					KeySHA256: strings.Repeat("a", 64), ValueSHA256: strings.Repeat("b", 64), KeyKept: rapid.Bool().Draw(t, "kept"),
					OriginalTime: r.Time.UTC().Format(time.RFC3339Nano)}
			}
			all = append(all, r)
			offset++
		}
		return all
	})
}

func TestSegment_GivesBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := head{"stage.usage.events", rapid.IntRange(0, 100).Draw(rt, "partition"), rapid.Int64Range(0, 1<<50).Draw(rt, "from")}
		want := anyRecords(h).Draw(rt, "log")
		b, file := write(t, h, rapid.Int64Range(1, 2000).Draw(rt, "limit"), want)
		got, read1, err := read(b, h, h.From)
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Equal(texts(got), texts(want)) {
			rt.Fatalf("got %v, want %v", texts(got), texts(want))
		}
		if read1.Records != file.Records || read1.To != file.To || read1.RawBytes != file.RawBytes || read1.TooLarge != file.TooLarge {
			rt.Fatalf("read %+v, written %+v", read1, file)
		}
		from := want[rapid.IntRange(0, len(want)-1).Draw(rt, "begin")].Offset
		later, _, err := read(b, h, from)
		if err != nil || len(later) == 0 || later[0].Offset != from || !slices.Equal(texts(later), texts(want[len(want)-len(later):])) {
			rt.Fatalf("from %d: %v, %v", from, texts(later), err)
		}
	})
}

// sample is a small segment of several blocks.
func sample(t testing.TB) ([]byte, head) {
	t.Helper()
	h := head{"usage.events", 3, 100}
	var records []events.Record
	for i := range int64(6) {
		records = append(records, events.Record{Topic: h.Topic, Partition: h.Partition, Offset: h.From + 2*i, Time: time.UnixMilli(1_700_000_000_000 + i), Key: []byte("acme"),
			Value: fmt.Appendf(nil, `{"user_id":"u%d"}`, i), Headers: []events.Header{{Key: "ce_id", Value: []byte{byte(i)}}}})
	}
	b, _ := write(t, h, 60, records)
	return b, h
}

func TestSegment_EveryFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	good, h := sample(t)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, _, err := read(bad, h, h.From); err == nil {
				t.Fatalf("bit %d of byte %d of %d was flipped, and nothing was found", bit, i, len(good))
			}
		}
	}
}

func TestSegment_EveryTruncationIsFound(t *testing.T) {
	t.Parallel()
	good, h := sample(t)
	for n := range good {
		if _, _, err := read(good[:n], h, h.From); err == nil {
			t.Fatalf("cut to %d of %d bytes, and nothing was found", n, len(good))
		}
	}
	if _, _, err := read(append(bytes.Clone(good), 0), h, h.From); err == nil || !strings.Contains(err.Error(), "behind its end") {
		t.Errorf("a byte more: %v", err)
	}
}

func TestSegment_OfAnotherPlaceIsRefused(t *testing.T) {
	t.Parallel()
	good, h := sample(t)
	for _, other := range []head{{"prod.usage.events", 3, 100}, {h.Topic, 4, 100}, {h.Topic, 3, 99}} {
		if _, _, err := read(good, other, 0); err == nil || !strings.Contains(err.Error(), "it holds usage.events/3 from offset 100") {
			t.Errorf("%+v: %v", other, err)
		}
	}
	newer := bytes.Clone(good)
	newer[len(magic)-1]++
	if _, _, err := read(newer, h, 0); err == nil || !strings.Contains(err.Error(), "version 2; this tenantflow reads version 1") {
		t.Errorf("a newer version: %v", err)
	}
}

func TestSegment_AnErrorOfTheCallerComesBack(t *testing.T) {
	t.Parallel()
	good, h := sample(t)
	d, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = (&segmentReader{decoder: d}).read(bytes.NewReader(good), h, 0, func(*events.Record) error { return io.ErrClosedPipe })
	if err != io.ErrClosedPipe { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
}

// FuzzRecords decodes the raw bytes of a block: no bytes do harm, and what can be decoded can be written and read again.
func FuzzRecords(f *testing.F) {
	var p packer
	for i := range int64(3) {
		p.add(&events.Record{Offset: 10 + 3*i, Time: time.UnixMilli(1_700_000_000_000 + i), Key: []byte("k"), Headers: []events.Header{{Key: "a"}, {Key: "b", Value: []byte{}}}})
	}
	f.Add(p.raw, uint32(3), int64(10), int64(16))
	f.Add([]byte{0, 0, 1, 1, 1, 1, 0, 0, 0}, uint32(1), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, count uint32, first, last int64) {
		if count == 0 || first < 0 || last < first { // parseFrame refuses it
			t.Skip()
		}
		var u unpacker
		var all []events.Record
		if err := u.unpack(raw, count, first, last, func(r *events.Record) error {
			all = append(all, copyOf(r))
			return nil
		}); err != nil {
			return
		}
		if len(all) != int(count) || all[0].Offset != first || all[len(all)-1].Offset != last {
			t.Fatalf("%d records from %d to %d, not %d from %d to %d", len(all), all[0].Offset, all[len(all)-1].Offset, count, first, last)
		}
		var again packer
		for i := range all {
			again.add(&all[i])
		}
		var second []events.Record
		if err := u.unpack(again.raw, again.records, again.first, again.last, func(r *events.Record) error {
			second = append(second, copyOf(r))
			return nil
		}); err != nil || !slices.Equal(texts(all), texts(second)) {
			t.Fatalf("%v: %v became %v", err, texts(all), texts(second))
		}
	})
}

// FuzzSegment reads any bytes as a segment, with checksums that are right, which no damage would leave.
func FuzzSegment(f *testing.F) {
	good, h := sample(f)
	f.Add(good)
	empty, _ := write(f, h, 1, nil)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		for at := len(magic); at+frameHeader <= len(b); {
			end := at + frameHeader + int(binary.LittleEndian.Uint32(b[at+8:]))
			if end > len(b) || end < at {
				break
			}
			binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:end], castagnoli))
			at = end
		}
		got, file, err := read(b, h, h.From)
		var damage *segmentError
		if err != nil {
			if !errors.As(err, &damage) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		last := h.From - 1
		for _, r := range got {
			if r.Offset <= last || r.Topic != h.Topic || r.Partition != h.Partition {
				t.Fatalf("record %s behind offset %d", text(&r), last)
			}
			last = r.Offset
		}
		if int64(len(got)) != file.Records || last+1 != max(file.To, h.From) {
			t.Fatalf("%d records up to %d, and it says %+v", len(got), last, file)
		}
	})
}
