package config

import (
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func TestTheClickHouseAddressGivesItsOptions(t *testing.T) {
	t.Parallel()
	o, err := load(t, "TENANTFLOW_CLICKHOUSE_DSN=http://default@127.0.0.1:8123").ClickHouseOptions()
	if err != nil {
		t.Fatal(err)
	}
	if o.Protocol != clickhouse.HTTP || o.Auth.Database != "tenantflow" || o.MaxOpenConns != maxOpenConns || o.DialTimeout != dialTimeout {
		t.Errorf("got %+v", o)
	}
	o, err = load(t, "TENANTFLOW_CLICKHOUSE_DSN=https://u:p@a:8443,b:8443/other?secure=true&max_open_conns=3&dial_timeout=9s&max_threads=2").ClickHouseOptions()
	if err != nil {
		t.Fatal(err)
	}
	if o.Protocol != clickhouse.HTTP || o.TLS == nil || o.Auth.Database != "other" || o.MaxOpenConns != 3 || o.MaxIdleConns != 3 || o.DialTimeout != 9*time.Second || len(o.Addr) != 2 || o.Settings["max_threads"] != 2 {
		t.Errorf("what the address says is lost: %+v", o)
	}
}

func TestClickHouseOptions_AreOfTheHTTPInterface(t *testing.T) {
	t.Parallel()
	for dsn, secure := range map[string]bool{"http://h:8123/db": false, "https://h:8443/db?secure=true": true} {
		o, err := load(t, "TENANTFLOW_CLICKHOUSE_DSN="+dsn).ClickHouseOptions()
		if err != nil {
			t.Fatal(err)
		}
		if o.Protocol != clickhouse.HTTP || (o.TLS != nil) != secure || o.Auth.Database != "db" {
			t.Errorf("%s: %+v", dsn, o)
		}
	}
	o, err := load(t, "TENANTFLOW_CLICKHOUSE_DSN=http://h:8123").ClickHouseOptions()
	if err != nil {
		t.Fatal(err)
	}
	if o.Auth.Database != "tenantflow" || o.MaxOpenConns != maxOpenConns || o.DialTimeout != dialTimeout {
		t.Errorf("got %+v", o)
	}
}

// What the connections do is tested against a real Kafka: internal/service/tls_kafka_test.go.
func TestKafka_ConnectionsAreMadeByTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		environ := []string{"TENANTFLOW_KAFKA_BROKERS=h:9092"}
		if mechanism != "" {
			environ = append(environ, "TENANTFLOW_KAFKA_TLS=true", "TENANTFLOW_KAFKA_SASL_MECHANISM="+mechanism,
				"TENANTFLOW_KAFKA_SASL_USERNAME=u", "TENANTFLOW_KAFKA_SASL_PASSWORD=p")
		}
		cfg := load(t, environ...)
		transport, err := cfg.KafkaTransport()
		if err != nil {
			t.Fatal(err)
		}
		dialer, err := cfg.KafkaDialer()
		if err != nil {
			t.Fatal(err)
		}
		// kafka-go must not go through TLS or SASL a second time.
		if transport.Dial == nil || dialer.DialFunc == nil || transport.TLS != nil || dialer.TLS != nil || transport.SASL != nil || dialer.SASLMechanism != nil {
			t.Errorf("%q: %+v, %+v", mechanism, transport, dialer)
		}
	}
}
