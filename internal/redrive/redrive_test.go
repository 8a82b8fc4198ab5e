package redrive_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/redrive"
	"tenantflow/internal/task"
	"tenantflow/internal/verify"
)

// The kinds of letters of TestRedrive_ThousandLettersOfSixKinds: how a bad event is made, and the patch that mends it.
var kinds = []struct { //nolint:gochecknoglobals // a constant table
	reason events.Reason
	bad    func(id string, n int) kafka.Message
	fix    string
}{
	{events.InvalidData, func(id string, n int) kafka.Message {
		return message(id, events.TypeUsageRecorded, "acme", strings.Replace(usageData("acme", "u", ""), `"user_id":"u"`, fmt.Sprintf(`"user":"u-%d"`, n%5), 1))
	}, `[{"op":"move","from":"/user","path":"/user_id"}]`},
	{events.MalformedData, func(id string, _ int) kafka.Message {
		return message(id, events.TypeUsageRecorded, "acme", `{"company_id":"acme",`)
	}, `[{"op":"replace","path":"","value":` + usageData("acme", "u-m", "") + `}]`},
	{events.MissingKey, func(id string, _ int) kafka.Message {
		return message(id, events.TypeUsageRecorded, "", usageData("acme", "u-k", ""))
	}, `[{"op":"add","path":"/partitionkey","value":"acme"}]`},
	{events.UnknownType, func(id string, _ int) kafka.Message {
		return message(id, "usage.recorded.v9", "acme", usageData("acme", "u-t", ""))
	}, `[{"op":"replace","path":"/type","value":"usage.recorded.v1"}]`},
	{events.TimestampInFuture, func(id string, _ int) kafka.Message {
		return message(id, events.TypeUsageRecorded, "acme", usageData("acme", "u-f", `,"timestamp":"`+time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339)+`"`))
	}, `[{"op":"remove","path":"/timestamp"}]`},
	{events.MissingAttribute, func(id string, _ int) kafka.Message {
		m := message(id, events.TypeUsageRecorded, "acme", usageData("acme", "u-a", ""))
		m.Headers = slices.DeleteFunc(m.Headers, func(h kafka.Header) bool { return h.Key == "ce_time" })
		return m
	}, `[{"op":"add","path":"/time","value":"2026-11-20T10:00:00Z"}]`},
}

