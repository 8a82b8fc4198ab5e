package main

import (
	"net"
	"strings"
	"testing"

	"tenantflow/internal/certs"
	"tenantflow/internal/certs/certstest"
)

// One port stands for three stores: all of them fail in the handshake.
func TestConfigCheck_SaysWhatIsWrongWithACertificate(t *testing.T) {
	t.Parallel()
	a, stranger := certstest.NewAuthority(t, "authority"), certstest.NewAuthority(t, "a stranger")
	trusted := certstest.Files(t, a, certstest.Pair{})
	addr := certstest.Serve(t, certs.New(certs.Peer{}, certstest.Files(t, stranger, stranger.Issue("server"))).Server(), func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	out, errOut, code := tenantflow(t, []string{
		"TENANTFLOW_KAFKA_BROKERS=" + addr, "TENANTFLOW_KAFKA_TLS=true", "TENANTFLOW_KAFKA_CA_FILE=" + trusted.CA,
		"TENANTFLOW_CLICKHOUSE_DSN=https://" + addr + "?secure=true", "TENANTFLOW_CLICKHOUSE_CA_FILE=" + trusted.CA,
		"TENANTFLOW_DRAGONFLY_URL=rediss://" + addr, "TENANTFLOW_DRAGONFLY_CA_FILE=" + trusted.CA,
		"TENANTFLOW_POSTGRES_DSN=postgres://127.0.0.1:1/db",
	}, "config", "check", "--connect")
	if code != exitFailed || !strings.Contains(errOut, "not usable: clickhouse, dragonfly, kafka, postgres") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	for store, name := range map[string]string{"kafka": "Kafka", "clickhouse": "ClickHouse", "dragonfly": "Dragonfly"} {
		line := ""
		for one := range strings.Lines(out) {
			if strings.HasPrefix(one, store+": ") {
				line = one
			}
		}
		want := name + " at " + addr + `: its certificate is signed by "CN=a stranger", which is not trusted; put the certificate of that authority into the file of TENANTFLOW_` + strings.ToUpper(name) + "_CA_FILE"
		if !strings.Contains(line, want) || strings.Count(line, addr) > 2 {
			t.Errorf("got %q, want %q", line, want)
		}
	}
}
