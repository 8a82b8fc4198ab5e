package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/engine/enginetest"
)

// grantKafka runs deploy/grants/kafka.sh with Kafka's own tool.
func grantKafka(t *testing.T, k *enginetest.SecuredKafka) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "../../deploy/grants/kafka.sh")
	cmd.Env = append(os.Environ(), "KAFKA_ACLS=echo")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	granted := 0
	for line := range strings.Lines(string(out)) {
		args := strings.Fields(line)
		if len(args) < 3 || args[0] != "--bootstrap-server" {
			t.Fatalf("the script says %s", line)
		}
		if out, err := k.Tool(t.Context(), "org.apache.kafka.tools.AclCommand", args[2:]...); err != nil { // which adds the address
			t.Fatalf("%v: %s", err, out)
		}
		granted++
	}
	if granted != 3 {
		t.Fatalf("the script grants %d times", granted)
	}
}

// The whole service lives on the rights of deploy/grants/kafka.sh, over TLS and SASL, with an authorizer that denies everything else.
// The broker's plain listener belongs to the administrator and to the publishers.
func TestGrants_ServiceLivesOnThoseOfKafka(t *testing.T) {
	t.Parallel()
	k := enginetest.SecureKafka(t,
		enginetest.KafkaConfig("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
		enginetest.KafkaConfig("super.users", "User:ANONYMOUS"))
	trusted := certstest.Files(t, k.Authority, certstest.Pair{})
	stores := []string{
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.NewDatabase(t),
		"TENANTFLOW_POSTGRES_DSN=" + enginetest.NewPostgresDatabase(t),
		"TENANTFLOW_DRAGONFLY_URL=" + enginetest.Redis(t).URL(),
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_TOPIC_PARTITIONS=1",
		"TENANTFLOW_USAGE_BATCH_INTERVAL=100ms",
	}
	as := func(user string) []string {
		return append([]string{
			"TENANTFLOW_KAFKA_BROKERS=" + k.Listener(enginetest.ListenerSASL), "TENANTFLOW_KAFKA_TLS=true", "TENANTFLOW_KAFKA_CA_FILE=" + trusted.CA,
			"TENANTFLOW_KAFKA_SASL_MECHANISM=PLAIN", "TENANTFLOW_KAFKA_SASL_USERNAME=" + user, "TENANTFLOW_KAFKA_SASL_PASSWORD=" + enginetest.SASLPassword,
		}, stores...)
	}
	service, publisher := as(enginetest.SASLUser), append([]string{"TENANTFLOW_KAFKA_BROKERS=" + k.Addr()}, stores...)
	must := func(environ []string, args ...string) string {
		t.Helper()
		out, errOut, code := tenantflow(t, environ, args...)
		if code != exitDone {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, out, errOut)
		}
		return out
	}
	grantKafka(t, k)
	// The service's login can't create topics. It may see them, so that it finds them missing.
	if _, errOut, code := tenantflow(t, service, "migrate"); code != exitFailed || !strings.Contains(errOut, "Authorization Failed") {
		t.Errorf("migrate by the service's login: exit code %d: %s", code, errOut)
	}
	must(as(enginetest.SASLMigrate), "migrate")
	looked(t, service, "config", "check", "--connect")

	produce := func(topic string, lines ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		must(publisher, "produce", "--topic", topic, "--file", file)
	}
	event := func(id, kind, key, data string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/test","type":%q,"time":%q,"partitionkey":%q,"data":{"company_id":"acme",%s}}`, id, kind, time.Now().UTC().Format(time.RFC3339Nano), key, data)
	}
	client := enginetest.KafkaClient(t, k.Addr())
	count := func(topic string) int64 {
		t.Helper()
		answer, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}}})
		if err != nil || answer.Topics[topic][0].Error != nil {
			t.Fatalf("%v, %+v", err, answer)
		}
		return answer.Topics[topic][0].LastOffset
	}
	garbage := func() {
		t.Helper()
		w := enginetest.Writer(client) // sent twice, it would be two dead letters
		w.Topic, w.BatchTimeout = events.TopicUsage, time.Millisecond
		defer func() { _ = w.Close() }()
		if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("acme"), Value: []byte("no event")}); err != nil {
			t.Fatal(err)
		}
	}

	p := start(t, "tenantflow", service, "run")
	ready := func() bool { status, _ := get(t, p.url+"/readyz"); return status == 200 }
	eventually(t, ready)
	produce(events.TopicCompany, event("1", events.TypeCompanyRegistered, "acme", `"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"u1","email":"u1@acme.example"}`))
	eventually(t, func() bool { return count(events.TopicCompanyResults) > 0 && count(events.TopicCompanyConfig) > 0 })
	produce(events.TopicSubscription, event("2", events.TypePaymentReceived, "acme", `"payment_id":"p1","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:30:00Z"`))
	var usage []string
	for i := range 1000 { // as many as the free tier has a day
		usage = append(usage, event(fmt.Sprint("u", i), events.TypeUsageRecorded, "acme", `"user_id":"u1","subscription_tier":"free","service_name":"s","api_endpoint":"/","data_points_consumed":1,"processing_time_ms":1`))
	}
	produce(events.TopicUsage, usage...)
	garbage()
	eventually(t, func() bool {
		return count(events.TopicSubscriptionResults) > 0 && count(events.TopicQuota) > 0 && count(events.DeadLetterTopic(events.TopicUsage)) == 1
	})
	must(service, "replay", "usage.events", "--yes")
	must(service, "dlq", "ls")
	must(service, "verify")

	// One right less is missed, said, and once it is there again all goes on.
	right := kafka.ACLEntry{ResourceType: kafka.ResourceTypeTopic, ResourceName: events.DeadLetterTopic(events.TopicUsage), ResourcePatternType: kafka.PatternTypeLiteral,
		Principal: "User:" + enginetest.SASLUser, Host: "*", Operation: kafka.ACLOperationTypeWrite, PermissionType: kafka.ACLPermissionTypeAllow}
	taken, err := client.DeleteACLs(t.Context(), &kafka.DeleteACLsRequest{Filters: []kafka.DeleteACLsFilter{{ResourceTypeFilter: right.ResourceType, ResourceNameFilter: right.ResourceName,
		ResourcePatternTypeFilter: right.ResourcePatternType, PrincipalFilter: right.Principal, HostFilter: right.Host, Operation: right.Operation, PermissionType: right.PermissionType}}})
	if err != nil || len(taken.Results) != 1 || len(taken.Results[0].MatchingACLs) != 1 {
		t.Fatalf("taking a right away: %v, %+v", err, taken)
	}
	// The controller answers, and the broker hears of it a moment later. Until then the letter would still be written.
	eventually(t, func() bool {
		left, err := client.DescribeACLs(t.Context(), &kafka.DescribeACLsRequest{Filter: kafka.ACLFilter{ResourceTypeFilter: right.ResourceType, ResourceNameFilter: right.ResourceName,
			ResourcePatternTypeFilter: right.ResourcePatternType, PrincipalFilter: right.Principal, HostFilter: right.Host, Operation: right.Operation, PermissionType: right.PermissionType}})
		return err == nil && left.Error == nil && len(left.Resources) == 0
	})
	garbage()
	eventually(t, func() bool {
		_, body := get(t, p.url+"/readyz")
		return strings.Contains(body, "Topic Authorization Failed")
	})
	if n := count(events.DeadLetterTopic(events.TopicUsage)); n != 1 {
		t.Errorf("%d dead letters without the right to write them", n)
	}
	if given, err := client.CreateACLs(t.Context(), &kafka.CreateACLsRequest{ACLs: []kafka.ACLEntry{right}}); err != nil || given.Errors[0] != nil {
		t.Fatalf("giving it back: %v, %+v", err, given)
	}
	eventually(t, func() bool { return count(events.DeadLetterTopic(events.TopicUsage)) == 2 && ready() })
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}
