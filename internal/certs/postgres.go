package certs

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool reads a DSN as pgxpool does. Each connection of the pool reads the files that the DSN names (sslrootcert, sslcert, sslkey)
// again; where they can't be used the last good ones stay in force, which is logged once. log may be nil.
func Pool(dsn string, log *slog.Logger) (*pgxpool.Config, error) {
	options, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if options.ConnConfig.TLSConfig == nil && len(options.ConnConfig.Fallbacks) == 0 {
		return options, nil
	}
	r := &rereading{dsn: dsn, log: log, good: options.ConnConfig.Copy()}
	options.BeforeConnect = r.refresh
	return options, nil
}

type rereading struct {
	dsn string
	log *slog.Logger

	mu     sync.Mutex
	good   *pgx.ConnConfig
	broken string // what was logged last
}

// refresh gives a connection the files of the moment. pgx makes all of it when it reads the DSN, so that is read again: how its
// parameters, its environment and its service file work together is pgx's to know.
func (r *rereading) refresh(ctx context.Context, c *pgx.ConnConfig) error {
	fresh, err := pgx.ParseConfig(r.dsn)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.good, r.broken = fresh, ""
	case r.broken != fileTrouble(err):
		r.broken = fileTrouble(err)
		r.log.LogAttrs(ctx, slog.LevelError, "certificates have changed and can't be used; the former ones stay in force", slog.String("of", "Postgres"), slog.String("error", r.broken))
	}
	good := r.good.Copy()
	c.TLSConfig, c.Fallbacks = good.TLSConfig, good.Fallbacks
	return nil
}

// fileTrouble is the cause of an error of reading a DSN, without the DSN.
func fileTrouble(err error) string {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) && parse.Unwrap() != nil {
		return parse.Unwrap().Error()
	}
	return "the address can't be read again"
}

// PostgresPeer is Postgres in the words of errors about certificates.
func PostgresPeer() Peer {
	return Peer{Name: "Postgres", CA: "sslrootcert in TENANTFLOW_POSTGRES_DSN", Pair: "sslcert and sslkey in TENANTFLOW_POSTGRES_DSN"}
}

// ExplainPostgres is [Explain] for an error of connecting to Postgres.
func ExplainPostgres(err error) error {
	var connecting *pgconn.ConnectError
	var known *Error
	if !errors.As(err, &connecting) || errors.As(err, &known) {
		return err
	}
	peer, c := PostgresPeer(), connecting.Config
	addr := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	shown := c.TLSConfig != nil && len(c.TLSConfig.Certificates) > 0
	var said *pgconn.PgError
	switch {
	case errors.As(err, &said) && said.Code == "28000" && strings.Contains(said.Message, "client certificate"):
		if shown { // crypto/tls keeps one back that no authority of the server's has signed
			return &Error{Peer: peer.Name, Addr: addr, Wrong: "it refuses our certificate (" + said.Message + ")", Do: "take one of an authority it trusts for " + peer.Pair, Err: err}
		}
		return &Error{Peer: peer.Name, Addr: addr, Wrong: "it wants a client certificate, and there is none (" + said.Message + ")", Do: "set " + peer.Pair, Err: err}
	case strings.Contains(err.Error(), "server refused TLS connection"): // pgx has no type for it
		return &Error{Peer: peer.Name, Addr: addr, Wrong: "it does not speak TLS", Do: "set ssl = on at the server, or sslmode=disable in TENANTFLOW_POSTGRES_DSN", Early: true, Err: err}
	}
	return Explain(peer, addr, shown, true, err)
}
