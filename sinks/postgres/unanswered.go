package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// dials remembers how the last try to reach a server ended. A look-up that waits for a connection until its time is over has no other
// reason to name: the tries were others'.
type dials struct {
	addr   string // of the first server of the configuration
	failed atomic.Pointer[string]
}

// watchDials has the tries to reach a server noted.
func watchDials(c *pgx.ConnConfig) *dials {
	d := &dials{addr: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		switch {
		case err == nil:
			d.failed.Store(nil)
		case ctx.Err() == nil: // else it was not tried to its end
			words := err.Error()
			d.failed.Store(&words)
		}
		return conn, err
	}
	return d
}

// explain is explain, which says of a look-up whose time is over who did not answer, and why no connection could be made meanwhile.
func (s *Store) explain(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		why := ""
		if failed := s.dials.failed.Load(); failed != nil {
			why = "; it can't be reached: " + *failed
		}
		err = fmt.Errorf("%s gave no answer in time (%w)%s", s.dials.addr, err, why)
	}
	return explain(doing, err)
}
