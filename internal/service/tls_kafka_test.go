package service_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/certs"
	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
)

// settings makes a configuration; names are without their prefix, empty values are left out.
func settings(t *testing.T, all ...map[string]string) *config.Config {
	t.Helper()
	var environ []string
	for _, some := range all {
		for _, name := range slices.Sorted(maps.Keys(some)) {
			environ = append(environ, config.Prefix+name+"="+some[name])
		}
	}
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// files are the settings of a store for these files.
func files(store string, f certs.Files) map[string]string {
	return map[string]string{store + "_CA_FILE": f.CA, store + "_CERT_FILE": f.Cert, store + "_KEY_FILE": f.Key}
}

// askKafka asks a broker by each of the ways in which the service connects: kafka-go's Transport and its Dialer.
func askKafka(ctx context.Context, cfg *config.Config) error {
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer done()
	dialer, err := cfg.KafkaDialer()
	if err != nil {
		return err
	}
	_, asked := client.Metadata(ctx, &kafka.MetadataRequest{})
	conn, dialled := dialer.DialContext(ctx, "tcp", cfg.KafkaBrokers[0])
	if dialled == nil {
		_, dialled = conn.Brokers()
		_ = conn.Close()
	}
	if (asked == nil) != (dialled == nil) {
		return errors.Join(errors.New("the transport and the dialer disagree"), asked, dialled)
	}
	return asked
}

func TestTLS_Kafka(t *testing.T) {
	t.Parallel()
	k := enginetest.SecureKafka(t)
	stranger := certstest.NewAuthority(t, "a stranger")
	trusted := certstest.Files(t, k.Authority, certstest.Pair{})
	at := func(listener string) map[string]string {
		return map[string]string{"KAFKA_BROKERS": k.Listener(listener), "KAFKA_TLS": "true"}
	}
	login := func(mechanism, password string) map[string]string {
		return map[string]string{"KAFKA_SASL_MECHANISM": mechanism, "KAFKA_SASL_USERNAME": enginetest.SASLUser, "KAFKA_SASL_PASSWORD": password}
	}
	with := func(a *certstest.Authority, wishes ...certstest.Wish) map[string]string {
		return files("KAFKA", certstest.Files(t, k.Authority, a.Issue("tenantflow", wishes...)))
	}
	none := map[string]string{}
	for name, c := range map[string]struct {
		listener    string
		files, sasl map[string]string
		want        []string // in the error; none: it works
	}{
		"plain":           {enginetest.ListenerSASL, files("KAFKA", trusted), login("PLAIN", enginetest.SASLPassword), nil},
		"scram 256":       {enginetest.ListenerSASL, files("KAFKA", trusted), login("SCRAM-SHA-256", enginetest.SASLPassword), nil},
		"scram 512":       {enginetest.ListenerSASL, files("KAFKA", trusted), login("SCRAM-SHA-512", enginetest.SASLPassword), nil},
		"plain, wrong":    {enginetest.ListenerSASL, files("KAFKA", trusted), login("PLAIN", "wrong"), []string{`user "tenantflow" is refused with PLAIN by Kafka at`, "correct TENANTFLOW_KAFKA_SASL_USERNAME or TENANTFLOW_KAFKA_SASL_PASSWORD"}},
		"scram, wrong":    {enginetest.ListenerSASL, files("KAFKA", trusted), login("SCRAM-SHA-512", "wrong"), []string{`user "tenantflow" is refused with SCRAM-SHA-512 by Kafka at`, "correct TENANTFLOW_KAFKA_SASL_USERNAME"}},
		"wrong authority": {enginetest.ListenerSASL, files("KAFKA", certstest.Files(t, stranger, certstest.Pair{})), login("PLAIN", enginetest.SASLPassword), []string{`signed by "CN=the platform", which is not trusted`, "TENANTFLOW_KAFKA_CA_FILE"}},
		"no authority":    {enginetest.ListenerSASL, none, login("PLAIN", enginetest.SASLPassword), []string{`signed by "CN=the platform", which is not trusted`, "TENANTFLOW_KAFKA_CA_FILE"}},
		"wrong host":      {enginetest.ListenerElsewhere, files("KAFKA", trusted), none, []string{"not valid for the host 127.0.0.1 (it names kafka.elsewhere.example)", "use an address that it names"}},
		"expired":         {enginetest.ListenerExpired, files("KAFKA", trusted), none, []string{"its certificate expired at", "renew it at the server"}},
		"mutual":          {enginetest.ListenerMutual, with(k.Authority), none, nil},
		"no certificate":  {enginetest.ListenerMutual, files("KAFKA", trusted), none, []string{"it wants a client certificate, and there is none", "set TENANTFLOW_KAFKA_CERT_FILE and TENANTFLOW_KAFKA_KEY_FILE"}},
		"ours expired":    {enginetest.ListenerMutual, with(k.Authority, certstest.Expired), none, []string{"it refuses our certificate", "TENANTFLOW_KAFKA_CERT_FILE"}},
		"ours is strange": {enginetest.ListenerMutual, with(stranger), none, []string{"it refuses our certificate", "TENANTFLOW_KAFKA_CERT_FILE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := settings(t, at(c.listener), c.files, c.sasl)
			err := answered(t, func() error { return askKafka(t.Context(), cfg) })
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, want := range append(c.want, "Kafka at "+cfg.KafkaBrokers[0]) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
	t.Run("plain port", func(t *testing.T) {
		t.Parallel()
		cfg := settings(t, map[string]string{"KAFKA_BROKERS": k.Addr(), "KAFKA_TLS": "true"}, files("KAFKA", trusted))
		err := inTime(t, func() error { return askKafka(t.Context(), cfg) })
		if err == nil || !strings.Contains(err.Error(), "speak") || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("rotation", func(t *testing.T) {
		t.Parallel()
		f := certstest.Files(t, stranger, stranger.Issue("tenantflow"))
		cfg := settings(t, at(enginetest.ListenerMutual), files("KAFKA", f))
		client, done, err := cfg.KafkaClient() // one client from beginning to end
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		metadata := func() error {
			_, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
			return err
		}
		if err := answered(t, metadata); err == nil || !strings.Contains(err.Error(), "not trusted") {
			t.Fatalf("got %v", err)
		}
		good := k.Authority.Issue("tenantflow")
		certstest.Write(t, f.CA, k.Authority.PEM)
		certstest.Write(t, f.Cert, good.Cert)
		certstest.Write(t, f.Key, good.Key)
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		var last error
		if err := enginetest.Eventually(ctx, func() bool { last = metadata(); return last == nil }); err != nil {
			t.Fatalf("%v: %v", err, last)
		}
		// A key of another pair changes nothing.
		certstest.Write(t, f.Key, stranger.Issue("tenantflow").Key)
		if err := answered(t, func() error { return askKafka(t.Context(), cfg) }); err != nil {
			t.Fatal(err)
		}
		// But a whole new pair is taken.
		bad := k.Authority.Issue("tenantflow", certstest.Expired)
		certstest.Write(t, f.Cert, bad.Cert)
		certstest.Write(t, f.Key, bad.Key)
		if err := answered(t, func() error { return askKafka(t.Context(), cfg) }); err == nil || !strings.Contains(err.Error(), "it refuses our certificate") {
			t.Fatalf("got %v", err)
		}
	})
}
