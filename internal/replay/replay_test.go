package replay_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/internal/verify"
)

func deadLetters(g *model.Generator) int64 {
	e := g.Expected()
	return e.DeadLetterTotal()
}

// one in about 33 identities.
func lost(identity uint64) bool { return identity%33 == 0 }

func TestReplay_RestoresExactlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	g := generator(t, model.Config{Seed: 5, Count: 9000, Companies: 20, UsersPerCompany: 5, Resends: 0.05, Late: 0.05, Malformed: 0.01, Structured: 0.1})
	w.publish(t, g, 6000)
	stop := w.consume(t, lost)
	w.awaitConsumed(t)
	missing := stop()
	if len(missing) < 100 {
		t.Fatalf("only %d events are missing", len(missing))
	}
	letters := deadLetters(g)

	s := w.station(t)
	report, named := s.dry(t, everything())
	if !maps.Equal(named, missing) {
		t.Errorf("the dry run names %d events, %d are missing", len(named), len(missing))
	}
	c := report.Counts
	if c["published"] != int64(len(missing)) || c["settled"]+c["too_old"] != letters || replay.Read(c) != 6000 || c["already_there"] != 6000-letters-int64(len(missing)) {
		t.Errorf("the dry run counts %v; want %d published, %d settled or too old of 6000", c, len(missing), letters)
	}
	days := int64(0)
	for _, d := range report.Missing {
		days += d.Events
	}
	if days != c["published"] || c[replay.StillCounted] != 0 {
		t.Errorf("%d by day and company, want %d; %d still counted", days, c["published"], c[replay.StillCounted])
	}

	w.consume(t, nil)
	var live sync.WaitGroup
	made := s.create(t, everything())
	live.Go(func() { w.publish(t, g, 0) })
	done := s.run(t, made.ID)
	live.Wait()
	if done.State != task.Done || replay.Read(done.Counts) != 6000 || done.Counts["published"] == 0 || done.Counts["failed"] != 0 {
		t.Errorf("%s: %v", done.State, done.Counts)
	}
	w.awaitConsumed(t)
	w.matches(t, g.Expected(), true)

	again := s.run(t, s.create(t, everything()).ID)
	if again.Counts["published"] != 0 || again.Counts["conflict"] != 0 || again.Counts["settled"]+again.Counts["too_old"] != deadLetters(g) {
		t.Errorf("a second replay: %v", again.Counts)
	}
}

// What a kill leaves is finished by the next owner, and the counts are those of a run without one.
func TestReplay_KillAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 8, Count: 2000, Companies: 10, UsersPerCompany: 5, Resends: 0.2, Malformed: 0.01, Structured: 0.1})
	w.publish(t, g, 0)
	w.consume(t, nil)
	w.awaitConsumed(t)
	s, whole := w.station(t, small), w.station(t)
	var want task.Counts
	for round, step := range []task.Step{"", task.StepClaimed, task.StepDecided, task.StepProposed, task.StepPublished, task.StepAdvanced, task.StepFinished} {
		removed := w.remove(t, "cityHash64(event_id) % 33 = 0")
		r := everything()
		r.To = replay.Bound{Offset: 500} // what the replays publish lies behind it
		made := s.create(t, r)
		nth := int32(2)
		if step == task.StepClaimed || step == task.StepFinished {
			nth = 1
		}
		if step != "" && !w.crashAt(t, made.ID, step, nth) {
			t.Fatalf("the child never came to %s", step)
		}
		got := s.run(t, made.ID)
		w.awaitConsumed(t)
		if round == 0 {
			want = got.Counts
			if want["published"] == 0 || want["published"] > removed {
				t.Fatalf("%d rows were removed, and %v", removed, want)
			}
		}
		if got.State != task.Done || !maps.Equal(got.Counts, want) {
			t.Errorf("killed at %q: %s %v, want %v", step, got.State, got.Counts, want)
		}
		if left := w.number(t, "SELECT count() FROM usage_tracking"); left != g.Expected().Tables.Rows-(removed-want["published"]) {
			t.Errorf("killed at %q: %d rows are there, %d of %d removed ones were published", step, left, want["published"], removed)
		}
		// What lies behind the range is brought back, so that the next round begins with the same.
		whole.run(t, whole.create(t, everything()).ID)
		w.awaitConsumed(t)
		w.matches(t, g.Expected(), false)
	}
}

func TestReplay_KillsAtRandomStepsChangeNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: seed, Count: 2000, Companies: 10, UsersPerCompany: 5, Resends: 0.2, Malformed: 0.01})
	w.publish(t, g, 0)
	stop := w.consume(t, lost)
	w.awaitConsumed(t)
	stop()
	s := w.station(t, small)
	want, _ := s.dry(t, everything())
	w.consume(t, nil)
	made := s.create(t, everything())
	steps := []task.Step{task.StepClaimed, task.StepDecided, task.StepProposed, task.StepPublished, task.StepAdvanced}
	for range 4 {
		step := steps[random.IntN(len(steps))]
		nth := int32(1)
		if step != task.StepClaimed {
			nth += random.Int32N(3)
		}
		if !w.crashAt(t, made.ID, step, nth) {
			break
		}
	}
	if got := s.run(t, made.ID); !maps.Equal(got.Counts, want.Counts) {
		t.Errorf("got %v, want %v", got.Counts, want.Counts)
	}
	w.awaitConsumed(t)
	w.matches(t, g.Expected(), true)
}

func TestReplay_LeavesOutWhoIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 3, Count: 2000, Companies: 4, UsersPerCompany: 3})
	w.publish(t, g, 0)
	w.consume(t, nil)
	w.awaitConsumed(t)
	var purged, company, user string
	row := w.db.QueryRow(t.Context(), "SELECT min(company_id), max(company_id), argMax(user_id, company_id) FROM usage_tracking")
	if err := row.Scan(&purged, &company, &user); err != nil {
		t.Fatal(err)
	}
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ($1, '', '', 'purged'), ($2, '', '', 'active')", purged, company)
	w.exec(t, `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES
		('/s', 'e', 'company.user_erasure_requested.v1', $1, 'held', '', json_build_object('data', json_build_object('company_id', $1::text, 'user_id', $2::text)))`, company, user)
	purgedRows := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id = ?", purged)
	erasedRows := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id = ? AND user_id = ?", company, user)
	removed := w.remove(t, "1")

	s := w.station(t)
	got := s.run(t, s.create(t, everything()).ID)
	want := task.Counts{"published": removed - purgedRows - erasedRows, "purged": purgedRows, "erased": erasedRows}
	delete(got.Counts, replay.StillCounted)
	if !maps.Equal(got.Counts, want) || purgedRows == 0 || erasedRows == 0 {
		t.Errorf("got %v, want %v", got.Counts, want)
	}
	w.awaitConsumed(t)
	if n := w.number(t, "SELECT count() FROM usage_tracking"); n != want["published"] {
		t.Errorf("%d rows, want %d", n, want["published"])
	}
}

