package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/certs"
	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/config"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/service"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// A secured is a store whose certificate a test chooses.
type secured struct {
	name string // in messages
	ca   string // how messages call the setting of the authorities
	pair string // and of the certificate

	show   func(certstest.Pair)                        // what the server shows from now on
	mutual func(bool)                                  // whether clients need a certificate
	ask    func(context.Context, *config.Config) error // opens the store as the service does
	using  func(certs.Files) map[string]string         // the settings
}

// opening opens a store and closes it again.
func opening[S io.Closer](open func(context.Context, *config.Config, *slog.Logger) (S, error)) func(context.Context, *config.Config) error {
	return func(ctx context.Context, cfg *config.Config) error {
		store, err := open(ctx, cfg, quiet())
		if err == nil {
			err = store.Close()
		}
		return err
	}
}

// answered asks until the server says what it refuses: its alert is lost now and then, when it closes the connection at once.
func answered(t *testing.T, ask func() error) (err error) {
	t.Helper()
	enginetest.Await(t, "an answer in the TLS handshake", func() bool {
		err = inTime(t, ask)
		return err == nil || !strings.Contains(err.Error(), "it closed the connection in the TLS handshake; see whether")
	})
	return err
}

// inTime asks until the server says anything: one that is busy may take longer than a connection may take to be made.
func inTime(t *testing.T, ask func() error) (err error) {
	t.Helper()
	enginetest.Await(t, "an answer in time", func() bool {
		err = ask()
		var network net.Error
		return !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &network) && network.Timeout())
	})
	return err
}

// checkTLS goes through what can be wrong, and then mends it under an open store.
func checkTLS(t *testing.T, a *certstest.Authority, s secured, again func(*config.Config) (ask func(context.Context) error, done func())) {
	t.Helper()
	stranger := certstest.NewAuthority(t, "a stranger")
	good := a.Issue("server")
	trusting, other := certstest.Files(t, a, certstest.Pair{}), certstest.Files(t, stranger, certstest.Pair{})
	for _, c := range []struct {
		what   string
		shown  certstest.Pair
		mutual bool
		files  certs.Files
		want   []string // none: it works
	}{
		{"good", good, false, trusting, nil},
		{"wrong authority", good, false, other, []string{`signed by "CN=the platform", which is not trusted`, s.ca}},
		{"wrong host", a.Issue("server", certstest.For("elsewhere.example")), false, trusting, []string{"not valid for the host 127.0.0.1 (it names elsewhere.example)"}},
		{"expired", a.Issue("server", certstest.Expired), false, trusting, []string{"its certificate expired at", "renew it at the server"}},
		{"mutual", good, true, certstest.Files(t, a, a.Issue("tenantflow")), nil},
		{"mutual without", good, true, trusting, []string{"it wants a client certificate", "set " + s.pair}},
		{"mutual with a strange one", good, true, certstest.Files(t, a, stranger.Issue("tenantflow")), []string{"it refuses our certificate", s.pair}},
		{"mutual with an expired one", good, true, certstest.Files(t, a, a.Issue("tenantflow", certstest.Expired)), []string{"it refuses our certificate", s.pair}},
	} {
		s.show(c.shown)
		s.mutual(c.mutual)
		err := answered(t, func() error { return s.ask(t.Context(), settings(t, s.using(c.files))) })
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if len(c.want) > 0 {
			for _, want := range append(c.want, s.name+" at 127.0.0.1:") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %v, want %q", c.what, err, want)
				}
			}
			if err != nil && (postgres.Classify(err) != postgres.Transient || dragonfly.Classify(err) != dragonfly.Transient || clickhouse.Classify(err) != clickhouse.Transient) {
				t.Errorf("%s: it is not taken for an error that may pass: %v", c.what, err)
			}
		}
	}

	// The server's certificate and ours are rotated under an open store.
	f := certstest.Files(t, a, a.Issue("tenantflow"))
	s.show(good)
	s.mutual(true)
	open, done := again(settings(t, s.using(f)))
	defer done()
	ask := func() error {
		t.Helper()
		return answered(t, func() error { return open(t.Context()) })
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	s.show(stranger.Issue("server"))
	if err := ask(); err == nil || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("rotated at the server: got %v", err)
	}
	certstest.Write(t, f.CA, append(a.PEM, stranger.PEM...))
	if err := ask(); err != nil {
		t.Errorf("rotated here, too: %v", err)
	}
	certstest.Write(t, f.Key, []byte("half a fi"))
	if err := ask(); err != nil {
		t.Errorf("a broken key in place of the good one: %v", err)
	}
	pair := a.Issue("tenantflow", certstest.Expired)
	certstest.Write(t, f.Cert, pair.Cert)
	certstest.Write(t, f.Key, pair.Key)
	if err := ask(); err == nil || !strings.Contains(err.Error(), "it refuses our certificate") {
		t.Errorf("with a new certificate that has expired: got %v", err)
	}
}

