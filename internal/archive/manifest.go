package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tenantflow/internal/fetch"
)

// formatVersion is of the manifest and of what it names. A reader refuses any other.
const formatVersion = 1

// A Manifest says what an archive holds.
type Manifest struct {
	Topic      string      `json:"topic"`                // with its prefix
	ClusterID  string      `json:"cluster_id,omitempty"` // of the broker that was read; empty: it did not say
	Partitions []Partition `json:"partitions"`           // by number
}

// A Partition is what the archive holds of a partition: the offsets from From to To, To not included, but for the gaps.
// Offsets in between that no file has were not in the log: transaction markers, aborted records, what compaction has taken.
type Partition struct {
	Partition int       `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Records   int64     `json:"records"`
	TooLarge  int64     `json:"too_large,omitempty"` // records of more than 8 MiB, of which only sizes and hashes are kept
	FirstTime time.Time `json:"first_time,omitzero"` // the earliest and the latest time of a record
	LastTime  time.Time `json:"last_time,omitzero"`
	Mark      *Mark     `json:"mark,omitempty"` // the last record: by it a log that was recreated is noticed
	Gaps      []Gap     `json:"gaps,omitempty"`
	Files     []File    `json:"files"` // one behind the other
}

// A Mark names a record by its offset and a hash of key, value and headers (xxHash64, hexadecimal).
type Mark struct {
	Offset int64  `json:"offset"`
	Hash   string `json:"hash"`
}

// A Gap is a range of offsets, To not included, that retention had deleted before it was archived, and that an operator
// has accepted.
type Gap struct {
	From       int64     `json:"from"`
	To         int64     `json:"to"`
	AcceptedAt time.Time `json:"accepted_at"`
}

// A File is one segment.
type File struct {
	Name      string    `json:"name"`
	From      int64     `json:"from"` // where the one before it ends, or the archive begins, or a gap ends
	To        int64     `json:"to"`   // behind its last record
	Records   int64     `json:"records"`
	TooLarge  int64     `json:"too_large,omitempty"`
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	RawBytes  int64     `json:"raw_bytes"` // before compression
	Bytes     int64     `json:"bytes"`
	SHA256    string    `json:"sha256"` // of the file, hexadecimal
}

// mark is a Mark as the log's reader has it.
func (p *Partition) mark() fetch.Mark {
	if p.Mark == nil {
		return fetch.Mark{}
	}
	var hash uint64
	if _, err := fmt.Sscanf(p.Mark.Hash, "%016x", &hash); err != nil {
		return fetch.Mark{} // check has refused it
	}
	return fetch.Mark{Offset: p.Mark.Offset, Hash: hash}
}

func markOf(m fetch.Mark) *Mark {
	if m.IsZero() {
		return nil
	}
	return &Mark{Offset: m.Offset, Hash: fmt.Sprintf("%016x", m.Hash)}
}

// segmentName is the name of a file.
func segmentName(partition int, from, to int64) string {
	return fmt.Sprintf("%d-%d-%d.segment", partition, from, to)
}

// parseSegmentName takes a name apart.
func parseSegmentName(name string) (partition int, from, to int64, ok bool) {
	if n, err := fmt.Sscanf(name, "%d-%d-%d.segment", &partition, &from, &to); err != nil || n != 3 {
		return 0, 0, 0, false
	}
	return partition, from, to, name == segmentName(partition, from, to)
}

// partition finds a partition; nil: the archive has none of that number.
func (m *Manifest) partition(id int) *Partition {
	i, ok := slices.BinarySearchFunc(m.Partitions, id, func(p Partition, id int) int { return p.Partition - id })
	if !ok {
		return nil
	}
	return &m.Partitions[i]
}

// put adds or replaces a partition.
func (m *Manifest) put(p Partition) {
	i, ok := slices.BinarySearchFunc(m.Partitions, p.Partition, func(p Partition, id int) int { return p.Partition - id })
	if ok {
		m.Partitions[i] = p
		return
	}
	m.Partitions = slices.Insert(m.Partitions, i, p)
}

// sum fills in what follows from the files.
func (p *Partition) sum() {
	p.Records, p.TooLarge, p.FirstTime, p.LastTime = 0, 0, time.Time{}, time.Time{}
	for i, f := range p.Files {
		p.Records += f.Records
		p.TooLarge += f.TooLarge
		if i == 0 || f.FirstTime.Before(p.FirstTime) {
			p.FirstTime = f.FirstTime
		}
		if i == 0 || f.LastTime.After(p.LastTime) {
			p.LastTime = f.LastTime
		}
	}
}

// end is where its last file ends, or the gap behind it, or where it begins: the next file begins there.
func (p *Partition) end() int64 {
	at := p.From
	if n := len(p.Files); n > 0 {
		at = p.Files[n-1].To
	}
	if n := len(p.Gaps); n > 0 {
		at = max(at, p.Gaps[n-1].To)
	}
	return at
}

// tail is the last file, if what comes next belongs to the same segment: it is not full, and no gap follows it.
func (p *Partition) tail(segmentBytes int64) *File {
	n := len(p.Files)
	if n == 0 || p.Files[n-1].RawBytes >= segmentBytes || p.Files[n-1].To != p.end() {
		return nil
	}
	return &p.Files[n-1]
}

// wrapped is the form of the file: the manifest, and the SHA-256 of its bytes as they stand in the file.
type wrapped struct {
	Format   int             `json:"format"`
	SHA256   string          `json:"sha256"`
	Manifest json.RawMessage `json:"archive"`
}

// encode makes the bytes of the file.
func (m *Manifest) encode() ([]byte, error) {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "{\n\"format\": %d,\n\"sha256\": %q,\n\"archive\": %s\n}\n", formatVersion, hex.EncodeToString(sum[:]), body), nil
}

// decodeManifest is the inverse of encode. It takes what encode writes, and not one byte else.
func decodeManifest(b []byte) (*Manifest, error) {
	var w wrapped
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("it is not the JSON that was written: %w", err)
	}
	if w.Format != formatVersion {
		return nil, fmt.Errorf("its format is version %d; this tenantflow reads version %d", w.Format, formatVersion)
	}
	if sum := sha256.Sum256(w.Manifest); hex.EncodeToString(sum[:]) != w.SHA256 {
		return nil, fmt.Errorf("its SHA-256 is %x, and it says %s", sum, w.SHA256)
	}
	var m Manifest
	if err := json.Unmarshal(w.Manifest, &m); err != nil {
		return nil, fmt.Errorf("it is not the JSON that was written: %w", err)
	}
	again, err := m.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("it is not as it was written")
	}
	return &m, m.check()
}

// check looks whether the manifest makes sense: its checksum says that it was not changed, not that it was right.
func (m *Manifest) check() error {
	for i := range m.Partitions {
		p := &m.Partitions[i]
		if p.Partition < 0 || i > 0 && p.Partition <= m.Partitions[i-1].Partition {
			return fmt.Errorf("partition %d is out of order", p.Partition)
		}
		if err := p.check(); err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
	}
	return nil
}

func (p *Partition) check() error {
	if p.From < 0 || p.To < p.From {
		return fmt.Errorf("it goes from offset %d to %d", p.From, p.To)
	}
	if p.Mark != nil && (p.Mark.Offset < p.From || p.Mark.Offset >= p.To || p.mark().IsZero()) {
		return fmt.Errorf("its mark is at offset %d", p.Mark.Offset)
	}
	at, gaps := p.From, p.Gaps
	pass := func(upTo int64) error { // the gaps that end at or before an offset
		for ; len(gaps) > 0 && gaps[0].To <= upTo; gaps = gaps[1:] {
			if gaps[0].From < at || gaps[0].To <= gaps[0].From {
				return fmt.Errorf("a gap goes from offset %d to %d", gaps[0].From, gaps[0].To)
			}
			at = gaps[0].To
		}
		return nil
	}
	for _, f := range p.Files {
		if f.Name != segmentName(p.Partition, f.From, f.To) {
			return fmt.Errorf("a file from offset %d to %d is called %q", f.From, f.To, f.Name)
		}
		if err := pass(f.From); err != nil {
			return err
		}
		if f.From != at || f.To <= f.From || f.Records < 1 || f.Records > f.To-f.From {
			return fmt.Errorf("file %s does not follow the one before it, which ends at %d", f.Name, at)
		}
		at = f.To
	}
	if err := pass(p.To); err != nil {
		return err
	}
	sums := *p
	sums.sum()
	if len(gaps) > 0 || at > p.To || sums.Records != p.Records || sums.TooLarge != p.TooLarge {
		return fmt.Errorf("its files are not what it says of them")
	}
	return nil
}
