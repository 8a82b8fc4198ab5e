package replay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tenantflow/events"
	"tenantflow/internal/task"
)

// fileSource is a file of events as lines of JSON, in structured mode, with their keys as the extension partitionkey: what
// `tenantflow generate` writes and `tenantflow produce` reads. The offset of an event is where its line begins, in bytes.
type fileSource struct {
	file  *os.File
	topic string
	size  int64
	time  time.Time
}

// longestLine bounds the memory that a line may take.
const longestLine = 64 << 20

// OpenFile opens a file of events. It implements OpenSource.
func OpenFile(_ context.Context, topic string, spec SourceSpec) (Source, error) {
	file, err := os.Open(spec.Path)
	if err != nil {
		return nil, &task.FatalError{Err: err}
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, task.Fatalf("read events from %s: it is no regular file: %w", spec.Path, errors.Join(err, file.Close()))
	}
	return &fileSource{file: file, topic: topic, size: info.Size(), time: info.ModTime()}, nil
}

// Ranges implements Source: the whole file.
func (s *fileSource) Ranges(context.Context) ([]Range, error) {
	return []Range{{AnyPartition, 0, s.size}}, nil
}

// Read implements Source.
func (s *fileSource) Read(ctx context.Context, r Range, each func(*events.Record) error) error {
	if r.To > s.size {
		return task.Fatalf("read events from %s: it has %d bytes, and had %d or more before", s.file.Name(), s.size, r.To)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(s.file, r.From, s.size-r.From), 1<<20) // the last line may go on behind r
	for at := r.From; at < r.To; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		line, err := readLine(in)
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			return task.Fatalf("read events from %s: the line at byte %d is longer than %d bytes", s.file.Name(), at, longestLine)
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read events from %s: %w", s.file.Name(), err)
		}
		offset := at
		at += int64(len(line))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			continue
		}
		record := &events.Record{Topic: s.topic, Partition: AnyPartition, Offset: offset, Time: s.time, Value: line}
		if key, value, headers, err := events.ParseStructured(line); err == nil {
			record.Key, record.Value, record.Headers = key, value, headers
		}
		if err := each(record); err != nil {
			return err
		}
	}
	return nil
}

// readLine reads a line with its end. The error is bufio.ErrTooLong where it is longer than longestLine, of which no more is read.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > longestLine {
			return nil, bufio.ErrTooLong
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// Close implements Source.
func (s *fileSource) Close() error { return s.file.Close() }