func TestRedrive_ThousandLettersOfSixKinds(t *testing.T) {
	t.Parallel()
	const n = 1002 // of each kind: 167
	w := newWorld(t)
	var bad []kafka.Message
	for i := range n {
		k := kinds[i%len(kinds)]
		bad = append(bad, k.bad(fmt.Sprintf("%s-%d", k.reason, i), i))
	}
	w.write(t, w.usage(), bad...)
	w.consume(t)
	w.awaitConsumed(t)
	if rows, _ := w.rows(t, ""); rows != 0 {
		t.Fatalf("%d rows before", rows)
	}
	s := w.station(t)
	reader := &deadletter.Reader{Client: w.client, Topics: []string{w.usage()}}
	for _, k := range kinds {
		page, err := reader.Page(t.Context(), deadletter.Query{Filter: deadletter.Filter{Reasons: []events.Reason{k.reason}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Letters) != n/len(kinds) {
			t.Fatalf("%d letters of %s, want %d", len(page.Letters), k.reason, n/len(kinds))
		}
		// As they are, they would be dead letters again: nothing is published.
		dry, err := s.kind.Dry(t.Context(), s.plan(t, of(k.reason, "")))
		if err != nil || !maps.Equal(dry, task.Counts{"invalid": n / 6}) {
			t.Errorf("%s as they are: %v, %v", k.reason, dry, err)
		}
	}
	for round := range 2 {
		for _, k := range kinds {
			want := task.Counts{"published": n / 6}
			if round == 1 {
				want = task.Counts{"not_open": n / 6}
			}
			if got := s.redrive(t, of(k.reason, k.fix)); !maps.Equal(got, want) {
				t.Errorf("round %d, %s: %v, want %v", round, k.reason, got, want)
			}
		}
		w.awaitConsumed(t)
		if rows, ids := w.rows(t, ""); rows != n || ids != n {
			t.Errorf("round %d: %d rows of %d events, want %d of each", round, rows, ids, n)
		}
		if got := w.states(t); !maps.Equal(got, map[string]int64{"redriven": n}) {
			t.Errorf("round %d: states %v", round, got)
		}
	}
	// Also where the states were lost, nothing is applied twice.
	w.exec(t, "DELETE FROM dead_letters")
	if got := s.redrive(t, of(kinds[0].reason, kinds[0].fix)); !maps.Equal(got, task.Counts{"already_there": n / 6}) {
		t.Errorf("with lost states: %v", got)
	}
	if got := w.states(t); !maps.Equal(got, map[string]int64{"settled": n / 6}) {
		t.Errorf("with lost states: %v", got)
	}
	report := w.verify(t)
	if sum := report.Sum(); report.Differences() != 0 || sum.Rows != n || sum.DeadLetters != n {
		t.Errorf("verify: %d differences, %d rows, %d dead letters; want 0, %d, %d: %v", report.Differences(), sum.Rows, sum.DeadLetters, n, n, report.Findings)
	}
}

// A store that refuses rows for a while, and takes them when they are redriven as they are. To verify, their letters are settled.
func TestRedrive_OfRowsTheStoreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.db.Exec(t.Context(), "ALTER TABLE usage_tracking ADD CONSTRAINT odd CHECK data_points_consumed != 666"); err != nil {
		t.Fatal(err)
	}
	const n, refused = 60, 20
	var all []kafka.Message
	for i := range n {
		points := "1"
		if i%3 == 0 {
			points = "666"
		}
		data := strings.Replace(usageData("acme", "u", ""), `"data_points_consumed":1`, `"data_points_consumed":`+points, 1)
		all = append(all, message(fmt.Sprintf("r-%d", i), events.TypeUsageRecorded, fmt.Sprint("k-", i), data))
	}
	w.write(t, w.usage(), all...)
	w.consume(t)
	w.awaitConsumed(t)
	s := w.station(t)
	if rows, _ := w.rows(t, "r-"); rows != n-refused {
		t.Fatalf("%d rows, want %d", rows, n-refused)
	}
	// While it refuses them, each makes a letter that says where it came from.
	id := s.create(t, of(events.RejectedByStore, ""))
	if got := s.run(t, id).Counts; !maps.Equal(got, task.Counts{"published": refused}) {
		t.Fatalf("%v, want %d published", got, refused)
	}
	w.awaitConsumed(t)
	page, err := (&deadletter.Reader{Client: w.client, Topics: []string{w.usage()}}).Page(t.Context(), deadletter.Query{Limit: 1})
	if err != nil || len(page.Letters) != 1 {
		t.Fatal(err, page)
	}
	if l := page.Letters[0]; l.ReplayID != id || !strings.HasPrefix(l.ReplayOf, w.group()+"/") || l.Reason != events.RejectedByStore {
		t.Errorf("%+v, want a letter of task %s", l, id)
	}
	if err := w.db.Exec(t.Context(), "ALTER TABLE usage_tracking DROP CONSTRAINT odd"); err != nil {
		t.Fatal(err)
	}
	got := s.redrive(t, of(events.RejectedByStore, ""))
	if want := (task.Counts{"published": refused, "not_open": refused}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	w.awaitConsumed(t)
	if rows, ids := w.rows(t, "r-"); rows != n || ids != n {
		t.Errorf("%d rows of %d events, want %d of each", rows, ids, n)
	}
	if report := w.verify(t); report.Differences() != 0 || report.Findings.Count(verify.RowAndDeadLetter) != 2*refused {
		t.Errorf("verify: %d differences, want 0, and %d settled letters: %v", report.Differences(), 2*refused, report.Findings)
	}
}

// What was counted is not counted again and gets no second row, whatever the reason and the patch.
func TestRedrive_EffectsFollowFromTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const at = `,"timestamp":"2026-11-20T10:00:00Z"`
	good := message("there", events.TypeUsageRecorded, "acme", usageData("acme", "u-1", at))
	w.write(t, w.usage(), good)
	w.consume(t)
	w.awaitConsumed(t)
	other := message("there", events.TypeUsageRecorded, "acme", usageData("acme", "u-1", at+`,"revenue_attributed":"5"`))
	absent := message("absent", events.TypeUsageRecorded, "acme", usageData("acme", "u-1", ""))
	large := kafka.Message{Key: []byte("acme"), Value: []byte("x")}
	group, quota := w.group(), w.Prefix+"g.quota"
	letters := []struct {
		name   string
		letter kafka.Message
		fix    string
		want   string
	}{
		{"a mismatch has its row", letter(good, quota, w.usage(), 0, 0, events.TenantMismatch), "", "already_there"},
		{"a mismatch can't be moved to another company", letter(good, quota, w.usage(), 0, 1, events.TenantMismatch), `[{"op":"replace","path":"/company_id","value":"beta"}]`, "conflict"},
		{"a mismatch can't be changed", letter(good, quota, w.usage(), 0, 2, events.TenantMismatch), `[{"op":"add","path":"/revenue_attributed","value":"7"}]`, "conflict"},
		{"refused by the store", letter(absent, group, w.usage(), 0, 3, events.RejectedByStore), "", "published"},
		{"refused by the store, and stored since", letter(good, group, w.usage(), 0, 4, events.RejectedByStore), "", "already_there"},
		{"a conflict stays one", letter(other, group, w.usage(), 0, 5, events.Conflict), "", "conflict"},
		{"a conflict whose first event is not found", letter(message("moved", events.TypeUsageRecorded, "acme", usageData("acme", "u-9", "")), group, w.usage(), 0, 6, events.Conflict), "", "conflict"},
		{"a conflict patched to the first event", letter(other, group, w.usage(), 0, 7, events.Conflict), `[{"op":"remove","path":"/revenue_attributed"}]`, "already_there"},
		{"too large", letter(large, group, w.usage(), 0, 8, events.TooLarge), "", "too_large"},
		{"a patch that does not apply", letter(absent, group, w.usage(), 0, 9, events.InvalidData), `[{"op":"remove","path":"/nosuch"}]`, "unpatched"},
		{"a patch that breaks it", letter(absent, group, w.usage(), 0, 10, events.InvalidData), `[{"op":"remove","path":"/user_id"}]`, "invalid"},
	}
	s := w.station(t)
	for i, c := range letters {
		w.write(t, events.DeadLetterTopic(w.usage()), c.letter)
		o := events.Origin{Group: group, Topic: w.usage(), Offset: int64(i)}
		if i < 3 {
			o.Group = quota
		}
		got := s.redrive(t, redrive.Request{Filter: deadletter.Filter{Origins: []events.Origin{o}}, Fix: []byte(c.fix)})
		if !maps.Equal(got, task.Counts{c.want: 1}) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	w.awaitConsumed(t)
	if rows, ids := w.rows(t, ""); rows != 2 || ids != 2 {
		t.Errorf("%d rows of %d events, want 2 of each", rows, ids)
	}
	for _, records := range w.read(t, w.usage()) {
		for _, r := range records {
			if got, redriven := events.ReadReplayed(r.Headers); redriven && (len(got.Effects) != 1 || got.Effects[0] != "usage") {
				t.Errorf("%d: effects %v, want usage alone", r.Offset, got.Effects)
			}
		}
	}
}

// What a kill leaves is finished by the next owner, and counts, states and records are those of a run without one.
func TestRedrive_KillAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 100
	var letters []kafka.Message
	for i := range n {
		k := kinds[i%2]
		letters = append(letters, letter(k.bad(fmt.Sprintf("k-%d", i), i), w.group(), w.usage(), i%3, int64(i), events.InvalidData))
	}
	w.write(t, events.DeadLetterTopic(w.usage()), letters...)
	w.consume(t)
	s := w.station(t)
	r := of(events.InvalidData, kinds[0].fix) // which mends every second one
	dry, err := s.kind.Dry(t.Context(), s.plan(t, r))
	if err != nil || dry["published"] < 10 || redrive.Chosen(dry) != n {
		t.Fatalf("%v, %v", dry, err)
	}
	for _, step := range []task.Step{task.StepClaimed, task.StepDecided, task.StepProposed, task.StepPublished, task.StepAdvanced, task.StepFinished} {
		w.exec(t, "DELETE FROM dead_letters")
		if err := w.db.Exec(t.Context(), "TRUNCATE TABLE usage_tracking"); err != nil {
			t.Fatal(err)
		}
		id := s.create(t, r)
		w.crashAt(t, id, step, 1)
		if step != task.StepFinished {
			w.crashAt(t, id, step, 1)
		}
		if got := s.run(t, id).Counts; !maps.Equal(got, dry) {
			t.Errorf("killed at %s: %v, want %v", step, got, dry)
		}
		if got := w.states(t); !maps.Equal(got, map[string]int64{"redriven": dry["published"]}) {
			t.Errorf("killed at %s: states %v, want %d redriven", step, got, dry["published"])
		}
		w.awaitConsumed(t)
		if _, ids := w.rows(t, "k-"); ids > dry["published"] {
			t.Errorf("killed at %s: %d events have rows, want at most %d", step, ids, dry["published"])
		}
	}
}

// Letters of one key are published in the order of their events, whatever order they were written in; with the original bytes.
func TestRedrive_KeepsOrderKeyAndBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 90
	original := map[string]kafka.Message{}
	var letters []kafka.Message
	for i := range n {
		m := message(fmt.Sprintf("o-%03d", i), events.TypeUsageRecorded, fmt.Sprintf("k-%d", i%7), usageData("acme", "u", fmt.Sprintf(`,  "x" : %d`, i)))
		m.Headers = append(m.Headers, kafka.Header{Key: "own", Value: []byte{0xff, 0}}, kafka.Header{Key: events.HeaderReplayID, Value: []byte("before")})
		original[fmt.Sprintf("o-%03d", i)] = m
		letters = append(letters, letter(m, w.group(), w.usage(), i%3, int64(i), events.RejectedByStore))
	}
	rand.Shuffle(n, func(i, j int) { letters[i], letters[j] = letters[j], letters[i] })
	w.write(t, events.DeadLetterTopic(w.usage()), letters...)
	w.write(t, events.DeadLetterTopic(w.usage()), letters[:20]...) // written twice: each counts once
	s := w.station(t)
	id := s.create(t, of(events.RejectedByStore, ""))
	if got := s.run(t, id).Counts; !maps.Equal(got, task.Counts{"published": n}) {
		t.Fatalf("%v, want %d published", got, n)
	}
	read := 0
	for partition, records := range w.read(t, w.usage()) {
		last := ""
		for _, r := range records {
			read++
			e, err := events.ParseEnvelope(&r)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := events.ReadReplayed(r.Headers); !ok || got.Names("quota") || !s.key.Proven(&got, e.Source, e.ID) {
				t.Errorf("%s: headers %+v, want a proof and no quota", e.ID, got)
			}
			m := original[e.ID]
			if e.ID <= last || string(r.Key) != string(m.Key) || string(r.Value) != string(m.Value) {
				t.Errorf("%s comes behind %s, with key %q and value %s", e.ID, last, r.Key, r.Value)
			}
			last = e.ID
			kept, own := 0, map[string]string{}
			for _, h := range r.Headers {
				if slices.ContainsFunc(m.Headers, func(o kafka.Header) bool { return o.Key == h.Key && string(o.Value) == string(h.Value) }) {
					kept++
				} else {
					own[h.Key] = string(h.Value)
				}
			}
			if got := own[events.HeaderReplayID]; kept != len(m.Headers)-1 || got != id || own[events.HeaderReplayEffects] != "usage" || own[events.HeaderReplayProof] == "" ||
				!strings.HasPrefix(own[events.HeaderReplayOf], w.group()+"/"+w.usage()+fmt.Sprintf("/%d/", partition)) || len(own) != 4 {
				t.Errorf("%s: %d of %d headers kept, and %v", e.ID, kept, len(m.Headers), own)
			}
		}
	}
	if read != n {
		t.Errorf("%d records, want %d", read, n)
	}
}