func TestReplay_OfRowsDeletedByHandEndsRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 4, Count: 2000, Companies: 4, UsersPerCompany: 3, Resends: 0.05})
	w.publish(t, g, 0)
	w.consume(t, nil)
	w.awaitConsumed(t)
	removed := w.remove(t, "cityHash64(event_id) % 20 = 0")

	s := w.station(t)
	got := s.run(t, s.create(t, everything()).ID)
	if got.Counts["published"] != removed || got.Counts[replay.StillCounted] != removed {
		t.Errorf("%d rows were removed: %v", removed, got.Counts)
	}
	w.awaitConsumed(t)
	w.matches(t, g.Expected(), false) // the rows; the totals count the removed ones twice

	v, err := verify.Open(t.Context(), verify.Config{Client: w.client, ClickHouse: w.options(), Topic: w.topic(), Group: w.group(), InsertTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	report, err := v.Run(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if report.Differences() != 0 || report.Repairs.TotalsMended == 0 {
		t.Errorf("%d differences are left, %+v", report.Differences(), report.Repairs)
	}
	w.matches(t, g.Expected(), true)
}

func TestReplay_TakesOnlyWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 6, Count: 1500, Companies: 4, UsersPerCompany: 3, Malformed: 0.02})
	w.publish(t, g, 0)
	w.consume(t, nil)
	w.awaitConsumed(t)
	of := w.number(t, "SELECT count() FROM usage_tracking WHERE company_id IN (SELECT max(company_id) FROM usage_tracking)")
	var company string
	if err := w.db.QueryRow(t.Context(), "SELECT max(company_id) FROM usage_tracking").Scan(&company); err != nil {
		t.Fatal(err)
	}
	removed := w.remove(t, "1")
	s := w.station(t)
	all, names := s.dry(t, everything())
	if all.Counts["published"] != removed {
		t.Fatalf("%d rows were removed: %v", removed, all.Counts)
	}
	count := func(what string, change func(*replay.Request), want int64) {
		t.Helper()
		r := everything()
		change(&r)
		got, _ := s.dry(t, r)
		if got.Counts["published"] != want || got.Counts["filtered"]+got.Counts["published"] != replay.Read(got.Counts) {
			t.Errorf("%s: %v, want %d published and the rest filtered", what, got.Counts, want)
		}
	}
	count("by company", func(r *replay.Request) { r.Companies = []string{company} }, of)
	count("by another type", func(r *replay.Request) { r.Types = []string{"usage.voided.v1"} }, 0)
	count("by identities", func(r *replay.Request) {
		for _, name := range slices.Sorted(maps.Keys(names))[:7] {
			for i := range name {
				if name[i] == '\n' {
					r.Identities = append(r.Identities, task.Identity(name[:i], name[i+1:]))
				}
			}
		}
	}, 7)
	r := everything()
	r.Partitions, r.From, r.To = []int{1}, replay.Bound{Offset: 10}, replay.Bound{Offset: 110}
	if p := s.plan(t, r); len(p.Spec.Ranges) != 1 || p.Spec.Ranges[0] != (replay.Range{Partition: 1, From: 10, To: 110}) {
		t.Errorf("the plan reads %v", p.Spec.Ranges)
	}
	r = everything()
	r.From = replay.Bound{Time: time.Now().Add(time.Hour), Offset: -1}
	if p := s.plan(t, r); p.Records != 0 {
		t.Errorf("after the end: %d records", p.Records)
	}
	for effect, topic := range map[string]string{"quota": events.TopicUsage, "usage": events.TopicCompany, "": events.TopicUsage, "company": events.TopicQuota} {
		r := everything()
		r.Topic, r.Effects = topic, []string{effect}
		if _, err := s.kind.Plan(t.Context(), r); err == nil {
			t.Errorf("the effect %q of %s was taken", effect, topic)
		}
	}
}

func TestReplay_OfAFileBringsItsEventsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	g := generator(t, model.Config{Seed: 9, Count: 1000, Companies: 4, UsersPerCompany: 3, Resends: 0.05, Structured: 0.3})
	var text []byte
	var m model.Message
	for g.Next(&m) {
		envelope, err := events.ParseEnvelope(&events.Record{Key: m.Key, Value: m.Value, Headers: m.Headers})
		if err != nil {
			t.Fatal(err)
		}
		line, err := envelope.ToStructured(m.Key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.consume(t, nil)
	s := w.station(t)
	r := everything()
	r.Source = replay.SourceSpec{Kind: replay.SourceFile, Path: file}
	for _, want := range []task.Counts{
		{"published": g.Expected().Tables.Rows, "already_there": g.Expected().Duplicates},
		{"already_there": g.Expected().Messages},
	} {
		if got := s.run(t, s.create(t, r).ID); got.State != task.Done || !maps.Equal(got.Counts, want) {
			t.Errorf("%s %s: %v, want %v", got.State, got.Message, got.Counts, want)
		}
		w.awaitConsumed(t)
		w.matches(t, g.Expected(), true)
	}
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	r.Source.Path += ".gone"
	if _, err := s.kind.Plan(t.Context(), r); err == nil {
		t.Error("a file that is not there was taken")
	}
}
