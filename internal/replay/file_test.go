package replay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// zeros is a file that is no list of events, without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestReadLine_StopsAtTheLongestLine(t *testing.T) {
	t.Parallel()
	if line, err := readLine(bufio.NewReaderSize(zeros{}, 1<<20)); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("%d bytes, %v", len(line), err)
	}
	long := strings.Repeat("x", 100) + "\n"
	in := bufio.NewReaderSize(strings.NewReader(long+"y"), 16)
	if line, err := readLine(in); err != nil || string(line) != long {
		t.Errorf("a line longer than the buffer: %q, %v", line, err)
	}
	if line, err := readLine(in); !errors.Is(err, io.EOF) || !bytes.Equal(line, []byte("y")) {
		t.Errorf("the last line, without an end: %q, %v", line, err)
	}
}
