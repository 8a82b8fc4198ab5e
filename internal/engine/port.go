package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Free ports are taken below the kernel's ephemeral range (32768 and up by default): an outgoing connection can't
// take the port of an engine that is down for a moment.
const firstPort, lastPort = 20000, 32000

// A port is a reserved port on 127.0.0.1.
type port struct {
	number int
	lock   *os.File // nil for a port the caller named
}

func (p *port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// release gives the port back.
func (p *port) release() {
	if p.lock != nil {
		p.lock.Close()
	}
}

// reserve takes the given port, or a free one when it is 0. Processes that start engines side by side agree by locks
// on files below .local, so that a port stays its engine's while that is down.
func reserve(number int) (*port, error) {
	if number != 0 {
		if err := bindable(number); err != nil {
			return nil, fmt.Errorf("port %d on 127.0.0.1 is taken (stop what uses it, or choose another): %w", number, err)
		}
		return &port{number: number}, nil
	}
	dir, err := localDir("ports")
	if err != nil {
		return nil, err
	}
	for range 1000 {
		n := firstPort + rand.IntN(lastPort-firstPort)
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("reserve a port: %w", err)
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && bindable(n) == nil {
			return &port{number: n, lock: f}, nil
		}
		f.Close()
	}
	return nil, errors.New("reserve a port: found no free one on 127.0.0.1")
}

func bindable(number int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(number)))
	if err != nil {
		return err
	}
	return l.Close()
}

// ReservePort reserves a free port on 127.0.0.1, for another listener of an engine, until release is called.
func ReservePort() (number int, release func(), err error) {
	p, err := reserve(0)
	if err != nil {
		return 0, nil, err
	}
	return p.number, p.release, nil
}
