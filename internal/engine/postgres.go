package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Postgres is a PostgreSQL server with one database, tenantflow, owned by the superuser postgres. Every connection from
// this machine is trusted.
type Postgres struct {
	*instance
	bin  string // where initdb and postgres are
	data string
	as   *syscall.Credential // the user it runs as; nil for this process's user
}

// StartPostgres runs a PostgreSQL server, installing it when it is missing, and returns when it answers a query.
// PostgreSQL refuses to run as root: then it runs as the user postgres, who comes with the Debian package.
func StartPostgres(ctx context.Context, o Options) (*Postgres, error) {
	bin, err := postgresBin(ctx, o.log())
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	as, err := postgresUser()
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	e, err := open("postgres", o)
	if err != nil {
		return nil, err
	}
	p := &Postgres{instance: e, bin: bin, data: filepath.Join(e.dir, "data"), as: as}
	e.stopSig = syscall.SIGINT // "fast": open sessions are ended
	e.command = func() (*exec.Cmd, error) {
		args := []string{"-c", "port=" + strconv.Itoa(e.Port()), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "timezone=UTC", "-c", "log_timezone=UTC"}
		if o.Unsynced {
			args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
		}
		return p.cmd("postgres", args...)
	}
	e.probe = func(ctx context.Context) error { return p.query(ctx, "SELECT 1") }
	if err := p.prepare(ctx); err != nil {
		e.Release()
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	if err := p.createDatabase(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start postgres: %w", err), p.Kill())
	}
	return p, nil
}

// DSN is the server's address in pgx's form.
func (p *Postgres) DSN() string { return p.dsn("tenantflow") }

// WriteFile writes a file of the data directory, where the server finds it by its name alone, and makes it the server's own.
func (p *Postgres) WriteFile(name string, content []byte) error {
	path := filepath.Join(p.data, name)
	err := os.WriteFile(path, content, 0o600)
	if err == nil && p.as != nil {
		err = os.Chown(path, int(p.as.Uid), int(p.as.Gid))
	}
	if err != nil {
		return fmt.Errorf("write %s of postgres: %w", name, err)
	}
	return nil
}

func (p *Postgres) dsn(database string) string {
	return "postgres://postgres@" + p.Addr() + "/" + database + "?sslmode=disable"
}

// StopImmediate ends the server as pg_ctl stop -m immediate does: no checkpoint, so that the next start recovers from
// the log.
func (p *Postgres) StopImmediate() error {
	return p.end(func(run *child) error { return run.stop(syscall.SIGQUIT, stopLimit) })
}

// prepare makes a data directory when there is none.
func (p *Postgres) prepare(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.data, "global", "pg_control")); err == nil {
		return nil
	}
	if err := os.RemoveAll(p.data); err != nil { // of an initdb that did not get to its end
		return err
	}
	if err := os.Mkdir(p.data, 0o700); err != nil {
		return err
	}
	if p.as != nil {
		if err := os.Chown(p.data, int(p.as.Uid), int(p.as.Gid)); err != nil {
			return err
		}
	}
	// --no-sync: what initdb wrote is synced by the server's first checkpoint, or written again.
	cmd, err := p.cmd("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return err
	}
	var out limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	run, err := spawn(cmd)
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err != nil {
		return err
	}
	select {
	case <-run.exited:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), run.kill())
	}
	if run.err != nil {
		return fmt.Errorf("initdb: %w\n%s", run.err, out.b)
	}
	return nil
}

// cmd is one of PostgreSQL's programs on the data directory.
//
// The user postgres may not reach that directory by its path: a repository below /root, a test's temporary directory.
// So the program inherits it as an open descriptor, which the kernel resolves without looking at the path.
func (p *Postgres) cmd(program string, args ...string) (*exec.Cmd, error) {
	dir, err := os.Open(p.data)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(p.bin, program), append([]string{"-D", "/proc/self/fd/3"}, args...)...)
	cmd.ExtraFiles = []*os.File{dir} // becomes descriptor 3
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd, nil
}

func (p *Postgres) createDatabase(ctx context.Context) error {
	c, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	defer c.Close(ctx)
	var there bool
	err = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'tenantflow')").Scan(&there)
	if err == nil && !there {
		_, err = c.Exec(ctx, "CREATE DATABASE tenantflow")
	}
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

func (p *Postgres) query(ctx context.Context, sql string) error {
	c, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}

// postgresUser is the user that the server runs as; nil, which is this process's own, unless this process is root.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("find a user to run as in root's place: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// limitedBuffer keeps the first 16 KiB that are written to it.
type limitedBuffer struct{ b []byte }

var _ io.Writer = (*limitedBuffer)(nil)

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if room := 16<<10 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}
