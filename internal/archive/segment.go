package archive

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"tenantflow/events"
)

// A head is the body of a segment's first frame.
type head struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	From      int64  `json:"from"`
}

// A segmentWriter writes the records of one segment. It belongs to one goroutine.
type segmentWriter struct {
	out     *bufio.Writer
	sum     hash.Hash
	encoder *zstd.Encoder
	limit   int // raw bytes that close a block
	block   packer
	frame   []byte // the one that is being made
	file    File   // what is known of it so far
	err     error  // the first one
}

// newSegmentWriter begins a segment whose blocks are closed when they have limit bytes, blockBytes at most. The encoder may be
// used by one segment at a time.
func newSegmentWriter(w io.Writer, encoder *zstd.Encoder, limit int64, h head) (*segmentWriter, error) {
	s := &segmentWriter{sum: sha256.New(), encoder: encoder, limit: int(min(limit, blockBytes)), file: File{From: h.From, To: h.From}}
	s.out = bufio.NewWriterSize(io.MultiWriter(w, s.sum), 256<<10)
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	s.write([]byte(magic))
	s.frame = append(make([]byte, frameHeader, 64<<10), body...)
	s.seal(frame{kind: frameHead})
	return s, s.err
}

func (s *segmentWriter) write(b []byte) {
	if s.err == nil {
		var n int
		n, s.err = s.out.Write(b)
		s.file.Bytes += int64(n)
	}
}

// seal completes the frame whose body is in s.frame, and writes it.
func (s *segmentWriter) seal(f frame) {
	f.length = uint32(len(s.frame) - frameHeader) // #nosec G115 -- a few MiB
	f.seal(s.frame)
	s.write(s.frame)
}

// add appends a record, whose offset must be higher than those before. It copies the bytes.
func (s *segmentWriter) add(r *events.Record) error {
	s.block.add(r)
	f := &s.file
	at := timeOf(r)
	if f.Records == 0 || at.Before(f.FirstTime) {
		f.FirstTime = at
	}
	if f.Records == 0 || at.After(f.LastTime) {
		f.LastTime = at
	}
	f.Records++
	f.To = r.Offset + 1
	if len(s.block.raw) >= s.limit {
		s.flush()
	}
	return s.err
}

// raw is how many raw bytes the segment has: those of its closed blocks, so that the place where it is cut depends on
// nothing but its records.
func (s *segmentWriter) raw() int64 { return s.file.RawBytes }

// flush closes the block.
func (s *segmentWriter) flush() {
	b := &s.block
	if b.records == 0 {
		return
	}
	s.frame = s.encoder.EncodeAll(b.raw, append(s.frame[:0], make([]byte, frameHeader)...))
	s.seal(frame{kind: frameBlock, raw: uint32(len(b.raw)), count: b.records, first: b.first, last: b.last}) // #nosec G115 -- a few MiB
	s.file.RawBytes += int64(len(b.raw))
	s.file.TooLarge += b.tooLarge
	b.reset()
}

// finish closes the segment and says what is in it. The name is left to the caller.
func (s *segmentWriter) finish() (File, error) {
	s.flush()
	s.frame = append(s.frame[:0], make([]byte, frameHeader)...)
	s.frame = binary.LittleEndian.AppendUint64(s.frame, uint64(s.file.Records))  // #nosec G115 -- not negative
	s.frame = binary.LittleEndian.AppendUint64(s.frame, uint64(s.file.RawBytes)) // #nosec G115 -- not negative
	s.seal(frame{kind: frameEnd})
	if s.err == nil {
		s.err = s.out.Flush()
	}
	s.file.SHA256 = hex.EncodeToString(s.sum.Sum(nil))
	return s.file, s.err
}

// newEncoder makes the encoder of segments: the fastest level, because the log is read faster than the others compress, and
// events repeat themselves so much that they gain little.
func newEncoder() (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("make a zstd encoder: %w", err)
	}
	return e, nil
}

// A segmentReader reads a segment and checks it on the way.
type segmentReader struct {
	in      *bufio.Reader
	decoder *zstd.Decoder
	header  [frameHeader]byte
	body    []byte
	raw     []byte
	u       unpacker
}

// newDecoder makes the decoder of segments.
func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("make a zstd decoder: %w", err)
	}
	return d, nil
}

// read calls each for the records of a segment from the offset from on, in order, and returns what it holds, without name,
// size, checksum and times. The record and its bytes are valid during the call only. An error of each is returned as it is, every
// other is a *segmentError.
func (s *segmentReader) read(src io.Reader, want head, from int64, each func(*events.Record) error) (File, error) {
	s.in = bufio.NewReaderSize(src, 256<<10)
	got := File{From: want.From, To: want.From}
	var eachErr error
	err := s.frames(want, from, &got, func(r *events.Record) error {
		eachErr = each(r)
		return eachErr
	})
	switch {
	case eachErr != nil:
		return got, eachErr
	case err != nil:
		return got, &segmentError{err}
	}
	return got, nil
}

