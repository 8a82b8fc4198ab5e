package verify_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// passOver moves the groups to the ends of their topics, as an operator does by mistake. No consumer runs.
func (y *tenancy) passOver(t *testing.T) {
	t.Helper()
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		ends, err := kafka.Ends(t.Context(), y.client, y.prefix+topic)
		if err != nil {
			t.Fatal(err)
		}
		offsets := map[int]int64{}
		for id, r := range ends {
			offsets[id] = r.To
		}
		kafkatest.CommitOutside(t, y.client, y.group(topic), y.prefix+topic, offsets, "")
	}
}

// replayed replays a topic of companies and returns the counts.
func (y *tenancy) replayed(t *testing.T, topic string, effects ...string) task.Counts {
	t.Helper()
	key, err := y.store.ReplayKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kind := replay.New(replay.Config{Client: y.client, TopicPrefix: y.prefix, GroupPrefix: y.prefix + "g", Tenants: y.store, Key: key, BatchInterval: 5 * time.Millisecond})
	store, err := task.Open(t.Context(), task.Config{DSN: y.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p, err := kind.Plan(t.Context(), replay.Request{Topic: topic, Effects: effects, From: replay.Unbounded(), To: replay.Unbounded()})
	if err != nil {
		t.Fatal(err)
	}
	made, err := store.Create(t.Context(), task.New{Kind: task.Replay, Topic: p.Topic, Spec: p.Spec})
	if err != nil {
		t.Fatal(err)
	}
	done, err := task.NewRunner(store, task.RunnerConfig{Kinds: map[string]task.Kind{task.Replay: kind}, Linger: time.Second}).Run(t.Context(), made.ID)
	if err != nil || done.State != task.Done {
		t.Fatalf("%+v, %v", done, err)
	}
	y.await(t)
	return done.Counts
}

// Events that a consumer was moved past have no effect. verify names each, a replay brings in exactly those, and nothing is missing then.
func TestReplay_OfCompaniesBringsInWhatWasPassedOver(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	y := in.tenancy(t)
	stop := y.apply(t, nil)
	y.produce(t, tenantmodel.Config{Seed: 31, Companies: 10, Events: 200, Conflicts: 0.03, Prefix: "a-"})
	y.await(t)
	stop()
	taken := y.number(t, "SELECT count(*) FROM inbox WHERE type <> 'subscription.due.v1'")
	y.send(t, slices.Concat(y.phases(t, tenantmodel.Config{Seed: 32, Companies: 10, Events: 200, Prefix: "b-"})...)...)
	y.passOver(t)
	y.apply(t, nil)

	r := in.verify(t, false, y.config)
	unapplied := int64(0)
	for _, g := range r.Findings {
		switch {
		case g.Kind == verify.Unapplied:
			unapplied += g.Count
		case !g.Information:
			t.Errorf("%s: %+v", g.Kind, g.Samples)
		}
	}
	companies := y.replayed(t, events.TopicCompany, "company")
	subscriptions := y.replayed(t, events.TopicSubscription, "subscription")
	published := companies["published"] + subscriptions["published"]
	if published < 100 || published > unapplied { // a resend is one more record without effect
		t.Errorf("%d records had no effect, and %d were published: %v, %v", unapplied, published, companies, subscriptions)
	}
	if n := y.number(t, "SELECT count(*) FROM inbox WHERE type <> 'subscription.due.v1'"); n != taken+published {
		t.Errorf("%d events were taken in, want %d and %d", n, taken, published)
	}
	r = in.verify(t, false, y.config)
	for _, g := range r.Findings {
		if !g.Information {
			t.Errorf("after the replay %s: %+v", g.Kind, g.Samples)
		}
	}
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		if c := y.replayed(t, topic, strings.TrimSuffix(topic, ".events")); c["published"] != 0 {
			t.Errorf("a second replay of %s: %v", topic, c)
		}
	}
}

// A record that a replay has published for another consumer has no effect here, if the service's own key says so.
func TestReplay_CompaniesLeaveOutWhatIsProvenToBeForOthers(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	y := in.tenancy(t)
	key, err := y.store.ReplayKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, phase := range y.phases(t, tenantmodel.Config{Seed: 33, Companies: 6, Events: 20, Prefix: "c-"}) {
		for _, m := range phase {
			if i > 0 || m.Topic != y.prefix+events.TopicCompany {
				continue
			}
			var headers []events.Header
			var source, id string
			for _, h := range m.Headers {
				headers = append(headers, events.Header{Key: h.Key, Value: h.Value})
				switch h.Key {
				case "ce_source":
					source = string(h.Value)
				case "ce_id":
					id = string(h.Value)
				}
			}
			if source == "" { // its identity is in its value
				continue
			}
			with := func(key events.ReplayKey) kafkago.Message {
				one := m
				one.Headers = nil
				for _, h := range key.ReplayHeaders(headers, "task", []string{"usage"}, source, id) {
					one.Headers = append(one.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
				}
				return one
			}
			one := with(key)
			if strings.HasSuffix(string(m.Key), "1") { // a producer's own proof is none
				one = with(events.ReplayKey("0123456789abcdef0123456789abcdef"))
			}
			y.send(t, one)
		}
	}
	y.apply(t, func(postgres.TenantStep) {})
	y.await(t)
	all, hidden := y.number(t, "SELECT count(*) FROM inbox"), y.number(t, "SELECT count(*) FROM inbox WHERE company_id NOT LIKE '%1'")
	if all == 0 || hidden != 0 {
		t.Errorf("%d events were taken in, %d of them are proven to be for others", all, hidden)
	}
}
