// Package config loads the service's configuration: one struct, filled from the environment and from defaults, and
// checked as a whole.
//
//	cfg, err := config.Load(os.Environ())
//	if err != nil {
//		// err is a config.Problems: everything that is wrong, each with what to do about it
//	}
//	if err := cfg.Require(config.Kafka, config.ClickHouse); err != nil {
//		// the stores this command needs have no address
//	}
//
// The declarations in [Config] are the only source: `tenantflow config print`, the error messages and
// docs/configuration.md are made from them.
package config

import (
	"errors"
	"log/slog"
	"reflect"
	"time"

	"github.com/caarlos0/env/v11"
)

// Prefix starts the name of every setting.
const Prefix = "TENANTFLOW_"

// Config holds every setting. The tags say everything there is to say about one: its name without [Prefix] (env), its
// default (envDefault), what it means (help), what it is counted in (unit), the heading it is printed under (section,
// carried on to the fields below it). A field of type [Secret] or [SecretURL] may also come from a file.
type Config struct {
	KafkaBrokers          []string      `section:"Kafka" env:"KAFKA_BROKERS" unit:"host:port, comma-separated" help:"Brokers to ask first; the rest of the cluster is found through them."`
	KafkaTLS              bool          `env:"KAFKA_TLS" envDefault:"false" unit:"true, false" help:"Speak TLS to the brokers."`
	KafkaCAFile           string        `env:"KAFKA_CA_FILE" unit:"path" help:"PEM file with the authorities that may sign the brokers' certificates; empty: the system's. This file, and the others with certificates and keys, are read again when they change."`
	KafkaCertFile         string        `env:"KAFKA_CERT_FILE" unit:"path" help:"PEM file with the certificate to show to the brokers, for mutual TLS; empty: none."`
	KafkaKeyFile          string        `env:"KAFKA_KEY_FILE" unit:"path" help:"PEM file with the private key of that certificate."`
	KafkaSASLMechanism    string        `env:"KAFKA_SASL_MECHANISM" unit:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512" help:"How to authenticate to the brokers; empty: not at all."`
	KafkaSASLUsername     string        `env:"KAFKA_SASL_USERNAME" help:"User for SASL."`
	KafkaSASLPassword     Secret        `env:"KAFKA_SASL_PASSWORD" help:"Password for SASL."`
	KafkaSessionTimeout   time.Duration `env:"KAFKA_SESSION_TIMEOUT" envDefault:"30s" unit:"duration" help:"A member the broker hears nothing from for this long loses its partitions. Longer than the insert timeout."`
	KafkaRebalanceTimeout time.Duration `env:"KAFKA_REBALANCE_TIMEOUT" envDefault:"60s" unit:"duration" help:"How long a rebalance waits for members to finish their batches. Longer than the insert timeout and the batch interval together."`
	GroupPrefix           string        `env:"GROUP_PREFIX" envDefault:"tenantflow" help:"Start of the consumer groups' names: <prefix>.usage, <prefix>.quota and so on."`
	OffsetOutOfRange      OffsetPolicy  `env:"OFFSET_OUT_OF_RANGE" envDefault:"stop" unit:"stop, earliest, latest" help:"What to do when the group's next offset is no longer in the topic: stop that partition with an error, or go on at the earliest or latest offset, giving up what lies between."`

	TopicPrefix      string `section:"Topics" env:"TOPIC_PREFIX" help:"Put in front of every topic's name as it is, separator included."`
	TopicPartitions  int    `env:"TOPIC_PARTITIONS" envDefault:"8" unit:"partitions" help:"Partitions of a topic that migrate creates."`
	TopicReplication int    `env:"TOPIC_REPLICATION" envDefault:"1" unit:"copies" help:"Replication factor of a topic that migrate creates."`

	ClickHouseDSN      SecretURL `section:"Stores" env:"CLICKHOUSE_DSN" unit:"URL" help:"ClickHouse as clickhouse-go writes it: http://user:password@host:8123/tenantflow, or https://...?secure=true. Without a database it is tenantflow."`
	ClickHouseCAFile   string    `env:"CLICKHOUSE_CA_FILE" unit:"path" help:"PEM file with the authorities that may sign ClickHouse's certificate; empty: the system's. For https:// only."`
	ClickHouseCertFile string    `env:"CLICKHOUSE_CERT_FILE" unit:"path" help:"PEM file with the certificate to show to ClickHouse; empty: none."`
	ClickHouseKeyFile  string    `env:"CLICKHOUSE_KEY_FILE" unit:"path" help:"PEM file with the private key of that certificate."`
	ClickHouseCluster  string    `env:"CLICKHOUSE_CLUSTER" help:"Name of the ClickHouse cluster the migrations create tables on; empty: a single server."`
	PostgresDSN        SecretURL `env:"POSTGRES_DSN" unit:"URL" help:"Postgres as pgx writes it: postgres://user:password@host:5432/tenantflow. With TLS also ?sslmode=verify-full&sslrootcert=FILE, and sslcert=FILE&sslkey=FILE for a client certificate; these files are read again for each connection."`
	DragonflyURL       SecretURL `env:"DRAGONFLY_URL" unit:"URL" help:"Dragonfly (or Redis) as go-redis writes it: redis://user:password@host:6379/0, or rediss:// for TLS."`
	DragonflyCAFile    string    `env:"DRAGONFLY_CA_FILE" unit:"path" help:"PEM file with the authorities that may sign Dragonfly's certificate; empty: the system's. For rediss:// only."`
	DragonflyCertFile  string    `env:"DRAGONFLY_CERT_FILE" unit:"path" help:"PEM file with the certificate to show to Dragonfly; empty: none."`
	DragonflyKeyFile   string    `env:"DRAGONFLY_KEY_FILE" unit:"path" help:"PEM file with the private key of that certificate."`
	BackupDir          string    `env:"BACKUP_DIR" unit:"absolute path" help:"Folder for tenants' backups; empty: no backups."`

	ArchiveDir      string        `section:"Archive" env:"ARCHIVE_DIR" unit:"absolute path" help:"Folder for the archive of usage events, which the part jobs keeps up; empty: none. The topic's own retention then decides how far back a replay reaches."`
	ArchiveInterval time.Duration `env:"ARCHIVE_INTERVAL" envDefault:"1h" unit:"duration" help:"How often what has come since is archived. Far shorter than the topic's retention."`

	UsageBatchRows      int           `section:"Usage" env:"USAGE_BATCH_ROWS" envDefault:"100000" unit:"rows" help:"A batch is inserted when it has this many rows."`
	UsageBatchInterval  time.Duration `env:"USAGE_BATCH_INTERVAL" envDefault:"1s" unit:"duration" help:"A batch is inserted this long after its first row, however small it is."`
	UsageInsertTimeout  time.Duration `env:"USAGE_INSERT_TIMEOUT" envDefault:"15s" unit:"duration" help:"How long one insert may take. ClickHouse itself refuses the rows after that, by its own clock."`
	UsageMemory         Bytes         `env:"USAGE_MEMORY" envDefault:"128MiB" unit:"bytes" help:"Budget for rows held in memory, per process and whatever the number of partitions."`
	UsageStaleProducers time.Duration `env:"USAGE_STALE_PRODUCERS" envDefault:"15m" unit:"duration" help:"How long producers may go on as before after partitions were added to the topic of usage events, or after it was replaced: the longest time their metadata lives (metadata.max.age.ms) and a delivery takes. Until then every event is looked up in ClickHouse."`
	UsageFilterMemory   Bytes         `env:"USAGE_FILTER_MEMORY" envDefault:"64MiB" unit:"bytes" help:"Memory of the recent-identity filter. A smaller one asks ClickHouse about more events; the results are the same."`
	FutureTolerance     time.Duration `env:"FUTURE_TOLERANCE" envDefault:"1h" unit:"duration" help:"How far an event's timestamp may lie ahead of its record's time, which is the broker's, before it is a dead letter. For company and subscription events 5 minutes at most."`

	TiersFile          string        `section:"Subscriptions and quotas" env:"TIERS_FILE" unit:"path" help:"JSON file with the tier catalogue; empty: the built-in one."`
	QuotaLateness      time.Duration `env:"QUOTA_LATENESS" envDefault:"48h" unit:"duration" help:"How long after its UTC day a quota counter is kept for late events."`
	QuotaBatchRows     int           `env:"QUOTA_BATCH_ROWS" envDefault:"100000" unit:"events" help:"Events that are counted together at most. More of a user in one batch cost Dragonfly less."`
	QuotaBatchInterval time.Duration `env:"QUOTA_BATCH_INTERVAL" envDefault:"15ms" unit:"duration" help:"A batch is counted this long after its first event, however small it is."`
	QuotaResendWindow  time.Duration `env:"QUOTA_RESEND_WINDOW" envDefault:"1h" unit:"duration" help:"How long after an event, by the time of the records, one with the same identity in its partition is a resend and does not count."`
	QuotaResendRecords int           `env:"QUOTA_RESEND_RECORDS" envDefault:"1000000" unit:"records" help:"How many records after it at most. Each that is remembered costs the process 24 bytes or more, for every partition: docs/quotas.md."`
	QuotaMemory        Bytes         `env:"QUOTA_MEMORY" envDefault:"48MiB" unit:"bytes" help:"Budget for events held in memory on their way to Dragonfly, per process."`
	WaitingTimeout     time.Duration `env:"WAITING_TIMEOUT" envDefault:"15m" unit:"duration" help:"How long an event waits for its company to be registered before it is rejected as unknown_company."`
	RenewalGrace       time.Duration `env:"RENEWAL_GRACE" envDefault:"72h" unit:"duration" help:"How long a paid period that has ended waits for its renewal before the subscription expires. Holds for periods that begin from then on."`
	VoidWindow         time.Duration `env:"VOID_WINDOW" envDefault:"840h" unit:"duration" help:"How old usage may be at most, by the time of the request, to be taken back (35 days)."`
	BillingGrace       time.Duration `env:"BILLING_GRACE" envDefault:"24h" unit:"duration" help:"How long a calendar month that has ended stays a draft before its billing exports are closed and never change. What comes later is a correction in the next export."`

	StoragePriceMinor int `env:"STORAGE_PRICE_MINOR" envDefault:"0" unit:"minor units" help:"What a GB (1024 MiB) that is stored costs a month, in minor units of the tiers' currency: for the storage cost among the business metrics. 0: not known, and there is no such cost."`

	ReserveWhileRebuilding WhileRebuilding `env:"RESERVE_WHILE_REBUILDING" envDefault:"refuse" unit:"refuse, grant" help:"What to do about reservations while counters are being recounted after a loss, and until holds that were lost with them would have ended: refuse them (503), or grant them by counters that may be short, so that limits may be passed."`

	HTTPAddr      string `section:"HTTP" env:"HTTP_ADDR" envDefault:"127.0.0.1:8080" unit:"host:port" help:"Where the service answers /livez, /readyz, /metrics, /version and /v1. Port 0 picks a free one."`
	AdminAddr     string `env:"ADMIN_ADDR" unit:"host:port" help:"Where the service answers /livez, /readyz, /metrics and /version instead, apart from /v1: for a port that only operators reach. Empty: at HTTP_ADDR."`
	HTTPCertFile  string `env:"HTTP_CERT_FILE" unit:"path" help:"PEM file with the certificate to show to HTTP clients, intermediate ones behind it: then both addresses speak HTTPS only. Empty: plain HTTP."`
	HTTPKeyFile   string `env:"HTTP_KEY_FILE" unit:"path" help:"PEM file with the private key of that certificate."`
	AccessLog     bool   `env:"ACCESS_LOG" envDefault:"false" unit:"true, false" help:"Log each request of /v1: the name of the token, method, route, status, bytes, duration and request id. Never the token, nor ids of users and companies."`
	APITokensFile string `env:"API_TOKENS_FILE" unit:"path" help:"JSON file with the hashed tokens of the /v1 interface and their scopes; empty: /v1 answers only peers on a loopback address."`

	LogLevel        slog.Level    `section:"Process" env:"LOG_LEVEL" envDefault:"info" unit:"debug, info, warn, error" help:"The least severe log line that is written."`
	LogFormat       LogFormat     `env:"LOG_FORMAT" envDefault:"auto" unit:"json, text, auto" help:"Form of a log line; auto: text on a terminal, json otherwise."`
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"25s" unit:"duration" help:"How long a stop may take to finish batches and commit. Longer than the insert timeout, and shorter than what the supervisor waits before it kills (30s on Kubernetes)."`
	StallTimeout    time.Duration `env:"STALL_TIMEOUT" envDefault:"5m" unit:"duration" help:"A part that has partitions and lag and does nothing for this long makes /livez fail."`
	VerifyInterval  time.Duration `env:"VERIFY_INTERVAL" envDefault:"1h" unit:"duration" help:"How often the jobs part verifies what came since the last time, in one process at a time: tenantflow_drift_differences. 0: never."`

	sources map[string]source // by full name, for what the environment or a file gave
	certs   certificates
}

// A source says where a value came from, and what it was before it was parsed.
type source struct {
	raw  string
	file string // empty: the environment variable itself
}

// Load reads the configuration from environ, a list of NAME=value as os.Environ gives it, and checks it. A variable
// with an empty value counts as not set. The error is a [Problems] with everything that is wrong.
//
// The addresses of the given stores must be set; those of others may be missing.
func Load(environ []string, stores ...Store) (*Config, error) {
	values, problems := readEnvironment(environ)
	cfg := &Config{sources: values}

	plain := make(map[string]string, len(values))
	for name, s := range values {
		plain[name] = s.raw
	}
	invalid := map[string]bool{}
	err := env.ParseWithOptions(cfg, env.Options{Environment: plain, Prefix: Prefix})
	for _, e := range flatten(err) {
		p := describeParseError(e, plain)
		invalid[p.Setting] = true
		problems = append(problems, p)
	}
	// What could not be read has no value to check; saying the same thing twice does not help.
	for _, p := range problems {
		invalid[p.Setting] = true
	}
	problems = append(problems, cfg.check(invalid)...)
	for _, p := range cfg.missing(stores) {
		if !invalid[p.Setting] {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return nil, inOrder(problems)
	}
	cfg.certs = cfg.readCertificates()
	return cfg, nil
}

// flatten gives the single errors of what the env package returns.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var all env.AggregateError
	if errors.As(err, &all) {
		return all.Errors
	}
	return []error{err}
}

// describeParseError turns an error of the env package, which names the field, into a Problem, which names the
// setting.
func describeParseError(err error, values map[string]string) Problem {
	var parse env.ParseError
	if !errors.As(err, &parse) {
		return Problem{Setting: Prefix + "*", Wrong: err.Error(), Do: "correct it"}
	}
	field, ok := reflect.TypeFor[Config]().FieldByName(parse.Name)
	if !ok {
		return Problem{Setting: Prefix + "*", Wrong: err.Error(), Do: "correct it"}
	}
	name := Prefix + field.Tag.Get("env")
	p := Problem{Setting: name, Wrong: quote(values[name]) + " is not a known value", Do: "set it to one of: " + field.Tag.Get("unit")}
	switch field.Type {
	case reflect.TypeFor[time.Duration]():
		p.Wrong = quote(values[name]) + " is not a duration"
		p.Do = "write a number with a unit, like 500ms, 15s, 2m or 1h30m"
	case reflect.TypeFor[Bytes]():
		p.Wrong = quote(values[name]) + " is not a size"
		p.Do = "write a number of bytes, or one with a unit, like 512KiB, 128MiB or 1GiB"
	case reflect.TypeFor[int]():
		p.Wrong = quote(values[name]) + " is not a whole number"
		p.Do = "write one"
	}
	return p
}