func TestRedrive_LeavesOutWhoIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ('gone', '', '', 'purged'), ('acme', '', '', 'active')")
	w.exec(t, `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES
		('/s', 'e', 'company.user_erasure_requested.v1', 'acme', 'held', '', '{"data": {"company_id": "acme", "user_id": "u-x"}}'),
		('/app', 'known', 'company.user_added.v1', 'acme', 'done', 'another', NULL)`)
	letters := events.DeadLetterTopic(w.usage())
	for i, data := range []string{usageData("gone", "u", ""), usageData("acme", "u-x", ""), usageData("acme", "u-y", "")} {
		w.write(t, letters, letter(message(fmt.Sprint("f-", i), events.TypeUsageRecorded, "k", data), w.group(), w.usage(), 0, int64(i), events.RejectedByStore))
	}
	s := w.station(t)
	if got, want := s.redrive(t, redrive.Request{}), (task.Counts{"purged": 1, "erased": 1, "published": 1}); !maps.Equal(got, want) {
		t.Errorf("usage: %v, want %v", got, want)
	}
	company := w.Prefix + events.TopicCompany
	for i, id := range []string{"known", "new", "erased"} {
		user := map[string]string{"erased": "u-x"}[id]
		if user == "" {
			user = "u-z"
		}
		m := message(id, events.TypeUserAdded, "acme", fmt.Sprintf(`{"company_id":"acme","user_id":%q,"email":"a@b.example"}`, user))
		w.write(t, events.DeadLetterTopic(company), letter(m, w.Prefix+"g.company", company, 1, int64(i), events.RejectedByStore))
	}
	if got, want := s.redrive(t, redrive.Request{Topic: events.TopicCompany}), (task.Counts{"conflict": 1, "published": 1, "erased": 1}); !maps.Equal(got, want) {
		t.Errorf("company events: %v, want %v", got, want)
	}
	records := w.read(t, company)[1]
	if len(records) != 1 {
		t.Fatalf("%d records in the original partition, want 1", len(records))
	}
	if got, ok := events.ReadReplayed(records[0].Headers); !ok || !got.Names("company") || len(got.Effects) != 1 {
		t.Errorf("effects %v, want company", got.Effects)
	}
}