func TestTLS_Postgres(t *testing.T) {
	t.Parallel()
	server := enginetest.Postgres(t)
	a := certstest.NewAuthority(t, "the platform")
	admin := func(sql string) (answer string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.DSN())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(answers, "")
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := server.WriteFile(name, b); err != nil {
			t.Fatal(err)
		}
	}
	// The server reads its files again a little after the signal.
	reload := func() {
		t.Helper()
		const loaded = "SELECT pg_conf_load_time()::text"
		before := admin(loaded)
		admin("SELECT pg_reload_conf()::text")
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		if err := enginetest.Eventually(ctx, func() bool { return admin(loaded) != before }); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.pem", a.PEM)
	for _, sql := range []string{"CREATE USER tenantflow", "ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'ca.pem'",
		"ALTER SYSTEM SET ssl_cert_file = 'cert.pem'", "ALTER SYSTEM SET ssl_key_file = 'key.pem'"} {
		admin(sql)
	}
	checkTLS(t, a, secured{
		name: "Postgres", ca: "sslrootcert in TENANTFLOW_POSTGRES_DSN", pair: "sslcert and sslkey in TENANTFLOW_POSTGRES_DSN",
		show: func(p certstest.Pair) {
			write("cert.pem", p.Cert)
			write("key.pem", p.Key)
			reload()
		},
		mutual: func(on bool) {
			line := "host all postgres 127.0.0.1/32 trust\nhostssl all tenantflow 127.0.0.1/32 trust"
			if on {
				line += " clientcert=verify-ca"
			}
			write("pg_hba.conf", []byte(line+"\n"))
			reload()
		},
		ask: func(ctx context.Context, cfg *config.Config) error {
			store, err := service.OpenPostgres(ctx, cfg, enginetest.Patience, quiet())
			if err == nil {
				store.Close()
			}
			return err
		},
		using: func(f certs.Files) map[string]string {
			dsn := "postgres://tenantflow@" + server.Addr() + "/tenantflow?sslmode=verify-full&sslrootcert=" + f.CA
			if f.Cert != "" {
				dsn += "&sslcert=" + f.Cert + "&sslkey=" + f.Key
			}
			return map[string]string{"POSTGRES_DSN": dsn}
		},
	}, func(cfg *config.Config) (func(context.Context) error, func()) {
		store, err := service.OpenPostgres(t.Context(), cfg, enginetest.Patience, quiet())
		if err != nil {
			t.Fatal(err)
		}
		ask := func(ctx context.Context) error {
			// No connection is used twice. The first requests find out.
			admin("SELECT count(pg_terminate_backend(pid, 60000))::text FROM pg_stat_activity WHERE usename = 'tenantflow'")
			var err error
			for range 5 {
				var secure *certs.Error
				if err = store.Ping(ctx); err == nil || errors.As(err, &secure) {
					break
				}
			}
			return err
		}
		return ask, store.Close
	})
	// A server without TLS says so.
	admin("ALTER SYSTEM SET ssl = off")
	reload()
	_, err := service.OpenPostgres(t.Context(), settings(t, map[string]string{"POSTGRES_DSN": "postgres://postgres@" + server.Addr() + "/tenantflow?sslmode=verify-full"}), enginetest.Patience, quiet())
	if err == nil || !strings.Contains(err.Error(), "Postgres at "+server.Addr()+": it does not speak TLS; set ssl = on at the server") {
		t.Errorf("got %v", err)
	}
}

