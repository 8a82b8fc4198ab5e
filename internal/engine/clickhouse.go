package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
)

// ClickHouse is a ClickHouse server: libchdb in a process of its own, behind ClickHouse's HTTP interface.
type ClickHouse struct{ *instance }

// StartClickHouse runs a ClickHouse server with a database tenantflow, installing the library when it is missing, and
// returns when it answers a query.
func StartClickHouse(ctx context.Context, o Options) (*ClickHouse, error) {
	lib, err := clickhouseLibrary(ctx, o.log())
	if err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	binary, err := localstack(ctx)
	if err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	e, err := open("clickhouse", o)
	if err != nil {
		return nil, err
	}
	c := &ClickHouse{e}
	e.command = func() (*exec.Cmd, error) {
		args := []string{"clickhouse", "--lib", lib, "--data", filepath.Join(e.dir, "data"), "--listen", e.Addr()}
		if o.ClickHouseConfig != "" {
			args = append(args, "--config", o.ClickHouseConfig)
		}
		return exec.Command(binary, args...), nil
	}
	e.probe = func(ctx context.Context) error {
		_, err := c.Query(ctx, "SELECT 1")
		return err
	}
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	if _, err := c.Query(ctx, "CREATE DATABASE IF NOT EXISTS tenantflow"); err != nil {
		c.Kill()
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	return c, nil
}

// DSN is the server's address in clickhouse-go's form, over HTTP.
func (c *ClickHouse) DSN() string { return c.DSNOf("tenantflow") }

// DSNOf is DSN for another database.
func (c *ClickHouse) DSNOf(database string) string {
	return "http://default@" + c.Addr() + "/" + database
}

// Query runs one statement and returns the answer as text, by default as tab-separated values. It is the plain HTTP
// interface, for set-up and tests.
func (c *ClickHouse) Query(ctx context.Context, sql string) (string, error) {
	u := url.URL{Scheme: "http", Host: c.Addr(), Path: "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(sql))
	if err != nil {
		return "", fmt.Errorf("query clickhouse: %w", err)
	}
	// A connection kept open would be found dead after a kill.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("query clickhouse: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("query clickhouse: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("query clickhouse: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return string(b), nil
}
