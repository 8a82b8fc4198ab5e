package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T, environ ...string) *Config {
	t.Helper()
	cfg, err := Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func problemsOf(t *testing.T, environ ...string) Problems {
	t.Helper()
	_, err := Load(environ)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Load(%q) = %v, want Problems", environ, err)
	}
	return problems
}

func TestAnEmptyEnvironmentGivesTheDefaults(t *testing.T) {
	t.Parallel()
	cfg := load(t, "PATH=/bin", "HOME=/root")
	for _, c := range []struct{ got, want any }{
		{cfg.GroupPrefix, "tenantflow"},
		{cfg.TopicPrefix, ""},
		{cfg.TopicPartitions, 8},
		{cfg.TopicReplication, 1},
		{cfg.UsageBatchRows, 100_000},
		{cfg.UsageBatchInterval, time.Second},
		{cfg.UsageInsertTimeout, 15 * time.Second},
		{cfg.UsageMemory, Bytes(128 << 20)},
		{cfg.UsageFilterMemory, Bytes(64 << 20)},
		{cfg.KafkaSessionTimeout, 30 * time.Second},
		{cfg.KafkaRebalanceTimeout, 60 * time.Second},
		{cfg.ShutdownTimeout, 25 * time.Second},
		{cfg.StallTimeout, 5 * time.Minute},
		{cfg.FutureTolerance, time.Hour},
		{cfg.QuotaLateness, 48 * time.Hour},
		{cfg.WaitingTimeout, 15 * time.Minute},
		{cfg.RenewalGrace, 72 * time.Hour},
		{cfg.VoidWindow, 35 * 24 * time.Hour},
		{cfg.BillingGrace, 24 * time.Hour},
		{cfg.ArchiveInterval, time.Hour},
		{cfg.OffsetOutOfRange, StopPartition},
		{cfg.ReserveWhileRebuilding, RefuseReservations},
		{cfg.HTTPAddr, "127.0.0.1:8080"},
		{cfg.LogLevel, slog.LevelInfo},
		{cfg.LogFormat, LogAuto},
		{len(cfg.KafkaBrokers), 0},
	} {
		if c.got != c.want {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestTheEnvironmentWinsOverTheDefaults(t *testing.T) {
	t.Parallel()
	cfg := load(t,
		"TENANTFLOW_KAFKA_BROKERS=a:9092,b:9093",
		"TENANTFLOW_USAGE_MEMORY=1GiB",
		"TENANTFLOW_LOG_LEVEL=debug",
		"TENANTFLOW_OFFSET_OUT_OF_RANGE=earliest",
		"TENANTFLOW_TOPIC_PREFIX=", // empty: not set
		"TENANTFLOW_USAGE_BATCH_ROWS=",
	)
	if want := []string{"a:9092", "b:9093"}; !slices.Equal(cfg.KafkaBrokers, want) {
		t.Errorf("brokers %q, want %q", cfg.KafkaBrokers, want)
	}
	if cfg.UsageMemory != 1<<30 || cfg.LogLevel != slog.LevelDebug || cfg.OffsetOutOfRange != FromEarliest || cfg.UsageBatchRows != 100_000 {
		t.Errorf("got %+v", cfg)
	}
}

func TestEveryWrongValueIsNamedWithWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"tiers":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		environ []string
		setting string // without the prefix
		says    string
	}{
		{"a broker without a port", []string{"KAFKA_BROKERS=localhost"}, "KAFKA_BROKERS", "no port"},
		{"a broker without a host", []string{"KAFKA_BROKERS=a:1,:9092"}, "KAFKA_BROKERS", "no host"},
		{"an empty broker", []string{"KAFKA_BROKERS=a:1,"}, "KAFKA_BROKERS", "host:port"},
		{"a boolean that is none", []string{"KAFKA_TLS=maybe"}, "KAFKA_TLS", "true, false"},
		{"an unknown mechanism", []string{"KAFKA_SASL_MECHANISM=GSSAPI"}, "KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"},
		{"a password without a mechanism", []string{"KAFKA_SASL_PASSWORD=x"}, "KAFKA_SASL_PASSWORD", "TENANTFLOW_KAFKA_SASL_MECHANISM"},
		{"a user without a mechanism", []string{"KAFKA_SASL_USERNAME=x"}, "KAFKA_SASL_USERNAME", "TENANTFLOW_KAFKA_SASL_MECHANISM"},
		{"a mechanism without a password", []string{"KAFKA_SASL_MECHANISM=PLAIN", "KAFKA_SASL_USERNAME=x"}, "KAFKA_SASL_PASSWORD", "TENANTFLOW_KAFKA_SASL_PASSWORD_FILE"},
		{"a mechanism without a user", []string{"KAFKA_SASL_MECHANISM=PLAIN", "KAFKA_SASL_PASSWORD=x"}, "KAFKA_SASL_USERNAME", "SASL needs it"},
		{"a session shorter than an insert", []string{"KAFKA_SESSION_TIMEOUT=10s"}, "KAFKA_SESSION_TIMEOUT", "USAGE_INSERT_TIMEOUT (15s)"},
		{"a session beyond what brokers allow", []string{"KAFKA_SESSION_TIMEOUT=1h"}, "KAFKA_SESSION_TIMEOUT", "out of bounds"},
		{"a rebalance shorter than insert and interval", []string{"KAFKA_REBALANCE_TIMEOUT=16s"}, "KAFKA_REBALANCE_TIMEOUT", "16s"},
		{"an unknown policy", []string{"OFFSET_OUT_OF_RANGE=ignore"}, "OFFSET_OUT_OF_RANGE", "stop, earliest, latest"},
		{"a group prefix with a space", []string{"GROUP_PREFIX=a b"}, "GROUP_PREFIX", "letters"},
		{"a topic prefix with a slash", []string{"TOPIC_PREFIX=a/"}, "TOPIC_PREFIX", "topic's name"},
		{"no partitions", []string{"TOPIC_PARTITIONS=0"}, "TOPIC_PARTITIONS", "out of bounds"},
		{"half a partition", []string{"TOPIC_PARTITIONS=1.5"}, "TOPIC_PARTITIONS", "whole number"},
		{"no copies", []string{"TOPIC_REPLICATION=0"}, "TOPIC_REPLICATION", "out of bounds"},
		{"a DSN of another store", []string{"CLICKHOUSE_DSN=postgres://h/db"}, "CLICKHOUSE_DSN", "scheme"},
		{"a native DSN", []string{"CLICKHOUSE_DSN=clickhouse://h:9000/db"}, "CLICKHOUSE_DSN", "HTTP interface"},
		{"a native DSN by its other name", []string{"CLICKHOUSE_DSN=tcp://h:9000/db"}, "CLICKHOUSE_DSN", "http://user:password@host:8123"},
		{"producers that are stale at once", []string{"USAGE_STALE_PRODUCERS=1s"}, "USAGE_STALE_PRODUCERS", "too short"},
		{"a DSN with a bad parameter", []string{"CLICKHOUSE_DSN=http://h:8123/db?dial_timeout=soon"}, "CLICKHOUSE_DSN", "dial timeout"},
		{"a cluster's name with a quote", []string{"CLICKHOUSE_CLUSTER=a'b"}, "CLICKHOUSE_CLUSTER", "system.clusters"},
		{"a Postgres port that is none", []string{"POSTGRES_DSN=postgres://h:99999/db"}, "POSTGRES_DSN", "port"},
		{"a Dragonfly address without a scheme", []string{"DRAGONFLY_URL=localhost:6379"}, "DRAGONFLY_URL", "redis://"},
		{"a relative folder", []string{"BACKUP_DIR=backups"}, "BACKUP_DIR", "absolute"},
		{"a relative folder of archives", []string{"ARCHIVE_DIR=archive"}, "ARCHIVE_DIR", "absolute"},
		{"an archive that is never kept up", []string{"ARCHIVE_INTERVAL=25h"}, "ARCHIVE_INTERVAL", "1s to 24h"},
		{"a catalogue that is not there", []string{"TIERS_FILE=" + dir + "/none.json"}, "TIERS_FILE", "no such file"},
		{"a catalogue without a free tier", []string{"TIERS_FILE=" + broken}, "TIERS_FILE", "no tier is called"},
		{"tokens that are no list", []string{"API_TOKENS_FILE=" + broken}, "API_TOKENS_FILE", "no JSON list"},
		{"a token file that is a folder", []string{"API_TOKENS_FILE=" + dir}, "API_TOKENS_FILE", "folder"},
		{"no rows", []string{"USAGE_BATCH_ROWS=0"}, "USAGE_BATCH_ROWS", "out of bounds"},
		{"too many rows", []string{"USAGE_BATCH_ROWS=1000001"}, "USAGE_BATCH_ROWS", "out of bounds"},
		{"no interval", []string{"USAGE_BATCH_INTERVAL=0s"}, "USAGE_BATCH_INTERVAL", "positive"},
		{"an interval without a unit", []string{"USAGE_BATCH_INTERVAL=5"}, "USAGE_BATCH_INTERVAL", "500ms"},
		{"an insert that can't be done in time", []string{"USAGE_INSERT_TIMEOUT=10ms"}, "USAGE_INSERT_TIMEOUT", "1s"},
		{"memory in unknown units", []string{"USAGE_MEMORY=128 bananas"}, "USAGE_MEMORY", "128MiB"},
		{"hardly any memory", []string{"USAGE_MEMORY=1KiB"}, "USAGE_MEMORY", "8MiB"},
		{"hardly any filter", []string{"USAGE_FILTER_MEMORY=0"}, "USAGE_FILTER_MEMORY", "1MiB"},
		{"a negative tolerance", []string{"FUTURE_TOLERANCE=-1s"}, "FUTURE_TOLERANCE", "negative"},
		{"a grace longer than a period", []string{"RENEWAL_GRACE=700h"}, "RENEWAL_GRACE", "out of bounds"},
		{"no time to take usage back", []string{"VOID_WINDOW=0s"}, "VOID_WINDOW", "out of bounds"},
		{"a billing grace period of 31 days", []string{"BILLING_GRACE=744h"}, "BILLING_GRACE", "out of bounds"},
		{"a negative lateness", []string{"QUOTA_LATENESS=-1s"}, "QUOTA_LATENESS", "negative"},
		{"no waiting", []string{"WAITING_TIMEOUT=0s"}, "WAITING_TIMEOUT", "positive"},
		{"an address without a port", []string{"HTTP_ADDR=localhost"}, "HTTP_ADDR", "no port"},
		{"a port beyond the last", []string{"HTTP_ADDR=:70000"}, "HTTP_ADDR", "65535"},
		{"an unknown level", []string{"LOG_LEVEL=loud"}, "LOG_LEVEL", "debug, info, warn, error"},
		{"an unknown format", []string{"LOG_FORMAT=xml"}, "LOG_FORMAT", "json, text"},
		{"a stop shorter than an insert", []string{"SHUTDOWN_TIMEOUT=5s"}, "SHUTDOWN_TIMEOUT", "USAGE_INSERT_TIMEOUT (15s)"},
		{"a stall shorter than an insert", []string{"STALL_TIMEOUT=10s"}, "STALL_TIMEOUT", "slow insert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			for _, pair := range c.environ {
				environ = append(environ, Prefix+pair)
			}
			problems := problemsOf(t, environ...)
			if len(problems) != 1 {
				t.Fatalf("want one problem, got %v", problems)
			}
			p := problems[0]
			if p.Setting != Prefix+c.setting || !strings.Contains(p.String(), c.says) || p.Do == "" {
				t.Errorf("got %q, want one about %s that says %q", p, c.setting, c.says)
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	problems := problemsOf(t,
		"TENANTFLOW_UNHEARD_OF=1",
		"TENANTFLOW_USAGE_BATCH_ROWS=lots",
		"TENANTFLOW_KAFKA_TLS=perhaps",
		"TENANTFLOW_CLICKHOUSE_DSN=nonsense",
		"TENANTFLOW_POSTGRES_DSN_FILE=/no/such/file",
		"TENANTFLOW_HTTP_ADDR=x",
	)
	var got []string
	for _, p := range problems {
		got = append(got, strings.TrimPrefix(p.Setting, Prefix))
	}
	want := []string{"KAFKA_TLS", "CLICKHOUSE_DSN", "POSTGRES_DSN_FILE", "USAGE_BATCH_ROWS", "HTTP_ADDR", "UNHEARD_OF"}
	if !slices.Equal(got, want) {
		t.Errorf("problems with %v, want %v", got, want)
	}
	if text := problems.Error(); strings.Count(text, "\n") != len(want) || !strings.HasPrefix(text, "the configuration has 6 problems:") {
		t.Errorf("the message is %q", text)
	}
}

func TestAnUnreadableValueIsNotAlsoComparedWithOthers(t *testing.T) {
	t.Parallel()
	problems := problemsOf(t, "TENANTFLOW_USAGE_INSERT_TIMEOUT=soon", "TENANTFLOW_KAFKA_SESSION_TIMEOUT=10s")
	if len(problems) != 1 || problems[0].Setting != "TENANTFLOW_USAGE_INSERT_TIMEOUT" {
		t.Errorf("got %v", problems)
	}
}

func TestANameThatIsNoSettingIsAProblemWithTheOneProbablyMeant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, says string }{
		{"TENANTFLOW_USAGE_BATCH_ROW", "did you mean TENANTFLOW_USAGE_BATCH_ROWS?"},
		{"TENANTFLOW_KAFKA_BROKER", "did you mean TENANTFLOW_KAFKA_BROKERS?"},
		{"TENANTFLOW_CLICKHOUSE_DNS", "did you mean TENANTFLOW_CLICKHOUSE_DSN?"},
		{"TENANTFLOW_CLICKHOUSE_DSN_FIEL", "did you mean TENANTFLOW_CLICKHOUSE_DSN_FILE?"},
		{"TENANTFLOW_SOMETHING_ELSE_ALTOGETHER", "remove it"},
		{"TENANTFLOW_HTTP_ADDR_FILE", "TENANTFLOW_HTTP_ADDR is not a secret"},
		{"TENANTFLOW_", "remove it"},
	} {
		problems := problemsOf(t, c.name+"=1")
		if len(problems) != 1 || problems[0].Setting != c.name || !strings.Contains(problems[0].String(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, problems, c.says)
		}
	}
}

func TestNamesThatKubernetesSetsAreLeftAlone(t *testing.T) {
	t.Parallel()
	load(t, "TENANTFLOW_SERVICE_HOST=10.0.0.1", "TENANTFLOW_SERVICE_PORT_HTTP=80", "TENANTFLOW_PORT=tcp://10.0.0.1:80", "TENANTFLOW_PORT_80_TCP_ADDR=10.0.0.1")
}

func TestASecretCanComeFromAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsn")
	const dsn = "http://default:s3cret@h:8123/db"
	if err := os.WriteFile(path, []byte(dsn+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := load(t, "TENANTFLOW_CLICKHOUSE_DSN_FILE="+path)
	if cfg.ClickHouseDSN.Reveal() != dsn {
		t.Errorf("got %q", cfg.ClickHouseDSN.Reveal())
	}
	for _, s := range cfg.Settings() {
		if s.Name == "TENANTFLOW_CLICKHOUSE_DSN" && (s.Source != "file "+path || s.Value != "http://default:xxxxx@h:8123/db") {
			t.Errorf("got %+v", s)
		}
	}
}

func TestASecretGivenTwiceOrByABadFileIsAProblem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty, large, good := filepath.Join(dir, "empty"), filepath.Join(dir, "large"), filepath.Join(dir, "good")
	for path, content := range map[string]string{empty: "\n", large: strings.Repeat("x", maxSecretFile+1), good: "redis://h:6379"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		environ []string
		says    string
	}{
		{[]string{"TENANTFLOW_DRAGONFLY_URL=redis://h:6379", "TENANTFLOW_DRAGONFLY_URL_FILE=" + good}, "keep one"},
		{[]string{"TENANTFLOW_DRAGONFLY_URL_FILE=" + good, "TENANTFLOW_DRAGONFLY_URL=redis://h:6379"}, "keep one"},
		{[]string{"TENANTFLOW_DRAGONFLY_URL_FILE=" + empty}, "is empty"},
		{[]string{"TENANTFLOW_DRAGONFLY_URL_FILE=" + large}, "larger than 64KiB"},
		{[]string{"TENANTFLOW_DRAGONFLY_URL_FILE=" + dir}, "is a directory"},
		{[]string{"TENANTFLOW_DRAGONFLY_URL_FILE=" + dir + "/none"}, "no such file"},
	} {
		problems := problemsOf(t, c.environ...)
		if len(problems) != 1 || !strings.Contains(problems[0].String(), c.says) {
			t.Errorf("%q: got %v, want %q", c.environ, problems, c.says)
		}
	}
}

func TestLoad_NamesEveryStoreWithoutAddress(t *testing.T) {
	t.Parallel()
	environ := []string{"TENANTFLOW_KAFKA_BROKERS=h:9092", "TENANTFLOW_CLICKHOUSE_DSN=http://h:8123"}
	if _, err := Load(environ, Kafka, ClickHouse); err != nil {
		t.Errorf("both are set, but: %v", err)
	}
	var problems Problems
	if _, err := Load(append(environ, "TENANTFLOW_TOPIC_PARTITIONS=0", "TENANTFLOW_DRAGONFLY_URL=x"), Dragonfly, Kafka, Postgres); !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	// Together with what else is wrong, and none twice.
	names := map[string]int{}
	for _, p := range problems {
		names[p.Setting]++
	}
	if len(problems) != 3 || names["TENANTFLOW_POSTGRES_DSN"] != 1 || names["TENANTFLOW_DRAGONFLY_URL"] != 1 || names["TENANTFLOW_TOPIC_PARTITIONS"] != 1 {
		t.Errorf("got %v", problems)
	}
}

func TestNoSecretIsEverShown(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	environ := []string{
		"TENANTFLOW_KAFKA_SASL_MECHANISM=SCRAM-SHA-256", "TENANTFLOW_KAFKA_SASL_USERNAME=u", "TENANTFLOW_KAFKA_SASL_PASSWORD=" + secret,
		"TENANTFLOW_CLICKHOUSE_DSN=http://u:" + secret + "@h:8123/db?password=" + secret,
		"TENANTFLOW_POSTGRES_DSN=host=h user=u password=" + secret,
		"TENANTFLOW_DRAGONFLY_URL=redis://:" + secret + "@h:6379/0",
	}
	cfg := load(t, environ...)
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", cfg.KafkaSASLPassword, "b", cfg.ClickHouseDSN, "c", cfg.PostgresDSN)
	shown := log.String() + string(encoded) + fmt.Sprint(cfg.Settings(), cfg.KafkaSASLPassword, cfg.PostgresDSN) + fmt.Sprintf("%#v %v", cfg.KafkaSASLPassword, cfg.DragonflyURL)
	if strings.Contains(shown, secret) {
		t.Errorf("the secret is in %s", shown)
	}
	if !strings.Contains(shown, "redis://:xxxxx@h:6379/0") || !strings.Contains(shown, "host=h user=u password=xxxxx") {
		t.Errorf("the harmless parts are missing in %s", shown)
	}
}

func TestAMalformedAddressDoesNotLeakItsPassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, value := range []string{
		"clickhouse://u:" + secret + "/x@h:9000/db", "clickhouse://u:x@" + secret + "@h:9000:1/db", "clickhouse://u:%zz" + secret + "@h/db",
		"http://u:" + secret + "@h:port/db", "https://u:" + secret + "@h/db", secret, "postgres://u:" + secret + "#x@h:bad/db",
		"host=h password=" + secret + " port=none", "postgres://u:" + secret + "/x@h/db", "redis://u:" + secret + "@h:6379/none",
		"redis://u:" + secret + "/x@h:6379/0", "mysql://u:" + secret + "@h/db", "password='" + secret + "' port='x'", "postgres://u:p@h/db?sslmode=x&sslpassword=" + secret,
	} {
		for _, name := range []string{"CLICKHOUSE_DSN", "POSTGRES_DSN", "DRAGONFLY_URL"} {
			if _, err := Load([]string{Prefix + name + "=" + value}); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
		if shown := SecretURL(value).String(); strings.Contains(shown, secret) {
			t.Errorf("%s is shown as %s", value, shown)
		}
	}
}

func TestASizeIsReadAndWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "128MiB": 128 << 20, "2 GiB": 2 << 30, "1kb": 1000, "3MB": 3e6, "1GB": 1e9, "9223372036854775807": 1<<63 - 1,
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || int64(b) != want {
			t.Errorf("%q: %d, %v, want %d", text, b, err, want)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q: written as %q and read as %d, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "1TiB", "9223372036854775807KiB", "1 MiB 2", "0x10"} {
		if err := new(Bytes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestTheReferenceIsWhatIsDeclared(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	if err := WriteMarkdown(&got); err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s is not what the declarations say: run go test ./internal/config -update and look at the diff", path)
	}
}

func TestEverySettingIsDeclaredInFull(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, d := range declarations() {
		if d.Section == "" || d.Meaning == "" || !strings.HasSuffix(d.Meaning, ".") || seen[d.Name] {
			t.Errorf("declared badly: %+v", d)
		}
		seen[d.Name] = true
	}
}

func FuzzAnAddressIsNeverShownWithItsPassword(f *testing.F) {
	f.Add("clickhouse", "user", "h:9000/db?x=1")
	f.Add("postgres", "", "/h")
	f.Fuzz(func(t *testing.T, scheme, user, rest string) {
		const secret = "@hunter2/:?#"
		value := scheme + "://" + user + ":" + secret + "@" + rest
		if shown := SecretURL(value).String(); strings.Contains(shown, "hunter2") && !strings.Contains(scheme+user+rest, "hunter2") {
			t.Errorf("%q is shown as %q", value, shown)
		}
	})
}
