package replay_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/migrations"
)

// archived archives the topic and returns the root of the archives.
func (w *world) archived(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	// Some files a partition.
	if _, err := archive.Run(t.Context(), archive.Config{Client: w.client, Topic: w.topic(), Root: root, SegmentBytes: 200 << 10}); err != nil {
		t.Fatal(err)
	}
	return root
}

// fromArchive asks for all usage that the archive holds.
func fromArchive(root string) replay.Request {
	r := everything()
	r.Source = replay.SourceSpec{Kind: replay.SourceArchive, Path: root}
	return r
}

// archives has a station read them, in few chunks: almost everything is published.
func archives(c *replay.Config) {
	c.Sources[replay.SourceArchive] = replay.OpenArchive
	c.ChunkRecords, c.ChunkEvents = 1500, 1000
}

// emptyTable gives the installation another database, migrated and empty.
func (w *world) emptyTable(t testing.TB) {
	t.Helper()
	w.ClickHouse = enginetest.NewDatabase(t)
	tables, err := migrations.OpenClickHouse(t.Context(), w.options(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.db, err = chgo.Open(w.options()); err != nil {
		t.Fatal(err)
	}
	db := w.db
	t.Cleanup(func() { _ = db.Close() })
}

func TestReplay_FromAnArchiveBringsEverythingBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	g := generator(t, model.Config{Seed: 21, Count: 6000, Companies: 20, UsersPerCompany: 5, Resends: 0.05, Late: 0.05, Malformed: 0.01, Structured: 0.1})
	w.publish(t, g, 0)
	stop := w.consume(t, nil)
	w.awaitConsumed(t)
	stop()
	root := w.archived(t)
	w.emptyTable(t)
	w.consume(t, nil)

	s := w.station(t, archives)
	rows := g.Expected().Tables.Rows
	report, _ := s.dry(t, fromArchive(root))
	if report.Counts["published"] != rows || replay.Read(report.Counts) != 6000 {
		t.Errorf("the dry run counts %v; want %d published of 6000", report.Counts, rows)
	}
	done := s.run(t, s.create(t, fromArchive(root)).ID)
	if done.State != task.Done || done.Counts["published"] != rows || done.Counts["settled"]+done.Counts["too_old"] != deadLetters(g) || replay.Read(done.Counts) != 6000 {
		t.Errorf("%s %s: %v; want %d published, %d settled", done.State, done.Message, done.Counts, rows, deadLetters(g))
	}
	w.awaitConsumed(t)
	w.matches(t, g.Expected(), true)
	again := s.run(t, s.create(t, fromArchive(root)).ID)
	if again.Counts["published"] != 0 || again.Counts["conflict"] != 0 {
		t.Errorf("a second replay: %v", again.Counts)
	}
}

// The log that was archived is gone, and the new one has fewer partitions.
func TestReplay_FromAnArchiveIntoARecreatedTopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	g := generator(t, model.Config{Seed: 22, Count: 3000, Companies: 20, UsersPerCompany: 5, Resends: 0.05, Structured: 0.1})
	w.publish(t, g, 0)
	root := w.archived(t)
	before := w.perPartition(t)

	w.recreate(t, 2)
	w.consume(t, nil)

	s := w.station(t, archives)
	done := s.run(t, s.create(t, fromArchive(root)).ID)
	if rows := g.Expected().Tables.Rows; done.State != task.Done || done.Counts["published"] != rows {
		t.Errorf("%s %s: %v; want %d published", done.State, done.Message, done.Counts, rows)
	}
	w.awaitConsumed(t)
	w.matches(t, g.Expected(), true)
	after := w.perPartition(t)
	for p := range 2 {
		for id := range before[p] {
			if !after[p][id] {
				t.Fatalf("an event of partition %d is not in it again: %s", p, id)
			}
		}
	}
}

// recreate deletes the topic and makes it again, empty.
func (w *world) recreate(t testing.TB, partitions int) {
	t.Helper()
	enginetest.RecreateTopic(t, enginetest.SharedKafka(t), w.client, w.topic(), partitions)
	w.Partitions = partitions
}

