package config

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tenantflow/internal/tier"
	"tenantflow/internal/token"
)

// A Store is something outside that a command may need the address of.
type Store string

// The stores, named as in log lines and on /readyz.
const (
	Kafka      Store = "kafka"
	ClickHouse Store = "clickhouse"
	Postgres   Store = "postgres"
	Dragonfly  Store = "dragonfly"
)

// missing checks that the given stores have an address.
func (c *Config) missing(stores []Store) []Problem {
	var problems []Problem
	for _, s := range stores {
		var name, example string
		var set bool
		switch s {
		case Kafka:
			name, set, example = "KAFKA_BROKERS", len(c.KafkaBrokers) > 0, "127.0.0.1:9092"
		case ClickHouse:
			name, set, example = "CLICKHOUSE_DSN", c.ClickHouseDSN != "", "http://default@127.0.0.1:8123/tenantflow"
		case Postgres:
			name, set, example = "POSTGRES_DSN", c.PostgresDSN != "", "postgres://tenantflow@127.0.0.1:5432/tenantflow"
		case Dragonfly:
			name, set, example = "DRAGONFLY_URL", c.DragonflyURL != "", "redis://127.0.0.1:6379/0"
		}
		if !set {
			problems = append(problems, Problem{
				Setting: Prefix + name,
				Wrong:   "it is not set, and this command needs it",
				Do:      "set it, for example to " + example,
			})
		}
	}
	return problems
}

var (
	topicName   = regexp.MustCompile(`^[a-zA-Z0-9._-]*$`)
	clusterName = regexp.MustCompile(`^[a-zA-Z0-9._{}-]*$`)
)

// A checker collects problems with values that could be read.
type checker struct {
	invalid  map[string]bool // settings that have a problem already
	problems []Problem
}

// want notes a problem with a setting unless ok. The names of also are settings the rule compares with: where one of
// them is invalid itself, the comparison means nothing and is left out.
func (c *checker) want(ok bool, name, wrong, do string, also ...string) {
	if ok || c.invalid[Prefix+name] {
		return
	}
	for _, other := range also {
		if c.invalid[Prefix+other] {
			return
		}
	}
	c.problems = append(c.problems, Problem{Setting: Prefix + name, Wrong: wrong, Do: do})
}

func (c *Config) check(invalid map[string]bool) []Problem {
	k := &checker{invalid: invalid}
	c.checkKafka(k)
	c.checkStores(k)
	c.checkUsage(k)
	c.checkProcess(k)
	c.checkCertificates(k)
	return k.problems
}