func TestRedrive_RefusesAWrongRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.station(t)
	for _, r := range []redrive.Request{
		{Topic: events.TopicQuota},
		{Topic: events.TopicUsage, Fix: []byte(`[{"op":"replace","path":"/id","value":"x"}]`)},
		{Topic: events.TopicUsage, Fix: []byte(`no patch`)},
	} {
		if _, err := s.kind.Plan(t.Context(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

// What was decided before a user asked to be erased is not done after it, by any process.
func TestRedrive_LeavesOutWhoIsForgottenBeforeADecisionIsCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ('acme', '', '', 'active')")
	letters := events.DeadLetterTopic(w.usage())
	for i, user := range []string{"u-x", "u-y"} {
		w.write(t, letters, letter(message("f-"+user, events.TypeUsageRecorded, "k", usageData("acme", user, "")), w.group(), w.usage(), 0, int64(i), events.RejectedByStore))
	}
	s := w.station(t)
	id := s.create(t, redrive.Request{})
	w.crashAt(t, id, task.StepProposed, 1)
	w.exec(t, `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES
		('/s', 'e', 'company.user_erasure_requested.v1', 'acme', 'held', '', '{"data": {"company_id": "acme", "user_id": "u-x"}}')`)
	if got, want := s.run(t, id).Counts, (task.Counts{"erased": 1, "published": 1}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := w.states(t), map[string]int64{"redriven": 1}; !maps.Equal(got, want) {
		t.Errorf("the letters are %v, want %v and the other one open", got, want)
	}
	if n := len(slices.Concat(slices.Collect(maps.Values(w.read(t, w.usage())))...)); n != 1 {
		t.Errorf("%d records are published, want 1", n)
	}
}

// An event by which its user is forgotten is not withheld because it has had its effect when its publication is tried again.
func TestRedrive_AnErasureThatIsPublishedAgainIsNotWithheld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ('acme', '', '', 'active')")
	company := w.Prefix + events.TopicCompany
	for i, m := range []kafka.Message{
		message("added", events.TypeUserAdded, "acme", `{"company_id":"acme","user_id":"u-x","email":"a@b.example"}`),
		message("erased", events.TypeUserErasureRequested, "acme", `{"company_id":"acme","user_id":"u-x"}`),
	} {
		w.write(t, events.DeadLetterTopic(company), letter(m, w.Prefix+"g.company", company, 1, int64(i), events.RejectedByStore))
	}
	s := w.station(t)
	id := s.create(t, redrive.Request{Topic: events.TopicCompany})
	w.crashAt(t, id, task.StepPublished, 1)
	// The consumer has taken both meanwhile.
	w.exec(t, `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES
		('/app', 'erased', 'company.user_erasure_requested.v1', 'acme', 'held', '', '{"data": {"company_id": "acme", "user_id": "u-x"}}')`)
	if got, want := s.run(t, id).Counts, (task.Counts{"published": 2}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := w.states(t), map[string]int64{"redriven": 2}; !maps.Equal(got, want) {
		t.Errorf("the letters are %v, want %v", got, want)
	}
}
