package enginetest

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"path/filepath"
	"testing"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/engine"
)

// The listeners of a [SecuredKafka], beside the plain one that the engine itself has.
const (
	ListenerSASL      = "SECURE"    // TLS, and SASL by any mechanism
	ListenerMutual    = "MUTUAL"    // TLS, and the client needs a certificate
	ListenerElsewhere = "ELSEWHERE" // TLS with a certificate for another host
	ListenerExpired   = "EXPIRED"   // TLS with a certificate that has expired
)

// SASLUser and SASLPassword are the login of a SecuredKafka; SASLMigrate is another user with that password, for PLAIN only.
const (
	SASLMigrate  = "tenantflow-migrate"
	SASLUser     = "tenantflow"
	SASLPassword = "correct horse"
)

// SecuredKafka is an Apache Kafka broker with TLS and SASL.
type SecuredKafka struct {
	*engine.Kafka
	Authority *certstest.Authority // has signed the brokers' certificates, and is trusted by them
}

// SecureKafka starts one.
func SecureKafka(t testing.TB, opts ...Option) *SecuredKafka {
	t.Helper()
	k := &SecuredKafka{Authority: certstest.NewAuthority(t, "the platform")}
	dir := t.TempDir()
	file := func(name string, content ...byte) string {
		path := filepath.Join(dir, name)
		certstest.Write(t, path, content)
		return path
	}
	config := map[string]string{
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,ELSEWHERE:SSL,EXPIRED:SSL",
		"ssl.truststore.type":            "PEM",
		"ssl.truststore.location":        file("ca.pem", k.Authority.PEM...),
		"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",

		"listener.name.mutual.ssl.client.auth":                "required",
		"listener.name.secure.plain.sasl.jaas.config":         `org.apache.kafka.common.security.plain.PlainLoginModule required user_` + SASLUser + `="` + SASLPassword + `" user_` + SASLMigrate + `="` + SASLPassword + `";`,
		"listener.name.secure.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.secure.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	}
	listeners := []string{ListenerSASL, ListenerMutual, ListenerElsewhere, ListenerExpired}
	for name, pair := range map[string]certstest.Pair{
		"secure": k.Authority.Issue("kafka"), "mutual": k.Authority.Issue("kafka"),
		"elsewhere": k.Authority.Issue("kafka", certstest.For("kafka.elsewhere.example")), "expired": k.Authority.Issue("kafka", certstest.Expired),
	} {
		config["listener.name."+name+".ssl.keystore.type"] = "PEM"
		config["listener.name."+name+".ssl.keystore.location"] = file(name+".pem", append(pair.Key, pair.Cert...)...)
	}
	k.Kafka = ApacheKafka(t, append(opts, func(o *engine.Options) {
		o.Listeners = listeners
		for name, value := range config {
			KafkaConfig(name, value)(o)
		}
	})...)
	k.addUser(t)
	return k
}

// addUser makes the login for SCRAM, where the cluster keeps the users itself.
func (k *SecuredKafka) addUser(t testing.TB) {
	t.Helper()
	const iterations = 4096
	salt := []byte("salt of a test")
	short, err := pbkdf2.Key(sha256.New, SASLPassword, salt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	long, err := pbkdf2.Key(sha512.New, SASLPassword, salt, iterations, sha512.Size)
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafka.Transport{DialTimeout: Patience}
	defer transport.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: transport}
	for mechanism, key := range map[kafka.ScramMechanism][]byte{kafka.ScramMechanismSha256: short, kafka.ScramMechanismSha512: long} {
		answer, err := c.AlterUserScramCredentials(t.Context(), &kafka.AlterUserScramCredentialsRequest{Upsertions: []kafka.UserScramCredentialsUpsertion{
			{Name: SASLUser, Mechanism: mechanism, Iterations: iterations, Salt: salt, SaltedPassword: key},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range answer.Results {
			if r.Error != nil {
				t.Fatalf("make user %s: %v", r.User, r.Error)
			}
		}
	}
}