// A segmentError says that a segment is not what was written.
type segmentError struct{ err error }

func (e *segmentError) Error() string { return e.err.Error() }

func (e *segmentError) Unwrap() error { return e.err }

func (s *segmentReader) frames(want head, from int64, got *File, each func(*events.Record) error) error {
	var begin [len(magic)]byte
	if _, err := io.ReadFull(s.in, begin[:]); err != nil {
		return short(err)
	}
	if string(begin[:len(magic)-1]) != magic[:len(magic)-1] {
		return fmt.Errorf("it is no segment of an archive")
	}
	if begin[len(magic)-1] != magic[len(magic)-1] {
		return fmt.Errorf("its format is version %d; this tenantflow reads version %d", begin[len(magic)-1], magic[len(magic)-1])
	}
	if err := s.head(want); err != nil {
		return err
	}
	s.u.record = events.Record{Topic: want.Topic, Partition: want.Partition, Headers: s.u.record.Headers}
	for {
		f, err := s.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case frameBlock:
			if err := s.block(f, from, got, each); err != nil {
				return err
			}
		case frameEnd:
			return s.end(got)
		default:
			return fmt.Errorf("a second head follows its blocks")
		}
	}
}

// next reads a frame into s.body and checks it.
func (s *segmentReader) next() (frame, error) {
	if _, err := io.ReadFull(s.in, s.header[:]); err != nil {
		return frame{}, short(err)
	}
	f, err := parseFrame(s.header[:])
	if err != nil {
		return f, err
	}
	if cap(s.body) < int(f.length) {
		s.body = make([]byte, f.length)
	}
	s.body = s.body[:f.length]
	if _, err := io.ReadFull(s.in, s.body); err != nil {
		return f, short(err)
	}
	return f, checkFrame(s.header[:], s.body)
}

func (s *segmentReader) head(want head) error {
	f, err := s.next()
	if err != nil {
		return err
	}
	var h head
	if f.kind != frameHead {
		return fmt.Errorf("it does not begin with a head")
	}
	if err := json.Unmarshal(s.body, &h); err != nil {
		return fmt.Errorf("read its head: %w", err)
	}
	if h != want {
		return fmt.Errorf("it holds %s/%d from offset %d, not %s/%d from offset %d", h.Topic, h.Partition, h.From, want.Topic, want.Partition, want.From)
	}
	return nil
}

// block shows the records of the block in s.body. One that ends before from is checked and passed over.
func (s *segmentReader) block(f frame, from int64, got *File, each func(*events.Record) error) error {
	if f.first < got.To {
		return fmt.Errorf("a block begins at offset %d, and the one before it ends at %d", f.first, got.To)
	}
	if f.last >= from {
		if cap(s.raw) < int(f.raw) {
			s.raw = make([]byte, 0, max(f.raw, blockBytes+blockBytes/4))
		}
		var err error
		if s.raw, err = s.decoder.DecodeAll(s.body, s.raw[:0]); err != nil {
			return fmt.Errorf("decompress the block at offset %d: %w", f.first, err)
		}
		if len(s.raw) != int(f.raw) {
			return fmt.Errorf("the block at offset %d has %d bytes instead of %d", f.first, len(s.raw), f.raw)
		}
		err = s.u.unpack(s.raw, f.count, f.first, f.last, func(r *events.Record) error {
			if r.Large != nil {
				got.TooLarge++
			}
			if r.Offset < from {
				return nil
			}
			return each(r)
		})
		if err != nil {
			return fmt.Errorf("the block at offset %d: %w", f.first, err)
		}
	}
	got.To = f.last + 1
	got.Records += int64(f.count)
	got.RawBytes += int64(f.raw)
	return nil
}

// end checks the last frame, which is in s.body.
func (s *segmentReader) end(got *File) error {
	records, raw := binary.LittleEndian.Uint64(s.body), binary.LittleEndian.Uint64(s.body[8:])
	if int64(records) != got.Records || int64(raw) != got.RawBytes { // #nosec G115 -- bits in the file
		return fmt.Errorf("it has %d records in %d bytes, and its end says %d in %d", got.Records, got.RawBytes, records, raw)
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("there are bytes behind its end")
	}
	return nil
}

// short makes words of the error of a file that ends too early.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is cut off")
	}
	return err
}

// timeOf is a record's time for the manifest: in UTC, and within the years that JSON can write. A producer's clock may say anything.
func timeOf(r *events.Record) time.Time {
	const first, last = -62135596800000, 253402300799999 // the years 1 to 9999, in milliseconds since 1970
	return time.UnixMilli(min(max(r.Time.UnixMilli(), first), last)).UTC()
}
