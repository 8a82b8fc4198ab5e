package config

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/certs"
)

// certificates are the certificates in use; nil: no TLS there, or the system's authorities.
type certificates struct {
	kafka, clickhouse, dragonfly, postgres, http *certs.Source
}

// peerOf is who is on the other side, by the start of the settings' names.
func peerOf(name, setting string) certs.Peer {
	return certs.Peer{Name: name, CA: Prefix + setting + "_CA_FILE", Pair: Prefix + setting + "_CERT_FILE and " + Prefix + setting + "_KEY_FILE"}
}

func (c *Config) kafkaFiles() certs.Files {
	return certs.Files{CA: c.KafkaCAFile, Cert: c.KafkaCertFile, Key: c.KafkaKeyFile}
}

func (c *Config) clickHouseFiles() certs.Files {
	return certs.Files{CA: c.ClickHouseCAFile, Cert: c.ClickHouseCertFile, Key: c.ClickHouseKeyFile}
}

func (c *Config) dragonflyFiles() certs.Files {
	return certs.Files{CA: c.DragonflyCAFile, Cert: c.DragonflyCertFile, Key: c.DragonflyKeyFile}
}

// postgresFiles are those that a DSN in URL form names. pgx reads them itself, where its documentation says; this is for watching them.
func (c *Config) postgresFiles() certs.Files {
	u, err := url.Parse(c.PostgresDSN.Reveal())
	if err != nil {
		return certs.Files{}
	}
	q := u.Query()
	f := certs.Files{CA: q.Get("sslrootcert"), Cert: q.Get("sslcert"), Key: q.Get("sslkey")}
	if f.CA == "system" || q.Get("sslmode") == "disable" {
		f.CA = ""
	}
	if f.Cert == "" || f.Key == "" || q.Get("sslpassword") != "" || q.Get("sslmode") == "disable" {
		f.Cert, f.Key = "", ""
	}
	return f
}

func (c *Config) readCertificates() certificates {
	var all certificates
	open := func(to **certs.Source, peer certs.Peer, f certs.Files, used bool) {
		if used {
			*to = certs.New(peer, f)
		}
	}
	open(&all.kafka, peerOf("Kafka", "KAFKA"), c.kafkaFiles(), c.KafkaTLS)
	open(&all.clickhouse, peerOf("ClickHouse", "CLICKHOUSE"), c.clickHouseFiles(), scheme(c.ClickHouseDSN) == "https")
	open(&all.dragonfly, peerOf("Dragonfly", "DRAGONFLY"), c.dragonflyFiles(), scheme(c.DragonflyURL) == "rediss")
	open(&all.postgres, certs.PostgresPeer(), c.postgresFiles(), c.postgresFiles() != certs.Files{})
	open(&all.http, peerOf("HTTP", "HTTP"), certs.Files{Cert: c.HTTPCertFile, Key: c.HTTPKeyFile}, c.HTTPCertFile != "")
	return all
}

// Certificates are the sources of certificates in use, for their log and their metrics.
func (c *Config) Certificates() []*certs.Source {
	var all []*certs.Source
	for _, s := range []*certs.Source{c.certs.kafka, c.certs.clickhouse, c.certs.dragonfly, c.certs.postgres, c.certs.http} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// HTTPCertificates is what HTTP clients are shown; nil: they speak plain HTTP.
func (c *Config) HTTPCertificates() *certs.Source { return c.certs.http }

func scheme(u SecretURL) string {
	s, _, _ := strings.Cut(u.Reveal(), "://")
	return s
}

func (c *Config) checkCertificates(k *checker) {
	c.checkFiles(k, "KAFKA", c.kafkaFiles(), c.KafkaTLS, Prefix+"KAFKA_TLS is false", "KAFKA_TLS")
	c.checkFiles(k, "CLICKHOUSE", c.clickHouseFiles(), scheme(c.ClickHouseDSN) == "https", Prefix+"CLICKHOUSE_DSN does not begin with https://", "CLICKHOUSE_DSN")
	c.checkFiles(k, "DRAGONFLY", c.dragonflyFiles(), scheme(c.DragonflyURL) == "rediss", Prefix+"DRAGONFLY_URL does not begin with rediss://", "DRAGONFLY_URL")
	c.checkFiles(k, "HTTP", certs.Files{Cert: c.HTTPCertFile, Key: c.HTTPKeyFile}, true, "")
}

// checkFiles checks the three settings of one use. used: there is TLS at all; else why there is none.
func (c *Config) checkFiles(k *checker, of string, f certs.Files, used bool, why string, also ...string) {
	caName, certName, keyName := of+"_CA_FILE", of+"_CERT_FILE", of+"_KEY_FILE"
	for name, path := range map[string]string{caName: f.CA, certName: f.Cert, keyName: f.Key} {
		k.want(used || path == "", name, "it is set, but "+why, "switch TLS on, or remove it", also...)
	}
	if !used {
		return
	}
	k.want(f.Cert == "" || f.Key != "", keyName, "it is not set, but "+Prefix+certName+" is", "name the file of its private key")
	k.want(f.Key == "" || f.Cert != "", certName, "it is not set, but "+Prefix+keyName+" is", "name the file of its certificate")
	ca, cert, key := certs.Check(f)
	for name, err := range map[string]error{caName: ca, certName: cert, keyName: key} {
		if err != nil {
			k.want(false, name, err.Error(), "name a PEM file that the service can read, and for a key the one of its certificate")
		}
	}
}

// secureClickHouse makes connections to ClickHouse by the certificates of the moment. What the DSN says itself (skip_verify) stays.
func (c *Config) secureClickHouse(options *clickhouse.Options) {
	connect := options.DialContext
	tcp := (&net.Dialer{Timeout: options.DialTimeout, KeepAlive: keepAlive}).DialContext
	dial := c.certs.clickhouse.Dial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connect != nil {
			return connect(ctx, addr)
		}
		return tcp(ctx, network, addr)
	}, options.TLS)
	options.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) {
		t.DialTLSContext = dial
		return t, nil
	}
}

// DragonflyOptions makes the options of a connection to Dragonfly from its URL, by the certificates of the moment.
func (c *Config) DragonflyOptions() (*redis.Options, error) {
	options, err := redis.ParseURL(c.DragonflyURL.Reveal())
	if err != nil { // it was checked before
		return nil, Invalidf("%sDRAGONFLY_URL is no address of Dragonfly", Prefix)
	}
	if options.TLSConfig != nil {
		timeout := options.DialTimeout
		if timeout == 0 {
			timeout = dialTimeout
		}
		// As go-redis dials, but with our certificates.
		dial := c.certs.dragonfly.Dial((&net.Dialer{Timeout: timeout, KeepAlive: 5 * time.Minute}).DialContext, options.TLSConfig)
		options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return dial(ctx, network, addr)
		}
	}
	return options, nil
}