func TestTLS_Dragonfly(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	a := certstest.NewAuthority(t, "the platform")
	port, release, err := engine.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	admin := redis.NewClient(enginetest.RedisOptions(t, server.URL()))
	t.Cleanup(func() { _ = admin.Close() })
	do := func(words ...any) {
		t.Helper()
		if err := admin.Do(t.Context(), words...).Err(); err != nil {
			t.Fatalf("%v: %v", words, err)
		}
	}
	shown := certstest.Files(t, a, a.Issue("server"))
	do("CONFIG", "SET", "tls-ca-cert-file", shown.CA, "tls-cert-file", shown.Cert, "tls-key-file", shown.Key, "tls-auth-clients", "no", "tls-port", strconv.Itoa(port))
	quick := func(cfg *config.Config) (func(context.Context) error, func()) {
		store, err := service.OpenCounters(t.Context(), cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		ask := func(ctx context.Context) error {
			do("CLIENT", "KILL", "SKIPME", "yes") // no connection is used twice
			return store.Client().Ping(ctx).Err()
		}
		return ask, func() { _ = store.Close() }
	}
	checkTLS(t, a, secured{
		name: "Dragonfly", ca: "TENANTFLOW_DRAGONFLY_CA_FILE", pair: "TENANTFLOW_DRAGONFLY_CERT_FILE and TENANTFLOW_DRAGONFLY_KEY_FILE",
		show: func(p certstest.Pair) {
			certstest.Write(t, shown.Cert, p.Cert)
			certstest.Write(t, shown.Key, p.Key)
			do("CONFIG", "SET", "tls-cert-file", shown.Cert, "tls-key-file", shown.Key)
		},
		mutual: func(on bool) {
			do("CONFIG", "SET", "tls-auth-clients", map[bool]string{true: "yes", false: "no"}[on])
		},
		ask: func(ctx context.Context, cfg *config.Config) error {
			if err := opening(service.OpenCounters)(ctx, cfg); err != nil {
				return err
			}
			return service.PingDragonfly(ctx, cfg)
		},
		using: func(f certs.Files) map[string]string {
			all := files("DRAGONFLY", f)
			all["DRAGONFLY_URL"] = "rediss://" + addr + "/0"
			return all
		},
	}, quick)
}

// The engine of the tests serves ClickHouse's HTTP interface without TLS, so a proxy in front of it ends the TLS, as a load balancer
// does. What is tested is this side: clickhouse-go by our options.
func TestTLS_ClickHouse(t *testing.T) {
	t.Parallel()
	engine := enginetest.ClickHouse(t)
	a := certstest.NewAuthority(t, "the platform")
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(a.PEM)
	var now atomic.Pointer[tls.Certificate]
	var mutual atomic.Bool
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*now.Load()}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven}
		if mutual.Load() {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return c, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: engine.Addr()}), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	proxy.SetKeepAlivesEnabled(false) // no connection is used twice
	go func() { _ = proxy.Serve(listener) }()
	t.Cleanup(func() { _ = proxy.Close() })
	checkTLS(t, a, secured{
		name: "ClickHouse", ca: "TENANTFLOW_CLICKHOUSE_CA_FILE", pair: "TENANTFLOW_CLICKHOUSE_CERT_FILE and TENANTFLOW_CLICKHOUSE_KEY_FILE",
		show: func(p certstest.Pair) {
			c, err := tls.X509KeyPair(p.Cert, p.Key)
			if err != nil {
				t.Fatal(err)
			}
			now.Store(&c)
		},
		mutual: mutual.Store,
		ask:    opening(service.OpenClickHouse),
		using: func(f certs.Files) map[string]string {
			all := files("CLICKHOUSE", f)
			all["CLICKHOUSE_DSN"] = "https://default@" + listener.Addr().String() + "/tenantflow?secure=true"
			return all
		},
	}, func(cfg *config.Config) (func(context.Context) error, func()) {
		store, err := service.OpenClickHouse(t.Context(), cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		return store.Ping, func() { _ = store.Close() }
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
