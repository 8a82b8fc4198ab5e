package verify_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// withTenants adds a database of companies and a topic of configurations to an installation, and registers some companies whose
// configurations are published.
func (in *installation) withTenants(t *testing.T, companies int) (verify.Config, *pgx.Conn, []string) {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopicOn(t, broker, 2)
	dsn := postgrestest.New(t)
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	tenants := store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	publisher := kafka.NewResults(&kafkago.Client{Addr: in.client.Addr, Transport: in.client.Transport})
	defer func() { _ = publisher.Close() }()
	id := "v" + strings.ToLower(rand.Text()[:10])
	var ids []string
	for i := range companies {
		c := fmt.Sprintf("%s-%d", id, i)
		ids = append(ids, c)
		for n, e := range []string{
			events.TypeCompanyRegistered + fmt.Sprintf(`|"name":"N","billing_email":"a@x","initial_user":{"user_id":"%s-u","email":"u@x"}`, c),
			events.TypeConfigUpdated + `|"config":{"theme":"dark"}`,
			events.TypeConfigUpdated + `|"config":{"theme":"light"}`,
		} {
			eventType, data, _ := strings.Cut(e, "|")
			done, err := tenants.Apply(t.Context(), &events.Event{Key: c, Envelope: events.Envelope{Source: "/test", ID: fmt.Sprint(c, n), Type: eventType,
				Time: time.Now(), Data: fmt.Appendf(nil, `{"company_id":%q,%s}`, c, data)}}, postgres.Place{})
			if err != nil {
				t.Fatal(err)
			}
			if err := tenants.MarkPublished(t.Context(), done); err != nil {
				t.Fatal(err)
			}
			for _, r := range done[0].Results {
				if r.Topic == events.TopicCompanyConfig {
					if err := publisher.Publish(t.Context(), []kafka.Result{{Topic: topic, Key: r.Key, Event: r.Event}}, func(error) {}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	// What is old enough for its configuration to be on the topic for sure.
	execTenants(t, conn, "ALTER TABLE company_config DISABLE TRIGGER version", "UPDATE company_config SET updated_at = now() - interval '1 hour'",
		"ALTER TABLE company_config ENABLE TRIGGER version")
	return verify.Config{Client: in.client, ClickHouse: in.options, Topic: in.topic, Group: in.group, InsertTimeout: insertTimeout,
		Tenants: store, ConfigTopic: topic}, conn, ids
}

func execTenants(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func runTenants(t *testing.T, cfg verify.Config, repair bool) *verify.Report {
	t.Helper()
	v, err := verify.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	report, err := v.Run(t.Context(), repair)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestAChangedRemovedOrInsertedAuditRecordIsFound(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	cfg, conn, ids := in.withTenants(t, 6)
	if r := runTenants(t, cfg, false); r.Differences() != 0 || r.Companies != 6 {
		t.Fatalf("%d companies, findings %+v", r.Companies, r.Findings)
	}
	execTenants(t, conn, "ALTER TABLE audit_log DISABLE TRIGGER USER",
		"UPDATE audit_log SET details = details || ' ' WHERE seq = 2 AND company_id = '"+ids[0]+"'",
		"DELETE FROM audit_log WHERE seq = 2 AND company_id = '"+ids[1]+"'",
		"DELETE FROM audit_log WHERE seq = 3 AND company_id = '"+ids[2]+"'", // the tail
		`INSERT INTO audit_log SELECT company_id, 4, event_source, 'forged', event_type, action, occurred_at, details, hash, repeat('0', 64)
			FROM audit_log WHERE seq = 3 AND company_id = '`+ids[3]+"'",
		"DELETE FROM audit_log WHERE company_id = '"+ids[4]+"'",
		"ALTER TABLE audit_log ENABLE TRIGGER USER")
	r := runTenants(t, cfg, false)
	found := map[string]bool{}
	for _, g := range r.Findings {
		if g.Kind != verify.BrokenAudit {
			t.Errorf("findings of kind %s: %+v", g.Kind, g.Samples)
		}
		for _, s := range g.Samples {
			found[strings.Split(strings.TrimPrefix(s.Where, "audit_log "), "/")[0]] = true
		}
	}
	for i, id := range ids {
		if found[id] != (i < 5) {
			t.Errorf("company %d: found %v", i, found[id])
		}
	}
}

func TestAConfigurationThatWasNotPublishedIsFoundAndPublished(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	cfg, conn, ids := in.withTenants(t, 3)
	execTenants(t, conn, "ALTER TABLE company_config DISABLE TRIGGER version",
		`UPDATE company_config SET config = config || '{"theme":"blue"}' WHERE company_id = '`+ids[0]+"'", // behind the version's back
		"UPDATE company_config SET version = version + 100000 WHERE company_id = '"+ids[1]+"'",
		"ALTER TABLE company_config ENABLE TRIGGER version")
	if r := runTenants(t, cfg, false); r.Findings.Count(verify.StaleConfig) != 2 {
		t.Errorf("findings %+v", r.Findings)
	}
	if r := runTenants(t, cfg, true); r.Differences() != 0 || r.Repairs.Configs != 2 {
		t.Errorf("after the repair: %+v, %+v", r.Findings, r.Repairs)
	}
}

// Between the look and the repair lies the operator's answer, and meanwhile the service goes on.
func TestARepairDoesNotBringAnOlderConfigurationBack(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	cfg, conn, ids := in.withTenants(t, 3)
	change := func(sql string) {
		t.Helper()
		execTenants(t, conn, "ALTER TABLE company_config DISABLE TRIGGER version", sql, "ALTER TABLE company_config ENABLE TRIGGER version")
	}
	change(`UPDATE company_config SET config = config || '{"theme":"blue"}', version = version + 1 WHERE company_id = '` + ids[0] + "'")
	change(`UPDATE company_config SET config = config || '{"theme":"blue"}', version = version + 1 WHERE company_id = '` + ids[1] + "'")
	asked := 0
	cfg.Approve = func(verify.Plan) (bool, error) {
		if asked++; asked == 1 {
			change(`UPDATE company_config SET config = config || '{"theme":"green"}', version = version + 1 WHERE company_id = '` + ids[0] + "'")
			execTenants(t, conn, "UPDATE companies SET status = 'purged' WHERE company_id = '"+ids[1]+"'")
		}
		return true, nil
	}
	runTenants(t, cfg, true)
	last := map[string]string{}
	ends, err := kafka.Ends(t.Context(), in.client, cfg.ConfigTopic)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range ends {
		if err := kafka.ReadLog(t.Context(), in.client, cfg.ConfigTopic, id, r, func(r *events.Record) error {
			last[string(r.Key)] = string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(last[ids[0]], "green") || last[ids[1]] != "" || !strings.Contains(last[ids[2]], "light") {
		t.Errorf("the topic has %v", last)
	}
}

func TestAConfigurationThatOutlivesItsCompanyIsFoundAndRemoved(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	cfg, conn, ids := in.withTenants(t, 2)
	purge := &events.Event{Key: ids[0], Envelope: events.Envelope{Source: "/test", ID: ids[0] + "end", Type: events.TypeCompanyClosed, Time: time.Now(),
		Data: fmt.Appendf(nil, `{"company_id":%q,"purge":true}`, ids[0])}}
	tenants := cfg.Tenants.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	done, err := tenants.Apply(t.Context(), purge, postgres.Place{})
	if err != nil {
		t.Fatal(err)
	}
	// Its last configuration stays, as if it had been published late, behind the mark that there is none any more.
	if r := runTenants(t, cfg, false); r.Differences() != 0 {
		t.Errorf("the mark may be on its way: %+v", r.Findings)
	}
	execTenants(t, conn, "ALTER TABLE companies DISABLE TRIGGER version", "UPDATE companies SET updated_at = now() - interval '1 hour'")
	if r := runTenants(t, cfg, false); r.Differences() != 0 {
		t.Errorf("the process that was to publish the mark may have died, and another will: %+v", r.Findings)
	}
	if err := tenants.MarkPublished(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	if r := runTenants(t, cfg, false); r.Findings.Count(verify.StaleConfig) != 1 {
		t.Errorf("findings %+v", r.Findings)
	}
	if r := runTenants(t, cfg, true); r.Differences() != 0 || r.Repairs.Configs != 1 {
		t.Errorf("after the repair: %+v, %+v", r.Findings, r.Repairs)
	}
	if r := runTenants(t, cfg, false); r.Differences() != 0 || r.Companies != 1 {
		t.Errorf("%d companies, findings %+v", r.Companies, r.Findings)
	}
}
