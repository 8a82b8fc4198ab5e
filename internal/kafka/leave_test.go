package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
)

// What keeps a member from looking for its ghosts must not keep it from joining for good.
func TestHindersJoins_OnlyWhatEndsByItself(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		kafkago.NotCoordinatorForGroup: true,
		kafkago.GroupLoadInProgress:    true,
		io.EOF:                         true,
		context.DeadlineExceeded:       true,
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}:           true,
		kafkago.GroupAuthorizationFailed:                              false,
		kafkago.UnsupportedVersion:                                    false,
		errors.New("a member's metadata has more bytes than it says"): false,
	} {
		if got := hindersJoins(fmt.Errorf("describe the group: %w", err)); got != want {
			t.Errorf("%v hinders joins: %t, want %t", err, got, want)
		}
	}
}