// perPartition are the values of the records, by partition.
func (w *world) perPartition(t testing.TB) []map[string]bool {
	t.Helper()
	var all []map[string]bool
	for p := range w.Partitions {
		values := map[string]bool{}
		if err := kafka.ReadLog(t.Context(), w.client, w.topic(), p, kafka.Range{From: 0, To: 1 << 60}, func(r *events.Record) error {
			values[string(r.Key)+string(r.Value)] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		all = append(all, values)
	}
	return all
}

func TestReplay_FromAnArchiveLeavesOutWhoIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 23, Count: 1500, Companies: 4, UsersPerCompany: 3})
	w.publish(t, g, 0)
	stop := w.consume(t, nil)
	w.awaitConsumed(t)
	stop()
	root := w.archived(t)
	var purged, company, user string
	if err := w.db.QueryRow(t.Context(), "SELECT min(company_id), max(company_id), argMax(user_id, company_id) FROM usage_tracking").Scan(&purged, &company, &user); err != nil {
		t.Fatal(err)
	}
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ($1, '', '', 'purged'), ($2, '', '', 'active')", purged, company)
	w.exec(t, `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES
		('/s', 'e', 'company.user_erasure_requested.v1', $1, 'held', '', json_build_object('data', json_build_object('company_id', $1::text, 'user_id', $2::text)))`, company, user)
	purgedRows := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id = ?", purged)
	erasedRows := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id = ? AND user_id = ?", company, user)
	w.emptyTable(t)
	w.consume(t, nil)

	s := w.station(t, archives)
	got := s.run(t, s.create(t, fromArchive(root)).ID)
	if got.Counts["purged"] != purgedRows || got.Counts["erased"] != erasedRows || purgedRows == 0 || erasedRows == 0 || got.Counts["published"] != 1500-purgedRows-erasedRows {
		t.Errorf("got %v, want %d purged and %d erased of 1500", got.Counts, purgedRows, erasedRows)
	}
	w.awaitConsumed(t)
	if n := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id = ? OR user_id = ?", purged, user); n != 0 {
		t.Errorf("%d rows of who is forgotten are back", n)
	}
}

func TestReplay_OfADamagedArchivePublishesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 24, Count: 1500, Companies: 4, UsersPerCompany: 3})
	w.publish(t, g, 0)
	root := w.archived(t)
	dir := filepath.Join(root, w.topic())
	s := w.station(t, archives)
	made := s.create(t, fromArchive(root)) // while it was whole
	before, err := kafka.Ends(t.Context(), w.client, w.topic())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var segments []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".segment") {
			segments = append(segments, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(segments)
	last := segments[len(segments)-1]
	good, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"one flipped bit": func() error {
			bad := slices.Clone(good)
			bad[len(bad)/2] ^= 16
			return os.WriteFile(last, bad, 0o600)
		},
		"truncated":      func() error { return os.Truncate(last, int64(len(good)/2)) },
		"a missing file": func() error { return os.Remove(last) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		_, err := s.kind.Plan(t.Context(), fromArchive(root))
		var fatal *task.FatalError
		if !errors.As(err, &fatal) || !strings.Contains(err.Error(), last) || !strings.Contains(err.Error(), "Put the file back") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(last, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wrong := fromArchive(t.TempDir())
	if err := os.Rename(dir, filepath.Join(wrong.Source.Path, "other.usage.events")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kind.Plan(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "holds no archive of topic "+w.topic()+", but of other.usage.events") {
		t.Errorf("an archive of another topic: %v", err)
	}
	if err := os.Rename(filepath.Join(wrong.Source.Path, "other.usage.events"), filepath.Join(wrong.Source.Path, w.topic())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kind.Plan(t.Context(), wrong); err != nil {
		t.Errorf("put back: %v", err)
	}

	// The task was made before, and its archive is gone now.
	if failed := s.run(t, made.ID); failed.State != task.Failed || failed.Counts["published"] != 0 || !strings.Contains(failed.Message, "holds no archive") {
		t.Errorf("%s %q: %v", failed.State, failed.Message, failed.Counts)
	}
	after, err := kafka.Ends(t.Context(), w.client, w.topic())
	if err != nil {
		t.Fatal(err)
	}
	for p, r := range after {
		if r != before[p] {
			t.Errorf("partition %d had %v and has %v", p, before[p], r)
		}
	}
}

func TestReplay_OfAnArchiveCanBeBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 25, Count: 1000, Companies: 4, UsersPerCompany: 3})
	w.publish(t, g, 400)
	first, err := kafka.Ends(t.Context(), w.client, w.topic())
	if err != nil {
		t.Fatal(err)
	}
	border := time.Now().Truncate(time.Millisecond).Add(2 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return time.Now().After(border) }); err != nil {
		t.Fatal(err)
	}
	w.publish(t, g, 0)
	root := w.archived(t)
	s := w.station(t, archives)
	r := fromArchive(root)
	r.To = replay.Bound{Time: border, Offset: -1}
	if p := s.plan(t, r); p.Records != 400 {
		t.Errorf("%d records before the border, want 400: %+v", p.Records, p.Spec.Ranges)
	}
	r = fromArchive(root)
	r.From = replay.Bound{Time: border, Offset: -1}
	p := s.plan(t, r)
	for _, got := range p.Spec.Ranges {
		if got.From != first[got.Partition].To {
			t.Errorf("partition %d begins at %d, want %d", got.Partition, got.From, first[got.Partition].To)
		}
	}
	if p.Records != 600 {
		t.Errorf("%d records from the border on, want 600", p.Records)
	}
}