func (c *Config) checkKafka(k *checker) {
	for _, broker := range c.KafkaBrokers {
		err := checkAddress(broker, true)
		k.want(err == nil, "KAFKA_BROKERS", fmt.Sprintf("%s is not a broker's address: %v", quote(broker), err), "write host:port, several with commas between them")
	}

	const mechanism, user, password = "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"
	switch c.KafkaSASLMechanism {
	case "":
		k.want(c.KafkaSASLUsername == "", user, "there is a user but no "+Prefix+mechanism, "set the mechanism, or remove the user")
		k.want(c.KafkaSASLPassword == "", password, "there is a password but no "+Prefix+mechanism, "set the mechanism, or remove the password")
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		k.want(c.KafkaSASLUsername != "", user, "it is not set, and SASL needs it", "set it, or remove "+Prefix+mechanism)
		k.want(c.KafkaSASLPassword != "", password, "it is not set, and SASL needs it", "set it or "+Prefix+password+fileSuffix+", or remove "+Prefix+mechanism)
	default:
		k.want(false, mechanism, quote(c.KafkaSASLMechanism)+" is not a known mechanism", "set it to one of: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
	}

	session, rebalance, insert := c.KafkaSessionTimeout, c.KafkaRebalanceTimeout, c.UsageInsertTimeout
	k.want(session >= time.Second && session <= 30*time.Minute, "KAFKA_SESSION_TIMEOUT", session.String()+" is out of bounds", "choose 1s to 30m; brokers usually allow 6s to 30m")
	k.want(session > insert, "KAFKA_SESSION_TIMEOUT",
		fmt.Sprintf("it is %s, not longer than %sUSAGE_INSERT_TIMEOUT (%s): a member could lose its partitions while it waits for an insert", session, Prefix, insert),
		"make it longer, or the insert timeout shorter", "USAGE_INSERT_TIMEOUT")
	k.want(rebalance > insert+c.UsageBatchInterval, "KAFKA_REBALANCE_TIMEOUT",
		fmt.Sprintf("it is %s, not longer than the insert timeout and the batch interval together (%s): a batch under way could not be finished", rebalance, insert+c.UsageBatchInterval),
		"make it longer", "USAGE_INSERT_TIMEOUT", "USAGE_BATCH_INTERVAL")

	k.want(c.GroupPrefix == "" || topicName.MatchString(c.GroupPrefix), "GROUP_PREFIX", quote(c.GroupPrefix)+" has letters a group's name should not have", "use a-z, A-Z, 0-9, '.', '_' and '-'")
	k.want(topicName.MatchString(c.TopicPrefix) && len(c.TopicPrefix) <= 200, "TOPIC_PREFIX", quote(c.TopicPrefix)+" can't start a topic's name", "use up to 200 of a-z, A-Z, 0-9, '.', '_' and '-'")
	k.want(c.TopicPartitions >= 1 && c.TopicPartitions <= 10_000, "TOPIC_PARTITIONS", strconv.Itoa(c.TopicPartitions)+" is out of bounds", "choose 1 to 10000")
	k.want(c.TopicReplication >= 1 && c.TopicReplication <= 100, "TOPIC_REPLICATION", strconv.Itoa(c.TopicReplication)+" is out of bounds", "choose 1 to the number of brokers")
}

func (c *Config) checkStores(k *checker) {
	if c.ClickHouseDSN != "" {
		_, err := c.ClickHouseOptions()
		k.want(err == nil, "CLICKHOUSE_DSN", fmt.Sprint(err), "write http://user:password@host:8123/database (https:// and ?secure=true for TLS), with special characters of the password percent-encoded")
	}
	k.want(clusterName.MatchString(c.ClickHouseCluster), "CLICKHOUSE_CLUSTER", quote(c.ClickHouseCluster)+" is not a cluster's name", "write the name as in system.clusters, or a macro like {cluster}")
	if c.PostgresDSN != "" {
		err := checkPostgres(c.PostgresDSN)
		k.want(err == nil, "POSTGRES_DSN", fmt.Sprint(err), "write postgres://user:password@host:5432/database, with special characters of the password percent-encoded")
	}
	if c.DragonflyURL != "" {
		err := checkDragonfly(c.DragonflyURL)
		k.want(err == nil, "DRAGONFLY_URL", fmt.Sprint(err), "write redis://user:password@host:6379/0 (rediss:// for TLS), with special characters of the password percent-encoded")
	}
	k.want(c.BackupDir == "" || filepath.IsAbs(c.BackupDir), "BACKUP_DIR", quote(c.BackupDir)+" is not an absolute path", "write the path from / on: a relative one depends on where the service was started")
	k.want(c.ArchiveDir == "" || filepath.IsAbs(c.ArchiveDir), "ARCHIVE_DIR", quote(c.ArchiveDir)+" is not an absolute path", "write the path from / on: a relative one depends on where the service was started")
	k.want(c.ArchiveInterval >= time.Second && c.ArchiveInterval <= 24*time.Hour, "ARCHIVE_INTERVAL", c.ArchiveInterval.String()+" is out of bounds", "choose 1s to 24h")
	k.want(c.StoragePriceMinor >= 0 && c.StoragePriceMinor <= 1_000_000, "STORAGE_PRICE_MINOR", strconv.Itoa(c.StoragePriceMinor)+" is out of bounds", "choose 0 to 1000000")
	checkFile(k, "TIERS_FILE", c.TiersFile, func() error {
		_, err := tier.Load(c.TiersFile)
		return err
	})
	checkFile(k, "API_TOKENS_FILE", c.APITokensFile, func() error {
		_, err := token.Open(c.APITokensFile, slog.New(slog.DiscardHandler))
		return err
	})
}

// checkFile checks a file that a setting names, and what is in it.
func checkFile(k *checker, name, path string, read func() error) {
	if path == "" {
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		k.want(false, name, fmt.Sprintf("reading %s: %v", path, cause(err)), "name a file the service can read")
	case info.IsDir():
		k.want(false, name, path+" is a folder", "name the file in it")
	default:
		err := read()
		k.want(err == nil, name, fmt.Sprint(err), "mend the file, or name another")
	}
}

func (c *Config) checkUsage(k *checker) {
	k.want(c.UsageBatchRows >= 1 && c.UsageBatchRows <= 1_000_000, "USAGE_BATCH_ROWS", strconv.Itoa(c.UsageBatchRows)+" is out of bounds", "choose 1 to 1000000: a batch is one block in ClickHouse")
	positive := func(name string, d time.Duration) {
		k.want(d > 0, name, d.String()+" is not longer than 0", "choose a positive duration")
	}
	positive("USAGE_BATCH_INTERVAL", c.UsageBatchInterval)
	// The deadline in the rows has whole seconds.
	k.want(c.UsageInsertTimeout >= time.Second, "USAGE_INSERT_TIMEOUT", c.UsageInsertTimeout.String()+" is too short", "choose at least 1s")
	k.want(c.UsageMemory >= 8<<20, "USAGE_MEMORY", c.UsageMemory.String()+" is too little to work with", "choose at least 8MiB")
	k.want(c.UsageStaleProducers >= time.Minute, "USAGE_STALE_PRODUCERS", c.UsageStaleProducers.String()+" is too short", "choose at least 1m")
	k.want(c.UsageFilterMemory >= 1<<20, "USAGE_FILTER_MEMORY", c.UsageFilterMemory.String()+" is too little to work with", "choose at least 1MiB")
	notNegative := func(name string, d time.Duration) {
		k.want(d >= 0, name, d.String()+" is negative", "choose 0s or longer")
	}
	notNegative("FUTURE_TOLERANCE", c.FutureTolerance)
	notNegative("QUOTA_LATENESS", c.QuotaLateness)
	positive("QUOTA_BATCH_INTERVAL", c.QuotaBatchInterval)
	k.want(c.QuotaBatchRows >= 1 && c.QuotaBatchRows <= 1_000_000, "QUOTA_BATCH_ROWS", strconv.Itoa(c.QuotaBatchRows)+" is out of bounds", "choose 1 to 1000000")
	k.want(c.QuotaResendWindow >= time.Second && c.QuotaResendWindow <= 24*time.Hour, "QUOTA_RESEND_WINDOW", c.QuotaResendWindow.String()+" is out of bounds", "choose 1s to 24h")
	k.want(c.QuotaResendRecords >= 1 && c.QuotaResendRecords <= 100_000_000, "QUOTA_RESEND_RECORDS", strconv.Itoa(c.QuotaResendRecords)+" is out of bounds", "choose 1 to 100000000")
	k.want(c.QuotaMemory >= 16<<20, "QUOTA_MEMORY", fmt.Sprintf("%d bytes are too few", int64(c.QuotaMemory)), "choose at least 16MiB")
	positive("WAITING_TIMEOUT", c.WaitingTimeout)
	k.want(c.RenewalGrace >= 0 && c.RenewalGrace <= 28*24*time.Hour, "RENEWAL_GRACE", c.RenewalGrace.String()+" is out of bounds", "choose 0s to 672h")
	k.want(c.VoidWindow >= time.Minute && c.VoidWindow <= 730*24*time.Hour, "VOID_WINDOW", c.VoidWindow.String()+" is out of bounds", "choose 1m to 17520h")
	k.want(c.BillingGrace >= 0 && c.BillingGrace <= 30*24*time.Hour, "BILLING_GRACE", c.BillingGrace.String()+" is out of bounds", "choose 0s to 720h")
}

func (c *Config) checkProcess(k *checker) {
	err := checkAddress(c.HTTPAddr, false)
	k.want(err == nil, "HTTP_ADDR", fmt.Sprintf("%s is not an address: %v", quote(c.HTTPAddr), err), "write host:port, or :port for every interface")
	if c.AdminAddr != "" {
		err := checkAddress(c.AdminAddr, false)
		k.want(err == nil, "ADMIN_ADDR", fmt.Sprintf("%s is not an address: %v", quote(c.AdminAddr), err), "write host:port, or :port for every interface")
		k.want(c.AdminAddr != c.HTTPAddr || strings.HasSuffix(c.AdminAddr, ":0"), "ADMIN_ADDR", "it is "+Prefix+"HTTP_ADDR", "leave it empty to have both there")
	}
	k.want(c.ShutdownTimeout > c.UsageInsertTimeout, "SHUTDOWN_TIMEOUT",
		fmt.Sprintf("it is %s, not longer than %sUSAGE_INSERT_TIMEOUT (%s): a stop could not wait for an insert", c.ShutdownTimeout, Prefix, c.UsageInsertTimeout),
		"make it longer, or the insert timeout shorter", "USAGE_INSERT_TIMEOUT")
	k.want(c.VerifyInterval == 0 || c.VerifyInterval >= time.Minute, "VERIFY_INTERVAL", c.VerifyInterval.String()+" is too short, or below 0", "choose 1m or longer, or 0s for never")
	k.want(c.StallTimeout > c.UsageInsertTimeout+c.UsageBatchInterval, "STALL_TIMEOUT",
		fmt.Sprintf("it is %s, not longer than the insert timeout and the batch interval together (%s): a slow insert would count as a stall", c.StallTimeout, c.UsageInsertTimeout+c.UsageBatchInterval),
		"make it longer", "USAGE_INSERT_TIMEOUT", "USAGE_BATCH_INTERVAL")
}

// checkAddress checks host:port. A peer's address needs a host and a port; one to listen on may leave the host out
// and ask for any port with 0.
func checkAddress(address string, peer bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("it has no port or more than one colon")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil:
		return fmt.Errorf("its port is not a number from 0 to 65535")
	case peer && host == "":
		return fmt.Errorf("it has no host")
	case peer && n == 0:
		return fmt.Errorf("its port is 0")
	}
	return nil
}
