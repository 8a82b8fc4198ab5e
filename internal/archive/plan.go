package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/fetch"
	"tenantflow/internal/kafka"
)

// A plan is what a run is to do for a partition.
type plan struct {
	Partition       // as it is in the manifest, with a gap that is accepted
	until     int64 // where to stop
	fresh     bool  // the archive does not have it yet
	gap       bool  // one was accepted now
}

// plan looks whether the topic is the one that was archived, before anything is written, and what there is to do.
func (a *archiver) plan(ctx context.Context) ([]plan, error) {
	if err := a.sameCluster(ctx); err != nil {
		return nil, err
	}
	for _, p := range a.manifest.Partitions {
		if _, ok := a.log[p.Partition]; !ok {
			return nil, a.recreated("it had a partition %d, and has %d partitions now", p.Partition, len(a.log))
		}
	}
	var plans []plan
	var gaps []string
	for _, id := range slices.Sorted(maps.Keys(a.log)) {
		p, err := a.planPartition(ctx, id, a.log[id])
		if err != nil {
			return nil, err
		}
		if p.gap {
			g := p.Gaps[len(p.Gaps)-1]
			gaps = append(gaps, fmt.Sprintf("%s/%d: offsets %d to %d", a.Topic, id, g.From, g.To-1))
		}
		a.progress.Total += max(0, p.until-p.To)
		plans = append(plans, *p)
	}
	if len(gaps) > 0 && !a.AcceptGap {
		return nil, refuse("retention has deleted records before they were archived: %s. They are lost to the archive. To go on "+
			"behind them, run it once with --accept-gap: the manifest will name what is missing", strings.Join(gaps, "; "))
	}
	for _, g := range gaps {
		a.Logger.WarnContext(ctx, "the archive has a gap, as accepted", "missing", g)
	}
	return plans, nil
}

// sameCluster compares the cluster's id, where the broker gives one.
func (a *archiver) sameCluster(ctx context.Context) error {
	meta, err := a.Client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{a.Topic}})
	if err != nil {
		return fmt.Errorf("ask for the cluster's id: %w", err)
	}
	m := a.manifest
	switch {
	case m.ClusterID == "":
		m.ClusterID = meta.ClusterID
	case meta.ClusterID != "" && meta.ClusterID != m.ClusterID:
		return refuse("the archive in %s is of topic %s on the cluster %s, and this is cluster %s, where offsets name other records. "+
			"Choose another directory", a.dir, a.Topic, m.ClusterID, meta.ClusterID)
	}
	return nil
}

// recreated refuses a topic that is not the one that was archived.
func (a *archiver) recreated(format string, args ...any) error {
	return refuse("topic %s is not the one that the archive in %s was made of: %s. It was deleted and created again, or its log was cut. "+
		"Choose another directory for the new log; the archive of the old one stays as it is, and can be replayed", a.Topic, a.dir, fmt.Sprintf(format, args...))
}

func (a *archiver) planPartition(ctx context.Context, id int, log kafka.Range) (*plan, error) {
	p := &plan{until: log.To}
	if !a.To.IsZero() {
		var err error
		if p.until, err = kafka.OffsetAt(ctx, a.Client, a.Topic, id, a.To, log.To); err != nil {
			return nil, err
		}
	}
	from := log.From
	if !a.From.IsZero() {
		var err error
		if from, err = kafka.OffsetAt(ctx, a.Client, a.Topic, id, a.From, log.To); err != nil {
			return nil, err
		}
	}
	known := a.manifest.partition(id)
	if known == nil {
		p.fresh = true
		p.Partition = Partition{Partition: id, From: from, To: from, Files: []File{}}
		return p, nil
	}
	p.Partition = *known
	p.Files, p.Gaps = slices.Clone(p.Files), slices.Clone(p.Gaps)
	if log.To < p.To {
		return nil, a.recreated("partition %d was archived up to offset %d, and its log ends at %d", id, p.To, log.To)
	}
	if err := a.compare(ctx, p, log); err != nil {
		return nil, err
	}
	if n := len(p.Files); n > 0 {
		// What follows stands on it. An older manifest, put back, names a file that was replaced: then nothing must be removed.
		if err := checkFile(a.dir, p.Files[n-1]); err != nil {
			return nil, err
		}
	}
	switch {
	case log.From > p.To:
		p.gap = true
		p.Gaps = append(p.Gaps, Gap{From: p.To, To: log.From, AcceptedAt: a.Now().UTC().Truncate(time.Second)})
		p.To = log.From
	case !a.From.IsZero() && from > p.To:
		return nil, refuse("the archive of %s/%d ends at offset %d, and --from %s is offset %d: what lies between would be missing. Leave --from out: "+
			"an archive goes on where it ends", a.Topic, id, p.To, a.From.Format(time.RFC3339), from)
	case !a.From.IsZero() && from < p.From:
		return nil, refuse("the archive of %s/%d begins at offset %d, and --from %s is offset %d: an archive can't be continued to the front. "+
			"Choose another directory", a.Topic, id, p.From, a.From.Format(time.RFC3339), from)
	}
	return p, nil
}

// compare looks whether the log holds the last record that was archived, as consumers do. Where retention has taken it
// away, nothing can be said.
func (a *archiver) compare(ctx context.Context, p *plan, log kafka.Range) error {
	r := fetch.New(a.Client, a.Topic, p.Partition.Partition)
	defer r.Close()
	r.Expect(p.mark())
	enough := errors.New("compared")
	_, err := r.Fetch(ctx, min(max(p.To, log.From), log.To), 0, func(*eventsRecord) error { return enough })
	var changed *fetch.ChangedError
	switch {
	case errors.As(err, &changed):
		return a.recreated("partition %d holds another record at offset %d than the one that was archived", p.Partition.Partition, changed.Offset)
	case err != nil && !errors.Is(err, enough):
		return err
	}
	return nil
}

// tidy removes what a run that died has left of a partition: temporary files, and segments that the manifest does not name.
// Only from where the log still holds what they hold.
func (a *archiver) tidy(p *plan) error {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), temporary)
		id, from, _, ok := parseSegmentName(name)
		named := slices.ContainsFunc(p.Files, func(f File) bool { return f.Name == e.Name() })
		if !ok || id != p.Partition.Partition || named {
			continue
		}
		if name == e.Name() && from < p.To && !startsFile(p, from) {
			continue // it is none of ours
		}
		if err := os.Remove(filepath.Join(a.dir, e.Name())); err != nil {
			return err
		}
		removed = true
	}
	if removed {
		return syncDirectory(a.dir)
	}
	return nil
}

// startsFile reports whether a segment that begins there may be an unfinished run's, or one that the manifest has replaced.
func startsFile(p *plan, from int64) bool {
	return len(p.Files) > 0 && p.Files[len(p.Files)-1].From == from || from == p.end()
}
