package archive

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// sampleManifest has what a manifest can have.
func sampleManifest() *Manifest {
	at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	file := func(p int, from, to, n int64) File {
		return File{Name: segmentName(p, from, to), From: from, To: to, Records: n, FirstTime: at, LastTime: at.Add(time.Hour), RawBytes: 100, Bytes: 50, SHA256: strings.Repeat("0", 64)}
	}
	m := &Manifest{Topic: "stage.usage.events", ClusterID: "c1", Partitions: []Partition{
		{Partition: 0, From: 5, To: 60, Mark: &Mark{49, "00000000000000ff"}, Gaps: []Gap{{20, 30, at}, {50, 55, at}}, Files: []File{file(0, 5, 20, 15), file(0, 30, 50, 3)}},
		{Partition: 2, From: 0, To: 0, Files: []File{}},
	}}
	m.Partitions[0].sum()
	return m
}

func TestManifest_EveryFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	good, err := sampleManifest().encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeManifest(good)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.encode(); err != nil || !bytes.Equal(again, good) {
		t.Fatalf("it changes by being read: %v\n%s", err, again)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := decodeManifest(bad); err == nil {
				t.Fatalf("bit %d of byte %d was flipped, and nothing was found", bit, i)
			}
		}
		if _, err := decodeManifest(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes, and nothing was found", i)
		}
	}
}

func TestManifest_ThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Partition){
		"a path":                      func(p *Partition) { p.Files[0].Name = "../" + p.Files[0].Name },
		"a hole":                      func(p *Partition) { p.Gaps = p.Gaps[1:] },
		"a file that is missing":      func(p *Partition) { p.Files = p.Files[1:] },
		"the last one missing":        func(p *Partition) { p.Files = p.Files[:1] },
		"a gap over a file":           func(p *Partition) { p.Gaps[0].From = 10 },
		"a gap behind the end":        func(p *Partition) { p.Gaps[1].To = 70 },
		"an end before a file's":      func(p *Partition) { p.To = 40 },
		"more records than offsets":   func(p *Partition) { p.Files[0].Records = 16; p.sum() },
		"another number of records":   func(p *Partition) { p.Records++ },
		"a mark behind the end":       func(p *Partition) { p.Mark.Offset = 60 },
		"a mark that is none":         func(p *Partition) { p.Mark.Hash = "no hash" },
		"a file that begins too late": func(p *Partition) { p.From = 4 },
	} {
		m := sampleManifest()
		change(&m.Partitions[0])
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(b); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	twice := sampleManifest()
	twice.Partitions[1].Partition = 0
	if b, err := twice.encode(); err != nil {
		t.Fatal(err)
	} else if _, err := decodeManifest(b); err == nil {
		t.Error("a partition twice: it was taken")
	}
}
