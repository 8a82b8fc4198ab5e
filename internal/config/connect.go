package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"tenantflow/internal/broker"
	"tenantflow/internal/certs"
)

const (
	clientID     = "tenantflow"
	dialTimeout  = 5 * time.Second
	keepAlive    = 30 * time.Second
	maxOpenConns = 64 // inserts of many partitions, checks and recoveries side by side; a connection costs little
	maxIdleConns = 16
	connLifetime = 10 * time.Minute // so that a load balancer's changes are followed
)

// KafkaTransport makes the transport that kafka-go's Client and Writer use. Its connections have gone through TLS and SASL as
// configured when they are handed over. Close its idle connections when done with it.
func (c *Config) KafkaTransport() (*kafka.Transport, error) {
	dial, err := c.dialKafka()
	if err != nil {
		return nil, err
	}
	return &kafka.Transport{Dial: dial, DialTimeout: dialTimeout, ClientID: clientID}, nil
}

// KafkaClient makes a client of the brokers. Call done when it is not needed any more.
func (c *Config) KafkaClient() (client *kafka.Client, done func(), err error) {
	transport, err := c.KafkaTransport()
	if err != nil {
		return nil, nil, err
	}
	return &kafka.Client{Addr: kafka.TCP(c.KafkaBrokers...), Transport: transport}, transport.CloseIdleConnections, nil
}

// KafkaDialer makes the dialer that kafka-go's ConsumerGroup and Conn use. Its connections have gone through TLS and SASL as
// configured when they are handed over.
func (c *Config) KafkaDialer() (*kafka.Dialer, error) {
	dial, err := c.dialKafka()
	if err != nil {
		return nil, err
	}
	return &kafka.Dialer{ClientID: clientID, Timeout: dialTimeout, KeepAlive: keepAlive, DualStack: true, DialFunc: dial}, nil
}

// dialKafka makes what connects to a broker. TLS and SASL are done here and not by kafka-go, so that the certificates are those of
// the moment and an error says what is wrong and where.
func (c *Config) dialKafka() (certs.DialFunc, error) {
	mechanism, err := c.saslMechanism()
	if err != nil {
		return nil, err
	}
	dial := (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	if c.KafkaTLS {
		dial = c.certs.kafka.Dial(dial, nil)
	}
	if mechanism == nil {
		return dial, nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if err := broker.Authenticate(ctx, conn, mechanism, clientID, addr); err != nil {
			_ = conn.Close()
			return nil, c.explainSASL(addr, err)
		}
		return conn, nil
	}, nil
}

func (c *Config) explainSASL(addr string, err error) error {
	switch {
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return fmt.Errorf("user %s is refused with %s by Kafka at %s: %w; correct %[5]sKAFKA_SASL_USERNAME or %[5]sKAFKA_SASL_PASSWORD, or the user at the broker",
			quote(c.KafkaSASLUsername), c.KafkaSASLMechanism, addr, err, Prefix)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return fmt.Errorf("%s is not offered by Kafka at %s: %w; correct %sKAFKA_SASL_MECHANISM, or enable it at the broker", c.KafkaSASLMechanism, addr, err, Prefix)
	}
	return fmt.Errorf("authenticate at Kafka at %s with %s: %w", addr, c.KafkaSASLMechanism, err)
}

func (c *Config) saslMechanism() (sasl.Mechanism, error) {
	user, password := c.KafkaSASLUsername, c.KafkaSASLPassword.Reveal()
	var algorithm scram.Algorithm
	switch c.KafkaSASLMechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: user, Password: password}, nil
	case "SCRAM-SHA-256":
		algorithm = scram.SHA256
	case "SCRAM-SHA-512":
		algorithm = scram.SHA512
	default:
		return nil, fmt.Errorf("SASL mechanism %q is not known", c.KafkaSASLMechanism)
	}
	mechanism, err := scram.Mechanism(algorithm, user, password)
	if err != nil {
		return nil, fmt.Errorf("preparing SASL %s for user %s: %w", c.KafkaSASLMechanism, user, err)
	}
	return mechanism, nil
}

// ClickHouseOptions makes the options of a ClickHouse connection from the DSN. What the DSN says itself (max_open_conns,
// dial_timeout, ...) stays.
func (c *Config) ClickHouseOptions() (*clickhouse.Options, error) {
	dsn := c.ClickHouseDSN.Reveal()
	scheme, _, _ := strings.Cut(dsn, "://")
	switch scheme {
	case "http", "https":
	case "clickhouse", "tcp":
		return nil, errors.New("its scheme is " + scheme + ", the native protocol, over which an insert begins before its rows are sent, so that its deadline " +
			"can't be enforced; give the address of the HTTP interface")
	default:
		return nil, errors.New("its scheme is none of http, https")
	}
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, withoutURL(err)
	}
	if options.Auth.Database == "" {
		options.Auth.Database = "tenantflow"
	}
	if options.DialTimeout == 0 {
		options.DialTimeout = dialTimeout
	}
	if options.MaxOpenConns == 0 {
		options.MaxOpenConns = maxOpenConns
	}
	if options.MaxIdleConns == 0 {
		options.MaxIdleConns = min(maxIdleConns, options.MaxOpenConns)
	}
	if options.ConnMaxLifetime == 0 {
		options.ConnMaxLifetime = connLifetime
	}
	if options.TLS != nil {
		c.secureClickHouse(options)
	}
	options.ClientInfo.Products = append(options.ClientInfo.Products, struct{ Name, Version string }{Name: clientID})
	return options, nil
}

func checkPostgres(dsn SecretURL) error {
	_, err := pgx.ParseConfig(dsn.Reveal())
	if err == nil {
		return nil
	}
	var parse *url.Error
	if errors.As(err, &parse) {
		return withoutURL(err)
	}
	// pgx starts with the address in backquotes, the password taken out of it where it can tell; the rest is the cause.
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	return errors.New(text)
}

func checkDragonfly(address SecretURL) error {
	if _, err := redis.ParseURL(address.Reveal()); err != nil {
		return withoutURL(err)
	}
	return nil
}

// withoutURL drops the address from an error about it, and the cause as well where that may quote a part of it: an
// unescaped '/' in a password gives `invalid port ":pass" after host`.
func withoutURL(err error) error {
	var parse *url.Error
	if !errors.As(err, &parse) {
		return err
	}
	if strings.ContainsAny(parse.Err.Error(), `"`) {
		return errors.New("it is not a URL")
	}
	return parse.Err
}
