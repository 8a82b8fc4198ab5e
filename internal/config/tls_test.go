package config

import (
	"errors"
	"strings"
	"testing"

	"tenantflow/internal/certs/certstest"
)

func TestCertificates_AllProblemsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	one, two := certstest.Files(t, a, a.Issue("one")), certstest.Files(t, a, a.Issue("two"))
	_, err := Load([]string{
		"TENANTFLOW_KAFKA_TLS=true", "TENANTFLOW_KAFKA_CA_FILE=/nowhere/ca.pem", "TENANTFLOW_KAFKA_CERT_FILE=" + one.Cert,
		"TENANTFLOW_CLICKHOUSE_DSN=http://h:8123", "TENANTFLOW_CLICKHOUSE_CA_FILE=" + one.CA,
		"TENANTFLOW_DRAGONFLY_URL=rediss://h:6379/0", "TENANTFLOW_DRAGONFLY_CERT_FILE=" + one.Cert, "TENANTFLOW_DRAGONFLY_KEY_FILE=" + two.Key,
		"TENANTFLOW_HTTP_KEY_FILE=" + one.Key,
	})
	var found Problems
	if !errors.As(err, &found) {
		t.Fatalf("got %v", err)
	}
	for setting, want := range map[string]string{
		"KAFKA_CA_FILE":      "reading /nowhere/ca.pem: no such file or directory",
		"KAFKA_KEY_FILE":     "it is not set, but TENANTFLOW_KAFKA_CERT_FILE is",
		"CLICKHOUSE_CA_FILE": "it is set, but TENANTFLOW_CLICKHOUSE_DSN does not begin with https://",
		"DRAGONFLY_KEY_FILE": "private key does not match public key",
		"HTTP_CERT_FILE":     "it is not set, but TENANTFLOW_HTTP_KEY_FILE is",
	} {
		n := 0
		for _, p := range found {
			if p.Setting == Prefix+setting && strings.Contains(p.Wrong, want) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: %d problems with %q in\n%v", setting, n, want, err)
		}
	}
	if len(found) != 5 {
		t.Errorf("%d problems:\n%v", len(found), err)
	}
}

func TestCertificates_OnesInUseAreListed(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	f := certstest.Files(t, a, a.Issue("one"))
	if all := load(t, "TENANTFLOW_KAFKA_BROKERS=h:9092").Certificates(); len(all) != 0 {
		t.Errorf("%d sources without TLS", len(all))
	}
	cfg := load(t, "TENANTFLOW_KAFKA_TLS=true", "TENANTFLOW_KAFKA_CA_FILE="+f.CA, "TENANTFLOW_CLICKHOUSE_DSN=https://h:8443?secure=true",
		"TENANTFLOW_DRAGONFLY_URL=rediss://h:6379/0", "TENANTFLOW_POSTGRES_DSN=postgres://h/db?sslmode=verify-full&sslrootcert="+f.CA,
		"TENANTFLOW_HTTP_CERT_FILE="+f.Cert, "TENANTFLOW_HTTP_KEY_FILE="+f.Key)
	var names []string
	for _, s := range cfg.Certificates() {
		names = append(names, s.Peer().Name)
	}
	if got := strings.Join(names, " "); got != "Kafka ClickHouse Dragonfly Postgres HTTP" {
		t.Errorf("got %s", got)
	}
}
