package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// A Verification says what is in an archive, and what is wrong with it.
type Verification struct {
	Topic      string            `json:"topic"`
	Dir        string            `json:"dir"`
	ClusterID  string            `json:"cluster_id,omitempty"`
	Partitions []PartitionReport `json:"partitions"`
	Problems   []string          `json:"problems"` // each names its file
	Notes      []string          `json:"notes,omitempty"`
}

// Verify reads the whole archive of a topic below a root: checksums, sizes, every record, and whether the files follow one another
// without holes. Unlike Check it goes on behind what is wrong. The error is Open's, or the context's.
func Verify(ctx context.Context, root, topic string, progress func(done, total int64)) (*Verification, error) {
	a, err := Open(root, topic)
	if err != nil {
		return nil, err
	}
	v := &Verification{Topic: topic, Dir: a.dir, ClusterID: a.manifest.ClusterID, Problems: []string{}}
	files, err := newFileReader(a.dir, topic)
	if err != nil {
		return nil, err
	}
	defer files.close()
	count := a.counter(progress)
	for i := range a.manifest.Partitions {
		p := &a.manifest.Partitions[i]
		for r := (kafka.Range{From: p.From, To: p.To}); r.From < r.To; {
			var looked File
			err := a.walk(ctx, p.Partition, r, func(f File) error {
				looked = f
				if err := a.verifyFile(ctx, files, p.Partition, f); err != nil {
					return err
				}
				count(f)
				return nil
			})
			switch {
			case err == nil:
				r.From = r.To
			case ctx.Err() != nil, errors.As(err, new(*RefusedError)):
				return nil, err
			default:
				v.Problems = append(v.Problems, words(err))
				count(looked)
				r.From = looked.To
			}
		}
		v.Partitions = append(v.Partitions, reportOf(p))
		for _, g := range p.Gaps {
			v.Notes = append(v.Notes, fmt.Sprintf("%s/%d: offsets %d to %d are not in the archive: retention had deleted them, accepted at %s",
				topic, p.Partition, g.From, g.To-1, g.AcceptedAt.Format("2006-01-02 15:04:05Z07:00")))
		}
		if p.TooLarge > 0 {
			v.Notes = append(v.Notes, fmt.Sprintf("%s/%d: of %d records of more than 8 MiB only sizes and hashes are kept", topic, p.Partition, p.TooLarge))
		}
	}
	return v, v.strangers(a)
}

// verifyFile checks one file in both ways: as the bytes that were written, and as records.
func (a *Archive) verifyFile(ctx context.Context, files *fileReader, partition int, f File) error {
	err := checkFile(a.dir, f)
	if errors.Is(err, errMissing) {
		return err
	}
	got := File{TooLarge: 0}
	readErr := files.read(partition, f, f.From, func(r *events.Record) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		at := timeOf(r)
		if got.Records == 0 || at.Before(got.FirstTime) {
			got.FirstTime = at
		}
		if got.Records == 0 || at.After(got.LastTime) {
			got.LastTime = at
		}
		if r.Large != nil {
			got.TooLarge++
		}
		got.Records++
		return nil
	})
	if readErr == nil && err == nil && (!got.FirstTime.Equal(f.FirstTime) || !got.LastTime.Equal(f.LastTime) || got.TooLarge != f.TooLarge) {
		return &DamagedError{filepath.Join(a.dir, f.Name), fmt.Errorf("its times are from %s to %s, and the manifest says from %s to %s", got.FirstTime, got.LastTime, f.FirstTime, f.LastTime)}
	}
	if err == nil {
		return readErr
	}
	var damage *DamagedError
	if errors.As(readErr, &damage) && errors.As(err, new(*DamagedError)) {
		return fmt.Errorf("%w (and: %w)", err, damage.Err)
	}
	return err
}

// strangers names files that neither the manifest that was read nor the one of now does. While an archiver is at work there are some.
func (v *Verification) strangers(a *Archive) error {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	now, err := readManifest(a.dir)
	if err != nil {
		return err
	}
	known := map[string]bool{manifestName: true, lockName: true}
	for _, p := range slices.Concat(a.manifest.Partitions, now.Partitions) {
		for _, f := range p.Files {
			known[f.Name] = true
		}
	}
	for _, e := range entries {
		switch {
		case known[e.Name()]:
		case strings.HasSuffix(e.Name(), temporary):
			v.Notes = append(v.Notes, fmt.Sprintf("%s is being written, or was when an archiver died; the next run removes it", e.Name()))
		default:
			v.Notes = append(v.Notes, fmt.Sprintf("%s is not in the manifest: it is not used", e.Name()))
		}
	}
	return nil
}

// words are those of a damaged file, without what to do, which is said once.
func words(err error) string {
	var damage *DamagedError
	if errors.As(err, &damage) {
		return fmt.Sprintf("%s: %v", damage.Path, damage.Err)
	}
	return err.Error()
}

func reportOf(p *Partition) PartitionReport {
	r := PartitionReport{Partition: p.Partition, From: p.From, To: p.To, Records: p.Records, TooLarge: p.TooLarge, Files: len(p.Files), upTo: p.LastTime}
	for _, f := range p.Files {
		r.Bytes += f.Bytes
	}
	for _, g := range p.Gaps {
		r.Missing += g.To - g.From
	}
	return r
}
