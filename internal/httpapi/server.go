// Package httpapi serves the probes, the metrics and the version (/livez, /readyz, /metrics, /version), and the /v1 API,
// by which other services ask about users and companies.
//
//	s := httpapi.New(httpapi.Options{Addr: "127.0.0.1:8080", Health: h, Metrics: registry, Build: build, Log: log})
//	if err := s.Start(ctx); err != nil { ... } // the address is taken
//	defer s.Stop(ctx)
//
// The /v1 API is served where Options.API is set:
//
//	api := httpapi.NewAPI(tokens, log)     // in Options.API
//	api.Attach(directory, counters)        // when the stores are open; before that it answers 503
//
// and with it the operations page at /, of what api.Show gives it.
//
// Every error, an unknown path included, is problem JSON (RFC 9457), but for the form by which a browser signs in to the page.
// schemas/openapi.yaml describes all of it but the pages.
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/telemetry"
	"tenantflow/internal/trace"
)

// What one client may cost. A scrape or a probe is small and quick; a client that needs more is mistaken or hostile.
const (
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = time.Minute
	maxHeaderBytes = 12 << 10 // net/http reads 4 KiB more
	maxBodyBytes   = 64 << 10
)

// Options is what a Server is made of. All of it is needed, but for API and what follows it.
type Options struct {
	Addr    string // host:port; port 0 picks a free one
	Health  *health.Tracker
	Metrics *prometheus.Registry
	Build   telemetry.Build
	Log     *slog.Logger
	API     *API // nil: this process has no /v1

	Serves    Serving
	AccessLog bool // a line for each request of /v1

	Tracer *trace.Tracer // of the requests of /v1, and of others that name a trace; nil: of none
	TLS    *tls.Config   // nil: plain HTTP; else HTTPS only
}

// Serving is what a server answers, where the probes have an address of their own.
type Serving int

// What a server answers.
const (
	Everything Serving = iota
	OnlyAPI            // /v1
	OnlyAdmin          // probes, metrics and the version
)

// A Server answers HTTP requests from Start to Stop.
type Server struct {
	options  Options
	server   *http.Server
	listener net.Listener
	served   chan struct{} // closed when the server has ended
}

// New makes a server; nothing listens yet.
func New(o Options) *Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // the bounds above are those of HTTP/1
	return &Server{
		options: o,
		server: &http.Server{
			TLSConfig:         o.TLS,
			Protocols:         &protocols,
			Handler:           Handler(o),
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          log.New(&clientErrors{o.Log}, "", 0),
		},
		served: make(chan struct{}),
	}
}

// Start listens and returns at once; requests are answered in the background. It is called once.
func (s *Server) Start(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.options.Addr)
	if err != nil {
		return fmt.Errorf("listening for HTTP on %s: %w", s.options.Addr, err)
	}
	s.listener = listener
	go func() {
		defer close(s.served)
		serve := s.server.Serve
		if s.options.TLS != nil {
			serve = func(l net.Listener) error { return s.server.ServeTLS(l, "", "") } // the certificate is in TLS
		}
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.options.Log.Error("http server ended", "addr", listener.Addr().String(), "error", err)
		}
	}()
	return nil
}

// Addr is the address it listens on, with the port that was picked. It is nil before Start.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Stop stops listening and waits until the requests under way are answered, or until ctx ends: then it cuts them off
// and says so. It may be called twice, and without a Start.
func (s *Server) Stop(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("waiting for HTTP requests to end: %w", err), s.server.Close())
	}
	if s.listener != nil {
		<-s.served
	}
	return err
}

// clientErrors takes the lines that net/http logs. What a client does in a TLS handshake is its own affair, and a port scanner
// makes a line a connection of it.
type clientErrors struct{ log *slog.Logger }

func (c *clientErrors) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, strings.TrimSpace(string(line))
	if strings.Contains(text, "TLS handshake error") {
		level = slog.LevelDebug
	}
	c.log.LogAttrs(context.Background(), level, "http server", slog.String("said", text))
	return len(line), nil
}
